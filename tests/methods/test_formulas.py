"""Every method's losses and their gradients against its formula, in float64; and that no batch makes them infinite.
CRD, ModReduce and ReviewKD, which take more than one step or module to say, have files of their own."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from cases import Tiny
from naive import batch_norm, conv1x1, kl, pool, softmax
from torch import nn

from rkd import models
from rkd.methods import Batch, Context, get_method, method_names
from rkd.methods.fitnet import regressor
from rkd.methods.kdsvd import leading_vectors
from rkd.methods.ofd import margins
from rkd.models.taps import Taps, final_norms

B, CLASSES, SIZE = 8, 6, 20
PAIRS = {  # how student and teacher differ from three stages of sizes 10, 5, 3
    "alike": ({}, {}),
    "sizes": ({"strides": (1, 2, 3)}, {}),  # 20, 10 and 4
    "odd": ({"widths": (3, 5, 7), "strides": (1, 3)}, {}),  # two stages, of other widths, of sizes 20 and 7
}
LAYER_NORM = {"statistics": "layer_norm"}
WIDER = {"wider": ({"widths": (4, 5, 6, 7), "strides": (1, 2, 2)}, {"strides": (1, 2, 2)})}  # sizes 20, 10, 5


def given(name, pair="alike", **options):
    """A method and a batch whose student taps are leaves, no BatchNorm at its first values."""
    torch.manual_seed(0)
    student, teacher = (Tiny(CLASSES, **values).double() for values in (PAIRS | WIDER)[pair])
    for norm in (*student.norms, *teacher.norms):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)
    entry, labels = get_method(name), torch.arange(B) % CLASSES
    context = Context(student, teacher, SIZE, CLASSES, labels, B, network="cases:Tiny")
    method = entry.build(context, entry.options(**options)).double()
    x = torch.randn(B, 3, SIZE, SIZE, dtype=torch.float64)
    with torch.no_grad():
        ours, theirs = student.taps(x), teacher.taps(x)
    ours = Taps.of([tap.requires_grad_() for tap in ours.tensors()])
    batch = Batch(ours, theirs, labels, torch.arange(B), x)
    return SimpleNamespace(method=method, o=method.options, s=ours, t=theirs, batch=batch, teacher=teacher)


FORMULAS = []


def formula(name, *options, pairs=PAIRS, stage=None, **how):
    """Decorator: the losses of a method, in the order of their names, for these options and pairs; `stage`: in it."""

    def add(losses):
        for values, pair in itertools.product(options or ({},), pairs):
            case = f"{name} {stage or ''} {pair} {values}"
            FORMULAS.append(pytest.param(name, values, pair, stage, losses, how, id=case))
        return losses

    return add


def levels(ours, theirs):
    """Pairs of maps from the deepest up, each pair at the smaller size."""
    for k in range(1, 1 + min(len(ours), len(theirs))):
        size = min(ours[-k].shape[-1], theirs[-k].shape[-1])
        yield pool(ours[-k], size), pool(theirs[-k], size)


# --- logits and pooled vectors ---------------------------------------------------------------------------


@formula("kd", {"temperature": 3.0})
def kd(g):
    return [kl(g.s.logits, g.t.logits, 3.0)]


@formula("logits", pairs=["odd"])
@formula("logits", {"on": "pooled"}, pairs=["alike"])
def logits(g):
    return [((getattr(g.s, g.o.on) - getattr(g.t, g.o.on)) ** 2).mean()]


@formula("dkd", {}, {"terms": "non_target"}, pairs=["odd"])
def dkd(g):
    target = others = 0.0
    for s, t, label in zip(g.s.logits, g.t.logits, g.batch.labels.tolist(), strict=True):
        p, q = softmax(s / 4), softmax(t / 4)
        a, b = p[label], q[label]
        target = target + b * (b / a).log() + (1 - b) * ((1 - b) / (1 - a)).log()
        for c in set(range(CLASSES)) - {label}:
            others = others + q[c] / (1 - b) * (q[c] / (1 - b) / (p[c] / (1 - a))).log()
    return [16 * total / B for total in (target, others)][g.o.terms == "non_target" :]


@formula("kdrefine", pairs=["odd"])
@formula("kdrefine", LAYER_NORM, LAYER_NORM | {"multiplier": 2.0}, pairs=["odd"])
def kdrefine(g):
    unbiased, rows = g.o.statistics == "unbiased", []
    multiplier = g.o.multiplier or (2 if unbiased else 4)
    for taps in (g.s, g.t):
        z = taps.logits - taps.logits.mean(1, keepdim=True)
        squares = (z**2).sum(1, keepdim=True)
        scale = (squares / (CLASSES - 1)).sqrt() + 1e-7 if unbiased else (squares / CLASSES + 1e-7).sqrt()
        rows.append(multiplier * z / scale)
    torch.testing.assert_close(g.method.classified(g.s), rows[0])  # what cross-entropy sees
    return [kl(*rows, 4.0)]


@formula("rkd", {}, {"on": "logits"}, pairs=["odd"])
def rkd(g):
    def relations(x):
        def distance(i, j):
            return (x[i] - x[j]).norm() if i != j else 0.0 * x[i].sum()

        apart = [[distance(i, j) for j in range(B)] for i in range(B)]
        mean = sum(sum(row) for row in apart) / (B * (B - 1))
        cosines = [
            (x[j] - x[i]) @ (x[k] - x[i]) / (apart[i][j] * apart[i][k]) if i not in (j, k) else 0.0 * mean
            for i in range(B) for j in range(B) for k in range(B)
        ]  # fmt: skip
        return torch.stack([d / mean for row in apart for d in row]), torch.stack(cosines)

    def smooth_l1(a, b):
        return torch.where((a - b).abs() < 1, (a - b) ** 2 / 2, (a - b).abs() - 0.5).mean()

    pairs = zip(relations(getattr(g.s, g.o.on)), relations(getattr(g.t, g.o.on)), strict=True)
    return [smooth_l1(*pair) for pair in pairs]


@formula("pkt", pairs=["odd"])
def pkt(g):
    def rows(x):
        norm = [row.norm() + 1e-7 for row in x]
        cosines = [[(x[i] @ x[j] / (norm[i] * norm[j]) + 1) / 2 for j in range(B)] for i in range(B)]
        return torch.stack([c / sum(row) for row in cosines for c in row])

    s, t = rows(g.s.pooled), rows(g.t.pooled)
    return [(t * ((t + 1e-7) / (s + 1e-7)).log()).mean()]


@formula("sp", pairs=["odd"])
def sp(g):
    def rows(maps):
        products = [torch.stack([(a * b).sum() for b in maps]) for a in maps]
        return torch.stack([row / row.norm() for row in products])

    return [((rows(g.s.stages[-1]) - rows(g.t.stages[-1])) ** 2).sum() / B**2]


@formula("cc", {"dim": 5}, pairs=["odd"])
def cc(g):
    ours, theirs = (
        torch.stack([layer.weight @ row + layer.bias for row in taps.pooled])
        for layer, taps in ((g.method.student, g.s), (g.method.teacher, g.t))
    )
    delta = (ours - theirs).abs()
    return [sum(delta[i] @ delta[i + 1] for i in range(B - 1)) / (B - 1)]


@formula("srrl", pairs=["odd"])
def srrl(g):
    linear, norm, _ = g.method.projection
    projected = batch_norm(norm, g.s.pooled @ linear.weight.T).clamp_min(0)
    seen = projected @ g.teacher.fc.weight.T + g.teacher.fc.bias
    return [((projected - g.t.pooled) ** 2).mean(), ((seen - g.t.logits) ** 2).mean()]


# --- maps ------------------------------------------------------------------------------------------------


@formula("fitnet", {}, {"hint_layer": 0}, pairs=["alike", "odd"])
def fitnet(g):
    ours, theirs = ([taps.stem, *taps.stages][g.o.hint_layer] for taps in (g.s, g.t))
    conv, norm, _ = g.method.regressor
    (pair,) = levels([batch_norm(norm, conv(ours)).clamp_min(0)], [theirs])
    return [((pair[0] - pair[1]) ** 2).mean()]


@formula("at", {}, {"p": 1}, {"p": 3})
def at(g):
    def attention(x):
        rows = (x.abs() ** g.o.p).mean(1).flatten(1)
        return torch.stack([row / row.norm() for row in rows])

    return [sum(((attention(s) - attention(t)) ** 2).mean() for s, t in levels(g.s.stages, g.t.stages))]


@formula("vid")
def vid(g):
    total = 0.0
    for level, (s, t) in zip(reversed(g.method.levels), levels(g.s.stages, g.t.stages), strict=True):
        first, _, second, _, third = level.mean
        mean = conv1x1(third, conv1x1(second, conv1x1(first, s).clamp_min(0)).clamp_min(0))
        variance = ((1 + level.rho.exp()).log() + 1e-5)[:, None, None]
        total = total + 0.5 * ((mean - t) ** 2 / variance + variance.log()).mean()
    return [total]


@formula("nst")
def nst(g):
    def kernel(a, b):
        return torch.stack([((torch.stack(b) @ x) ** 2).mean() for x in a]).mean()

    total = 0.0
    for s, t in levels(g.s.stages, g.t.stages):
        for x, y in zip(s.flatten(2), t.flatten(2), strict=True):
            x, y = ([row / row.norm() if row.norm() > 0 else 0 * row for row in maps] for maps in (x, y))
            total = total + (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)) / B
    return [total]


@formula("kdsvd", {}, {"k": 2}, pairs=["alike", "sizes"], rtol=1e-6)
@formula("kdsvd", {"vectors": "columns"}, {"vectors": "columns", "k": 2}, pairs=WIDER, rtol=1e-6)
def kdsvd(g):
    total, k = 0.0, g.o.k

    def matrix(x):
        return x.flatten(1).T if g.o.vectors == "channels" else x.flatten(0, 1)

    for n in range(B):
        before = None
        for student, teacher in zip(g.s.stages, g.t.stages, strict=True):
            _, weights, theirs = torch.linalg.svd(matrix(teacher[n]), full_matrices=False)
            _, _, ours = torch.linalg.svd(matrix(student[n]), full_matrices=False)
            weights, level = weights[:k] / weights[:k].norm(), []
            for i in range(k):
                t = theirs[i] if theirs[i].sum() >= 0 else -theirs[i]
                s = max(ours[: k + 3], key=lambda v, t=t: (v @ t).abs())
                level.append((s * (s @ t).sign() * weights[i], t * weights[i]))
            for (s0, t0), (s1, t1) in zip(before or level[:0], level if before else [], strict=True):
                for p in range(len(s0)):
                    rbf = [torch.exp(-((a[p] - b) ** 2) / 8) for a, b in ((s0, s1), (t0, t1))]
                    total = total + ((rbf[0] - rbf[1]) ** 2).sum()
            before = level
    return [total / B]


def margin_by_integration(mean, std):
    """Mean below 0 of a Gaussian."""
    x = torch.linspace(min(mean - 12 * std, -1e-9), 0, 20_001, dtype=torch.float64)
    density = torch.exp(-(((x - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))
    mass = torch.trapezoid(density, x)
    return float(torch.trapezoid(x * density, x) / mass) if mass > 0.001 else -3 * std


@formula("ofd", rtol=1e-4)
def ofd(g):
    total, mapped = 0.0, []
    for (conv, norm), x in zip(reversed(g.method.connectors), reversed(g.s.stages_pre), strict=True):
        mapped.insert(0, batch_norm(norm, conv1x1(conv, x)))
    for k, (s, t) in enumerate(levels(mapped, g.t.stages_pre)):
        norm = g.teacher.norms[-1 - k]
        for c, (m, std) in enumerate(zip(norm.bias.tolist(), norm.weight.tolist(), strict=True)):
            target = t[:, c].clamp_min(margin_by_integration(m, std))
            counts = ~((s[:, c] <= target) & (target <= 0))
            total = total + ((s[:, c] - target) ** 2)[counts].sum() / B / 2**k
    return [total]


@formula("semckd", {}, {"soft": 0.25}, pairs=["sizes", "odd"])
def semckd(g):
    def unit(similarities, x):
        first, _, second = similarities.layers
        rows = []
        for a in x:
            hidden = (first.weight @ torch.stack([(a * b).sum() for b in x]) + first.bias).clamp_min(0)
            e = second.weight @ hidden + second.bias
            rows.append(e / e.norm())
        return rows

    def projected(parts, x):
        conv1, norm1, _, conv2, norm2, _, conv3 = parts
        x = batch_norm(norm1, conv1x1(conv1, x)).clamp_min(0)
        return conv1x1(conv3, batch_norm(norm2, F.conv2d(x, conv2.weight, padding=1)).clamp_min(0))

    queries = [unit(module, x) for module, x in zip(g.method.queries, g.s.stages, strict=True)]
    keys = [unit(module, x) for module, x in zip(g.method.keys, g.t.stages, strict=True)]
    total = 0.0
    for i, x in enumerate(g.s.stages):
        pairs = [next(levels([x], [y])) for y in g.t.stages]
        errors = [projected(p, s) - t for p, (s, t) in zip(g.method.projectors[i], pairs, strict=True)]
        for b in range(B):
            shares = softmax(torch.stack([queries[i][b] @ key[b] for key in keys]) / g.o.soft)
            total = total + sum(a * (e[b] ** 2).mean() for a, e in zip(shares, errors, strict=True))
    return [total / (B * len(g.s.stages))]


@formula("reviewkd", {"connector": "none", "loss": "l2"}, pairs=["alike"])
@formula("reviewkd", {"connector": "none", "loss": "l2", "teacher_tap": "post"}, pairs=["alike"])
def reviewkd(g):
    """Without connectors it is about which maps are compared."""
    theirs = g.t.stages_pre if g.o.teacher_tap == "pre" else g.t.stages
    pairs = zip([*g.s.stages, g.s.pooled], [*theirs, g.t.pooled], strict=True)
    return [sum(((s - t) ** 2).mean() for s, t in pairs)]


# --- stages before the main training ---------------------------------------------------------------------


@formula("ab", {}, {"margin": 0.5}, stage="ab")
@formula("ab", {"keep": True}, pairs=["odd"])
def ab(g):
    total, connectors = 0.0, g.method.connectors
    mapped = [c(x) for c, x in zip(connectors, g.s.stages_pre[-len(connectors) :], strict=True)]
    for k, (s, t) in enumerate(levels(mapped, g.t.stages_pre)):
        wrong = torch.where(t > 0, (s - g.o.margin) * (s <= g.o.margin), (s + g.o.margin) * (s > -g.o.margin))
        total = total + (wrong**2).sum() / B * 3 / 1000 * 2.0**-k
    return [total]


@formula("ft", stage="ft_paraphraser", pairs=["alike"])
def paraphraser(g):
    x = target = g.t.stages[-1]
    for layer in (*g.method.paraphraser.encoder, *g.method.paraphraser.decoder):
        x = torch.where(x > 0, x, 0.1 * x) if isinstance(layer, nn.LeakyReLU) else layer(x)
    return [((x - target) ** 2).mean()]


@formula("ft")
def ft(g):
    """The paraphraser, which has learned, gets no gradient."""
    with torch.no_grad():
        theirs = g.method.paraphraser.encoder(g.t.stages[-1])
    ((s, t),) = levels([g.method.translator(g.s.stages[-1])], [theirs])
    assert s.shape[1] == t.shape[1] == 16
    s, t = ((x**2).mean(1).flatten(1) for x in (s, t))
    return [(s / s.norm(dim=1, keepdim=True) - t / t.norm(dim=1, keepdim=True)).abs().mean()]


@formula("fsp", stage="fsp", pairs=["alike", "sizes"])
@formula("fsp", {"schedule": "single_stage"}, pairs=["sizes"])
def fsp(g):
    def matrix(lower, upper):
        ((lower, upper),) = levels([lower], [upper])
        return torch.einsum("bihw,bjhw->bij", lower, upper) / lower.shape[-1] ** 2

    ours, theirs = ([taps.stem, *taps.stages] for taps in (g.s, g.t))
    total = sum(((matrix(*ours[k : k + 2]) - matrix(*theirs[k : k + 2])) ** 2).mean() for k in range(3))
    return [total / 9 if g.o.schedule == "single_stage" else total]


def losses_of(g, stage=None):
    return g.method.stage_losses(stage, g.batch) if stage else g.method.losses(g.batch)


@pytest.mark.parametrize(("name", "options", "pair", "stage", "losses", "how"), FORMULAS)
def test_losses_and_gradients_are_those_of_the_formula(name, options, pair, stage, losses, how):
    """Gradients by every tap of the student, the classifier's too, and by all that the method trains."""
    g, rtol = given(name, pair, **options), how.get("rtol", 1e-9)
    trained = [p for p in g.method.parameters() if p.requires_grad]
    for parameter in trained:  # none is neutral
        nn.init.normal_(parameter, 0.1, 0.3)
    found, wanted = [*losses_of(g, stage).values()], losses(g)
    assert all(loss.shape == () and loss > 1e-9 for loss in found)
    torch.testing.assert_close(found, wanted, rtol=rtol, atol=0)
    leaves = [*g.s.tensors(), *trained]
    ours, theirs = (
        torch.autograd.grad(sum(x), leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
        for x in (found, wanted)
    )
    torch.testing.assert_close(ours, theirs, rtol=100 * rtol, atol=rtol)


def changed(taps, change):
    return Taps.of([change(tap.detach()).requires_grad_(tap.requires_grad) for tap in taps.tensors()])


EXTREMES = {
    "one image": lambda tap: tap[:1],
    "two images": lambda tap: tap[:2],
    "identical images": lambda tap: tap[:1].expand_as(tap).clone(),
    "constant": lambda tap: torch.full_like(tap, 0.5),
    "zero": torch.zeros_like,
    "saturated": lambda tap: 1e3 * tap.sign() if tap.ndim == 2 else tap,
    "half precision": lambda tap: (30 * tap).half(),  # products of whole maps exceed its range
}


@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("name", [name for name in method_names() if name != "modreduce"])
def test_no_batch_makes_losses_or_gradients_infinite(name, extreme):
    """Scalars in fp32 or better, whatever the taps are in."""
    if extreme == "one image" and name in ("srrl", "reviewkd"):
        pytest.skip("BatchNorm of vectors needs two")
    g, half = given(name), extreme == "half precision"
    g.method = g.method.float() if half else g.method
    student, teacher = (changed(taps, EXTREMES[extreme]) for taps in (g.s, g.t))
    n = len(student.logits)
    g.batch = replace(g.batch, student=student, teacher=teacher)
    g.batch = replace(g.batch, labels=g.batch.labels[:n], indices=g.batch.indices[:n])
    stages = (None, *(stage.name for stage in g.o.stages()))
    with torch.autocast("cpu", torch.float16, enabled=half):
        found = [loss for stage in stages for loss in losses_of(g, stage).values()]
    felt = [loss for loss in found if loss.requires_grad]  # others rest
    assert all(loss.shape == () and loss.isfinite() for loss in found)
    assert all(loss.dtype.itemsize >= 4 for loss in felt)
    assert name != "semckd" or bool(felt) == (n == B), "its layers fit one size"
    if felt:
        sum(felt).backward()
    leaves = (*student.tensors(), *g.method.parameters())
    assert all(x.grad is None or x.grad.isfinite().all() for x in leaves)


@pytest.mark.parametrize("name", ["cc", "srrl"])
def test_pooled_vectors_meet_in_full_precision(name):
    """To the bit as without autocast."""
    g = given(name)
    g.method = g.method.float()
    student, teacher = (changed(taps, lambda tap: tap.bfloat16()) for taps in (g.s, g.t))
    g.batch = replace(g.batch, student=student, teacher=teacher)
    found = []
    for low in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            found.append(losses_of(g, None))
    assert found[0] == found[1]


# --- parts whose formula is not the method's -------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "target", "kernel", "output"),
    [(16, 8, 3, 8), (8, 16, 4, 16), (8, 8, 1, 8), (8, 6, 3, 6), (8, 32, 3, 8), (8, 12, 3, 8)],
)
def test_regressor_rules(size, target, kernel, output):
    net = regressor((2, size, size), (5, target, target))
    assert net[0].kernel_size == (kernel, kernel) and net[0].bias is not None
    assert net(torch.zeros(2, 2, size, size)).shape == (2, 5, output, output)
    assert len(regressor((2, size, size), (5, target, target), relu=False)) == len(net) - 1 == 2


