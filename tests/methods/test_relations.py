"""Methods on logits, pooled vectors and relations between images, each against loops written from its formula."""

import math
from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rkd import models
from rkd.errors import ConfigError
from rkd.methods import Batch, Context, get_method
from rkd.methods.numeric import kl, wide
from rkd.models.taps import Taps

NAMES = ("kd", "logits", "dkd", "kdrefine", "rkd", "pkt", "sp", "cc", "srrl")
B = 5


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return models.build("resnet8").double(), models.build("resnet8x4").double().eval()


@pytest.fixture(scope="module")
def batch(networks):
    """Taps of five images, without gradient."""
    student, teacher = networks
    x = torch.randn(B, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = torch.tensor([3, 99, 0, 50, 3])
        return Batch(student.taps(x), teacher.taps(x), labels, torch.arange(B), x)


def build(name, networks, **options):
    entry = get_method(name)
    torch.manual_seed(2)
    return entry.build(Context(*networks), entry.options(**options)).double()


def with_grad(batch, **tensors):
    """The batch with student taps that take gradients: the ones given, else the pooled vector, logits and last map."""
    taps = batch.student
    names = {"pooled": taps.pooled, "logits": taps.logits, "last": taps.stages[-1], **tensors}
    leaves = {name: tensor.clone().requires_grad_(True) for name, tensor in names.items()}
    stages = (*taps.stages[:-1], leaves["last"])
    taps = replace(taps, pooled=leaves["pooled"], logits=leaves["logits"], stages=stages)
    return replace(batch, student=taps), leaves


# ---- the formulas, in loops over images ----


def softmax(z):
    e = (z - z.max()).exp()
    return e / e.sum()


def naive_kl(student, teacher, t):
    total = 0.0
    for s, z in zip(student, teacher, strict=True):
        p, q = softmax(s / t), softmax(z / t)
        total += (q * (q / p).log()).sum()
    return t**2 * total / len(student)


def naive_dkd(student, teacher, labels, t):
    target = others = 0.0
    for s, z, label in zip(student, teacher, labels.tolist(), strict=True):
        p, q = softmax(s / t), softmax(z / t)
        a, b = p[label], q[label]
        target += b * (b / a).log() + (1 - b) * ((1 - b) / (1 - a)).log()
        for c in set(range(len(s))) - {label}:
            others += q[c] / (1 - b) * (q[c] / (1 - b) / (p[c] / (1 - a))).log()
    return t**2 * target / len(labels), t**2 * others / len(labels)


def naive_standardised(logits, statistics, multiplier):
    rows = []
    for row in logits:
        squares = ((row - row.mean()) ** 2).sum()
        if statistics == "unbiased":
            scale = (squares / (len(row) - 1)).sqrt() + 1e-7
        else:
            scale = (squares / len(row) + 1e-7).sqrt()
        rows.append(multiplier * (row - row.mean()) / scale)
    return torch.stack(rows)


def smooth_l1(a, b):
    d = abs(a - b)
    return d * d / 2 if d < 1 else d - 0.5


def naive_relations(x):
    """Distances over their mean, and cosine at image i between the directions to j and k."""
    n = len(x)
    distance = [[math.dist(x[i], x[j]) for j in range(n)] for i in range(n)]
    mean = sum(sum(row) for row in distance) / (n * (n - 1))
    cosines = []
    for i in range(n):
        for j in range(n):
            for k in range(n):
                lengths = distance[i][j] * distance[i][k]
                cosines.append(float((x[j] - x[i]) @ (x[k] - x[i])) / lengths if lengths else 0.0)
    return [d / mean for row in distance for d in row], cosines


def naive_rkd(student, teacher):
    both = zip(naive_relations(student), naive_relations(teacher), strict=True)
    return [sum(map(smooth_l1, ours, theirs)) / len(ours) for ours, theirs in both]


def naive_pkt(student, teacher):
    def rows(x):
        norm = [row.norm() + 1e-7 for row in x]
        every = range(len(x))
        cosines = [[x[i] @ x[j] / (norm[i] * norm[j]) for j in every] for i in every]
        return [[(c + 1) / 2 / sum((d + 1) / 2 for d in row) for c in row] for row in cosines]

    s, t = rows(student), rows(teacher)
    terms = [
        b * ((b + 1e-7) / (a + 1e-7)).log()
        for r, q in zip(s, t, strict=True)
        for a, b in zip(r, q, strict=True)
    ]
    return sum(terms) / len(terms)


def naive_sp(student, teacher):
    def rows(maps):
        products = [torch.stack([(a * b).sum() for b in maps]) for a in maps]
        return torch.stack([row / row.norm() for row in products])

    return ((rows(student) - rows(teacher)) ** 2).sum() / len(student) ** 2


def naive_linear(layer, x):
    rows = torch.stack([torch.stack([weights @ row for weights in layer.weight]) for row in x])
    return rows if layer.bias is None else rows + layer.bias


def naive_cc(method, student, teacher):
    delta = (naive_linear(method.student, student) - naive_linear(method.teacher, teacher)).abs()
    return sum(delta[i] @ delta[i + 1] for i in range(len(delta) - 1)) / (len(delta) - 1)


def naive_srrl(method, student, teacher, teacher_logits):
    linear, norm, _ = method.projection
    columns = []
    for c, column in enumerate(naive_linear(linear, student).T):
        variance = ((column - column.mean()) ** 2).mean()
        scaled = norm.weight[c] * (column - column.mean()) / (variance + norm.eps).sqrt() + norm.bias[c]
        columns.append(scaled.clamp_min(0))
    projected = torch.stack(columns, 1)
    return ((projected - teacher) ** 2).mean(), (
        (naive_linear(method.head, projected) - teacher_logits) ** 2
    ).mean()


def expected(name, method, batch):
    """The losses in the order of their names."""
    s, t = batch.student, batch.teacher
    logits, pooled = (s.logits, t.logits), (s.pooled, t.pooled)
    formulas = {
        "kd": lambda: [naive_kl(*logits, 4)],
        "logits": lambda: [((logits[0] - logits[1]) ** 2).mean()],
        "dkd": lambda: naive_dkd(*logits, batch.labels, 4),
        "kdrefine": lambda: [naive_kl(*(naive_standardised(rows, "unbiased", 2) for rows in logits), 4)],
        "rkd": lambda: naive_rkd(*pooled),
        "pkt": lambda: [naive_pkt(*pooled)],
        "sp": lambda: [naive_sp(s.stages[-1], t.stages[-1])],
        "cc": lambda: [naive_cc(method, *pooled)],
        "srrl": lambda: naive_srrl(method, *pooled, logits[1]),
    }
    return [float(value) for value in formulas[name]()]


def values(losses):
    return [loss.item() for loss in losses.values()]


# ---- all nine ----


@pytest.mark.parametrize("name", NAMES)
def test_losses_equal_naive_loops(name, networks, batch):
    method = build(name, networks)
    losses = method.losses(batch)
    with torch.no_grad():
        wanted = expected(name, method, batch)
    assert losses.keys() == method.weights(0).keys() and min(wanted) > 1e-9
    assert values(losses) == pytest.approx(wanted, rel=1e-10)
    assert all(loss.dtype == torch.float64 and loss.ndim == 0 for loss in losses.values())


@pytest.mark.parametrize("name", NAMES)
def test_last_batch_of_one_image(name, networks, batch):
    """Smallest last batch of an epoch. SRRL's BatchNorm needs two, as every student's does at 1x1."""
    n = 2 if name == "srrl" else 1

    def first(taps):
        given = {f.name: getattr(taps, f.name) for f in fields(taps)}
        return Taps(
            **{k: tuple(m[:n] for m in v) if isinstance(v, tuple) else v[:n] for k, v in given.items()}
        )

    small = Batch(first(batch.student), first(batch.teacher), batch.labels[:n], batch.indices[:n])
    small, leaves = with_grad(small)
    losses = build(name, networks).losses(small)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(leaf.grad is None or leaf.grad.isfinite().all() for leaf in leaves.values())


@pytest.mark.parametrize("name", ["rkd", "pkt", "cc", "kdrefine"])
def test_gradients_check(name, networks, batch):
    method, tap = build(name, networks), "logits" if name == "kdrefine" else "pooled"

    def loss(tensor):
        taps = replace(batch.student, **{tap: tensor})
        return sum(method.losses(replace(batch, student=taps)).values())

    tensor = getattr(batch.student, tap).clone().requires_grad_(True)
    assert torch.autograd.gradcheck(loss, tensor, fast_mode=True)


# ---- on logits ----


def test_kl_equals_torch_and_widens():
    s, t = torch.randn(2, 7, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for temperature in (1.0, 4.0):
        p = F.softmax(t / temperature, 1)
        wanted = F.kl_div(F.log_softmax(s / temperature, 1), p, reduction="sum") * temperature**2 / 7
        assert kl(s, t, temperature).item() == pytest.approx(wanted.item(), rel=1e-12)
    assert kl(s.half(), t.bfloat16(), 4.0).dtype == torch.float32
    dtypes = {torch.float64: torch.float64, torch.float32: torch.float32, torch.float16: torch.float32}
    assert {d: wide(torch.ones(1, dtype=d)).dtype for d in dtypes} == dtypes


def test_logits_that_saturate_stay_finite(networks, batch):
    """Logits thousands apart: a probability of exactly 0 or 1 costs no NaN, in loss or gradient."""
    sharp = F.one_hot(torch.tensor([3, 1, 0, 5, 3]), 100).float() * 4000
    teacher = replace(batch.teacher, logits=sharp)
    given, leaves = with_grad(replace(batch, teacher=teacher), logits=-sharp)
    for name in ("kd", "dkd", "kdrefine"):
        leaves["logits"].grad = None
        losses = build(name, networks).losses(given)
        sum(losses.values()).backward()
        assert all(loss.isfinite() for loss in losses.values()) and leaves["logits"].grad.isfinite().all()


def test_logits_on_pooled_vectors(networks, batch):
    method = build("logits", (models.build("resnet8"), models.build("resnet14")), on="pooled")
    pooled = torch.arange(B * 64, dtype=torch.float64).reshape(B, 64) / 100
    loss = method.losses(replace(batch, teacher=replace(batch.student, pooled=pooled)))["logits"]
    torch.testing.assert_close(loss, ((batch.student.pooled - pooled) ** 2).mean())
    with pytest.raises(
        ConfigError, match=r"student's has 64 channels and the teacher's 256; set on='logits'"
    ):
        build("logits", networks, on="pooled")


def test_dkd_warms_up_from_the_first_epoch(networks):
    method = build("dkd", networks, alpha=2.0, beta=6.0, loss_weight=3.0)
    for epoch, scale in ((0, 1 / 20), (9, 10 / 20), (18, 19 / 20), (19, 1), (200, 1)):
        assert method.weights(epoch) == pytest.approx({"tckd": 6 * scale, "nckd": 18 * scale})
    assert build("dkd", networks, warmup_epochs=0).weights(0) == {"tckd": 1, "nckd": 8}
    assert method.options.in_epochs() == ("warmup_epochs",)


def test_dkd_non_target_alone(networks, batch):
    method = build("dkd", networks, terms="non_target", loss_weight=2.0)
    assert method.losses(batch) == {"nckd": build("dkd", networks).losses(batch)["nckd"]}
    assert method.weights(0) == {"nckd": 0.1} and method.weights(50) == {"nckd": 2.0}
    assert method.options.unread() == {"alpha", "beta"}


@pytest.mark.parametrize(
    ("options", "multiplier"),
    [
        ({"statistics": "layer_norm"}, 4),
        ({"multiplier": 4.0}, 4),
        ({"statistics": "layer_norm", "multiplier": 2.0}, 2),
    ],
)
def test_kdrefine_standardises_what_both_losses_see(options, multiplier, networks, batch):
    method = build("kdrefine", networks, temperature=3.0, **options)
    statistics = options.get("statistics", "unbiased")
    s, t = (
        naive_standardised(taps.logits, statistics, multiplier) for taps in (batch.student, batch.teacher)
    )
    torch.testing.assert_close(method.classified(batch.student), s, rtol=1e-10, atol=1e-12)
    assert values(method.losses(batch)) == pytest.approx([naive_kl(s, t, 3.0).item()], rel=1e-10)
    assert torch.equal(build("kd", networks).classified(batch.student), batch.student.logits)


def test_kdrefine_stands_constant_logits(networks, batch):
    """The two statistics tell equal logits apart only by their epsilon; neither divides 0 by 0."""
    given, leaves = with_grad(batch, logits=torch.full_like(batch.student.logits, 0.5))
    for statistics in ("unbiased", "layer_norm"):
        build("kdrefine", networks, statistics=statistics).losses(given)["kdrefine"].backward()
        assert leaves["logits"].grad.isfinite().all()


# ---- on relations ----


def test_rkd_on_logits(networks, batch):
    method = build("rkd", networks, on="logits", distance_weight=3.0, angle_weight=7.0)
    wanted = naive_rkd(batch.student.logits, batch.teacher.logits)
    assert values(method.losses(batch)) == pytest.approx(wanted, rel=1e-10)
    assert method.weights(0) == {"rkd_distance": 3, "rkd_angle": 7}


def test_rkd_stands_identical_images(networks, batch):
    """Two, then all, of the student's vectors are one: values as in the loops, gradients bounded."""
    pooled = batch.student.pooled.clone()
    pooled[1] = pooled[3]
    given, leaves = with_grad(batch, pooled=pooled)
    method = build("rkd", networks)
    losses = method.losses(given)
    assert values(losses) == pytest.approx(naive_rkd(pooled, batch.teacher.pooled), rel=1e-10)
    sum(losses.values()).backward()
    assert leaves["pooled"].grad.isfinite().all() and leaves["pooled"].grad.abs().max() < 100

    given, leaves = with_grad(batch, pooled=pooled[:1].expand(B, -1))
    sum(method.losses(given).values()).backward()
    assert leaves["pooled"].grad.isfinite().all()


def test_sp_compares_maps_of_any_size(networks, batch):
    last = torch.randn(B, 7, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    loss = build("sp", networks).losses(replace(batch, teacher=replace(batch.teacher, stages=(last,))))["sp"]
    torch.testing.assert_close(loss, naive_sp(batch.student.stages[-1], last))


# ---- SRRL's copy of the classifier ----


@pytest.mark.parametrize(
    "name", ["resnet20", "wrn_16_1", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2"]
)
def test_srrl_finds_the_classifier(name):
    """The layer found gives the teacher's logits from its pooled vector; it is a copy, frozen and saved."""
    teacher = models.build(name).double().eval()
    method = build("srrl", (models.build("resnet8"), teacher))
    with torch.no_grad():
        taps = teacher.taps(torch.randn(2, 3, 32, 32, dtype=torch.float64))
        torch.testing.assert_close(method.head(taps.pooled), taps.logits, rtol=1e-12, atol=1e-12)
    assert not any(p.requires_grad for p in method.head.parameters())
    assert all(p.requires_grad for p in teacher.parameters())
    assert {"head.weight", "head.bias"} <= method.state_dict().keys()


class Headless(nn.Module):
    """A network whose logits come from a convolution, or from two layers of which either could be the classifier."""

    def __init__(self, heads):
        super().__init__()
        self.body = nn.Conv2d(3, 100, 3)
        self.heads = nn.Sequential(*(nn.Linear(100, 100) for _ in range(heads)))

    def taps(self, x):
        maps = self.body(x)
        pooled = maps.mean((2, 3))
        return Taps(maps, (maps,), (maps,), pooled, self.heads(pooled))


@pytest.mark.parametrize(("heads", "found"), [(0, "none"), (2, "heads.0 100 -> 100, heads.1 100 -> 100")])
def test_srrl_refuses_a_teacher_without_one_classifier(heads, found):
    with pytest.raises(ConfigError, match=f"exactly one linear layer 100 -> 100.*Headless are: {found}"):
        build("srrl", (models.build("resnet8"), Headless(heads)))
