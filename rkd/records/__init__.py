"""Records: one JSON per ended run, with its provenance."""

from rkd.records.record import Record, arithmetics
from rkd.records.store import Store

__all__ = ["Record", "Store", "arithmetics"]
