"""Methods on logits, pooled vectors and relations between images, each against loops written from its formula."""

import math
from dataclasses import replace

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
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(B, 3, 32, 32, dtype=torch.float64, generator=generator)
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
    top = max(z)
    e = [math.exp(v - top) for v in z]
    return [v / sum(e) for v in e]


def naive_kl(student, teacher, t):
    total = 0.0
    for s_row, t_row in zip(student, teacher, strict=True):
        p_s, p_t = softmax([v / t for v in s_row]), softmax([v / t for v in t_row])
        total += sum(b * math.log(b / a) for a, b in zip(p_s, p_t, strict=True))
    return t**2 * total / len(student)


def naive_dkd(student, teacher, labels, t):
    target, others = 0.0, 0.0
    for s_row, t_row, label in zip(student, teacher, labels, strict=True):
        p_s, p_t = softmax([v / t for v in s_row]), softmax([v / t for v in t_row])
        a, b = p_s[label], p_t[label]
        target += b * math.log(b / a) + (1 - b) * math.log((1 - b) / (1 - a))
        for c in range(len(s_row)):
            if c != label:
                q_s, q_t = p_s[c] / (1 - a), p_t[c] / (1 - b)
                others += q_t * math.log(q_t / q_s)
    return t**2 * target / len(labels), t**2 * others / len(labels)


def naive_mse(a, b):
    values = [(u - v) ** 2 for r, q in zip(a, b, strict=True) for u, v in zip(r, q, strict=True)]
    return sum(values) / len(values)


def naive_standardised(logits, statistics, multiplier):
    rows = []
    for row in logits:
        mean = sum(row) / len(row)
        squares = sum((v - mean) ** 2 for v in row)
        if statistics == "unbiased":
            scale = math.sqrt(squares / (len(row) - 1)) + 1e-7
        else:
            scale = math.sqrt(squares / len(row) + 1e-7)
        rows.append([multiplier * (v - mean) / scale for v in row])
    return rows


def smooth_l1(a, b):
    d = abs(a - b)
    return d * d / 2 if d < 1 else d - 0.5


