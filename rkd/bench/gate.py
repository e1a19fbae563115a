"""The accuracy gate: whether an arithmetic that is quicker costs accuracy.

    python -m rkd.bench.gate --data-root data --seeds 0,1,2

Trains one row of a chapter (the full method, Table 3) once in fp32 and once in the quicker arithmetic with each seed:
same first weights, same batches, same teacher, which is trained in fp32. What differs is the arithmetic alone, so the
differences of a seed's two accuracies are what counts. An interrupted call goes on where it was.

The two arithmetics are shown equal where the whole 90 % interval of the mean difference (Student's t on the paired
differences) lies within half a point of zero, and no run diverged: two one-sided tests at 5 %. That is evidence about
runs of this length on these images; `rkd.judge` pools no others on the strength of it.
"""

import argparse
import math
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

from rkd import paths
from rkd.bench.measurement import header_of, load, now
from rkd.bench.result import files, read_json, write_json
from rkd.errors import ConfigError, RecordError, RkdError, unknown
from rkd.experiments.chapters import get_chapter
from rkd.experiments.runner import Runner, pick_device
from rkd.experiments.settings import Settings, assignments, resolve
from rkd.experiments.workspace import data_root
from rkd.models import display_name
from rkd.records import Record, Store
from rkd.training import RunConfig, arithmetic
from rkd.training.arithmetic import PRECISIONS

KIND = "rkd gate"
REFERENCE = "fp32"
SECTION = "accuracy-gate"  # of the performance page, where the gates on record stand
MARGIN = 0.5  # percentage points within which two arithmetics are called equal
ALPHA = 0.05  # of each of the two one-sided tests
OPTIONS = (
    ("data-root", None, "folder of the CIFAR files; the profile's where not given"),
    ("seeds", "0,1,2", "A,B"),
    ("precision", "auto", "the quicker one"),
    ("profile", "mini", "name or path of a profile"),
    ("chapter", "table3", "whose row is trained"),
    ("row", "full", "of the chapter's table"),
    ("device", "auto", "auto, cpu, cuda or cuda:N"),
    ("work", None, "folder of the runs; _build/gate where not given"),
    ("out", None, "file to write; results/bench/gate-DEVICE.json where not given"),
)


@dataclass(frozen=True)
class Pair:
    """Test accuracies in percent, at the last epoch, of one seed; None: that run diverged."""

    seed: int
    reference: float | None
    quick: float | None

    @property
    def difference(self) -> float | None:
        """Percentage points that the quicker arithmetic gains; None where a run diverged."""
        return None if None in (self.reference, self.quick) else self.quick - self.reference

    def cells(self) -> list[str]:
        """As tables show it: seed, both accuracies, difference."""
        shown = ["diverged" if v is None else f"{v:.2f}" for v in (self.reference, self.quick)]
        return [str(self.seed), *shown, "" if self.difference is None else f"{self.difference:+.2f}"]


@dataclass(frozen=True)
class Gate:
    """Paired accuracies.

    Attributes:
        header: machine, versions, and what was trained.
        arithmetic: the quicker one, as this device computes it.
        pairs: one per seed.
    """

    header: dict[str, Any]
    arithmetic: str
    pairs: tuple[Pair, ...]

    @property
    def differences(self) -> list[float]:
        """Of the seeds both of whose runs came to their end, in percentage points."""
        return [p.difference for p in self.pairs if p.difference is not None]

    @property
    def mean(self) -> float:
        """Of the differences; NaN without any."""
        return statistics.fmean(self.differences) if self.differences else math.nan

    @property
    def standard_error(self) -> float:
        """Of the mean: sample standard deviation over the root of the number; NaN below two."""
        found = self.differences
        return statistics.stdev(found) / math.sqrt(len(found)) if len(found) > 1 else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Of the mean difference at 100 (1 - 2 ALPHA) %, by Student's t, in percentage points; NaN below two."""
        half = float(stats.t.ppf(1 - ALPHA, max(1, len(self.differences) - 1))) * self.standard_error
        return self.mean - half, self.mean + half

    @property
    def equal(self) -> bool:
        """Whether the two arithmetics are shown equal, in the setting of this gate: see the module."""
        low, high = self.interval
        return len(self.differences) == len(self.pairs) and low > -MARGIN and high < MARGIN

    @property
    def arithmetics(self) -> frozenset[str]:
        """The two that are compared."""
        return frozenset({REFERENCE, self.arithmetic})

    @property
    def setting(self) -> tuple[str, int, int]:
        """What runs must share with these for the gate to be about them: data set, epochs, training images."""
        return self.header["dataset"], self.header["epochs"], self.header["train_images"]

    @property
    def finding(self) -> str:
        """ "bf16 against fp32: equal within 0.5 points (-0.26 to +0.48, 90 %) in 4 epochs on ..."."""
        low, high = self.interval
        found = "equal" if self.equal else "not shown equal"
        where = f" ({low:+.2f} to {high:+.2f}, {100 * (1 - 2 * ALPHA):.0f} %)" if math.isfinite(low) else ""
        name, epochs, images = self.setting
        length = f"{epochs} epoch{'s' if epochs != 1 else ''} on {images:,} images of {name}"
        return f"{self.arithmetic} against {REFERENCE}: {found} within {MARGIN:g} points{where} in {length}"

    def save(self, path: Path) -> None:
        """Everything, with mean and standard error."""
        derived = {"mean": self.mean, "standard_error": self.standard_error}
        write_json(path, KIND, {**asdict(self), "derived": derived})

    @classmethod
    def load(cls, path: Path) -> "Gate":
        """What `save` wrote.

        Raises:
            RecordError: no such file, or not one of these.
        """
        body = read_json(path, KIND)
        try:
            return cls(body["header"], body["arithmetic"], tuple(Pair(**pair) for pair in body["pairs"]))
        except (KeyError, TypeError) as error:
            raise RecordError(f"{path} is damaged: {type(error).__name__} {error}") from error


