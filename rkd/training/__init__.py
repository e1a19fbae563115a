"""Training: config, one step, the loop, evaluation, checkpoints."""

from rkd.training.config import DataConfig, RunConfig, SGDConfig, TeacherConfig
from rkd.training.evaluation import accuracy
from rkd.training.learner import Learner
from rkd.training.loop import train
from rkd.training.teacher import FrozenTeacher

__all__ = [
    "DataConfig",
    "FrozenTeacher",
    "Learner",
    "RunConfig",
    "SGDConfig",
    "TeacherConfig",
    "accuracy",
    "train",
]