def naive_relations(x):
    """Distances over their mean, and cosine at image i between the directions to j and k."""
    n = len(x)
    distance = [[math.dist(x[i], x[j]) for j in range(n)] for i in range(n)]
    mean = sum(distance[i][j] for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    distances = {(i, j): distance[i][j] / mean for i in range(n) for j in range(n)}
    cosines = {}
    for i in range(n):
        for j in range(n):
            for k in range(n):
                dot = sum((x[j][c] - x[i][c]) * (x[k][c] - x[i][c]) for c in range(len(x[0])))
                degenerate = distance[i][j] == 0 or distance[i][k] == 0
                cosines[i, j, k] = 0.0 if degenerate else dot / (distance[i][j] * distance[i][k])
    return distances, cosines


def naive_rkd(student, teacher):
    means = []
    for ours, theirs in zip(naive_relations(student), naive_relations(teacher), strict=True):
        means.append(sum(smooth_l1(ours[key], theirs[key]) for key in ours) / len(ours))
    return means


def naive_pkt(student, teacher):
    def rows(x):
        norm = [math.sqrt(sum(v * v for v in row)) + 1e-7 for row in x]
        out = []
        for i in range(len(x)):
            row = []
            for j in range(len(x)):
                cosine = sum(a * b for a, b in zip(x[i], x[j], strict=True)) / (norm[i] * norm[j])
                row.append((cosine + 1) / 2)
            out.append([v / sum(row) for v in row])
        return out

    s, t = rows(student), rows(teacher)
    n = len(s)
    terms = [t[i][j] * math.log((t[i][j] + 1e-7) / (s[i][j] + 1e-7)) for i in range(n) for j in range(n)]
    return sum(terms) / n**2


def naive_sp(student, teacher):
    def rows(maps):
        out = []
        for i in range(len(maps)):
            row = [(maps[i] * maps[j]).sum().item() for j in range(len(maps))]
            out.append([v / math.sqrt(sum(u * u for u in row)) for v in row])
        return out

    s, t = rows(student), rows(teacher)
    return sum((s[i][j] - t[i][j]) ** 2 for i in range(len(s)) for j in range(len(s))) / len(s) ** 2


def naive_linear(layer, x):
    weight, bias = layer.weight.tolist(), [0.0] * layer.out_features
    if layer.bias is not None:
        bias = layer.bias.tolist()
    return [
        [b + sum(w * v for w, v in zip(ws, row, strict=True)) for ws, b in zip(weight, bias, strict=True)]
        for row in x
    ]


def naive_cc(method, student, teacher):
    ours, theirs = naive_linear(method.student, student), naive_linear(method.teacher, teacher)
    delta = [[abs(a - b) for a, b in zip(r, q, strict=True)] for r, q in zip(ours, theirs, strict=True)]
    products = [
        sum(a * b for a, b in zip(delta[i], delta[i + 1], strict=True)) for i in range(len(delta) - 1)
    ]
    return sum(products) / len(products)


def naive_srrl(method, student, teacher, teacher_logits):
    linear, norm = method.projection[0], method.projection[1]
    columns = []
    for c, column in enumerate(zip(*naive_linear(linear, student), strict=True)):
        mean = sum(column) / len(column)
        variance = sum((v - mean) ** 2 for v in column) / len(column)
        scale, shift = norm.weight[c].item(), norm.bias[c].item()
        scaled = [scale * (v - mean) / math.sqrt(variance + norm.eps) + shift for v in column]
        columns.append([max(v, 0.0) for v in scaled])
    projected = list(zip(*columns, strict=True))
    return naive_mse(projected, teacher), naive_mse(naive_linear(method.head, projected), teacher_logits)


def expected(name, method, batch):
    s, t = batch.student, batch.teacher
    logits = s.logits.tolist(), t.logits.tolist()
    pooled = s.pooled.tolist(), t.pooled.tolist()
    if name == "dkd":
        return dict(zip(("tckd", "nckd"), naive_dkd(*logits, batch.labels.tolist(), 4), strict=True))
    if name == "rkd":
        return dict(zip(("rkd_distance", "rkd_angle"), naive_rkd(*pooled), strict=True))
    if name == "srrl":
        values = naive_srrl(method, *pooled, logits[1])
        return dict(zip(("srrl_feature", "srrl_logits"), values, strict=True))
    standardised = [naive_standardised(rows, "unbiased", 2) for rows in logits]
    single = {
        "kd": lambda: naive_kl(*logits, 4),
        "logits": lambda: naive_mse(*logits),
        "kdrefine": lambda: naive_kl(*standardised, 4),
        "pkt": lambda: naive_pkt(*pooled),
        "sp": lambda: naive_sp(s.stages[-1], t.stages[-1]),
        "cc": lambda: naive_cc(method, *pooled),
    }
    return {name: single[name]()}


# ---- all nine ----


@pytest.mark.parametrize("name", NAMES)
def test_losses_equal_naive_loops(name, networks, batch):
    method = build(name, networks)
    losses = method.losses(batch)
    wanted = expected(name, method, batch)
    assert losses.keys() == wanted.keys() == method.weights(0).keys()
    for key, loss in losses.items():
        assert loss.dtype == torch.float64 and loss.ndim == 0
        assert loss.item() == pytest.approx(wanted[key], rel=1e-10) and wanted[key] > 1e-9


# resnet8 -> resnet8x4 has pooled vectors of 64 and 256: CC 64x128+128 + 256x128+128, SRRL 64x256 + 2x256.


@pytest.mark.parametrize("name", NAMES)
def test_last_batch_of_one_image(name, networks, batch):
    """Smallest last batch of an epoch. SRRL's BatchNorm needs two, as every student's does at 1x1."""
    n = 2 if name == "srrl" else 1

    def first(t):
        return Taps(
            t.stem[:n],
            tuple(m[:n] for m in t.stages),
            tuple(m[:n] for m in t.stages_pre),
            t.pooled[:n],
            t.logits[:n],
        )

    small = Batch(first(batch.student), first(batch.teacher), batch.labels[:n], batch.indices[:n])
    small, leaves = with_grad(small)
    losses = build(name, networks).losses(small)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(leaf.grad is None or leaf.grad.isfinite().all() for leaf in leaves.values())


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("cc", "srrl")])
def test_equal_vectors_cost_nothing(name, batch):
    """The teacher's own taps as the student's: every loss without trained layers is 0."""
    teacher = models.build("resnet8x4").double()
    same = replace(batch, student=batch.teacher)
    for loss in build(name, (teacher, teacher)).losses(same).values():
        assert loss.item() == pytest.approx(0, abs=1e-12)


# ---- KD and its temperature ----


def test_kl_equals_torch_and_widens():
    generator = torch.Generator().manual_seed(0)
    s, t = (torch.randn(7, 10, generator=generator, dtype=torch.float64) for _ in range(2))
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


