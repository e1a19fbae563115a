"""Measurements of speed: our step against the conventional one, and both against what the machine could do."""

from rkd.bench.measurement import Request, measure
from rkd.bench.result import Floors, Ratio, Result, Row, floors, ratio
from rkd.bench.text import report

__all__ = ["Floors", "Ratio", "Request", "Result", "Row", "floors", "measure", "ratio", "report"]
