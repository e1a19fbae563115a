"""Every method and every network on stand-ins for a GPU's tensors: nothing in a step that a CUDA graph cannot replay;
and methods that do such things, each with its sentence."""

import re

import pytest
import torch
import torch.nn.functional as F
from cases import CASES
from torch import nn

from rkd import models
from rkd.errors import ConfigError
from rkd.methods import Options, SingleLoss, Stage, kdsvd, make_options, method_names
from rkd.training import check_method
from rkd.training.standin import GPU, backward, standing_in

# One small network of each make; "resnet18" stands for those with ImageNet widths, "repvgg8" for reparameterised ones.
MAKES = (
    "mobilenetv2", "shufflenetv1", "shufflenetv2", "resnet8", "resnet20_7x7", "resnet18", "vgg8", "wrn_16_1", "repvgg8",
    "resnet20_a", "torchvision_resnet18",
)  # fmt: skip
TINY = {"teacher": "cases:Tiny", "student": "cases:Tiny"}


@pytest.mark.parametrize("case", CASES)
def test_every_method_can_be_captured(case, monkeypatch):
    """Batches, teacher, student, losses of every stage, backward pass, optimiser, loss scale, memories; both batch
    sizes, first and last epoch: two steps of each first epoch, one of the last."""
    for repeated in ("STEPS", "SQUARINGS", "SPARE"):  # each does the same again
        monkeypatch.setattr(kdsvd, repeated, 1)
    options = make_options(*CASES[case])
    found = check_method(CASES[case][0], options, **TINY)
    assert found.problems == () and found.steps == 3 + 2 * len(options.stages())


@pytest.mark.parametrize("name", MAKES)
def test_every_make_of_network_can_be_captured(name, monkeypatch):
    monkeypatch.setattr("rkd.training.check.IMAGES", 16)  # no short batch
    assert check_method("kd", teacher="cases:Tiny", student=name).problems == ()


def test_no_make_is_forgotten():
    assert all(set(names) & set(MAKES) for names in models.groups().values()), models.groups()


class Bad(SingleLoss):
    """Mean squared error of logits by a line of a test's own."""

    def __init__(self, context, options, line):
        super().__init__(context, options)
        self.constant, self.line = torch.ones(()), line  # no buffer
        self.register_buffer("memory", torch.zeros(()))
        self.count, self.warm = 0, True

    def loss(self, batch):
        error = F.mse_loss(batch.student.logits.float(), batch.teacher.logits.float(), reduction="none")
        return self.line(self, error)

    def begin_epoch(self, epoch):
        self.warm = epoch < 5


def problems(line):
    return check_method(lambda context, options: Bad(context, options, line), **TINY).problems


def branch(self, error):
    return error.mean() if error.sum() > 0 else error.sum()


def remember(self, error):
    self.memory = 0.5 * self.memory + error.detach().mean()
    return error.mean()


def count(self, error):
    self.count += 1
    return error.mean() * self.count


class Twice(torch.autograd.Function):
    """A backward pass of one's own that reads a value."""

    @staticmethod
    def forward(ctx, x, factor):
        return x * factor

    @staticmethod
    def backward(ctx, gradient):
        return gradient * gradient.sum().item(), None


LINES = {
    "item": (lambda self, e: e.mean() * e.max().item(), "e.max().item()", "reads a value back"),
    "branch": (branch, "if error.sum() > 0", "reads a value back"),
    "equal": (lambda self, e: e.mean() * torch.equal(e, e), "equal(", "reads a value back"),
    "cpu": (lambda self, e: e.cpu().mean().to(e.device), "e.cpu()", "copies between host"),
    "attribute": (lambda self, e: (e * self.constant).mean(), "self.constant", "brings a CPU tensor"),
    "tensor": (lambda self, e: e.mean() * torch.tensor(0.5), "torch.tensor(0.5)", "brings a CPU tensor"),
    "there": (lambda self, e: e.mean() * torch.tensor(2.0, device=e.device), "tensor(2.0", "copies between"),
    "list": (lambda self, e: e[[0, 1]].mean(), "e[[0, 1]]", "copies between host"),
    "mask": (lambda self, e: e[e > 1].mean(), "e[e > 1]", "size depends on values"),
    "nonzero": (lambda self, e: e.nonzero().sum() + e.mean(), "nonzero()", "size depends on values"),
    "rand": (lambda self, e: (e * torch.rand_like(e)).mean(), "rand_like", "draws random numbers"),
    "dropout": (lambda self, e: F.dropout(e).mean(), "F.dropout(e)", "draws random numbers"),
    "svd": (lambda self, e: torch.linalg.svdvals(e).sum(), "svdvals", "decomposes a matrix"),
    "backward": (lambda self, e: Twice.apply(e.mean(), 2.0), "gradient.sum().item()", "reads a value"),
    "memory": (remember, "method, tensor 'memory'", "is replaced by another tensor"),
    "count": (count, "method, attribute 'count'", "is a Python value that a step changes"),
    "epochs": (lambda self, e: e.mean() if self.warm else e.square().mean(), "epochs", "one recording serves all"),
}  # fmt: skip


