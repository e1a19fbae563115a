"""The fast form against the paper's, in float64: the same loss and the same gradients."""

import pytest
import torch
from cases import Tiny

from rkd.bench.conventional import PlainReviewKD, maps
from rkd.methods import Batch
from rkd.review import ReviewKD
from rkd.review.reference import Review

PAIRS = {
    "equal widths": ({}, {}),
    "other widths and sizes": ({"widths": (4, 6, 10, 12), "strides": (1, 2, 3)}, {}),
    "fewer stages": ({"widths": (3, 5, 7), "strides": (2, 2)}, {}),
    "more stages": ({"widths": (4, 5, 6, 7, 8), "strides": (1, 2, 2, 2)}, {}),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_same_loss_and_same_gradients(pair):
    torch.manual_seed(0)
    student, teacher = (Tiny(10, **values).double() for values in PAIRS[pair])
    fast, plain = ReviewKD(student, teacher).double(), PlainReviewKD(student, teacher).double()
    for p in fast.parameters():  # none is neutral, so that no factor of one or zero hides a mistake
        torch.nn.init.normal_(p, 0.1, 0.3)
    plain.review.load_state_dict(fast.connector.state_dict())
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        taught, (targets, _) = teacher.taps(x), maps(teacher, x, pre=True)
    wanted = [p for name, p in student.named_parameters() if not name.startswith("fc")]

    def gradients(loss, review):
        return torch.autograd.grad(loss, [*wanted, *review.parameters()])

    labels = torch.zeros(4, dtype=torch.long)
    ours = fast.losses(Batch(student.taps(x), taught, labels, labels))["review"]
    found, _ = maps(student, x, pre=False)
    theirs = plain.review(found[-plain.count :], targets[-plain.count :])
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    got, expected = gradients(ours, fast.connector), gradients(theirs, plain.review)
    for a, b in zip(got, expected, strict=True):
        assert (a - b).norm() <= 1e-12 * max(b.norm(), sum(g.norm() for g in expected))


def test_the_paper_s_form_fits_the_page():
    import inspect

    from rkd.review import reference

    assert len(inspect.getsource(reference).splitlines()) <= 100
    assert sum(p.numel() for p in Review([16, 32, 64, 64], [16, 32, 64, 64]).parameters()) == 114_278
