"""CRD against loops over images and negatives; what its negatives and positives are drawn like."""

import itertools
import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from rkd.methods import Batch
from rkd.methods.crd import CRD, PRODUCT_UP_TO, Contrasts, CrdOptions, Memory
from rkd.models.taps import Taps, TapShapes

T, MOMENTUM = 0.07, 0.5
UNEQUAL = torch.tensor([0, 1, 0, 2, 0, 1, 2, 0, 1, 0, 1, 0])  # classes of 6, 4 and 2 images


def taps(pooled):
    empty = torch.zeros(len(pooled), 0)
    return Taps(empty, (), (), pooled, empty)


def batch(student, teacher, labels, indices):
    return Batch(taps(student), taps(teacher), labels[indices], indices)


def method(labels, count, **options):
    torch.manual_seed(0)
    shapes = tuple(TapShapes((1, 1, 1), (), (), width, 10) for width in (4, 5))
    context = SimpleNamespace(shapes=shapes, labels=labels, train_images=len(labels), seed=0)
    return CRD(context, CrdOptions(feature_dim=6, negatives=count, **options)).double()


class Loops:
    """The same from the paper's formulas, one number after the other: rows, constants, losses, updates."""

    def __init__(self, crd):
        self.student = [row.clone() for row in crd.student_memory.rows]
        self.teacher = [row.clone() for row in crd.teacher_memory.rows]
        self.z = {}

    @staticmethod
    def embed(layer, x):
        embedded = [layer.weight @ row + layer.bias for row in x]
        return [e / sum(v * v for v in e).sqrt() for e in embedded]

    def side(self, name, memory, embedding, wanted):
        scores = [
            [torch.exp(memory[i] @ e / T) for i in images]
            for images, e in zip(wanted, embedding, strict=True)
        ]
        if name not in self.z:
            every = [s.item() for row in scores for s in row]
            self.z[name] = sum(every) / len(every) * len(memory)
        share, total = (len(wanted[0]) - 1) / len(memory), 0.0
        for row in scores:
            positive, *others = [s / self.z[name] for s in row]
            total = total + torch.log(positive / (positive + share + 1e-7))
            total = total + sum(torch.log(share / (p + share + 1e-7)) for p in others)
        return -total / len(scores)

    def step(self, crd, student, teacher, indices, wanted):
        s, t = self.embed(crd.student, student), self.embed(crd.teacher, teacher)
        loss = self.side("student", self.teacher, s, wanted) + self.side("teacher", self.student, t, wanted)
        for memory, embedding in ((self.student, s), (self.teacher, t)):
            for i, e in zip(indices, embedding, strict=True):
                row = MOMENTUM * memory[i] + (1 - MOMENTUM) * e.detach()
                memory[i] = row / row.norm()
        return loss


@pytest.mark.parametrize(
    ("images", "count", "positive"),
    [(12, 3, "exact"), (12, 9, "relax"), (200, 3, "relax")],
    ids=["few", "more than there are", "few of many"],
)
def test_losses_gradients_memories_and_constants_are_those_of_loops(images, count, positive):
    labels = UNEQUAL if images == 12 else torch.arange(images) % 3
    assert (images > PRODUCT_UP_TO * (1 + count)) == (images == 200), "both ways to compute similarities"
    crd = method(labels, count, positive=positive)
    loops, optimiser = Loops(crd), torch.optim.SGD(crd.parameters(), 0.1)
    for epoch, size in itertools.product(range(2), (4, 3)):
        crd.begin_epoch(epoch)
        indices = torch.randperm(images)[:size]
        student, teacher = (torch.randn(size, n).double() for n in (4, 5))
        given = batch(student.requires_grad_(), teacher, labels, indices)
        before = {name: value.clone() for name, value in crd.state_dict().items()}
        loss = crd.losses(given)["crd"]
        assert torch.equal(crd.losses(given)["crd"], loss), "nothing changes before the step has ended"
        assert all(torch.equal(before[name], value) for name, value in crd.state_dict().items())
        wanted = loops.step(crd, student, teacher, indices.tolist(), crd.contrasts(indices).tolist())
        torch.testing.assert_close(loss, wanted, rtol=1e-11, atol=0)
        inputs = [student, *crd.parameters()]
        ours, theirs = (torch.autograd.grad(x, inputs, retain_graph=True) for x in (loss, wanted))
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
        loss.backward()
        optimiser.step()
        crd.after_step(torch.tensor(True))
        torch.testing.assert_close(crd.student_memory.rows, torch.stack(loops.student))
        torch.testing.assert_close(crd.teacher_memory.rows, torch.stack(loops.teacher))
        # The student is compared with the teacher's memory, whose constant is thus that of its loss.
        assert float(crd.teacher_memory.z) == pytest.approx(loops.z["student"], rel=1e-12)
        assert float(crd.student_memory.z) == pytest.approx(loops.z["teacher"], rel=1e-12)