@pytest.mark.parametrize("case", LINES)
def test_what_a_replay_cannot_do_gets_its_sentence(case):
    line, place, says = LINES[case]
    (sentence,) = problems(line)
    assert place in sentence and says in sentence
    if case not in ("memory", "count", "epochs"):
        assert re.match(r"test_check_method\.py, line \d+, `", sentence)


def test_what_a_replay_can_do_is_left_alone():
    """Python numbers, filled in by mask and by place."""

    def fill(self, error):
        error = error.clone()
        error[0] = 1.0
        error[error > 2] = 0.0
        return torch.where(error > 1, error, 0.5).mean() * 2

    assert problems(fill) == ()


def test_problems_of_one_step_are_all_told():
    found = problems(lambda self, e: (e * torch.rand_like(e)).mean() * e.max().item() * self.constant)
    assert len(found) == 3


class StagedOptions(Options):
    def stages(self):
        return (Stage("first", 1, ("bad",)),)


class Staged(Bad):
    """Reads a value in its stage and after the optimiser's step."""

    def __init__(self, context, options: StagedOptions):
        super().__init__(context, options, lambda self, error: error.mean())
        self.weight = nn.Parameter(torch.ones(()))

    def stage_losses(self, stage, batch):
        return {"bad": self.weight * batch.teacher.logits.float().mean() * float(self.memory)}

    def after_step(self, made):
        self.memory.mul_(self.memory.item())


def test_stages_and_memories_are_followed():
    found = check_method(Staged, **TINY)
    one, other = found.problems
    assert "float(self.memory)" in one and "self.memory.item()" in other and str(found).count("\n") == 1
    assert method_names() == sorted(set(method_names()) - {"Staged"}), "what was lent has been taken back"


def nonsense(context, options):
    return 3


def failing(context, options):
    raise KeyError("of its own")


def test_a_builder_is_found_by_its_file():
    names = ("Staged", "nonsense", "failing", "TINY", "absent")
    models.trust(["nowhere:build", *(f"test_check_method:{name}" for name in names)])
    found = check_method("test_check_method:Staged", **TINY)
    assert found.name == "test_check_method:Staged" and len(found.problems) == 2
    summed = check_method("kd+test_check_method:Staged", {"kd": {"temperature": 2.0}}, **TINY)
    assert len(summed.problems) == 2
    for method, options, words in (
        ("nowhere:build", None, "'nowhere:build' cannot be imported"),
        ("test_check_method:absent", None, "has no attribute 'absent'"),
        ("test_check_method:TINY", None, "names a dict, not a function of"),
        ("test_check_method:nonsense", None, "returns a int, not a rkd.methods.Method"),
        ("test_check_method:failing", None, r"failed: KeyError: 'of its own' .*test_check_method.py, line"),
        ("cases:Cases", None, "'cases:Cases' is code from elsewhere"),
        (lambda context: None, None, "takes 1 arguments"),
        (type, None, "does not say what it takes|takes . arguments"),
        ("at+kd", {"sp": {}}, r"unknown part of at\+kd 'sp'"),
    ):
        with pytest.raises(ConfigError, match=words):
            check_method(method, options, **TINY)


def test_derivatives_without_the_engine_are_those_of_the_engine():
    """Broadcasting, several outputs, a tensor used twice, low precision, a function of one's own."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def loss():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            one, other = net(x).chunk(2, 1)
        return (Twice.apply(one.float(), 3.0) * net[4].bias[:2] + other.sum() + net[4].bias.sum()).sum()

    loss().backward()
    expected = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    backward(loss())
    assert all(torch.equal(p.grad, e) for p, e in zip(net.parameters(), expected, strict=True))


def test_everything_is_as_before_afterwards():
    engine, available = torch.Tensor.backward, torch.cuda.amp.common.amp_definitely_not_available
    with standing_in({}):
        assert torch.zeros((), device=GPU).is_cuda and torch.Tensor.backward is backward
    assert torch.Tensor.backward is engine
    assert torch.cuda.amp.common.amp_definitely_not_available is available
