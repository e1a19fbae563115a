"""Carrying results from machine to machine: a tar file in parts and a manifest, merged into a store."""

from rkd.records.transfer.exporting import Exported, export
from rkd.records.transfer.keeping import KeptExport
from rkd.records.transfer.merging import Outcome, merge

__all__ = ["Exported", "KeptExport", "Outcome", "export", "merge"]
