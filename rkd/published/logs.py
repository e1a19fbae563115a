"""A reader's own runs, from the logs that other systems leave. Text and event files are read; nothing in them is
executed. What a log does not say is taken from the names of its folders, as RepDistiller and mdistiller form them."""

import csv
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from rkd.config import from_values
from rkd.errors import ConfigError, RecordError, RkdError
from rkd.published.others import COLUMNS, OtherRun, read_runs

LARGEST = 2**26  # bytes in a log


class Log(NamedTuple):
    """The log of one run: epochs with their test accuracies in percent; values of OtherRun's fields, as the log tells
    them; whether the log says that the run came to its end."""

    points: Collection[tuple[Any, Any]]
    told: dict[str, Any]
    ended: bool = False


def _text(path: Path) -> str:
    with suppress(UnicodeDecodeError):
        text = path.read_text(encoding="utf-8-sig")
        if "\0" not in text:
            return "".join(f"{line}\n" for line in text.splitlines() if line.strip())
    raise ConfigError("it is no text in UTF-8")


def _blocks(text: str, begin: str, block: str, end: str) -> Log:
    """Read a text with a block for every epoch (groups: epoch, accuracy) and a final line with the best accuracy."""
    begun, points, ends = (re.findall(form, text, re.MULTILINE) for form in (begin, block, end))
    if not begun:
        raise ConfigError("it tells of no epoch")
    if len(begun) > len(points):
        raise ConfigError(f"it is cut: {len(points)} of its {len(begun)} epochs have a complete block")
    if len(ends) > 1:
        raise ConfigError(f"it mixes runs: it comes to an end {len(ends)} times")
    return Log(points, {"best": ends[0]} if ends else {}, bool(ends))


def _mdistiller(path: Path) -> list[Log]:
    """Read worklog.txt: names and values between lines of dashes."""
    block = r"^epoch: (.+)\n(?:(?!epoch:|test_acc:)\w+: .*\n)*+test_acc: (.+)\n(?:(?!epoch:)\w+: .*\n)*+-+$"
    return [_blocks(_text(path), r"^epoch:", block, r"^best_acc\t([^\s-]+)")]


_OPTION = r"(?:--?(?=\w+[ =])|\b(?=\w+=))(model_s|path_t|distill|dataset|epochs|alpha|(?<=-)a)[ =]['\"]?([^\s'\",)]+)"
_FIELDS = {"model_s": "student", "path_t": "teacher", "distill": "method", "alpha": "kd", "a": "kd"}


def _repdistiller(path: Path) -> list[Log]:
    """Read what its training scripts print, with their command line or the resulting options if these were kept."""
    text = _text(path)
    block = r"^epoch (\d+), total time.*\n(?:(?!==>|[Ee]poch).*\n)*?\s*\* Acc@1 (\S+) Acc@5 \S"
    log = _blocks(text, r"^epoch \d+, total", block, r"^best accuracy:\s*(?:tensor\(\[?)?([^\s,\])]+)")
    for option, value in re.findall(_OPTION, text):
        if option == "path_t":  # the folder's name begins with the teacher's
            value = re.match(r"wrn_\d+_\d+|[^_]*", Path(value).parent.name)[0]
        field = _FIELDS.get(option, option)
        if log.told.setdefault(field, value) != value:
            raise ConfigError(f"it mixes two configurations: {field} is {log.told[field]} and {value}")
    return [log]


def _accuracy(names: Collection[str]) -> str:
    """Return the name of the test accuracy (test_acc, test_accuracy, test_top1, Acc/test...), else of validation."""
    acc, data = "(?:acc|accuracy|top_?1)(?:_?1)?", "(test|val|valid|eval)"
    form = rf"(?:acc_|accuracy_)?{data}_?{acc}|{acc}_{data}"
    found = {name: re.fullmatch(form, re.sub(r"\W+", "_", name.lower())) for name in names}
    known = [name for name, match in found.items() if match]
    fitting = [name for name in known if "test" in found[name].groups()] or known
    if len(fitting) != 1:
        some = ", ".join([*names][:9]) or "none"
        raise ConfigError(f"it needs one test accuracy, such as test_acc, and has {some}")
    return fitting[0]


def _percent(points: Collection[tuple[Any, float]]) -> Log:
    """Convert fractions to percent: a useful run does not stay below one percent."""
    if max(value for _, value in points) < 1:
        return Log([(epoch, 100 * value) for epoch, value in points], {"note": "told as fractions"})
    return Log(points, {})


def _tensorboard(path: Path) -> list[Log]:
    try:
        from google.protobuf.message import DecodeError
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError as error:
        raise RkdError("event files need tensorboard: pip install tensorboard") from error
    events = EventAccumulator(str(path), size_guidance={"scalars": 0}, purge_orphaned_data=False)
    try:
        events.Reload()
    except (DecodeError, MemoryError, OverflowError) as error:  # the last two: a record's length is nonsense
        raise ConfigError("it holds no events") from error
    return [_percent([(e.step, e.value) for e in events.Scalars(_accuracy(events.Tags()["scalars"]))])]


