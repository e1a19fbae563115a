"""Records in a table with one line per configuration: the runs that differ in their seed alone."""

import csv
import dataclasses
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from rkd.errors import ConfigError
from rkd.records.record import Record
from rkd.training.config import RunConfig


@dataclass(frozen=True)
class Summary:
    """One configuration's recorded runs. Accuracies are test accuracies in percent, over the finished ones.

    Attributes:
        configuration: its name, the id of its run under seed 0, recorded or not.
        student, teacher, method: names of networks and method; empty where there is none.
        dataset, train_images, epochs, batch_size: of the runs; no number of images means all.
        arithmetic: what the runs were computed in; those in another are another configuration.
        differs: values by which it differs from the other configurations of these networks and this method.
        seeds: of the runs, in the order in which they ended.
        n, diverged: finished runs, and runs that ended in NaN.
        last_mean, last_sd, best_mean, best_sd: at the last and at the best epoch; sd is the sample standard deviation
            (n - 1). None where there are too few runs.
        ended: when the latest of them ended.
    """

    configuration: str
    student: str
    teacher: str
    method: str
    dataset: str
    train_images: int | None
    epochs: int
    batch_size: int
    arithmetic: str
    differs: str
    seeds: tuple[int, ...]
    n: int
    diverged: int
    last_mean: float | None
    last_sd: float | None
    best_mean: float | None
    best_sd: float | None
    ended: str


def summarise(records: Iterable[Record], last: int | None = None) -> list[Summary]:
    """One summary per configuration, sorted by networks, method and id.

    Args:
        records: of any runs.
        last: only so many runs of each configuration, those that ended last; None: all.

    Raises:
        ConfigError: `last` below 1.
    """
    if last is not None and last < 1:
        raise ConfigError(f"last is {last}; it must be >= 1")
    configs: dict[str, RunConfig] = {}
    groups: dict[str, list[Record]] = {}
    for record in records:
        config = dataclasses.replace(record.config, seed=0)
        configs[config.id] = config
        groups.setdefault(config.id, []).append(record)
    kinds: dict[tuple[str, str, str], list[RunConfig]] = {}
    for config in configs.values():
        kinds.setdefault(_kind(config), []).append(config)
    differing = {config.id: text for kind in kinds.values() for config, text in _differences(kind)}
    made = [_summary(configs[name], found, last, differing[name]) for name, found in groups.items()]
    return sorted(made, key=lambda s: (s.student, s.teacher, s.method, s.configuration))


def as_csv(summaries: Sequence[Summary]) -> str:
    """All of it as CSV: a header, one line each, accuracies with four decimals, nothing where there is no value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(f.name for f in fields(Summary))
    for summary in summaries:
        writer.writerow(_cell(getattr(summary, f.name)) for f in fields(Summary))
    return text.getvalue()


def _summary(config: RunConfig, records: list[Record], last: int | None, differs: str) -> Summary:
    records = sorted(records, key=lambda r: (str(r.provenance.get("ended", "")), r.config.seed))
    records = records if last is None else records[-last:]
    finished = [r for r in records if r.status == "finished"]
    values = {
        f"{which}_{name}": value
        for which in ("last", "best")
        for name, value in _statistics([r.accuracy(which) for r in finished]).items()
    }
    return Summary(
        config.id,
        *_kind(config),
        config.data.name,
        config.data.train_images,
        config.epochs,
        config.batch_size,
        records[0].arithmetic,
        differs,
        tuple(r.config.seed for r in records),
        len(finished),
        len(records) - len(finished),
        ended=str(records[-1].provenance.get("ended", "")),
        **values,
    )


def _kind(config: RunConfig) -> tuple[str, str, str]:
    return config.network, config.teacher.name if config.teacher else "", config.method or ""


def _statistics(values: Sequence[float]) -> dict[str, float | None]:
    return {
        "mean": statistics.fmean(values) if values else None,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
    }


def _differences(configs: Sequence[RunConfig]) -> list[tuple[RunConfig, str]]:
    """Each configuration with the values that are not the same in all, as "name=value, ..."."""
    flat = [dict(_flat(config.to_dict())) for config in configs]
    names = dict.fromkeys(name for values in flat for name in values)
    varying = [name for name in names if len({str(values.get(name)) for values in flat}) > 1]
    return [
        (config, ", ".join(f"{name}={values[name]}" for name in varying if name in values))
        for config, values in zip(configs, flat, strict=True)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted name and value of all that a run is identified by (a checkpoint's place is not)."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif name != "checkpoint":
            yield f"{prefix}{name}", value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:.4f}" if isinstance(value, float) else str(value)
