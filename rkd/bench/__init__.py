"""Measurements of speed: our step against the conventional one."""

from rkd.bench.measurement import Request, measure
from rkd.bench.result import Result, Row, committed, load, save

__all__ = ["Request", "Result", "Row", "committed", "load", "measure", "save"]
