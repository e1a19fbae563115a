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
import datetime
import json
import math
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from scipy import stats

from rkd import paths
from rkd.bench.result import FORMAT, files, read_json
from rkd.errors import ConfigError, RecordError, RkdError, unknown
from rkd.experiments.chapters import get_chapter
from rkd.experiments.execute import Executor, pick_device
from rkd.experiments.settings import Settings, assignments, resolve
from rkd.experiments.workspace import data_root
from rkd.files import replacing
from rkd.records import Record, Store
from rkd.records.provenance import code_state, machine_state
from rkd.training import RunConfig, arithmetic
from rkd.training.arithmetic import PRECISIONS

KIND = "rkd gate"
REFERENCE = "fp32"
SECTION = "accuracy-gate"  # of the performance page, where the gates on record stand
MARGIN = 0.5  # percentage points within which two arithmetics are called equal
ALPHA = 0.05  # of each of the two one-sided tests


@dataclass(frozen=True)
class Pair:
    """Test accuracies in percent, at the last epoch, of one seed; None: that run diverged."""

    seed: int
    reference: float | None
    quick: float | None

    @property
    def difference(self) -> float | None:
        """Percentage points that the quicker arithmetic gains; None where a run diverged."""
        if self.reference is None or self.quick is None:
            return None
        return self.quick - self.reference


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
        found = self.differences
        if len(found) < 2:
            return math.nan, math.nan
        half = float(stats.t.ppf(1 - ALPHA, len(found) - 1)) * self.standard_error
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
        h = self.header
        return h["dataset"], h["epochs"], h["train_images"]

    @property
    def finding(self) -> str:
        """ "bf16 against fp32: equal within 0.5 points (-0.26 to +0.48, 90 %) in 4 epochs on ..."."""
        low, high = self.interval
        found = "equal" if self.equal else "not shown equal"
        where = f" ({low:+.2f} to {high:+.2f}, {100 * (1 - 2 * ALPHA):.0f} %)" if math.isfinite(low) else ""
        name, epochs, images = self.setting
        length = f"{epochs} epoch{'s' if epochs != 1 else ''} on {images:,} images of {name}"
        return f"{self.arithmetic} against {REFERENCE}: {found} within {MARGIN:g} points{where} in {length}"

    def to_json(self) -> str:
        """Everything, with mean and standard error."""
        derived = {"mean": self.mean, "standard_error": self.standard_error}
        body = {
            "format": FORMAT,
            "kind": KIND,
            "header": self.header,
            "arithmetic": self.arithmetic,
            "pairs": [asdict(pair) for pair in self.pairs],
            "derived": {k: None if math.isnan(v) else v for k, v in derived.items()},
        }
        return json.dumps(body, indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def load(cls, path: Path) -> "Gate":
        """What `to_json` gave.

        Raises:
            RecordError: no such file, or not one of these.
        """
        body = read_json(path, KIND)
        try:
            return cls(body["header"], body["arithmetic"], tuple(Pair(**pair) for pair in body["pairs"]))
        except (KeyError, TypeError) as error:
            raise RecordError(f"{path} is damaged: {type(error).__name__} {error}") from error


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


def committed(folder: Path | None = None) -> list[Gate]:
    """The gates on record, by the name of their file.

    Args:
        folder: of measurements; None: results/bench.

    Raises:
        RecordError: a file is damaged.
    """
    return [Gate.load(path) for path in files(folder or paths.home() / "results" / "bench", KIND)]


def compare(
    runs: Sequence[tuple[RunConfig, RunConfig]],
    records: Mapping[str, Record],
    header: dict[str, Any],
    name: str,
) -> Gate:
    """The gate of runs that have ended; `name` is the quicker arithmetic's."""

    def accuracy(run: RunConfig) -> float | None:
        record = records[run.id]
        return record.accuracy("last") if record.status == "finished" else None

    return Gate(header, name, tuple(Pair(a.seed, accuracy(a), accuracy(b)) for a, b in runs))


def report(gate: Gate) -> str:
    """As plain text."""
    h = gate.header
    lines = [
        f"{h['row']} of {h['chapter']}, profile {h['profile']}: {h['student']} <- {h['teacher']}, {h['epochs']} epochs "
        f"on {h['train_images']:,} images of {h['dataset']}; {h['device_name']}",
        f"{'seed':>6}{'fp32 %':>10}{gate.arithmetic + ' %':>10}{'difference':>12}",
    ]
    for p in gate.pairs:
        shown = ["diverged" if v is None else f"{v:.2f}" for v in (p.reference, p.quick)]
        difference = "" if p.difference is None else f"{p.difference:+.2f}"
        lines.append(f"{p.seed:>6}{shown[0]:>10}{shown[1]:>10}{difference:>12}")
    if gate.differences:
        error = "" if math.isnan(gate.standard_error) else f", standard error {gate.standard_error:.2f}"
        lines.append(f"mean difference {gate.mean:+.2f} points{error}, n = {len(gate.differences)}")
    lines.append(gate.finding)
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, print and write; 1 where a run diverged, 2 for a wrong call."""
    options = _parser().parse_args(arguments)
    try:
        gate, path = _run(options)
    except RkdError as error:
        print(f"gate: {error}", file=sys.stderr)
        return 2
    print(report(gate))
    print(f"written to {path}", file=sys.stderr)
    return int(len(gate.differences) < len(gate.pairs))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rkd.bench.gate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data-root", metavar="DIR", help="folder of the CIFAR files (default: the profile's)"
    )
    parser.add_argument("--seeds", default="0,1,2", metavar="A,B", help="default 0,1,2")
    parser.add_argument("--precision", default="auto", metavar="NAME", help="the quicker one (default auto)")
    parser.add_argument("--profile", default="mini", metavar="NAME", help="default mini")
    parser.add_argument("--chapter", default="table3", metavar="NAME", help="default table3")
    parser.add_argument("--row", default="full", metavar="KEY", help="of the chapter's table (default full)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "-s", "--set", action="append", default=[], metavar="NAME=VALUE",
        help="any parameter of the chapters, as YAML: --set epochs=30; may be repeated",
    )  # fmt: skip
    parser.add_argument("--work", metavar="DIR", help="folder of the runs (default: _build/gate)")
    parser.add_argument("--out", metavar="FILE.json", help="default: results/bench/gate-DEVICE.json")
    return parser


def _run(options: argparse.Namespace) -> tuple[Gate, Path]:
    device = pick_device(options.device)
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
    executor = Executor(store, data_root(settings), options.device, labels={"gate": options.row})
    records = executor.run([run for pair in runs for run in pair])
    first = runs[0][0]
    some = records[first.id]
    machine = machine_state(device)
    header = {
        **code_state(),
        **machine,
        "ended": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
        "profile": Path(options.profile).stem,
        "chapter": options.chapter,
        "row": options.row,
        "teacher": None if first.teacher is None else first.teacher.name,
        "student": first.network,
        "dataset": Path(first.data.name).stem,
        "train_images": some.provenance["train_images"],
        "test_images": some.provenance["test_images"],
        "epochs": first.epochs,
        "batch_size": first.batch_size,
        "given": assignments(options.set),
    }
    gate = compare(runs, records, header, quick)
    path = Path(options.out) if options.out else _default_path(str(machine["device_name"]))
    with replacing(path) as temporary:
        temporary.write_text(gate.to_json(), encoding="utf-8")
    return gate, path


def _seeds(text: str) -> list[int]:
    if not re.fullmatch(r"\d+(,\d+)*", text.replace(" ", "")):
        raise ConfigError(f"--seeds is {text!r}; write numbers with commas between them, for example 0,1,2")
    return [int(part) for part in text.split(",")]


def _default_path(device_name: str) -> Path:
    slug = re.sub(r"[^a-z0-9]+", "-", device_name.lower()).strip("-")
    return paths.home() / "results" / "bench" / f"gate-{slug}.json"


if __name__ == "__main__":
    sys.exit(main())