def test_rows_are_drawn_with_expected_length_one():
    torch.manual_seed(0)
    memory = Memory(500, 128)
    assert memory.rows.abs().max() <= 1 / math.sqrt(128 / 3)
    assert memory.rows.square().sum(1).mean() == pytest.approx(1, abs=0.01)


# --- what is drawn ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 5, 6, 10])
@pytest.mark.parametrize("labels", [UNEQUAL, UNEQUAL * 2 + 1], ids=["", "gaps"])
def test_negatives_are_of_other_classes_and_different(labels, count):
    contrasts = Contrasts(labels, count, seed=3)
    for epoch in range(2):
        contrasts.draw(epoch)
        for i, row in enumerate(contrasts(torch.arange(12))[:, 1:].tolist()):
            others, times = [j for j in range(12) if labels[j] != labels[i]], Counter(row)
            assert len(row) == count and set(times) <= set(others)
            least, rest = divmod(count, len(others))  # all different, or in turn where there are too few
            assert sorted(times[j] for j in others) == [least] * (len(others) - rest) + [least + 1] * rest


def test_each_set_of_negatives_and_each_positive_is_as_frequent_as_any_other():
    contrasts, sets, mates = Contrasts(UNEQUAL, 3, seed=0, positive="relax"), Counter(), Counter()
    draws = 800
    for epoch in range(draws):
        contrasts.draw(epoch)
        positive, *negatives = contrasts(torch.tensor([2]))[0].tolist()  # of the class of 6
        sets[tuple(sorted(negatives))] += 1
        mates[positive] += 1
    others = itertools.combinations([i for i in range(12) if UNEQUAL[i] != 0], 3)
    members = [i for i in range(12) if UNEQUAL[i] == 0]
    # 0.999 quantiles of chi squared with 19 and 5 degrees of freedom
    for times, allowed, quantile in ((sets, list(others), 43.8), (mates, members, 20.5)):
        wanted = draws / len(allowed)
        assert set(times) == set(allowed)
        assert sum((times[one] - wanted) ** 2 / wanted for one in allowed) < quantile
    assert torch.equal(Contrasts(UNEQUAL, 2, seed=0)(torch.arange(12))[:, 0], torch.arange(12)), "exact"


@pytest.mark.parametrize("positive", ["exact", "relax"])
def test_draws_are_a_function_of_seed_and_epoch(positive):
    """Made in place, and so no part of what is saved."""
    labels = torch.arange(60) % 4
    one, same, other = (Contrasts(labels, 7, seed, positive) for seed in (0, 0, 1))
    places = [buffer.data_ptr() for buffer in one.buffers()]

    def drawn(contrasts, epoch):
        contrasts.draw(epoch)
        return contrasts(torch.arange(60))

    first = drawn(one, 3)
    assert not torch.equal(drawn(one, 4), first) and not torch.equal(drawn(other, 3), first)
    assert torch.equal(drawn(one, 3), first) and torch.equal(drawn(same, 3), first)
    assert len(one.starts.unique()) > 40  # images of one class have places of their own
    assert places == [buffer.data_ptr() for buffer in one.buffers()] and not one.state_dict()
