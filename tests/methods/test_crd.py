"""CRD against loops over images and negatives; what its negatives and positives are drawn like."""

import itertools
import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rkd import models
from rkd.errors import ConfigError
from rkd.methods import Batch, Context, get_method
from rkd.methods.crd import CRD, PRODUCT_UP_TO, CrdOptions, Memory, similarities
from rkd.methods.negatives import Contrasts
from rkd.models.taps import Taps, TapShapes

T, MOMENTUM = 0.07, 0.5
UNEQUAL = torch.tensor([0, 1, 0, 2, 0, 1, 2, 0, 1, 0, 1, 0])  # classes of 6, 4 and 2 images


def taps(pooled):
    empty = torch.zeros(len(pooled), 0)
    return Taps(empty, (), (), pooled, empty)


def batch(student, teacher, labels, indices):
    return Batch(taps(student), taps(teacher), labels[indices], indices)


def method(labels, count, dim=6, widths=(4, 5), seed=0, **options):
    torch.manual_seed(seed)
    shapes = tuple(TapShapes((1, 1, 1), (), (), width, 10) for width in widths)
    context = SimpleNamespace(shapes=shapes, labels=labels, train_images=len(labels), seed=seed)
    return CRD(context, CrdOptions(feature_dim=dim, negatives=count, **options)).double()


class Loops:
    """The same from the paper's formulas, one number after the other: rows, constants, losses, updates."""

    def __init__(self, crd):
        self.student = [row.clone() for row in crd.student_memory.rows]
        self.teacher = [row.clone() for row in crd.teacher_memory.rows]
        self.z = {}

    @staticmethod
    def embed(layer, x):
        out = []
        for b in range(len(x)):
            e = layer.weight @ x[b] + layer.bias
            out.append(e / sum(v * v for v in e).sqrt())
        return out

    def side(self, name, memory, embedding, positives, negatives):
        images, count = len(memory), len(negatives[0])
        scores = [
            [torch.exp(memory[i] @ e / T) for i in [positives[b], *negatives[b]]]
            for b, e in enumerate(embedding)
        ]
        if name not in self.z:
            every = [s.item() for row in scores for s in row]
            self.z[name] = sum(every) / len(every) * images
        share, total = count / images, 0.0
        for row in scores:
            positive, *others = [s / self.z[name] for s in row]
            total = total + torch.log(positive / (positive + share + 1e-7))
            for p in others:
                total = total + torch.log(share / (p + share + 1e-7))
        return -total / len(scores)

    def step(self, crd, student, teacher, indices, positives, negatives):
        s, t = self.embed(crd.student, student), self.embed(crd.teacher, teacher)
        loss = self.side("student", self.teacher, s, positives, negatives)
        loss = loss + self.side("teacher", self.student, t, positives, negatives)
        for memory, embedding in ((self.student, s), (self.teacher, t)):
            for i, e in zip(indices, embedding, strict=True):
                row = MOMENTUM * memory[i] + (1 - MOMENTUM) * e.detach()
                memory[i] = row / row.norm()
        return loss


@pytest.mark.parametrize(
    ("images", "count", "positive"),
    [(12, 3, "exact"), (12, 3, "relax"), (12, 9, "exact"), (200, 3, "relax")],
    ids=["exact", "relax", "more than there are", "few of many"],
)
def test_losses_gradients_memories_and_constants_are_those_of_loops(images, count, positive):
    labels = UNEQUAL if images == 12 else torch.arange(images) % 3
    crd = method(labels, count, positive=positive)
    loops = Loops(crd)
    optimiser = torch.optim.SGD(crd.parameters(), 0.1)
    generator = torch.Generator().manual_seed(1)
    for epoch in range(2):
        crd.begin_epoch(epoch)
        for step in range(2):
            indices = torch.randperm(images, generator=generator)[: 4 - step]
            student, teacher = (
                torch.randn(len(indices), n, dtype=torch.float64, generator=generator) for n in (4, 5)
            )
            student.requires_grad_()
            wanted = crd.contrasts(indices).tolist()
            positives, negatives = [row[0] for row in wanted], [row[1:] for row in wanted]
            loss = crd.losses(batch(student, teacher, labels, indices))["crd"]
            wanted = loops.step(crd, student, teacher, indices.tolist(), positives, negatives)
            torch.testing.assert_close(loss, wanted, rtol=1e-11, atol=0)
            inputs = [student, *crd.parameters()]
            ours = torch.autograd.grad(loss, inputs, retain_graph=True)
            theirs = torch.autograd.grad(wanted, inputs)
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
            loss.backward()
            optimiser.step()
            before = crd.student_memory.rows.clone()
            crd.after_step()
            assert not torch.equal(before, crd.student_memory.rows)
            torch.testing.assert_close(crd.student_memory.rows, torch.stack(loops.student))
            torch.testing.assert_close(crd.teacher_memory.rows, torch.stack(loops.teacher))
            # The student is compared with the teacher's memory, whose constant is thus that of its loss.
            assert float(crd.teacher_memory.z) == pytest.approx(loops.z["student"], rel=1e-12)
            assert float(crd.student_memory.z) == pytest.approx(loops.z["teacher"], rel=1e-12)


