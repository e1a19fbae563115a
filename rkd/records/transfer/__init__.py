"""Carrying results from machine to machine: one folder of numbered parts with checksums, merged into a store."""

from rkd.records.transfer.exporting import Exported, export
from rkd.records.transfer.keeping import KeptExport
from rkd.records.transfer.layout import places
from rkd.records.transfer.manifest import Entry, Manifest, Part
from rkd.records.transfer.merging import Outcome, merge

__all__ = ["Entry", "Exported", "KeptExport", "Manifest", "Outcome", "Part", "export", "merge", "places"]
