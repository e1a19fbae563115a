"""Measurements of speed: our step against the conventional one."""

from rkd.bench.measurement import Request, measure
from rkd.bench.result import Result, Row
from rkd.bench.tables import report

__all__ = ["Request", "Result", "Row", "measure", "report"]
