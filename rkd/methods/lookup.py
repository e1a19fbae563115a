"""Methods by name, sums among them."""

from collections.abc import Mapping
from typing import Any

from rkd.errors import unknown
from rkd.methods.base import Entry, get_single
from rkd.methods.options import Options
from rkd.methods.sum import SumOptions, sum_entry
from rkd.typed import build_dataclass


def get_method(name: str) -> Entry:
    """The entry of a registered method, or of a sum such as "at+kd"; ConfigError for an unknown name."""
    return sum_entry(name) if "+" in name else get_single(name)


def make_options(name: str, values: Mapping[str, Any]) -> Options:
    """A method's options from plain values, those of a sum by method; ConfigError for a value that is not allowed."""
    if "+" not in name:
        return build_dataclass(get_single(name).options, values)
    names = name.split("+")
    for part in values:
        if part not in names:
            raise unknown(f"part of {name}", part, names)
    return SumOptions(parts=tuple({"method": n, "options": values.get(n, {})} for n in names))
