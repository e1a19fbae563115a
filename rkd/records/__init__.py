"""Records: one JSON file per finished run, with its provenance."""

from rkd.records.record import Record
from rkd.records.store import Store
