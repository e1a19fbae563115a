"""Methods by name, sums among them."""

from rkd.methods.base import Entry, get_single
from rkd.methods.sum import sum_entry


def get_method(name: str) -> Entry:
    """The entry of a registered method, or of a sum such as "at+kd"; ConfigError for an unknown name."""
    return sum_entry(name) if "+" in name else get_single(name)
