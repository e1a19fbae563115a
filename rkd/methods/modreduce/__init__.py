"""ModReduce: three students learn three kinds of knowledge from one teacher, and from each other."""

from rkd.methods.modreduce.aggregation import AGGREGATIONS, Aggregator
from rkd.methods.modreduce.method import Ensemble, ModReduce
from rkd.methods.modreduce.options import ModReduceOptions
from rkd.methods.modreduce.schedule import consistency, is_online, mean_decay, online_share
from rkd.methods.modreduce.students import STUDENTS, softened_kl

__all__ = [
    "AGGREGATIONS", "STUDENTS", "Aggregator", "Ensemble", "ModReduce", "ModReduceOptions", "consistency", "is_online",
    "mean_decay", "online_share", "softened_kl",
]  # fmt: skip