# ---- Logits ----


def test_logits_on_pooled_vectors(batch):
    networks = models.build("resnet8"), models.build("resnet14")
    method = build("logits", networks, on="pooled")
    pooled = torch.arange(B * 64, dtype=torch.float64).reshape(B, 64) / 100
    taps = replace(batch.student, pooled=pooled)
    loss = method.losses(replace(batch, teacher=taps))["logits"].item()
    assert loss == pytest.approx(naive_mse(batch.student.pooled.tolist(), pooled.tolist()), rel=1e-12)


def test_logits_refuses_pooled_vectors_of_different_widths(networks):
    with pytest.raises(
        ConfigError, match=r"student's has 64 channels and the teacher's 256; set on='logits'"
    ):
        build("logits", networks, on="pooled")


# ---- DKD ----


def test_dkd_warms_up_from_the_first_epoch(networks):
    method = build("dkd", networks, alpha=2.0, beta=6.0, loss_weight=3.0)
    for epoch, scale in ((0, 1 / 20), (9, 10 / 20), (18, 19 / 20), (19, 1), (200, 1)):
        assert method.weights(epoch) == pytest.approx({"tckd": 6 * scale, "nckd": 18 * scale})
    assert build("dkd", networks, warmup_epochs=0).weights(0) == {"tckd": 1, "nckd": 8}
    assert method.options.in_epochs() == ("warmup_epochs",)


def test_dkd_terms_make_up_kd(networks, batch):
    """KD = TCKD + (1 - p of the teacher's target) NCKD, image by image (Equation 6 of the paper)."""
    method = build("dkd", networks)
    for i in range(B):
        s, t = batch.student.logits[i : i + 1], batch.teacher.logits[i : i + 1]
        one = replace(
            batch,
            student=replace(batch.student, logits=s),
            teacher=replace(batch.teacher, logits=t),
            labels=batch.labels[i : i + 1],
        )
        losses = method.losses(one)
        rest = 1 - F.softmax(t / 4, 1)[0, batch.labels[i]]
        assert kl(s, t, 4.0).item() == pytest.approx(
            (losses["tckd"] + rest * losses["nckd"]).item(), rel=1e-10
        )


def test_dkd_non_target_alone(networks, batch):
    method = build("dkd", networks, terms="non_target", loss_weight=2.0)
    assert method.losses(batch)["nckd"] == build("dkd", networks).losses(batch)["nckd"]
    assert method.losses(batch).keys() == {"nckd"}
    assert method.weights(0) == {"nckd": 0.1} and method.weights(50) == {"nckd": 2.0}
    assert method.options.unread() == {"alpha", "beta"}


# ---- KDrefine ----


@pytest.mark.parametrize(
    ("options", "multiplier"),
    [
        ({}, 2),
        ({"statistics": "layer_norm"}, 4),
        ({"statistics": "unbiased", "multiplier": 4.0}, 4),
        ({"statistics": "layer_norm", "multiplier": 2.0}, 2),
    ],
)
def test_kdrefine_standardises_what_both_losses_see(options, multiplier, networks, batch):
    method = build("kdrefine", networks, temperature=3.0, **options)
    statistics = options.get("statistics", "unbiased")
    s, t = (
        naive_standardised(taps.logits.tolist(), statistics, multiplier)
        for taps in (batch.student, batch.teacher)
    )
    seen = method.classified(batch.student)
    assert torch.allclose(seen, torch.tensor(s, dtype=torch.float64), rtol=1e-10, atol=1e-12)
    assert method.losses(batch)["kdrefine"].item() == pytest.approx(naive_kl(s, t, 3.0), rel=1e-10)
    assert torch.equal(build("kd", networks).classified(batch.student), batch.student.logits)


def test_kdrefine_stands_constant_logits(networks, batch):
    """The two statistics tell equal logits apart only by their epsilon; neither divides 0 by 0."""
    given, leaves = with_grad(batch, logits=torch.full_like(batch.student.logits, 0.5))
    for statistics in ("unbiased", "layer_norm"):
        build("kdrefine", networks, statistics=statistics).losses(given)["kdrefine"].backward()
        assert leaves["logits"].grad.isfinite().all()


# ---- RKD ----


