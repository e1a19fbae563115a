"""Records as a table with one row per configuration, which covers all runs that differ only in their seed."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import pandas as pd

from rkd.config import Count, validate
from rkd.records.record import Record

_KIND = ["student", "teacher", "method"]
_SAME = [*_KIND, "dataset", "train_images", "epochs", "batch_size", "arithmetic", "differs"]


def summarise(records: Iterable[Record], last: int | None = None) -> pd.DataFrame:
    """Return one row per configuration, sorted by networks, method and id. Accuracies are test accuracies in percent,
    over the finished runs.

    Args:
        last: how many runs to use of each configuration, the latest to end; None: all.

    Returns:
        Columns: configuration (the id of its run under seed 0, recorded or not); student, teacher, method (names; empty
        where there is none); dataset, train_images (NA: all), epochs, batch_size; arithmetic (runs in another form
        another configuration); differs (its values that differ among the configurations of these networks and this
        method); seeds, runs (the runs' seeds and ids, in the order in which they ended); n, diverged (numbers of
        finished and of diverged runs); last_mean, last_sd, best_mean, best_sd (at the last and at the best epoch; sd is
        the sample standard deviation; NaN if there are too few runs); ended (when the latest of them ended).

    Raises:
        ConfigError: `last` is below 1.
    """
    runs = pd.DataFrame([_described(record) for record in records])
    if last is not None:
        validate(Count, "last", last)
    if runs.empty:
        return runs
    runs = runs.sort_values(["ended", "seeds"], kind="stable")
    groups = (runs if last is None else runs.groupby("configuration").tail(last)).groupby("configuration")
    found = groups[_SAME].first().astype({"train_images": "Int64"})
    found["differs"] = found.groupby(_KIND)["differs"].transform(_differences)
    found[["seeds", "runs"]] = groups[["seeds", "runs"]].agg(lambda each: " ".join(map(str, each)))
    found["n"] = groups["finished"].sum()
    found["diverged"] = groups.size() - found["n"]
    for which in ("last", "best"):
        found[f"{which}_mean"], found[f"{which}_sd"] = groups[which].mean(), groups[which].std()
    found["ended"] = groups["ended"].last()
    return found.reset_index().sort_values([*_KIND, "configuration"], ignore_index=True)


def _described(record: Record) -> dict[str, Any]:
    config = dataclasses.replace(record.config, seed=0)
    (values,) = pd.json_normalize(config.to_dict()).to_dict("records")
    return {
        "configuration": config.id,
        "student": config.network,
        "teacher": config.teacher.name if config.teacher else "",
        "method": config.method or "",
        "dataset": config.data.name,
        "train_images": config.data.train_images,
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "arithmetic": record.arithmetic,
        # The path of a checkpoint is not part of the identity.
        "differs": {name: v for name, v in values.items() if not name.endswith("checkpoint")},
        "seeds": record.config.seed,
        "runs": record.id,
        "finished": record.status == "finished",
        "last": record.accuracy("last"),
        "best": record.accuracy("best"),
        "ended": str(record.provenance.get("ended", "")),
    }


def _differences(configs: pd.Series) -> list[str]:
    """Return, for each configuration, its values that are not the same in all of them, as "name=value, ..."."""
    names = dict.fromkeys(name for values in configs for name in values)
    varying = [name for name in names if len({str(values.get(name)) for values in configs}) > 1]
    return [", ".join(f"{name}={values[name]}" for name in varying if name in values) for values in configs]
