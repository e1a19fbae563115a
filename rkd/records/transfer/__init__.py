"""Carry results between machines: export them as a tar file in parts with a manifest, merge that into a store."""

from rkd.records.transfer.exporting import ExportResult, KeptExport, export
from rkd.records.transfer.merging import Outcome, merge
