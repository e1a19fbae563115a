"""SemCKD against loops over images and pairs of stages."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from rkd import models
from rkd.errors import ConfigError
from rkd.methods import Batch, Context
from rkd.methods.semckd import SemCKD, SemckdOptions
from rkd.models.taps import Taps, TapShapes

B = 8
STUDENT = ((3, 8), (5, 4))  # channels, size
TEACHER = ((4, 8), (6, 4), (2, 2))


def taps(maps):
    empty = torch.zeros(len(maps[0]), 0, dtype=maps[0].dtype)
    return Taps(empty, tuple(maps), (), empty, empty)


def maps(shapes, size=B, dtype=torch.float64):
    return [torch.randn(size, c, s, s, dtype=dtype, requires_grad=True) for c, s in shapes]


def batch(student, teacher):
    indices = torch.arange(len(student[0]))
    return Batch(taps(student), taps(teacher), indices, indices)


def method(**options):
    torch.manual_seed(0)
    shapes = [TapShapes((1, 1, 1), tuple((c, n, n) for c, n in net), (), 1, 1) for net in (STUDENT, TEACHER)]
    context = SimpleNamespace(shapes=shapes, batch_size=B, train_images=0)
    semckd = SemCKD(context, SemckdOptions(**options)).double()
    for parameter in semckd.parameters():  # no BatchNorm at its first values
        torch.nn.init.normal_(parameter, std=0.3)
    return semckd


def unit(similarities, x):
    """One map's queries or keys: products of whole maps, two layers, length 1."""
    first, _, second = similarities.layers
    out = []
    for b in range(B):
        products = torch.stack([(x[b] * x[other]).sum() for other in range(B)])
        hidden = (first.weight @ products + first.bias).clamp(min=0)
        e = second.weight @ hidden + second.bias
        out.append(e / e.square().sum().sqrt())
    return out


def normalised(layer, x):
    """BatchNorm by the batch's statistics."""
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    x = (x - mean) / torch.sqrt(variance + 1e-5)
    return x * layer.weight.view(1, -1, 1, 1) + layer.bias.view(1, -1, 1, 1)


def projected(projector, x):
    conv1, norm1, _, conv2, norm2, _, conv3 = projector
    x = torch.einsum("oc,bchw->bohw", conv1.weight[:, :, 0, 0], x)
    x = normalised(norm1, x).clamp(min=0)
    x = normalised(norm2, F.conv2d(x, conv2.weight, padding=1)).clamp(min=0)
    return torch.einsum("oc,bchw->bohw", conv3.weight[:, :, 0, 0], x)


def shrunk(x, size):
    step = x.shape[-1] // size
    return x if step == 1 else x.unflatten(3, (size, step)).unflatten(2, (size, step)).mean((3, 5))


def loops(semckd, student, teacher, soft):
    queries = [unit(module, x) for module, x in zip(semckd.queries, student, strict=True)]
    keys = [unit(module, x) for module, x in zip(semckd.keys, teacher, strict=True)]
    total = 0.0
    for s, x in enumerate(student):
        targets = []
        for t, y in enumerate(teacher):
            size = min(x.shape[-1], y.shape[-1])
            targets.append((projected(semckd.projectors[s][t], shrunk(x, size)), shrunk(y, size)))
        for b in range(B):
            energies = [torch.exp(queries[s][b] @ keys[t][b] / soft) for t in range(len(teacher))]
            for t, (ours, theirs) in enumerate(targets):
                total = total + energies[t] / sum(energies) * ((ours[b] - theirs[b]) ** 2).mean()
    return total / (B * len(student))


@pytest.mark.parametrize("soft", [1.0, 0.25])
def test_loss_and_gradients_are_those_of_loops(soft):
    semckd = method(soft=soft)
    torch.manual_seed(1)
    student, teacher = maps(STUDENT), [x.detach() for x in maps(TEACHER)]
    loss = semckd.losses(batch(student, teacher))["semckd"]
    wanted = loops(semckd, student, teacher, soft)
    torch.testing.assert_close(loss, wanted, rtol=1e-11, atol=0)
    inputs = [*student, *semckd.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(loss, inputs, retain_graph=True),
        torch.autograd.grad(wanted, inputs),
        rtol=1e-8,
        atol=1e-11,
    )


@pytest.mark.parametrize("size", [B - 1, B + 1, 1])
def test_a_batch_of_another_size_has_no_loss(size):
    semckd = method()
    before = {name: value.clone() for name, value in semckd.state_dict().items()}
    loss = semckd.losses(batch(maps(STUDENT, size), maps(TEACHER, size)))["semckd"]
    assert loss.shape == () and loss == 0 and not loss.requires_grad
    assert all(torch.equal(before[name], value) for name, value in semckd.state_dict().items())


def test_precisions():
    semckd = method().float()
    torch.manual_seed(1)
    low = [[(30 * x.detach()).half() for x in maps(shapes)] for shapes in (STUDENT, TEACHER)]
    flat = low[0][0].flatten(1)
    assert not torch.isfinite(flat @ flat.t()).all()  # what half precision cannot hold
    with torch.autocast("cpu", dtype=torch.float16):
        loss = semckd.losses(batch(*low))["semckd"]
    wanted = semckd.double().losses(batch(*([x.double() for x in side] for side in low)))["semckd"]
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=0.02)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 3}, "batch_size 3 is too small"),
        ({"batch_size": 64, "train_images": 63}, "exactly batch_size 64 images; there are 63"),
    ],
)
def test_refused_contexts(values, message):
    context = Context(models.build("resnet8"), models.build("resnet8"), **values)
    with pytest.raises(ConfigError, match=message):
        SemCKD(context, SemckdOptions())