def committed(folder: Path | None = None) -> list[Gate]:
    """The gates on record, by the name of their file.

    Args:
        folder: of measurements; None: results/bench.

    Raises:
        RecordError: a file is damaged.
    """
    return [Gate.load(path) for path in files(folder or paths.home() / "results" / "bench", KIND)]


def paired_runs(
    settings: Settings, chapter: str, row: str, precision: str
) -> list[tuple[RunConfig, RunConfig]]:
    """For each seed the row's run in fp32, and the same in `precision`; both have the same teacher, trained in fp32.

    Raises:
        ConfigError: unknown chapter or row.
    """
    lines = {line.key: line for line in get_chapter(chapter).lines(replace(settings, precision=REFERENCE))}
    if row not in lines:
        raise unknown(f"row of {chapter}", row, lines)
    return [(run, replace(run, precision=precision)) for run in lines[row].runs]


def last_accuracy(record: Record) -> float | None:
    """In percent, at the last epoch; None where the run diverged."""
    return record.accuracy("last") if record.status == "finished" else None


def table(gate: Gate) -> pd.DataFrame:
    """Accuracies seed by seed, as text."""
    heads = ["seed", f"{REFERENCE}, %", f"{gate.arithmetic}, %", "difference, points"]
    rows = [p.cells() for p in gate.pairs]
    if gate.differences:
        error = f" ± {gate.standard_error:.2f}" if len(gate.differences) > 1 else ""
        rows.append(["mean ± standard error", "", "", f"{gate.mean:+.2f}{error}"])
    return pd.DataFrame(rows, columns=heads)


def note(gate: Gate) -> str:
    """What they are of, and what they show."""
    h = gate.header
    return (
        f"{display_name(h['student'])} ← {display_name(h['teacher'])}, row “{h['row']}” of {h['chapter']}, "
        f"{h['epochs']} epochs on {h['train_images']:,} images of {h['dataset']}, {h['test_images']:,} test images; "
        f"{h['device_name']}, torch {h['torch']}, {h['ended']}. Both runs of a seed have the same teacher, first "
        f"weights and batches. {gate.finding[:1].upper()}{gate.finding[1:]}. That is evidence about this setting, and "
        "about no other."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, print and write; 1 where a run diverged, 2 for a wrong call."""
    parser = argparse.ArgumentParser(
        "python -m rkd.bench.gate", None, __doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default, about in OPTIONS:
        parser.add_argument(
            f"--{name}", default=default, help=about + f" (default {default})" * (default is not None)
        )
    parser.add_argument(
        "-s", "--set", action="append", default=[], metavar="NAME=VALUE",
        help="any parameter of the chapters, as YAML: --set epochs=30; may be repeated",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        gate, path = _run(options)
    except RkdError as error:
        print(f"gate: {error}", file=sys.stderr)
        return 2
    print(f"{table(gate).to_string(index=False)}\n{note(gate)}")
    print(f"written to {path}", file=sys.stderr)
    return int(len(gate.differences) < len(gate.pairs))


def _run(options: argparse.Namespace) -> tuple[Gate, Path]:
    device, began, before = pick_device(options.device), now(), load()
    given = {"profile": options.profile, "seeds": _seeds(options.seeds), **assignments(options.set)}
    if options.data_root is not None:
        given["data_root"] = options.data_root
    settings = resolve(options.chapter, {**given, "device": options.device})
    if options.precision not in PRECISIONS:
        raise unknown("precision", options.precision, PRECISIONS)
    quick = arithmetic(options.precision, device).name
    runs = paired_runs(settings, options.chapter, options.row, quick)
    if quick == REFERENCE:
        raise ConfigError(
            f"precision {options.precision!r} is {REFERENCE} on this device; there is nothing to compare"
        )
    folder = paths.build() / "gate" if options.work is None else Path(options.work)
    store = Store(folder / "records", folder / "work")
    runner = Runner(store, data_root(settings), options.device, labels={"gate": options.row})
    records = runner.run([run for pair in runs for run in pair])
    first = runs[0][0]
    images = {name: records[first.id].provenance[name] for name in ("train_images", "test_images")}
    header = {
        **header_of(device, began, before), **images, "profile": Path(options.profile).stem,
        "chapter": options.chapter, "row": options.row, "student": first.network,
        "teacher": None if first.teacher is None else first.teacher.name, "dataset": Path(first.data.name).stem,
        "epochs": first.epochs, "batch_size": first.batch_size, "given": assignments(options.set),
    }  # fmt: skip
    pairs = (Pair(a.seed, *(last_accuracy(records[run.id]) for run in (a, b))) for a, b in runs)
    gate = Gate(header, quick, tuple(pairs))
    slug = re.sub(r"[^a-z0-9]+", "-", header["device_name"].lower()).strip("-")
    path = Path(options.out) if options.out else paths.home() / "results" / "bench" / f"gate-{slug}.json"
    gate.save(path)
    return gate, path


def _seeds(text: str) -> list[int]:
    if not re.fullmatch(r"\d+(,\d+)*", text.replace(" ", "")):
        raise ConfigError(f"--seeds is {text!r}; write numbers with commas between them, for example 0,1,2")
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
