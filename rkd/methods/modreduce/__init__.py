"""ModReduce: three students learn three kinds of knowledge from one teacher, and from each other."""

from rkd.methods.modreduce.aggregation import AGGREGATIONS, Aggregator
from rkd.methods.modreduce.method import Ensemble, ModReduce
from rkd.methods.modreduce.options import (
    ModReduceOptions,
    consistency,
    cutoff_of,
    growth_steps_of,
    is_online,
    mean_decay,
    online_share,
)
from rkd.methods.modreduce.students import STUDENTS, softened_kl, student_accuracies

__all__ = [
    "AGGREGATIONS", "STUDENTS", "Aggregator", "Ensemble", "ModReduce", "ModReduceOptions", "consistency", "cutoff_of",
    "growth_steps_of", "is_online", "mean_decay", "online_share", "softened_kl", "student_accuracies",
]  # fmt: skip
