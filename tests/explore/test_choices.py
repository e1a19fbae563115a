"""Choices become runs, and figures are counted."""

import dataclasses
import time

import pytest
import torch

from rkd import models
from rkd.errors import ConfigError, DataError, RkdError
from rkd.explore.choices import (
    BATCH,
    Choices,
    figures_of,
    parse_levels,
    parse_weights,
    plan_of,
    rate_here,
    remaining,
    time_of,
    without_distillation,
)
from rkd.models import macs
from rkd.review import ReviewKD, ReviewOptions

pytest_plugins = ["exploring"]
CPU = torch.device("cpu")


def test_choices_become_runs(home):
    plan = plan_of(
        Choices(
            teacher="resnet56", student="resnet20", recipe="reproduction", loss_weight=0.7, hcl_levels="[h, h/2, 2]",
            hcl_weights="1, 0.5, 0.25", attention=False, dataset="cifar100", images=5000, test_images=700, epochs=24,
            teacher_epochs=12, seed=3,
        )
    )  # fmt: skip
    run = plan.distilled
    assert (run.network, run.teacher.name, run.seed, run.epochs, run.batch_size) == (
        "resnet20",
        "resnet56",
        3,
        24,
        BATCH,
    )
    assert (run.data.name, run.data.train_images, run.data.test_images) == ("cifar100", 5000, 700)
    assert run.options.hcl_levels == ("h", "h/2", 2) and run.options.hcl_weights == (1.0, 0.5, 0.25)
    assert (run.options.loss_weight, run.options.attention) == (0.7, False)
    assert run.options.hcl_assign == "position" and run.options.mid_channels == 64, (
        "the recipe's other options"
    )
    assert run.optimiser.decay_epochs == (15, 18, 21), "the recipe's schedule, scaled"
    assert (plan.teacher.network, plan.teacher.epochs, plan.teacher.seed) == ("resnet56", 12, 0)


@pytest.mark.parametrize("recipe", ["authors", "reproduction", "text"])
def test_the_run_beside_differs_in_the_method_alone(recipe, tiny_plan):
    plan = tiny_plan(recipe=recipe)
    assert plan.alone == without_distillation(plan.distilled)
    differing = {
        f.name
        for f in dataclasses.fields(plan.alone)
        if getattr(plan.alone, f.name) != getattr(plan.distilled, f.name)
    }
    assert differing == {"method", "options", "teacher"}


def test_first_choices_follow_the_recipe(home):
    first = Choices.beginning_with({"teacher": "resnet56", "student": "resnet20"})
    assert first.loss_weight == 0.6
    text = Choices.beginning_with({"teacher": "resnet56", "student": "resnet20", "recipe": "text"})
    assert text.loss_weight == 0.7
    given = Choices.beginning_with({"teacher": "resnet56", "student": "resnet20", "loss_weight": 2.0})
    assert given.loss_weight == 2.0
    with pytest.raises(ConfigError, match=r"unknown choice 'epoch' \(did you mean 'epochs'"):
        Choices.beginning_with({"epoch": 3})


def test_figures_against_the_networks_themselves(home):
    plan = plan_of(Choices.beginning_with({"teacher": "resnet56", "student": "resnet20"}))
    figures = figures_of(plan)
    student, teacher = models.build("resnet20"), models.build("resnet56")
    review = ReviewKD(student, teacher, ReviewOptions())

    def count(net):
        return sum(p.numel() for p in net.parameters())

    assert figures.student_parameters == count(student)
    assert figures.teacher_parameters == count(teacher)
    assert figures.extra_parameters == count(review) == sum(level["parameters"] for level in figures.levels)
    assert (figures.student_macs, figures.teacher_macs) == (macs(student), macs(teacher))
    forward_and_backward = 3 * (figures.student_macs + figures.extra_macs) + figures.teacher_macs
    assert figures.step_macs == 64 * forward_and_backward
    assert figures.steps == 8 * 16, "1,000 images are 16 batches of 64, the last one short"


def test_extra_multiply_adds_against_a_sum_over_convolutions(tiny_plan):
    plan = tiny_plan()
    figures = figures_of(plan)
    student, teacher = models.build("resnet8"), models.build("resnet14")
    review = ReviewKD(student, teacher, plan.distilled.options)
    total = 0

    def add(module, inputs, output):
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    for module in review.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(add)
    x = torch.zeros(1, 3, 32, 32)
    for net in (student, teacher, review):
        net.eval()
    with torch.no_grad():
        ours, theirs = student.taps(x), teacher.taps(x)
        maps = [
            [*t, p[:, :, None, None]]
            for t, p in ((ours.stages, ours.pooled), (theirs.stages_pre, theirs.pooled))
        ]
        review.connector(maps[0], [t.shape[-2:] for t in maps[1]])
    # Each half of an attention convolution, 64 -> 2, is computed at its own map's size: the student's three, and the
    # deeper ones the residuals come from.
    attention = 64 * 2 * (8**2 + 16**2 + 32**2 + 1**2 + 8**2 + 16**2)
    assert figures.extra_macs == total + attention