def _csv(path: Path) -> list[Log]:
    """Read OtherRun's columns; or one run's `epoch` or `step`, with a test accuracy or TensorBoard's `tag`, `value`."""
    try:
        rows = list(csv.DictReader(_text(path).splitlines(), strict=True))
    except csv.Error as error:
        raise ConfigError(f"it is no CSV: {error}") from error
    names = {name.lower(): name for name in (rows[0] if rows else {}) if name}
    if {"student", "method"} <= names.keys() <= set(COLUMNS):
        return [Log(list(enumerate(run.curve, 1)), asdict(run), True) for run in read_runs(path)]
    if not names.keys() & {"epoch", "step"}:
        raise ConfigError(f"it needs a column epoch or step, and has {', '.join(names) or 'none'}")
    epoch = names.get("epoch") or names["step"]
    if "tag" in names:
        tag = _accuracy(dict.fromkeys(str(row[names["tag"]]) for row in rows))
        rows = [row for row in rows if row[names["tag"]] == tag]
    value = names.get("value") or names[_accuracy(names)]
    return [_percent([(row[epoch], _number("accuracy", row[value])) for row in rows])]


FORMATS = {  # patterns of file names, and the function that reads such a file
    "mdistiller": (("*.txt", "*.log"), _mdistiller),
    "repdistiller": (("*.log", "*.out", "*.txt"), _repdistiller),
    "tensorboard": (("*tfevents*",), _tensorboard),
    "csv": (("*.csv",), _csv),
}

# --- names -------------------------------------------------------------------------------------------------------

_DATASET = r"cifar\d+|(?:tiny[-_]?)?imagenet"
_NETWORK = r"(?i:res|wrn|vgg|mobile|mv|shuv|shuffle)\w*"
_NAMES = (
    rf"S[:_]?(?P<student>\w+?)_T[:_]?(?P<teacher>\w+?)_(?:{_DATASET})_"
    r"(?P<method>\w+?)_r[:_][\d.]+_a[:_](?P<kd>[\d.]+)_b[:_]",  # RepDistiller's students
    rf"(?P<student>\w+?)_(?:{_DATASET})_lr_.*_decay_",  # its teachers
    rf"(?P<method>[^,]+(?:,[^,]+)*?),(?P<teacher>{_NETWORK}),(?P<student>{_NETWORK})",  # mdistiller's tags
)
_GIVEN = re.compile(r"([A-Z]+(?:\.[A-Z_]+)+):([^,]*),?")  # what such a tag may end with: KD.TEMPERATURE:2
_KEYS = {
    "DISTILLER.TYPE": "method", "DISTILLER.TEACHER": "teacher", "DISTILLER.STUDENT": "student",
    "DATASET.TYPE": "dataset", "SOLVER.EPOCHS": "epochs",
}  # fmt: skip
_METHODS = {
    "hint": "fitnet", "attention": "at", "similarity": "sp", "correlation": "cc", "abound": "ab", "factor": "ft",
    "vanilla": "none",
}  # fmt: skip
_SHORT = {"res": "resnet", "mv": "mobilenetv", "shuv": "shufflenetv"}


def _named(path: Path) -> dict[str, Any]:
    """Return what the names of a log and of the folders around it tell, the nearest first."""
    told: dict[str, Any] = {}
    for name in (path.name, *(parent.name for parent in path.parents))[:4]:
        found = next(filter(None, (re.match(form, _GIVEN.sub("", name)) for form in _NAMES)), None)
        if found and "student" not in told:
            told |= {"method": "none"} | found.groupdict()
            told |= {_KEYS[key]: value for key, value in _GIVEN.findall(name) if key in _KEYS}
        if found := re.search(_DATASET, name.lower()):
            told.setdefault("dataset", found[0])
    return told