def spectrum(values, channels, positions, dtype=torch.float64):
    """(1, channels, positions, 1) of these singular values."""
    torch.manual_seed(0)
    squares = (torch.randn(n, n).double() for n in (channels, positions))
    left, right = (torch.linalg.qr(square)[0][:, : len(values)] for square in squares)
    x = (left * torch.tensor(values, dtype=torch.float64) @ right.T)[None, :, :, None]
    return x.to(dtype).requires_grad_()


@pytest.mark.parametrize(("channels", "positions"), [(5, 9), (9, 5), (6, 6)])
def test_leading_vectors_and_their_gradient_are_those_of_a_decomposition(channels, positions):
    x = spectrum([4.0, 2.5, 1.5, 0.5, 0.1], channels, positions)
    direction = torch.randn(channels, 4, dtype=torch.float64)

    def gradient(vectors):  # of a function that does not change with their signs
        return torch.autograd.grad(((vectors * direction).sum(0) ** 3).abs().sum(), x)[0]

    vectors, values = leading_vectors(x, 4)
    exact, singular, _ = torch.linalg.svd(x[0, :, :, 0], full_matrices=False)
    torch.testing.assert_close(values[0], singular[:4].detach())
    same = (vectors[0].T @ exact[:, :4]).abs()
    torch.testing.assert_close(same, torch.eye(4, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(gradient(vectors[0]), gradient(exact[:, :4]), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("values", [[2.0, 2.0, 1.0, 1.0], [3.0, 1.0], [3.0, 1.0, 1e-9], []])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_equal_and_vanishing_singular_values_are_finite(values, dtype):
    x = spectrum(values, 6, 9, dtype)
    vectors, found = leading_vectors(x, 4)
    torch.testing.assert_close(found[0].sum(), torch.tensor(sum(values), dtype=dtype), rtol=1e-4, atol=1e-4)
    rank = sum(v > 0.1 for v in values)
    expected = torch.diag(torch.tensor([1.0] * rank + [0.0] * (4 - rank), dtype=dtype))
    torch.testing.assert_close(vectors[0].T @ vectors[0], expected, rtol=0, atol=1e-3)
    (vectors * torch.randn_like(vectors)).sum().backward()
    assert x.grad.isfinite().all()


def test_ofd_margins():
    norm = nn.BatchNorm2d(6).double()
    norm.weight.data = torch.tensor([1.0, -0.7, 2.0, 0.5, 0.0, 0.0], dtype=torch.float64)
    norm.bias.data = torch.tensor([0.0, 0.4, -1.0, 3.0, -0.2, 0.3], dtype=torch.float64)
    given, found = zip(norm.bias.tolist()[:4], norm.weight.tolist()[:4], strict=True), margins(norm).tolist()
    assert found[:4] == pytest.approx([margin_by_integration(m, abs(s)) for m, s in given], rel=1e-5)
    assert found[3] == -1.5  # three standard deviations, since less than one value in a thousand is negative
    assert found[4:] == pytest.approx([-0.2, 0.0], abs=1e-9)  # constant channels: their negative part


def test_vid_begins_with_the_variance_asked_for():
    for variance in (5.0, 0.25):
        context = Context(Tiny(CLASSES), Tiny(CLASSES), SIZE)
        entry = get_method("vid")
        rho = entry.build(context, entry.options(init_variance=variance)).levels[0].rho
        torch.testing.assert_close((1 + rho.exp()).log() + 1e-5, torch.full_like(rho, variance))


@pytest.mark.parametrize("name", ["resnet8", "resnet50", "wrn_16_2", "vgg8"])
def test_final_norms_act_on_the_maps_before_relu(name):
    """A higher bias lifts the map before ReLU by as much everywhere, and leaves the stages above it alone."""
    network, x = models.build(name).double().eval(), torch.randn(1, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        before = network.taps(x).stages_pre
        for i, norm in enumerate(final_norms(network)):
            norm.bias += 1
            after = network.taps(x).stages_pre
            norm.bias -= 1
            torch.testing.assert_close(after[i], before[i] + 1)
            assert all(torch.equal(*pair) for pair in zip(after[:i], before[:i], strict=True))
        assert i == len(before) - 1


@pytest.mark.parametrize("name", ["wrn_16_1", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2"])
def test_srrl_finds_the_classifier(name):
    """The layer found gives the teacher's logits from its pooled vector; it is a copy, frozen and saved."""
    teacher, entry = models.build(name).double().eval(), get_method("srrl")
    head = entry.build(Context(Tiny(100), teacher), entry.options()).head
    with torch.no_grad():
        taps = teacher.taps(torch.randn(2, 3, 32, 32, dtype=torch.float64))
        torch.testing.assert_close(head(taps.pooled), taps.logits, rtol=1e-12, atol=1e-12)
    assert not any(p.requires_grad for p in head.parameters())
    assert all(p.requires_grad for p in teacher.parameters()) and set(head.state_dict()) == {"weight", "bias"}
