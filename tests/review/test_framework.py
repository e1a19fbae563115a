"""Shape inference for every pair, losses, and training of every extra parameter."""

import pytest
import torch
import torchvision
from cases import Tiny

from rkd import models
from rkd.methods import Batch
from rkd.review import ReviewKD, ReviewOptions

# student, teacher, student channels and teacher channels shallow to deep, sizes deep to shallow, mid, fusion parameters
PAIRS = [
    ("resnet20", "resnet56", (16, 32, 64, 64), (16, 32, 64, 64),
     (1, 8, 16, 32), (1, 8, 16, 32), 64, 114_278),
    ("resnet8x4", "resnet32x4", (64, 128, 256, 256), (64, 128, 256, 256),
     (1, 8, 16, 32), (1, 8, 16, 32), 256, 1_808_774),
    ("wrn_16_2", "wrn_40_2", (32, 64, 128, 128), (32, 64, 128, 128),
     (1, 8, 16, 32), (1, 8, 16, 32), 128, 453_830),
    ("wrn_40_1", "wrn_40_2", (16, 32, 64, 64), (32, 64, 128, 128),
     (1, 8, 16, 32), (1, 8, 16, 32), 64, 216_006),
    ("shufflenetv1", "resnet32x4", (240, 480, 960, 960), (64, 128, 256, 256),
     (1, 4, 8, 16), (1, 8, 16, 32), 512, 4_607_366),
    ("shufflenetv2", "resnet32x4", (116, 232, 464, 1024), (64, 128, 256, 256),
     (1, 4, 8, 16), (1, 8, 16, 32), 512, 4_195_718),
]  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{p[0]}-{p[1]}")
def test_pairs_of_tables_1_and_2(pair):
    student, teacher, in_channels, out_channels, sizes, out_sizes, mid, parameters = pair
    review = ReviewKD(models.build(student), models.build(teacher))
    rows = review.describe()
    assert tuple(r["student_channels"] for r in rows) == in_channels[::-1]
    assert tuple(r["teacher_channels"] for r in rows) == out_channels[::-1]
    assert tuple(r["student_size"] for r in rows) == sizes
    assert tuple(r["teacher_size"] for r in rows) == out_sizes
    assert {r["mid_channels"] for r in rows} == {mid}
    assert sum(p.numel() for p in review.parameters()) == parameters == sum(r["parameters"] for r in rows)


def make_batch(student, teacher, batch=4):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 3, 32, 32, generator=generator).to(next(student.parameters()))
    with torch.no_grad():
        frozen = teacher.taps(x)
    return Batch(student.taps(x), frozen, torch.zeros(batch, dtype=torch.long), torch.arange(batch))


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
    torch.manual_seed(0)
    student, teacher = Tiny(100), Tiny(100)
    review = ReviewKD(student, teacher, ReviewOptions(**options))
    before = {name: p.detach().clone() for name, p in review.named_parameters()}
    optimiser = torch.optim.SGD(review.parameters(), 0.1)
    for _ in range(2):  # a BN bias in front of a BN has no gradient in the very first step of a fresh block
        optimiser.zero_grad()
        review.losses(make_batch(student, teacher, batch=8))["review"].backward()
        optimiser.step()
    assert before, "no extra parameter is registered"
    # A bias right before BatchNorm moves nothing: BN subtracts it again.
    dead = {n for n in before if n.startswith("connector.projections") and n.endswith("0.bias")}
    unchanged = {name for name, p in review.named_parameters() if torch.equal(p, before[name])}
    assert unchanged <= dead
    assert set(review.state_dict()) >= set(before)


def test_frozen_connectors_are_the_code_faithful_rows_1_and_2():
    """The [Re] code kept these projections in a plain list: 10,304 and 24,592 parameters that never learned."""
    student, teacher = models.build("resnet20"), models.build("resnet56")
    same = {"loss": "l2", "stem": True, "train_connectors": False}
    row1 = ReviewKD(student, teacher, ReviewOptions(connector="none", projection="always", **same))
    row2 = ReviewKD(student, teacher, ReviewOptions(connector="mechanism", **same))
    assert [sum(p.numel() for p in r.parameters()) for r in (row1, row2)] == [10_304, 24_592]
    assert not any(p.requires_grad for r in (row1, row2) for p in r.parameters())


def test_warm_up_is_linear_from_zero():
    pair = Tiny(100), Tiny(100)
    review = ReviewKD(*pair, ReviewOptions(loss_weight=0.6, warmup_epochs=20))
    found = [review.weights(epoch)["review"] for epoch in (0, 1, 19, 20, 239)]
    assert found == pytest.approx([0, 0.03, 0.57, 0.6, 0.6])
    assert ReviewKD(*pair, ReviewOptions(loss_weight=0.6, warmup_epochs=0)).weights(0)["review"] == 0.6


def test_classifier_gets_no_gradient_from_the_review_loss():
    student, teacher = models.build("resnet8"), models.build("resnet14")
    ReviewKD(student, teacher).losses(make_batch(student, teacher))["review"].backward()
    assert student.fc.weight.grad is None and student.conv1.weight.grad is not None


def test_teacher_taps_before_or_after_relu():
    student, teacher = models.build("resnet8").double().eval(), models.build("resnet14").double().eval()
    batch = make_batch(student, teacher)
    losses = {
        tap: ReviewKD(student, teacher, ReviewOptions(connector="none", loss="l2", teacher_tap=tap))
        .losses(batch)["review"]
        .item()
        for tap in ("pre", "post")
    }
    theirs = [*batch.teacher.stages_pre, batch.teacher.pooled]
    maps = zip([*batch.student.stages, batch.student.pooled], theirs, strict=True)
    assert losses["pre"] == pytest.approx(sum(((a - b) ** 2).mean().item() for a, b in maps), rel=1e-9)
    assert losses["pre"] != losses["post"]


def torchvision_net(name, stages, pooled):
    net = getattr(torchvision.models, name)(weights=None, num_classes=100)
    return models.from_module(net, stages=stages, pooled=pooled)


def test_pairs_no_released_code_can_build():
    """VGG- and MobileNet-like students by named taps, CIFAR ResNet-18, and a network of the user's own."""
    own = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 20, 3, 2, 1), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(20, 100),
    )  # fmt: skip
    students = {
        "vgg": torchvision_net(
            "vgg11_bn", ["features.3", "features.7", "features.14", "features.21"], "avgpool"
        ),
        "mobilenet": torchvision_net(
            "mobilenet_v2", ["features.1", "features.3", "features.6", "features.13"], "features.18"
        ),
        "own": models.from_module(own, stages=["1", "3"], pooled="4"),
        "resnet18": models.build("resnet18"),
    }
    teacher = models.build("resnet14")
    for name, student in students.items():
        if name == "mobilenet":  # its own pooling is a function, not a module: take the last map's tap at 1x1
            assert models.tap_shapes(student).pooled == 1280
        review = ReviewKD(student, teacher)
        loss = review.losses(make_batch(student, teacher, batch=2))["review"]
        loss.backward()
        assert torch.isfinite(loss), name
        assert all(p.grad is not None for p in review.parameters()), name


def test_more_teacher_stages_than_student_stages_pair_from_the_deepest():
    review = ReviewKD(models.build("resnet8"), models.build("resnet18"))
    assert [(r["student_channels"], r["teacher_channels"]) for r in review.describe()] == [
        (64, 512), (64, 512), (32, 256), (16, 128),
    ]  # fmt: skip