def test_nothing_changes_before_the_step_has_ended():
    crd = method(UNEQUAL, 3)
    before = {name: value.clone() for name, value in crd.state_dict().items()}
    given = batch(torch.randn(4, 4).double(), torch.randn(4, 5).double(), UNEQUAL, torch.arange(4))
    first, again = crd.losses(given)["crd"], crd.losses(given)["crd"]
    assert torch.equal(first, again)
    assert all(torch.equal(before[name], value) for name, value in crd.state_dict().items())
    crd.after_step()
    changed = {name for name, value in crd.state_dict().items() if not torch.equal(before[name], value)}
    assert changed == {f"{side}_memory.{part}" for side in ("student", "teacher") for part in ("rows", "z")}
    assert crd.losses(given)["crd"] != first
    rows = crd.student_memory.rows
    assert torch.equal(rows[4:], before["student_memory.rows"][4:])


def test_rows_are_drawn_with_expected_length_one():
    torch.manual_seed(0)
    memory = Memory(500, 128)
    assert memory.rows.abs().max() <= 1 / math.sqrt(128 / 3)
    assert memory.rows.square().sum(1).mean() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("images", [20, 5 * PRODUCT_UP_TO + 1])
def test_both_ways_to_compute_similarities_are_one(images):
    torch.manual_seed(0)
    rows, embedding = torch.randn(images, 3).double(), torch.randn(2, 3).double().requires_grad_()
    wanted = torch.randint(images, (2, 5))
    found = similarities(rows, embedding, wanted)
    naive = torch.stack(
        [torch.stack([rows[wanted[b, k]] @ embedding[b] for k in range(5)]) for b in range(2)]
    )
    torch.testing.assert_close(found, naive)
    weights = torch.randn(2, 5).double()
    gradients = [torch.autograd.grad((x * weights).sum(), embedding)[0] for x in (found, naive)]
    torch.testing.assert_close(*gradients)


# --- what is drawn ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 5, 6, 10])
@pytest.mark.parametrize("labels", [UNEQUAL, UNEQUAL * 2 + 1, torch.arange(9) % 3], ids=["", "gaps", "equal"])
def test_negatives_are_of_other_classes_and_different(labels, count):
    contrasts = Contrasts(labels, count, seed=3)
    every = torch.arange(len(labels))
    for epoch in range(4):
        contrasts.draw(epoch)
        negatives = contrasts(every)[:, 1:]
        assert negatives.shape == (len(labels), count) and negatives.dtype == torch.int64
        for i, row in enumerate(negatives.tolist()):
            others = [j for j in range(len(labels)) if labels[j] != labels[i]]
            times = Counter(row)
            assert set(times) <= set(others)
            least, rest = divmod(count, len(others))  # all different, or in turn where there are too few
            assert sorted(times[j] for j in others) == [least] * (len(others) - rest) + [least + 1] * rest


