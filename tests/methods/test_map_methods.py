"""Methods that compare maps: against naive loops written from the formulas, and who receives gradient."""

import math

import pytest
import torch

from rkd import models
from rkd.errors import ConfigError
from rkd.methods import Batch, Context, get_method
from rkd.methods.fitnet import regressor
from rkd.methods.kdsvd import leading_vectors
from rkd.methods.nst import mean_kernel
from rkd.methods.numeric import match
from rkd.methods.ofd import OfdOptions, margins
from rkd.methods.vid import VidOptions
from rkd.models.taps import final_norms

SAME = ("resnet8", "resnet14")
WIDER = ("resnet8", "resnet8x4")
SMALLER = ("shufflenetv1", "resnet8x4")
PAIRS = (SAME, WIDER, SMALLER, ("wrn_16_1", "resnet8"), ("mobilenetv2", "resnet8"))


def networks(pair, seed=0):
    """Student and teacher in float64, with BatchNorm parameters and statistics that are not at their start."""
    torch.manual_seed(seed)
    built = [models.build(name).double() for name in pair]
    for module in (m for network in built for m in network.modules()):
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.3)
    return built


def make(name, pair, batch=3, **options):
    """A method in float64, a batch of taps of random images, and its networks."""
    student, teacher = networks(pair)
    entry = get_method(name)
    method = entry.build(Context(student, teacher), entry.options(**options)).double()
    x = torch.randn(batch, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        theirs = teacher.eval().taps(x)
    indices = torch.arange(batch)
    return method, Batch(student.taps(x), theirs, indices % 2, indices, x), student, teacher


def naive_pool(x, size):
    """Adaptive average pooling of (C, H, W) by its definition: cell i averages [floor(iH/n), ceil((i+1)H/n))."""
    out = torch.zeros(x.shape[0], size, size, dtype=x.dtype)
    h = x.shape[1]
    for i in range(size):
        for j in range(size):
            rows = slice(i * h // size, -(-(i + 1) * h // size))
            columns = slice(j * h // size, -(-(j + 1) * h // size))
            out[:, i, j] = x[:, rows, columns].mean((1, 2))
    return out


def levels(batch, tap="stages"):
    """Per pair of stages, from the deepest up, per image: the two maps at the smaller size."""
    ours, theirs = getattr(batch.student, tap), getattr(batch.teacher, tap)
    for k in range(1, 1 + min(len(ours), len(theirs))):
        size = min(ours[-k].shape[-1], theirs[-k].shape[-1])
        yield [(naive_pool(s, size), naive_pool(t, size)) for s, t in zip(ours[-k], theirs[-k], strict=True)]


def value(method, batch):
    (loss,) = method.losses(batch).values()
    return loss


@pytest.mark.parametrize("sizes", [(8, 8), (8, 4), (4, 8), (7, 4), (4, 7)])
def test_the_larger_map_is_pooled_to_the_smaller(sizes):
    s, t = (torch.randn(2, 3, n, n, dtype=torch.float64) for n in sizes)
    for before, after in zip((s, t), match(s, t), strict=True):
        assert torch.allclose(after[0], naive_pool(before[0], min(sizes)), atol=1e-15)


@pytest.mark.parametrize(
    ("size", "target", "kernel", "output"),
    [(16, 8, 3, 8), (8, 16, 4, 16), (8, 8, 1, 8), (8, 6, 3, 6), (8, 32, 3, 8), (8, 12, 3, 8)],
)
def test_regressor_rules(size, target, kernel, output):
    net = regressor((2, size, size), (5, target, target))
    assert net[0].kernel_size == (kernel, kernel) and net[0].bias is not None
    assert net(torch.zeros(2, 2, size, size)).shape == (2, 5, output, output)
    assert isinstance(net[-1], torch.nn.ReLU)
    assert not isinstance(regressor((2, size, size), (5, target, target), relu=False)[-1], torch.nn.ReLU)


@pytest.mark.parametrize(("pair", "hint_layer"), [*((pair, 2) for pair in PAIRS), (WIDER, 0)])
def test_fitnet(pair, hint_layer):
    method, batch, *_ = make("fitnet", pair, hint_layer=hint_layer)
    ours = [batch.student.stem, *batch.student.stages][hint_layer]
    theirs = [batch.teacher.stem, *batch.teacher.stages][hint_layer]
    conv, norm, _ = method.regressor
    x = conv(ours)
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    x = ((x - mean) / (variance + norm.eps).sqrt()).clamp_min(0)
    errors = [((s - naive_pool(t, s.shape[-1])) ** 2).mean() for s, t in zip(x, theirs, strict=True)]
    torch.testing.assert_close(value(method, batch), sum(errors) / len(errors), rtol=1e-10, atol=0)


@pytest.mark.parametrize(("pair", "p"), [*((pair, 2) for pair in PAIRS), (SAME, 1), (SAME, 3)])
def test_at(pair, p):
    method, batch, *_ = make("at", pair, p=p)
    total = 0
    for level in levels(batch):
        errors = []
        for s, t in level:
            s, t = ((x.abs() ** p).mean(0) for x in (s, t))
            errors.append(((s / s.norm() - t / t.norm()) ** 2).mean())
        total += sum(errors) / len(errors)
    torch.testing.assert_close(value(method, batch), total, rtol=1e-10, atol=0)


@pytest.mark.parametrize("pair", [SAME, WIDER, SMALLER])
def test_vid(pair):
    method, batch, *_ = make("vid", pair)
    with torch.no_grad():
        for level in method.levels:
            level.rho.normal_()
    total = 0
    for level, maps in zip(reversed(method.levels), levels(batch), strict=True):
        weights = [m.weight[:, :, 0, 0] for m in level.mean if isinstance(m, torch.nn.Conv2d)]
        terms = []
        for s, t in maps:
            for y in range(s.shape[1]):
                for x in range(s.shape[2]):
                    mean = s[:, y, x]
                    for i, weight in enumerate(weights):
                        mean = weight @ mean
                        mean = mean.clamp_min(0) if i < 2 else mean
                    variance = (1 + level.rho.exp()).log() + 1e-5
                    terms.append(0.5 * ((mean - t[:, y, x]) ** 2 / variance + variance.log()))
        total += torch.cat(terms).mean()
    torch.testing.assert_close(value(method, batch), total, rtol=1e-10, atol=0)


def test_vid_begins_with_the_variance_asked_for():
    for variance in (5.0, 0.25):
        rho = make("vid", SAME, init_variance=variance)[0].levels[0].rho
        torch.testing.assert_close((1 + rho.exp()).log() + 1e-5, torch.full_like(rho, variance))
    with pytest.raises(ConfigError, match="init_variance"):
        VidOptions(init_variance=1e-5)


@pytest.mark.parametrize("pair", [SAME, WIDER, PAIRS[-1]])
def test_nst(pair):
    method, batch, *_ = make("nst", pair, batch=2)
    total = 0
    for level in levels(batch):
        terms = []
        for s, t in level:
            s, t = ([row / row.norm() if row.norm() > 0 else row for row in x.flatten(1)] for x in (s, t))

            def kernel(a, b):
                return sum((torch.stack(b) @ row).square().sum() for row in a) / (len(a) * len(b))

            terms.append(kernel(s, s) + kernel(t, t) - 2 * kernel(s, t))
        total += sum(terms) / len(terms)
    torch.testing.assert_close(value(method, batch), total, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(("ours", "theirs", "positions"), [(2, 3, 7), (5, 2, 4), (6, 7, 3)])
def test_nst_kernel_either_way(ours, theirs, positions):
    a = torch.randn(2, ours, positions, dtype=torch.float64)
    b = torch.randn(2, theirs, positions, dtype=torch.float64)
    loops = [(a[n, i] @ b[n, j]) ** 2 for n in range(2) for i in range(ours) for j in range(theirs)]
    torch.testing.assert_close(mean_kernel(a, b), torch.stack(loops).mean())


def spectrum(values, channels, positions, seed=0):
    """(1, channels, positions, 1) of these singular values."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator))[0][:, : len(values)]
        for n in (channels, positions)
    )
    return (left * torch.tensor(values, dtype=torch.float64) @ right.T)[None, :, :, None]


@pytest.mark.parametrize(("channels", "positions"), [(5, 9), (9, 5), (6, 6)])
def test_leading_vectors_and_their_gradient_are_those_of_a_decomposition(channels, positions):
    x = spectrum([4.0, 2.5, 1.5, 0.5, 0.1], channels, positions).requires_grad_()
    direction = torch.randn(channels, 4, dtype=torch.float64)

    def gradient(vectors):
        # A function of the vectors that does not change with their signs.
        return torch.autograd.grad(((vectors * direction).sum(0) ** 3).abs().sum(), x)[0]

    vectors, values = leading_vectors(x, 4)
    exact, singular, _ = torch.linalg.svd(x[0, :, :, 0])
    torch.testing.assert_close(values[0], singular[:4].detach())
    torch.testing.assert_close(
        (vectors[0].T @ exact[:, :4]).abs(), torch.eye(4, dtype=torch.float64), atol=1e-9, rtol=0
    )
    reduced = torch.linalg.svd(x[0, :, :, 0], full_matrices=False)[0][:, :4]
    torch.testing.assert_close(gradient(vectors[0]), gradient(reduced), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("values", [[2.0, 2.0, 1.0, 1.0], [3.0, 1.0], [3.0, 1.0, 1e-9], []])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_equal_and_vanishing_singular_values_are_finite(values, dtype):
    x = spectrum(values, 6, 9).to(dtype).requires_grad_()
    vectors, found = leading_vectors(x, 4)
    torch.testing.assert_close(found[0].sum(), torch.tensor(sum(values), dtype=dtype), rtol=1e-4, atol=1e-4)
    gram = vectors[0].T @ vectors[0]
    rank = sum(v > 0.1 for v in values)
    expected = torch.diag(torch.tensor([1.0] * rank + [0.0] * (4 - rank), dtype=dtype))
    torch.testing.assert_close(gram, expected, rtol=0, atol=1e-3)
    (vectors * torch.randn_like(vectors)).sum().backward()
    assert x.grad.isfinite().all()


def naive_kdsvd(batch, k):
    """The formula, one image at a time, on the decomposition of torch."""
    total, images = 0.0, len(batch.labels)
    for n in range(images):
        before = None
        for student, teacher in zip(batch.student.stages, batch.teacher.stages, strict=True):
            _, weights, theirs = torch.linalg.svd(teacher[n].flatten(1).T, full_matrices=False)
            _, _, ours = torch.linalg.svd(student[n].flatten(1).T, full_matrices=False)
            weights = weights[:k] / weights[:k].norm()
            level = []
            for i in range(k):
                t = theirs[i] if theirs[i].sum() >= 0 else -theirs[i]
                s = max(ours[: k + 3], key=lambda v, t=t: (v @ t).abs())
                level.append((s * (s @ t).sign() * weights[i], t * weights[i]))
            if before is not None:
                for (s0, t0), (s1, t1) in zip(before, level, strict=True):
                    for p in range(len(s0)):
                        rbf = [torch.exp(-((a[p] - b) ** 2) / 8) for a, b in ((s0, s1), (t0, t1))]
                        total = total + ((rbf[0] - rbf[1]) ** 2).sum()
            before = level
    return total / images


@pytest.mark.parametrize(("pair", "k"), [(SAME, 1), (("wrn_16_1", "resnet8"), 2)])
def test_kdsvd(pair, k):
    method, batch, student, _ = make("kdsvd", pair, k=k)
    loss = value(method, batch)
    torch.testing.assert_close(loss, naive_kdsvd(batch, k), rtol=1e-6, atol=0)
    loss.backward()
    assert all(p.grad.isfinite().all() for n, p in student.named_parameters() if p.grad is not None)


def test_kdsvd_refusals():
    with pytest.raises(ConfigError, match=r"level 1 is \(16, 32, 32\) in the student and \(64, 32, 32\)"):
        make("kdsvd", WIDER)
    with pytest.raises(ConfigError, match="k = 62 needs 65 singular vectors"):
        make("kdsvd", ("resnet8x4", "resnet8x4"), k=62)


def naive_margin(mean, std):
    """Mean below 0 of a Gaussian, by numerical integration."""
    x = torch.linspace(min(mean - 12 * std, -1e-9), 0, 20_001, dtype=torch.float64)
    density = torch.exp(-(((x - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))
    mass = torch.trapezoid(density, x)
    return float(torch.trapezoid(x * density, x) / mass) if mass > 0.001 else -3 * std


def test_ofd_margins():
    norm = torch.nn.BatchNorm2d(6).double()
    norm.weight.data = torch.tensor([1.0, -0.7, 2.0, 0.5, 0.0, 0.0], dtype=torch.float64)
    norm.bias.data = torch.tensor([0.0, 0.4, -1.0, 3.0, -0.2, 0.3], dtype=torch.float64)
    found = margins(norm).tolist()
    expected = [
        naive_margin(m, abs(s)) for m, s in zip(norm.bias.tolist()[:4], norm.weight.tolist()[:4], strict=True)
    ]
    assert found[:4] == pytest.approx(expected, rel=1e-5)
    assert found[3] == -1.5  # three standard deviations, since less than one value in a thousand is negative
    assert found[4:] == pytest.approx([-0.2, 0.0], abs=1e-9)  # constant channels: their negative part


@pytest.mark.parametrize("pair", [SAME, SMALLER, ("resnet8", "wrn_16_2"), ("resnet8", "vgg8")])
def test_ofd(pair):
    method, batch, _, teacher = make("ofd", pair, batch=2)
    total = 0.0
    norms = final_norms(teacher)[::-1]
    for k, (norm, connector) in enumerate(zip(norms, reversed(method.connectors), strict=False)):
        ours = connector(batch.student.stages_pre[-1 - k])
        theirs = batch.teacher.stages_pre[-1 - k]
        size = min(ours.shape[-1], theirs.shape[-1])
        margin = [
            naive_margin(m, abs(s)) for m, s in zip(norm.bias.tolist(), norm.weight.tolist(), strict=True)
        ]
        level = 0.0
        for n in range(2):
            s, t = naive_pool(ours[n], size), naive_pool(theirs[n], size)
            for c, least in enumerate(margin):
                target = t[c].clamp_min(least)
                skipped = (s[c] <= target) & (target <= 0)
                level = level + ((s[c] - target) ** 2)[~skipped].sum()
        total = total + level / 2 / 2**k
    torch.testing.assert_close(value(method, batch), total, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "name", ["resnet8", "resnet8x4", "resnet18", "resnet50", "wrn_16_2", "vgg8", "vgg13"]
)
def test_norms_act_on_the_maps_before_relu(name):
    """A higher bias lifts the map before ReLU by as much everywhere, and leaves the stages above it alone."""
    network = networks([name])[0].eval()
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        before = network.taps(x).stages_pre
        norms = final_norms(network)
        assert len(norms) == len(before)
        for i, norm in enumerate(norms):
            bias = norm.bias.clone()
            norm.bias += 1
            after = network.taps(x).stages_pre
            norm.bias.copy_(bias)
            torch.testing.assert_close(after[i], before[i] + 1)
            assert all(torch.equal(*pair) for pair in zip(after[:i], before[:i], strict=True))


def test_networks_without_such_norms_are_refused_unless_they_say():
    for name in ("shufflenetv1", "shufflenetv2", "mobilenetv2"):
        with pytest.raises(ConfigError, match="no BatchNorm before the last ReLU of each stage"):
            final_norms(models.build(name))
    with pytest.raises(ConfigError, match="no BatchNorm before the last ReLU"):
        make("ofd", ("resnet8", "shufflenetv1"))
    teacher = models.build("resnet8")
    teacher.final_norms = lambda: [teacher.layer1[-1].bn2]
    with pytest.raises(ConfigError, match=r"\[16, 32, 64\], but final_norms gives \[16\]"):
        get_method("ofd").build(Context(models.build("resnet8"), teacher), OfdOptions())