def _canonical(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with this package's names of methods and networks, where it has them."""
    from rkd.models import canonical  # imports torch

    found = dict(told)
    kd = _number("weight of KD", found.pop("kd", 0))
    if "method" in found:
        method = _METHODS.get(found["method"].lower(), found["method"].lower())
        found["method"] = f"{method}+kd" if kd and method != "kd" else method
        found |= {"teacher": ""} if method == "none" else {}
    for role in {"teacher", "student"} & found.keys():
        found[role] = re.sub(r"^(res|mv|shuv)(?=\d)", lambda short: _SHORT[short[0]], found[role])
        with suppress(ConfigError):  # otherwise kept as told
            found[role] = canonical(found[role])
    return found


# --- runs --------------------------------------------------------------------------------------------------------


def _number(name: str, text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{name} is {str(text)[:40]!r}, which is no number") from None


def _curve(log: Log, epochs: Any) -> list[float]:
    """Return the accuracy after each epoch of a log, which must hold one whole run."""
    points = [(_number("epoch", epoch), _number("accuracy", value)) for epoch, value in log.points]
    for (before, _), (after, _) in pairwise(points):
        if after <= before:
            raise ConfigError(f"it mixes two runs: epoch {after:g} comes after epoch {before:g}")
        if after != before + 1:
            raise ConfigError(f"some epochs between {before:g} and {after:g} are missing")
    if points[0][0] not in (0, 1):
        raise ConfigError(f"it begins with epoch {points[0][0]:g}, and what comes before is missing")
    for epoch, value in points:
        if not 0 <= value <= 100:
            raise ConfigError(f"the accuracy after epoch {epoch:g} is {value:g}, which is no percentage")
    if epochs is None and not log.ended:
        raise ConfigError("it does not say that its run came to its end; tell its schedule by --epochs")
    if epochs is not None and len(points) != _number("epochs", epochs):
        raise ConfigError(f"it is cut, or of another schedule: it has {len(points)} epochs, not {epochs}")
    return [round(value, 4) for _, value in points]


def _run(log: Log, named: Mapping[str, Any], given: Mapping[str, Any]) -> OtherRun:
    named, told, given = map(_canonical, (named, log.told, given))
    for field in ({"teacher", "student", "method"} - given.keys()) & named.keys() & told.keys():
        if named[field] != told[field]:
            names = f"{told[field]}, and {named[field]} by its name"
            raise ConfigError(f"it mixes two configurations: {field} is {names}")
    found = named | told | given
    for field in ("student", "method", "dataset"):
        if not found.get(field):
            raise ConfigError(f"it does not tell its {field}; name it by --{field}")
    if log.points:
        curve = _curve(log, found.get("epochs"))
        best = round(_number("best accuracy", found.get("best") or max(curve)), 4)
        found |= {"curve": curve, "epochs": len(curve), "last": curve[-1], "best": best}
    run = from_values(OtherRun, found)
    if max(run.last or 0, run.best or 0) <= 1:
        raise ConfigError("it never gets beyond 1 %: it failed, or its accuracies are no percentages")
    return run


def fingerprint(run: OtherRun) -> tuple:
    """Return what no two runs share: the curve or, without one, where the run is told and how it ended."""
    names = ("repository", "file", "student", "teacher", "method", "run", "last", "best")
    return run.curve or tuple(getattr(run, name) for name in names)


def load(
    path: Path,
    format: str,
    given: Mapping[str, Any],
    lines: Mapping[str, Mapping[str, Any]],
    known: Mapping[tuple, str],
) -> tuple[list[OtherRun], dict[str, str]]:
    """Return the runs in a log, a run's folder or a folder of many, and for the others, by place, why they are refused.

    Args:
        format: a key of FORMATS.
        given: values of OtherRun's fields that override what logs and names tell.
        lines: for each "chapter/line" that all runs are to belong to, the values their fields must have for that.
        known: where earlier runs are, by their `fingerprint`; no run is taken twice.

    Raises:
        ConfigError: the path does not exist or holds no log of that format.
        RkdError: event files cannot be read without tensorboard.
    """
    (forms, reader), path = FORMATS[format], path.absolute()
    if not os.path.exists(path):
        raise ConfigError(f"{path} does not exist")
    files, root = [path], path.parent.parent
    if path.is_dir():
        found = (Path(at, name) for at, _, names in os.walk(path) for name in names)
        files, root = sorted(f for f in found if any(fnmatch(f.name, form) for form in forms)), path.parent
    if not files:
        raise ConfigError(f"{path} holds no log of the format {format}: no {', '.join(forms)}")
    runs, refused, known, alike = [], {}, dict(known), Counter()
    for file in files:
        place = os.fsencode(file.relative_to(root).as_posix()).decode(errors="replace")
        named = {"repository": f"own runs, {format}", "file": place, **_named(file)}
        try:
            if not file.is_file() or file.stat().st_size > LARGEST:
                raise ConfigError(f"it is no file of at most {LARGEST >> 20} MiB that can be read")
            logs = reader(file)
        except (ConfigError, RecordError, OSError) as error:
            refused[place] = getattr(error, "strerror", None) or str(error)
            continue
        for i, log in enumerate(logs, 1):
            name = f"{place}, run {i}" if len(logs) > 1 else place
            try:
                run = _run(log, named, given)
                if fingerprint(run) in known:
                    raise ConfigError(f"its run is that of {known[fingerprint(run)]}, number by number")
                for line, setting in lines.items():
                    for field, value in setting.items():
                        if (own := getattr(run, field)) != value:
                            raise ConfigError(f"it is no run of {line}: {field} is {own!r}, not {value!r}")
            except ConfigError as error:
                refused[name] = str(error)
                continue
            same = (run.dataset, run.teacher, run.student, run.method, run.epochs)
            alike[same] += 1
            known[fingerprint(run)] = name
            number = log.told.get("run", alike[same])
            runs.append(replace(run, run=number, lines=tuple(lines) or run.lines))
    return runs, refused
