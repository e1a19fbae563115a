"""Training: config, one step, the loop, evaluation, checkpoints."""

from rkd.training.arithmetic import Arithmetic, arithmetic
from rkd.training.capture import Engine
from rkd.training.check import check_method
from rkd.training.config import DataConfig, RunConfig, SGDConfig, TeacherConfig
from rkd.training.evaluation import accuracy
from rkd.training.loop import train
from rkd.training.step import TrainState
from rkd.training.teacher import FrozenTeacher
