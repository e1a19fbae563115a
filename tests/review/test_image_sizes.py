"""ReviewKD on images of other sizes than 32 pixels: levels, taps and HCL's sizes follow from the dry pass."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from rkd import models
from rkd.methods import Batch
from rkd.review import ReviewKD, ReviewOptions
from rkd.review.options import level_weights

PAIRS = [
    ("resnet56", "resnet20"), ("vgg13", "vgg8"), ("wrn_40_2", "shufflenetv1"), ("resnet50", "mobilenetv2"),
    ("resnet32x4", "shufflenetv2"), ("resnet110_7x7", "resnet20_7x7"), ("resnet56", "represnet20"),
    ("torchvision_resnet50", "torchvision_resnet18"), ("torchvision_resnet50", "torchvision_mobilenet_v2"),
    ("torchvision_efficientnet_b0", "torchvision_mobilenet_v3_small"), ("torchvision_resnet50", "mobilenetv2"),
    ("resnet8", "torchvision_resnet18"),
]  # fmt: skip
QUICK = [
    (PAIRS[0], 28), (PAIRS[3], 28), (PAIRS[7], 28), (PAIRS[1], 64), (PAIRS[8], 64), (PAIRS[10], 96), (PAIRS[2], 28),
    (PAIRS[9], 96), (PAIRS[9], 224), (("resnet14", "resnet8"), 224), (("resnet8", "mobilenetv2"), 224),
]  # fmt: skip
SLOW = [case for case in itertools.product(PAIRS, (28, 64, 96, 224)) if case not in QUICK]


@pytest.mark.parametrize(
    ("pair", "size"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
)
def test_a_step_on_two_images(pair, size):
    torch.manual_seed(0)
    teacher, student = (models.build(name, 9) for name in pair)
    review = ReviewKD(student, teacher, ReviewOptions(warmup_epochs=0), size)
    x, y = torch.randn(2, 3, size, size), torch.tensor([0, 8])
    with torch.no_grad():
        taught = teacher.taps(x)
    batch = Batch(student.taps(x), taught, y, torch.arange(2), x)
    ours, theirs = review.maps(batch.student, batch.teacher)
    assert [level.teacher for level in review.levels] == [t.shape[1:] for t in theirs]
    assert [level.student for level in review.levels] == [s.shape[1:] for s in ours]
    reviewed = review.connector(ours, [t.shape[-2:] for t in theirs])
    assert [r.shape for r in reviewed] == [t.shape for t in theirs]
    for level in review.levels:  # the authors' rule: the map, then 4, 2 and 1 where they are smaller
        height = level.teacher[1]
        used, _ = level_weights(height, review.options)
        assert [s for s, _ in used] == [height, *(s for s in (4, 2, 1) if s < height)]

    parameters = [*student.parameters(), *review.parameters()]
    before = [p.detach().clone() for p in parameters]
    loss = review.losses(batch)["review"] + F.cross_entropy(batch.student.logits, y)
    loss.backward()
    torch.optim.SGD(parameters, 0.01).step()
    assert loss.isfinite() and all(p.isfinite().all() for p in parameters)
    moved = [not torch.equal(p, old) for p, old in zip(parameters, before, strict=True)]
    assert sum(moved) > 0.9 * len(moved)  # of ReLUs that are dead for two images, none


def test_sizes_that_are_larger_than_a_map():
    """At 28 pixels the last map of a torchvision network is a single value per channel."""
    student = teacher = models.build("torchvision_resnet18", 9)
    assert models.tap_shapes(teacher, 28).stages[-1] == (512, 1, 1)
    options = ReviewOptions(hcl_levels=(7, 4), hcl_weights=(1, 0.5))
    review, x = ReviewKD(student, teacher, options, 28), torch.randn(2, 3, 28, 28)
    taps = student.taps(x)
    losses = review.level_losses(Batch(taps, taps, torch.zeros(2), torch.arange(2), x))
    assert [level_weights(level.teacher[1], options)[0] for level in review.levels[2:]] == [[], [], []]
    # What none of the sizes fits adds nothing.
    assert len(losses) == 5 and all(losses[:2]) and not any(losses[2:])
