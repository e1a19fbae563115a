"""Shape inference for every pair, losses, and training of every extra parameter."""

import pytest
import torch
import torchvision
from cases import Tiny

from rkd import models
from rkd.errors import ConfigError
from rkd.methods import Batch
from rkd.review import ReviewKD, ReviewOptions

# student, teacher, student channels and teacher channels shallow to deep, sizes deep to shallow, mid, fusion parameters
PAIRS = [
    ("resnet20", "resnet56", (16, 32, 64, 64), (16, 32, 64, 64), (1, 8, 16, 32), (1, 8, 16, 32), 64, 114_278),
    ("resnet8x4", "resnet32x4", (64, 128, 256, 256), (64, 128, 256, 256), (1, 8, 16, 32), (1, 8, 16, 32), 256,
     1_808_774),
    ("wrn_16_2", "wrn_40_2", (32, 64, 128, 128), (32, 64, 128, 128), (1, 8, 16, 32), (1, 8, 16, 32), 128, 453_830),
    ("wrn_40_1", "wrn_40_2", (16, 32, 64, 64), (32, 64, 128, 128), (1, 8, 16, 32), (1, 8, 16, 32), 64, 216_006),
    ("shufflenetv1", "resnet32x4", (240, 480, 960, 960), (64, 128, 256, 256), (1, 4, 8, 16), (1, 8, 16, 32), 512,
     4_607_366),
    ("shufflenetv2", "resnet32x4", (116, 232, 464, 1024), (64, 128, 256, 256), (1, 4, 8, 16), (1, 8, 16, 32), 512,
     4_195_718),
]  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{p[0]}-{p[1]}")
def test_pairs_of_tables_1_and_2(pair):
    student, teacher, in_channels, out_channels, sizes, out_sizes, mid, parameters = pair
    with torch.device("meta"):
        networks = models.build(student), models.build(teacher)
    review = ReviewKD(*networks)
    rows = review.describe()
    names = ("student_channels", "teacher_channels", "student_size", "teacher_size", "mid_channels")
    found = [tuple(row[name] for row in rows) for name in names]
    assert found == [in_channels[::-1], out_channels[::-1], sizes, out_sizes, (mid,) * 4]
    assert sum(p.numel() for p in review.parameters()) == parameters == sum(r["parameters"] for r in rows)


def make_batch(student, teacher, images=8):
    x = torch.randn(images, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    x, labels = x.to(next(student.parameters())), torch.arange(images)
    with torch.no_grad():
        return Batch(None, teacher.taps(x), labels, labels, x)


def loss_of(review, student, batch):
    given = Batch(student.taps(batch.images), batch.teacher, batch.labels, batch.labels)
    return review.losses(given)["review"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attention": False},
        {"residual": "output"},
        {"residual": "output_direct"},
        {"connector": "mechanism", "loss": "l2", "stem": True},
        {"connector": "none", "loss": "l2", "stem": True, "projection": "always"},
        {"student_tap": "pre", "teacher_tap": "post"},
        {"attention_init": "kaiming", "mid_channels": 24},
        {"hcl_pooling": "max"},
    ],
    ids=str,
)
def test_one_step_changes_every_extra_parameter(options):
    """And the student's, but for its classifier."""
    torch.manual_seed(0)
    student, teacher = Tiny(100), Tiny(100)
    review = ReviewKD(student, teacher, ReviewOptions(**options))
    before = {name: p.detach().clone() for name, p in review.named_parameters()}
    optimiser, batch = torch.optim.SGD(review.parameters(), 0.1), make_batch(student, teacher)
    for _ in range(2):  # a BN bias in front of a BN has no gradient in the very first step of a fresh block
        optimiser.zero_grad()
        loss_of(review, student, batch).backward()
        optimiser.step()
    # A bias right before BatchNorm moves nothing: BN subtracts it again.
    dead = {n for n in before if n.startswith("connector.projections") and n.endswith("0.bias")}
    assert before and {n for n, p in review.named_parameters() if torch.equal(p, before[n])} <= dead
    assert student.fc.weight.grad is None and student.stem.weight.grad is not None


def test_frozen_connectors_never_learn():
    options = ReviewOptions(connector="none", projection="always", loss="l2", train_connectors=False)
    frozen = list(ReviewKD(Tiny(10), Tiny(10), options).parameters())
    assert frozen and not any(p.requires_grad for p in frozen)


def test_pairs_no_released_code_can_build():
    """A MobileNet-like student by named taps, whose own pooling is a function, and a network of the user's own."""
    own = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 20, 3, 2, 1), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(20, 100),
    )  # fmt: skip
    mobile = torchvision.models.mobilenet_v2(weights=None, num_classes=100)
    stages = ["features.1", "features.3", "features.6", "features.13"]
    for student in (
        models.from_module(mobile, stages=stages, pooled="features.18"),
        models.from_module(own, stages=["1", "3"], pooled="4"),
    ):
        teacher = Tiny(100)
        review = ReviewKD(student, teacher)
        loss = loss_of(review, student, make_batch(student, teacher, images=2))
        loss.backward()
        assert torch.isfinite(loss) and all(p.grad is not None for p in review.parameters())


def test_sizes_that_fit_none_of_the_maps_are_refused():
    nets = Tiny(4), Tiny(4)
    ReviewKD(*nets, ReviewOptions(hcl_levels=("h", 8, "h/2"), hcl_weights=(1, 1, 1)))
    ReviewKD(*nets, image_size=4)  # the authors' list, on maps that are smaller
    for level in (999, "h-40", "h/64", 33):
        with pytest.raises(ConfigError, match=rf"hcl_levels has {level!r}, which fits none .* \(16 x 16, "):
            ReviewKD(*nets, ReviewOptions(hcl_levels=("h", level), hcl_weights=(1, 1)))
        ReviewKD(*nets, ReviewOptions(hcl_levels=("h", level), hcl_weights=(1, 1), loss="l2"))