def test_rkd_on_logits(networks, batch):
    losses = build("rkd", networks, on="logits", distance_weight=3.0, angle_weight=7.0)
    wanted = naive_rkd(batch.student.logits.tolist(), batch.teacher.logits.tolist())
    assert [v.item() for v in losses.losses(batch).values()] == pytest.approx(wanted, rel=1e-10)
    assert losses.weights(0) == {"rkd_distance": 3, "rkd_angle": 7}


def test_rkd_stands_identical_images(networks, batch):
    """Two, then all, of the student's vectors are one: values as in the loops, gradients bounded."""
    pooled = batch.student.pooled.clone()
    pooled[1] = pooled[3]
    given, leaves = with_grad(batch, pooled=pooled)
    method = build("rkd", networks)
    losses = method.losses(given)
    wanted = naive_rkd(pooled.tolist(), batch.teacher.pooled.tolist())
    assert [v.item() for v in losses.values()] == pytest.approx(wanted, rel=1e-10)
    sum(losses.values()).backward()
    assert leaves["pooled"].grad.isfinite().all() and leaves["pooled"].grad.abs().max() < 100

    given, leaves = with_grad(batch, pooled=pooled[:1].expand(B, -1))
    sum(method.losses(given).values()).backward()
    assert leaves["pooled"].grad.isfinite().all()


def test_rkd_does_not_mind_shift_and_scale(networks, batch):
    method = build("rkd", networks)
    moved = replace(batch, student=replace(batch.student, pooled=3.0 * batch.student.pooled + 10.0))
    for key, loss in method.losses(moved).items():
        assert loss.item() == pytest.approx(method.losses(batch)[key].item(), rel=1e-9)


@pytest.mark.parametrize("name", ["rkd", "pkt", "cc", "kdrefine"])
def test_gradients_check(name, networks, batch):
    method, tap = build(name, networks), "logits" if name == "kdrefine" else "pooled"

    def loss(tensor):
        taps = replace(batch.student, **{tap: tensor})
        return sum(method.losses(replace(batch, student=taps)).values())

    tensor = getattr(batch.student, tap).clone().requires_grad_(True)
    assert torch.autograd.gradcheck(loss, tensor, fast_mode=True)


# ---- SP ----


def test_sp_compares_maps_of_any_size(networks, batch):
    generator = torch.Generator().manual_seed(3)
    last = torch.randn(B, 7, 4, 4, dtype=torch.float64, generator=generator)
    teacher = replace(batch.teacher, stages=(last,))
    loss = build("sp", networks).losses(replace(batch, teacher=teacher))["sp"].item()
    assert loss == pytest.approx(naive_sp(batch.student.stages[-1], last), rel=1e-10)


# ---- SRRL ----


def test_srrl_head_is_a_frozen_copy(networks):
    teacher = networks[1]
    method = build("srrl", networks)
    assert torch.equal(method.head.weight, teacher.fc.weight) and method.head.weight is not teacher.fc.weight
    assert not any(p.requires_grad for p in method.head.parameters())
    assert all(p.requires_grad for p in teacher.fc.parameters())
    assert {"head.weight", "head.bias"} <= method.state_dict().keys()


@pytest.mark.parametrize(
    "name", ["resnet20", "wrn_16_1", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2"]
)
def test_srrl_finds_the_classifier(name):
    """The layer found gives the teacher's logits from its pooled vector."""
    teacher = models.build(name).double().eval()
    method = build("srrl", (models.build("resnet8"), teacher))
    with torch.no_grad():
        taps = teacher.taps(torch.randn(2, 3, 32, 32, dtype=torch.float64))
        assert torch.allclose(method.head(taps.pooled), taps.logits, rtol=1e-12)


class Headless(nn.Module):
    """A network whose logits come from a convolution, or from two layers of which either could be the classifier."""

    def __init__(self, heads):
        super().__init__()
        self.body = nn.Conv2d(3, 100, 3)
        self.heads = nn.ModuleList(nn.Linear(100, 100) for _ in range(heads))

    def taps(self, x):
        maps = self.body(x)
        pooled = maps.mean((2, 3))
        logits = pooled
        for head in self.heads:
            logits = head(logits)
        return Taps(maps, (maps,), (maps,), pooled, logits)


@pytest.mark.parametrize(("heads", "found"), [(0, "none"), (2, "heads.0 100 -> 100, heads.1 100 -> 100")])
def test_srrl_refuses_a_teacher_without_one_classifier(heads, found):
    with pytest.raises(ConfigError, match=f"exactly one linear layer 100 -> 100.*Headless are: {found}"):
        build("srrl", (models.build("resnet8"), Headless(heads)))


# ---- options ----
