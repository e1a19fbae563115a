"""Every form of checkpoint, and every refusal."""

import argparse
import re
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from rkd import models
from rkd.errors import RecordError

NAME, CLASSES = "resnet8", 10


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(3)
    network = models.build(NAME, CLASSES)
    network.train()(torch.randn(4, 3, 32, 32))
    return network.state_dict()


def prefixed(state, prefix):
    return OrderedDict((prefix + key, value) for key, value in state.items())


FUSION = {"abfs.0.conv1.0.weight": torch.zeros(2, 2, 1, 1)}
FORMS = {
    "bare": lambda s: s,
    "bare, DataParallel": lambda s: prefixed(s, "module."),
    "student and fusion modules": lambda s: {**prefixed(s, "student."), **FUSION},
    "student and fusion modules, DataParallel": lambda s: prefixed(
        {**prefixed(s, "student."), **FUSION}, "module."
    ),
    "RepDistiller": lambda s: {
        "epoch": 240,
        "model": s,
        "accuracy": torch.tensor([72.3]),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
    },
    "mdistiller": lambda s: {"epoch": 3, "model": prefixed(s, "module."), "best_acc": np.float32(71.5)},
    "mdistiller, student": lambda s: {"model": s},
    "hankyul2": lambda s: {"weight": s, "top1_acc": np.float64(67.5)},
    "own": lambda s: {"student": s, "method": {}, "epoch": 1, "config": {"model": NAME}},
    "without counters": lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form, state, tmp_path):
    path = tmp_path / "weights.pth"
    legacy = form == "bare"  # torch's own of before 1.6
    torch.save(FORMS[form](state), path, _use_new_zipfile_serialization=not legacy)
    network = models.build(NAME, CLASSES)
    models.load_weights(network, path)
    for key, value in network.state_dict().items():
        if not (form == "without counters" and key.endswith("num_batches_tracked")):
            assert torch.equal(value, state[key]), key


def test_wrapped_module_keeps_its_own_prefix(tmp_path):
    def wrapped():
        layers = {"body": nn.Conv2d(3, 2, 3), "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}
        return models.from_module(nn.Sequential(OrderedDict(layers)), stages=["body"], pooled="pool")

    source = wrapped()
    own = source.state_dict()
    for content in (own, {"student": own}, prefixed(own, "module.")):
        target = wrapped()
        torch.save(content, tmp_path / "wrapped.pth")
        models.load_weights(target, tmp_path / "wrapped.pth")
        assert torch.equal(target.module.body.weight, source.module.body.weight)


REFUSED = {
    "list": (lambda s: [1, 2], "holds a list, not a state dict"),
    "tensor": (lambda s: torch.zeros(3), "holds a Tensor, not a state dict"),
    "empty": (lambda s: {}, "holds no state dict.* but entries none"),
    "other entries": (lambda s: {"epoch": 1, "net": s}, "holds no state dict.* but entries epoch, net"),
    "missing": (lambda s: {k: v for k, v in s.items() if k != "fc.bias"}, "it lacks fc.bias$"),
    "unexpected": (lambda s: {**s, "extra": torch.zeros(1)}, "it adds extra$"),
    "other network": (
        lambda s: models.build("wrn_16_1", CLASSES).state_dict(),
        r"it lacks layer1\..* and \d+ more and adds block1\.",
    ),
    "deeper": (
        lambda s: models.build("resnet14", CLASSES).state_dict(),
        r"it adds layer1\.1\..* and 33 more$",
    ),
    "shape": (
        lambda s: {**s, "layer1.0.conv1.weight": torch.zeros(16, 16, 5, 5)},
        r"it has layer1.0.conv1.weight \(16, 16, 5, 5\) instead of \(16, 16, 3, 3\)",
    ),
    "classes": (
        lambda s: models.build(NAME, 100).state_dict(),
        r"it has fc.weight \(100, 64\) instead of \(10, 64\)",
    ),
    "namespace": (
        lambda s: {"opt": argparse.Namespace(lr=0.1), "model": s},
        r"argparse.Namespace.*executing code.*RepDistiller: ckpt_epoch_.*weights_only=False",
    ),
    "whole network": (
        lambda s: models.build(NAME, CLASSES),
        r"holds a pickled rkd.models.resnet.ResNet, and reading",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case, state, tmp_path):
    make, said = REFUSED[case]
    path = tmp_path / "file.pth"
    torch.save(make(state), path)
    network = models.build(NAME, CLASSES)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(RecordError, match=re.escape(str(path)) + ": .*" + said) as caught:
        models.load_weights(network, path)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_damaged_and_absent_files(state, tmp_path):
    network = models.build(NAME, CLASSES)
    whole = tmp_path / "whole.pth"
    torch.save(state, whole)
    content = whole.read_bytes()
    damaged = {"cut": content[: len(content) // 2], "empty": b"", "text": b"404: Not Found\n"}
    for name, data in damaged.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(RecordError, match=f"{name}: is not a checkpoint, or is damaged") as caught:
            models.load_weights(network, tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(RecordError, match=r"absent.pth: cannot be read: No such file"):
        models.load_weights(network, tmp_path / "absent.pth")
    with pytest.raises(RecordError, match="cannot be read: it is no regular file"):
        models.load_weights(network, tmp_path)