def test_attention_off_costs_less(tiny_plan):
    on, off = figures_of(tiny_plan()), figures_of(tiny_plan(attention=False))
    assert on.extra_parameters - off.extra_parameters == 3 * (2 * 64 * 2 + 2), (
        "three blocks fuse: 2m -> 2, with bias"
    )
    assert on.extra_macs > off.extra_macs and on.step_macs > off.step_macs
    assert on.student_parameters == off.student_parameters


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"hcl_weights": "1, 0.5"}, "give one weight per size"),
        ({"hcl_levels": "h,,1"}, "write them with commas between"),
        ({"hcl_levels": ""}, "write them with commas between"),
        ({"hcl_levels": "h, 4, x, 1"}, "hcl level 'x' is not a size"),
        ({"hcl_weights": "1, a, 0, 0"}, "'a', which is no number"),
        ({"hcl_weights": "0, 0, 0, 0"}, "not all zero"),
        ({"hcl_levels": "64, 48", "hcl_weights": "1, 1"}, "fit none of the maps that are compared"),
        ({"loss_weight": -1.0}, "loss_weight is -1.0"),
        ({"loss_weight": float("nan")}, "loss_weight is nan"),
        ({"epochs": 0}, "epochs is 0"),
        ({"teacher_epochs": 0}, "teacher_epochs is 0"),
        ({"seed": -1}, "is -1"),
        ({"images": 1}, "one training image is no batch"),
        ({"images": 129}, "take 128 or 130"),
        ({"images": 10_001}, "10,001 training images were asked for, but embedded has 10,000"),
        ({"test_images": 2_001}, "2,001 test images were asked for, but embedded has 2,000"),
        ({"teacher": "resnet21"}, "unknown model 'resnet21'"),
        ({"recipe": "mine"}, "unknown recipe 'mine'"),
        ({"dataset": "mnist"}, "unknown data set 'mnist'"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_one_sentence(home, values, sentence, tiny):
    with pytest.raises((ConfigError, DataError)) as caught:
        plan_of(dataclasses.replace(Choices(**tiny), **values))
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_lists_as_people_write_them():
    assert parse_levels("h, 4,2 , 1") == parse_levels("[h, 4, 2, 1]") == parse_levels("['h', 4, 2, 1]")
    assert parse_levels("h/2, h-1, 16") == ["h/2", "h-1", 16]
    assert parse_weights("(1, .5, 2e-1)") == [1.0, 0.5, 0.2]


def test_time_is_work_over_the_measured_rate(working, tiny_plan):
    plan = tiny_plan()
    left = remaining(plan, working)
    assert list(left) == [plan.alone.id, plan.teacher.id, plan.distilled.id], "in the order of training"
    student, teacher = macs(models.build("resnet8")), macs(models.build("resnet14"))
    assert left[plan.alone.id] == 2 * (100 * 3 * student + 100 * student)
    assert left[plan.teacher.id] == 100 * 3 * teacher + 100 * teacher
    told = time_of(plan, working, CPU)
    assert "short measurement" in told.basis
    assert told.total == pytest.approx(sum(left.values()) / rate_here(CPU))
    assert str(told).startswith("about ")


def test_measured_rate_is_that_of_a_plain_loop(home):
    net = models.build("resnet8", 10).to(memory_format=torch.channels_last)
    x = torch.zeros(BATCH, 3, 32, 32)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        net(x).sum().backward()
        seconds.append(time.perf_counter() - started)
    plain = BATCH * 3 * macs(net) / min(seconds)
    assert plain / 20 < rate_here(CPU) < plain * 20, "the machine may be busy, but not by orders of magnitude"


def test_figures_leave_the_random_stream_alone(tiny_plan):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    rate_here.cache_clear()
    plan = tiny_plan(student="resnet14", teacher="resnet20")
    figures_of(plan)
    rate_here(CPU)
    assert torch.rand(1) == expected


def test_errors_are_the_visitors_to_mend(home):
    with pytest.raises(RkdError):
        Choices.beginning_with({"student": "resnet9"})