def test_each_set_of_negatives_is_as_frequent_as_any_other():
    contrasts = Contrasts(UNEQUAL, 3, seed=0)
    draws, image = 2000, torch.tensor([2])  # of the class of 6: 20 sets of 3 of the 6 others
    sets = Counter()
    for epoch in range(draws):
        contrasts.draw(epoch)
        sets[tuple(sorted(contrasts(image)[:, 1:][0].tolist()))] += 1
    others = [i for i in range(12) if UNEQUAL[i] != 0]
    wanted = draws / 20
    chi2 = sum((sets[s] - wanted) ** 2 / wanted for s in itertools.combinations(others, 3))
    assert chi2 < 43.8  # 0.999 quantile with 19 degrees of freedom
    assert sum(sets.values()) == draws and len(sets) == 20


def test_positives():
    every = torch.arange(12)
    assert torch.equal(Contrasts(UNEQUAL, 2, seed=0)(every)[:, 0], every)
    contrasts, times, draws = Contrasts(UNEQUAL, 2, seed=0, positive="relax"), Counter(), 1500
    for epoch in range(draws):
        contrasts.draw(epoch)
        positives = contrasts(every)[:, 0]
        assert torch.equal(UNEQUAL[positives], UNEQUAL)
        times[int(positives[2])] += 1
    members = [i for i in range(12) if UNEQUAL[i] == 0]
    chi2 = sum((times[i] - draws / 6) ** 2 / (draws / 6) for i in members)
    assert chi2 < 20.5  # 0.999 quantile with 5 degrees of freedom
    assert set(times) == set(members)


@pytest.mark.parametrize("positive", ["exact", "relax"])
def test_draws_are_a_function_of_seed_and_epoch(positive):
    labels = torch.arange(60) % 4

    def drawn(contrasts, epoch):
        contrasts.draw(epoch)
        return contrasts(torch.arange(60))

    one, other = (Contrasts(labels, 7, seed=0, positive=positive) for _ in range(2))
    first = drawn(one, 3)
    assert not torch.equal(drawn(one, 4), first)
    assert torch.equal(drawn(one, 3), first)
    assert torch.equal(drawn(other, 3), first)
    assert not torch.equal(drawn(Contrasts(labels, 7, seed=1, positive=positive), 3), first)
    assert len(one.starts.unique()) > 40  # images of one class have places of their own


def test_renewed_in_place():
    contrasts = Contrasts(UNEQUAL, 3, seed=0, positive="relax")
    places = [buffer.data_ptr() for buffer in contrasts.buffers()]
    contrasts.draw(1)
    assert places == [buffer.data_ptr() for buffer in contrasts.buffers()]


# --- as a method -----------------------------------------------------------------------------------------


def build(student, teacher, **values):
    options = values.pop("options", CrdOptions(negatives=8))
    given = {"labels": torch.arange(40) % 4, "train_images": 40, **values}
    return get_method("crd").build(Context(models.build(student), models.build(teacher), **given), options)


def test_precisions():
    crd = method(UNEQUAL, 3)
    assert {b.dtype for b in crd.buffers()} == {torch.float64, torch.int32, torch.int64}
    crd = crd.float()
    assert {b.dtype for b in crd.buffers()} == {torch.float32, torch.int32, torch.int64}
    s, t, indices = torch.randn(4, 4).bfloat16(), torch.randn(4, 5).bfloat16(), torch.arange(4)
    wanted = crd.losses(batch(s.float(), t.float(), UNEQUAL, indices))["crd"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = crd.losses(batch(s, t, UNEQUAL, indices))["crd"]
    assert low.dtype == torch.float32 and torch.equal(low, wanted)
    single = crd.double().losses(batch(s.double(), t.double(), UNEQUAL, indices))["crd"]
    assert wanted.item() == pytest.approx(single.item(), rel=1e-5)


def test_what_is_drawn_again_is_not_saved():
    crd = method(UNEQUAL, 3)
    buffers = {name for name, _ in crd.named_buffers()} - set(crd.state_dict())
    assert buffers == {"contrasts.table", "contrasts.starts", "contrasts.mates"}
    assert isinstance(crd.student, nn.Linear)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train_images": 0}, "memory of training images; their number is 0"),
        ({"labels": None}, "classes .labels. are missing"),
        ({"labels": torch.arange(39)}, "39 labels of 40 training images"),
        ({"labels": torch.zeros(40, dtype=torch.int64)}, "at least two classes"),
    ],
)
def test_refused_contexts(values, message):
    with pytest.raises(ConfigError, match=message):
        build("resnet8", "resnet8", **values)
