"""The accuracy gate, `rkd bench gate`: whether a quicker arithmetic costs accuracy.

Runs are trained in pairs that differ only in their arithmetic, so what counts is the difference between a seed's two
accuracies. The two arithmetics are shown equal if the whole 90 % interval of the mean difference (Student's t on the
paired differences) lies within half a point of zero and no run diverged: two one-sided tests at 5 %. This is evidence
about runs of this length on these images, and no others; a verdict still rests on runs of a single arithmetic.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from scipy import stats

from rkd import paths
from rkd.bench.measurement import utc_now
from rkd.config import PRECISIONS
from rkd.devices import pick_device
from rkd.errors import ConfigError, RecordError, unknown
from rkd.experiments.chapters import get_chapter
from rkd.experiments.runner import Runner
from rkd.experiments.settings import Settings, check_effect, resolve
from rkd.experiments.workspace import data_root
from rkd.models import display_name
from rkd.records import Store
from rkd.records.provenance import code_state, machine_state
from rkd.training import RunConfig, arithmetic

REFERENCE = "fp32"
SECTION = "accuracy-gate"  # of the performance page, which shows the recorded gates
MARGIN = 0.5  # percentage points within which two arithmetics are called equal
ALPHA = 0.05  # of each of the two one-sided tests


@dataclass(frozen=True)
class Pair:
    """One seed's test accuracies in percent at the last epoch; None: that run diverged."""

    seed: int
    reference: float | None
    quick: float | None


@dataclass(frozen=True)
class Gate:
    """Paired accuracies of two arithmetics."""

    KIND: ClassVar[str] = "rkd gate"
    FORMAT: ClassVar[int] = 1
    header: dict[str, Any]  # machine, versions, and what was trained
    arithmetic: str  # the quicker one, as this device computes it
    pairs: tuple[Pair, ...]  # one per seed

    @property
    def differences(self) -> pd.Series:
        """Percentage points gained by the quicker arithmetic, for each seed of which neither run diverged."""
        found = pd.DataFrame(self.pairs, columns=["seed", "reference", "quick"]).astype(float)
        return (found["quick"] - found["reference"]).dropna()

    @property
    def diverged(self) -> bool:
        """Whether any run diverged."""
        return len(self.differences) < len(self.pairs)

    @property
    def interval(self) -> tuple[float, float]:
        """Student's t interval of the mean difference at 100 (1 - 2 ALPHA) %, in points; NaN below two differences."""
        found = self.differences
        half = stats.t.ppf(1 - ALPHA, len(found) - 1) * found.sem()
        return float(found.mean() - half), float(found.mean() + half)

    @property
    def equal(self) -> bool:
        """Whether the two arithmetics are shown equal in the setting of this gate (see the module's docstring)."""
        low, high = self.interval
        return not self.diverged and low > -MARGIN and high < MARGIN

    @property
    def finding(self) -> str:
        """In words: "bf16 against fp32: equal within 0.5 points (-0.26 to +0.48, 90 %) in 4 epochs on ..."."""
        low, high = self.interval
        found = "equal" if self.equal else "not shown equal"
        where = f" ({low:+.2f} to {high:+.2f}, {100 * (1 - 2 * ALPHA):.0f} %)" if math.isfinite(low) else ""
        name, epochs, images = (self.header[key] for key in ("dataset", "epochs", "train_images"))
        length = f"{epochs} epoch{'s' if epochs != 1 else ''} on {images:,} images of {name}"
        return f"{self.arithmetic} against {REFERENCE}: {found} within {MARGIN:g} points{where} in {length}"


def accuracy_table(gate: Gate) -> pd.DataFrame:
    """Return the accuracies seed by seed, as text, and the mean difference with its standard error."""

    d = gate.differences
    rows = []
    for i, pair in enumerate(gate.pairs):
        shown = ("diverged" if value is None else f"{value:.2f}" for value in (pair.reference, pair.quick))
        rows.append((str(pair.seed), *shown, f"{d[i]:+.2f}" if i in d else ""))
    error = f" ± {d.sem():.2f}" if len(d) > 1 else ""
    rows += [("mean ± standard error", "", "", f"{d.mean():+.2f}{error}")] if len(d) else []
    columns = ["seed", f"{REFERENCE}, %", f"{gate.arithmetic}, %", "difference, points"]
    return pd.DataFrame(rows, columns=columns)


