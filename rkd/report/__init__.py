"""What the book shows; loaded when first used, so that the command line need not load plotting libraries."""

from typing import Any

_WHERE = {
    "open_experiment": "rkd.report.experiment",
    "mean_sd": "rkd.experiments.frames",
    "on_record": "rkd.experiments.frames",
    "printed": "rkd.experiments.frames",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
