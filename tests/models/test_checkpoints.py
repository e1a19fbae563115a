"""Every form of checkpoint, and every refusal."""

import argparse
import copy
import os
import pathlib
import pickle
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
    "both, DataParallel": lambda s: prefixed({**prefixed(s, "student."), **FUSION}, "module."),
    "mdistiller": lambda s: {"epoch": 3, "model": prefixed(s, "module."), "best_acc": np.float32(71.5)},
    "hankyul2": lambda s: {"weight": s, "top1_acc": np.float64(67.5)},
    "own": lambda s: {"student": s, "method": {}, "epoch": 1, "config": {"model": NAME}},
    "torchdistill": lambda s: {
        "model": s,
        "optimizer": {},
        "best_value": 70.1,
        "config": {"models": {}},
        "lr_scheduler": {"milestones": [1]},
        "args": argparse.Namespace(config="x.yaml", folder=pathlib.Path("a")),
    },
    "net, acc of float16": lambda s: {"net": s, "acc": np.float16(70.0), "epoch": 3},
    "model_state_dict": lambda s: {"model_state_dict": s, "optimizer_state_dict": {"state": {0: s}}},
    "snet and an average": lambda s: {"snet": s, "ema": s},
    "teacher's weights": lambda s: {"teacher": {"weights": s}},
    "lightning": lambda s: {"state_dict": prefixed(s, "net."), "hparams": {"lr": 0.1}},
    "linear for fc, shortcut for downsample": lambda s: {
        "net": {k.replace("fc.", "linear.").replace("downsample", "shortcut"): v for k, v in s.items()}
    },
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
    bare = source.module.state_dict()
    net = {"net": prefixed(bare, "backbone.")}
    for content in (own, {"student": own}, prefixed(own, "module."), bare, net):
        target = wrapped()
        torch.save(content, tmp_path / "wrapped.pth")
        models.load_weights(target, tmp_path / "wrapped.pth")
        assert torch.equal(target.module.body.weight, source.module.body.weight)


def test_says_what_was_taken_and_asks_where_several_fit(state, tmp_path):
    other = {k: v + 1 for k, v in state.items()}
    mean = {k.replace("fc", "linear"): v for k, v in state.items()}
    path, network = tmp_path / "file.pth", models.build(NAME, CLASSES)
    torch.save(state, path)
    assert models.load_weights(network, path) == ""
    torch.save({"net": prefixed(other, "module."), "ema": mean}, path)
    assert models.load_weights(network, path, "ema") == "weights from 'ema'; 'linear' read as 'fc'"
    assert torch.equal(network.fc.bias, state["fc.bias"])
    assert models.load_weights(network, path, "net.module") == "weights from 'net.module'"
    assert torch.equal(network.fc.bias, other["fc.bias"])
    with pytest.raises(RecordError, match=r"network under 'model'; those that fit: 'net.module', 'ema'"):
        models.load_weights(network, path, "model")


def test_padded_shortcuts_and_biases_before_a_batch_norm_are_read_exactly(tmp_path):
    """A file whose convolutions have biases, which nothing is lost by: the network computes what the file's did."""
    network = models.build("resnet20_a", CLASSES).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(), module.running_var.uniform_(0.5, 2.0)
    theirs, state = copy.deepcopy(network), {}
    for module in theirs.modules():
        if isinstance(module, nn.Conv2d):
            module.bias = nn.Parameter(torch.randn(module.out_channels, dtype=torch.float64))
    for key, value in theirs.state_dict().items():
        state[key.replace("fc.", "linear.")] = value
    torch.save({"state_dict": prefixed(state, "module."), "best_prec1": 91.7}, tmp_path / "file.th")
    said = models.load_weights(network, tmp_path / "file.th")
    assert "; 'linear' read as 'fc'; 19 biases of convolutions taken into the BatchNorm behind them" in said
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert torch.allclose(network(x), theirs(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("entries", "stated"),
    [
        ({"accuracy": torch.tensor([72.3]), "epoch": 240}, 72.3),
        ({"best_acc": np.float16(71.5)}, 71.5),
        ({"best_prec1": 0.917}, 91.7),
        ({"acc": 70.0, "best_acc": 71.0}, None),
        ({"accuracy": True, "lr": 0.1, "best_accuracy": float("nan")}, None),
    ],
)
def test_stated_accuracy(entries, stated, tmp_path):
    torch.save({"model": {}, **entries}, tmp_path / "file.pth")
    found = models.stated_accuracy(tmp_path / "file.pth")
    assert found == (stated and pytest.approx(stated, rel=1e-6))


REFUSED = {
    "list": (lambda s: [1, 2], "holds a list, not a state dict"),
    "empty": (lambda s: {}, "holds no state dict, but entries none"),
    "other entries": (lambda s: {"epoch": 1, "net": 5}, "holds no state dict, but entries epoch, net"),
    "two that fit": (
        lambda s: {"model": s, "ema": {k: v + 1 for k, v in s.items()}},
        "several state dicts that fit: 'model', 'ema'; say which",
    ),
    "missing": (lambda s: {k: v for k, v in s.items() if k != "fc.bias"}, "it lacks fc.bias$"),
    "unexpected": (lambda s: {**s, "extra": torch.zeros(1)}, "it adds extra$"),
    "other network": (
        lambda s: models.build("wrn_16_1", CLASSES).state_dict(),
        r"it lacks .* and \d+ more and adds block1\..*package.module:function$",
    ),
    "deeper": (lambda s: models.build("resnet14", 10).state_dict(), r"it adds layer1\.1\..* and 33 more$"),
    "classes": (
        lambda s: models.build(NAME, 100).state_dict(),
        r"it has fc.weight \(100, 64\) instead of \(10, 64\)",
    ),
    "function": (
        lambda s: {"call": os.getcwd, "model": s},
        r"getcwd.*executing code.*RepDistiller: ckpt_epoch_.*weights_only=False",
    ),
    "whole network": (lambda s: models.build(NAME), r"holds a pickled rkd.models.resnet.ResNet, and reading"),
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


def test_damaged_and_absent_files(state, tmp_path, recwarn):
    network = models.build(NAME, CLASSES)
    whole = tmp_path / "whole.pth"
    torch.save(state, whole)
    content = whole.read_bytes()
    damaged = {"cut": content[: len(content) // 2], "empty": b"", "text": b"404: Not Found\n"}
    damaged["plain pickle"] = pickle.dumps(print, protocol=4)
    for name, data in damaged.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(RecordError, match=f"{name}: is not a checkpoint, or is damaged") as caught:
            models.load_weights(network, tmp_path / name)
        assert "\n" not in str(caught.value) and not recwarn
    with pytest.raises(RecordError, match=r"absent.pth: cannot be read: No such file"):
        models.load_weights(network, tmp_path / "absent.pth")
    with pytest.raises(RecordError, match="cannot be read: it is no regular file"):
        models.load_weights(network, tmp_path)
