"""Counters, floors and ratios against cases counted by hand."""

import pytest
import torch
import torch.nn.functional as F

from rkd.bench.ceilings import Ceilings, measure_ceilings
from rkd.bench.counting import Counts, count
from rkd.bench.result import floors, ratio

A, B = torch.ones(10, 10), torch.ones(10, 10)  # 400 bytes each


@pytest.mark.parametrize(
    ("step", "ops", "moved"),
    [
        (lambda: A + B, 1, 1200),
        (lambda: A.view(100).t(), 0, 0),
        (lambda: A[2:5].detach().unsqueeze(0), 0, 0),
        (lambda: torch.empty(50, 50), 0, 0),
        (lambda: A.clone().add_(B), 2, 800 + 1200),  # in place: reads and writes its own
        (lambda: torch.empty(10, 10).copy_(A), 1, 800),  # does not read what it overwrites
        (lambda: A + torch.ones(1).expand(10, 10), 2, 4 + 400 + 4 + 400),  # an expanded operand is one number
        (lambda: A.double(), 1, 400 + 800),
    ],
)
def test_operations_and_bytes(step, ops, moved):
    counts = count(step)
    assert (counts.ops, counts.bytes) == (ops, moved)
    assert counts.flops == counts.product_bytes == counts.host_reads == 0


def test_host_reads():
    counts = count(lambda: A.sum().item())
    assert (counts.ops, counts.host_reads, counts.bytes) == (1, 1, 404)


def test_matrix_products():
    counts = count(lambda: torch.relu(torch.ones(4, 5) @ torch.ones(5, 6)))
    assert counts.flops == 2 * 4 * 5 * 6 and counts.convolution_flops == {}
    assert counts.product_bytes == 4 * (20 + 30 + 24)
    assert counts.bytes == counts.product_bytes + 4 * (20 + 30) + 2 * 4 * 24  # filling, and the ReLU
    assert counts.ops == 4


def test_convolutions_forward_and_backward_by_width():
    x = torch.ones(2, 3, 8, 8, requires_grad=True)
    wide, narrow = (torch.ones(*shape, requires_grad=True) for shape in ((4, 3, 3, 3), (7, 4, 1, 1)))
    counts = count(lambda: F.conv2d(F.conv2d(x, wide, padding=1), narrow).sum().backward())
    large, small = 2 * 2 * 64 * (4 * 3 * 9), 2 * 2 * 64 * (7 * 4)
    assert counts.convolution_flops == {4: 3 * large}  # 1x1 convolutions are not among them
    assert counts.flops == 3 * (large + small)


def test_fused_optimiser_is_one_operation():
    parameters = [torch.ones(100, requires_grad=True) for _ in range(5)]
    optimiser = torch.optim.SGD(parameters, 0.1, 0.9, fused=True)
    for p in parameters:
        p.grad = torch.ones(100)
    optimiser.step()
    counts = count(optimiser.step)
    assert counts.ops == 1
    assert counts.bytes >= 5 * 400 * 5  # reads weight, gradient and momentum, writes weight and momentum


def test_memory_is_the_most_that_lives_at_once():
    weight = torch.ones(10_000)

    def step():
        a = torch.zeros(1000)
        b = a + 1  # 8000 bytes with a
        weight.add_(1)  # was there before
        c = b.view(10, 100)[:5]  # a view holds nothing of its own
        del a
        d = torch.zeros(500)  # 6000 bytes
        return c, d

    assert count(step).memory_mb == pytest.approx(8000e-6)


def test_backward_frees_and_is_followed():
    """The tape of a chain of n products keeps n maps; each is freed on the way back."""
    x = torch.ones(1000, requires_grad=True)

    def step():
        y = x
        for _ in range(10):
            y = y.sin()
        y.sum().backward()
        x.grad = None

    assert 10 * 4000 <= 1e6 * count(step).memory_mb <= 13 * 4000


CEILINGS = Ceilings({"fp32": 100.0, "bf16": 400.0}, {"fp32": {16: 50.0, 64: 200.0}, "bf16": {16: 50.0}}, 10.0)


def test_floors_by_hand():
    counts = Counts(1, 0, 99, 30, 1000, {16: 400})
    found = floors(counts, CEILINGS, "fp32")
    assert found.arithmetic == pytest.approx(1000 * 1000 / 200)
    assert found.convolutions == pytest.approx(1000 * (400 / 50 + 600 / 200))
    assert found.bytes == pytest.approx(1000 * 30 / 10)
    assert found.highest == found.convolutions
    assert floors(counts, CEILINGS, "bf16").arithmetic == pytest.approx(1000 * 1000 / 400)
    assert floors(counts, CEILINGS, "fp32", students=4).bytes == pytest.approx(1000 * 30 / 10 / 4)


def test_nearest_width_is_by_ratio():
    assert CEILINGS.of_width("fp32", 30) == 50.0 and CEILINGS.of_width("fp32", 34) == 200.0
    assert CEILINGS.peak("fp32") == 200.0 and CEILINGS.peak("bf16") == 400.0


def test_the_better_ceilings_win_one_by_one():
    other = Ceilings({"fp32": 90.0, "bf16": 500.0}, {"fp32": {16: 60.0, 64: 1.0}, "bf16": {16: 1.0}}, 11.0)
    best = CEILINGS.or_better(other)
    assert best == Ceilings(
        {"fp32": 100.0, "bf16": 500.0}, {"fp32": {16: 60.0, 64: 200.0}, "bf16": {16: 50.0}}, 11.0
    )


def test_ceilings_are_rates_a_naive_loop_can_confirm():
    import time

    found = measure_ceilings(torch.device("cpu"), {"fp32": torch.float32}, [(4, 8), (4, 4)], 2, seconds=0.02)
    assert list(found.convolution["fp32"]) == [4] and found.copy > 0
    a, b = torch.ones(512, 512), torch.ones(512, 512)
    times = []
    for _ in range(10):
        started = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - started)
    naive = 2 * 512**3 / min(times)
    assert 0.1 < found.matmul["fp32"] / naive < 10


def test_ratios_by_hand():
    found = ratio([1.0, 2.0, 4.0], [2.0, 8.0, 8.0])  # 2, 4, 2
    assert (found.low, found.median, found.high, found.best) == (2.0, 2.0, 3.0, 2.0)
    alone = ratio([5.0], [10.0])
    assert (alone.low, alone.median, alone.high, alone.best) == (2.0, 2.0, 2.0, 2.0)
    with pytest.raises(ValueError):
        ratio([1.0], [1.0, 2.0])
