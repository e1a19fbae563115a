"""The book: chapters executed in processes of their own, judged, staged and built into one offline site."""

from rkd.experiments.notebooks import declared_parameters, notebook_names
from rkd.report.book.building import adopt_notebook, build_book, drop_variation
from rkd.report.book.cleaning import clean, merge_streams
from rkd.report.book.execution import START_APART_S, VARIATION
from rkd.report.book.files import Folders
from rkd.report.book.marks import MARKS, TOKEN, fault_of_mark, write_mark
from rkd.report.book.prose import LOG_TAIL, failed_page, not_executed_page, provenance, spelt
from rkd.report.book.result import BookResult, Page
from rkd.report.book.staging import stage
from rkd.report.book.variations import list_variations

__all__ = [
    "LOG_TAIL",
    "MARKS",
    "START_APART_S",
    "TOKEN",
    "VARIATION",
    "BookResult",
    "Folders",
    "Page",
    "adopt_notebook",
    "build_book",
    "clean",
    "declared_parameters",
    "drop_variation",
    "failed_page",
    "fault_of_mark",
    "list_variations",
    "merge_streams",
    "not_executed_page",
    "notebook_names",
    "provenance",
    "spelt",
    "stage",
    "write_mark",
]
