"""Speed measurements: our training step against the conventional one."""

from rkd.bench.measurement import Request, measure
from rkd.bench.result import BenchResult, Row, committed, load, save
