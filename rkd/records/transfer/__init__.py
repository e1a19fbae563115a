"""Carrying results from machine to machine: a folder with one tar file in parts and their checksums, merged into a
store."""

from rkd.records.transfer.exporting import Exported, export
from rkd.records.transfer.keeping import KeptExport
from rkd.records.transfer.merging import Outcome, merge

__all__ = ["Exported", "KeptExport", "Outcome", "export", "merge"]
