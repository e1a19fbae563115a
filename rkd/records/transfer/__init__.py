"""Carry results between machines: export them as a tar file in parts with a manifest, merge that into a store."""

from rkd.records.transfer.exporting import ExportResult, export
from rkd.records.transfer.keeping import KeptExport
from rkd.records.transfer.merging import Outcome, merge