def conclusion(gate: Gate) -> str:
    """Return what the accuracies were measured on, and what they show, as text."""
    h = gate.header
    return (
        f"{display_name(h['student'])} ← {display_name(h['teacher'])}, row “{h['row']}” of {h['chapter']}, "
        f"{h['epochs']} epochs on {h['train_images']:,} images of {h['dataset']}, {h['test_images']:,} test images; "
        f"{h['device_name']}, torch {h['torch']}, {h['ended']}. Both runs of a seed have the same teacher, first "
        f"weights and batches. {gate.finding[:1].upper()}{gate.finding[1:]}. That is evidence about this setting, and "
        "about no other."
    )


def paired_runs(
    settings: Settings, chapter: str, row: str, precision: str
) -> list[tuple[RunConfig, RunConfig]]:
    """Return, for each seed, the row's run in fp32 and in `precision`; both have the same teacher, trained in fp32.

    Raises:
        ConfigError: the chapter or row is unknown, or a parameter was given that has no effect on the row.
    """
    made = get_chapter(chapter).lines(replace(settings, precision=REFERENCE))
    lines = {line.key: line for line in made}
    if row not in lines:
        raise unknown(f"row of {chapter}", row, lines)
    given = [name for name, origin in settings.origins.items() if origin == "given"]
    check_effect(given, lines[row].read, f"row {row} of {chapter}")
    return [(run, replace(run, precision=precision)) for run in lines[row].runs]


def train_pairs(
    chapter: str, row: str, given: Mapping[str, Any], work: Path | None = None, out: Path | None = None
) -> tuple[Gate, Path]:
    """Train a gate's missing runs; return the gate and the path to write it to. `rkd.cli.bench.gate` explains the
    arguments.

    Raises:
        ConfigError: a name or value is not allowed, or the arithmetic is fp32 on this device.
        RecordError: a record or checkpoint is damaged.
    """
    settings = resolve(chapter, given)
    device = pick_device(settings.device)
    if settings.precision not in PRECISIONS:
        raise unknown("precision", settings.precision, PRECISIONS)
    quick = arithmetic(settings.precision, device).name
    runs = paired_runs(settings, chapter, row, quick)
    if quick == REFERENCE:
        raise ConfigError(
            f"precision {settings.precision!r} is {REFERENCE} on this device; there is nothing to compare"
        )
    folder = work or paths.build_folder() / "gate"
    store = Store(folder / "records", folder / "work")
    runner = Runner(store, data_root(settings), settings.device, labels={"gate": row})
    records = runner.run([run for pair in runs for run in pair])
    if runner.failed:
        raise RecordError(
            f"{len(runner.failed)} runs of the gate could not be had: {', '.join(runner.failed)}"
        )
    first = runs[0][0]
    images = {name: records[first.id].provenance[name] for name in ("train_images", "test_images")}
    header = {
        **code_state(), **machine_state(device), "ended": utc_now(), **images, "profile": Path(settings.profile).stem,
        "chapter": chapter, "row": row, "student": first.network,
        "teacher": None if first.teacher is None else first.teacher.name, "dataset": Path(first.data.name).stem,
        "epochs": first.epochs, "batch_size": first.batch_size, "given": dict(given),
    }  # fmt: skip
    found = {id: one.accuracy("last") if one.status == "finished" else None for id, one in records.items()}
    gate = Gate(header, quick, tuple(Pair(a.seed, found[a.id], found[b.id]) for a, b in runs))
    slug = re.sub(r"[^a-z0-9]+", "-", header["device_name"].lower()).strip("-")
    path = out or paths.home() / "results" / "bench" / f"gate-{slug}.json"
    return gate, path
