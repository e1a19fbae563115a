"""Every method and every network on stand-ins for a GPU's tensors: nothing in a step that a CUDA graph cannot replay;
and methods that do such things, each with its sentence."""

import re
import sys

import pytest
import torch
import torch.nn.functional as F
from cases import CASES
from torch import nn

from rkd import models
from rkd.errors import ConfigError
from rkd.methods import Batch, Method, Options, SingleLoss, Stage, kdsvd, make_options, method_names
from rkd.methods.numeric import wide
from rkd.training import RunConfig, check_method
from rkd.training.check import check_run
from rkd.training.standin import GPU, backward, standing_in

FAMILIES = [names[0] for names in models.groups().values()]
FAMILIES += ["shufflenetv1", "shufflenetv2", "resnet8x4", "wrn_16_2", "repvgg8" if "repvgg8" in models.names() else "vgg8"]


@pytest.mark.parametrize("case", CASES)
def test_every_method_can_be_captured(case, monkeypatch):
    """Batches, teacher, student, losses of every stage, backward pass, optimiser, loss scale, memories; both batch
    sizes, first and last epoch."""
    monkeypatch.setattr(kdsvd, "STEPS", 2)  # they all do the same
    monkeypatch.setattr(kdsvd, "SQUARINGS", 2)
    method, values = CASES[case]
    options = make_options(method, values)
    found = check_method(method, options, teacher="resnet8", student="resnet8")
    assert found.problems == ()
    assert found.steps == 3 + 2 * len(options.stages()), "one of the last epoch, two of each other first epoch"


@pytest.mark.parametrize("name", dict.fromkeys(FAMILIES))
def test_every_family_can_be_captured(name):
    assert check_run(RunConfig(name)).problems == ()
