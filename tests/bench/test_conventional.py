"""The conventional loop and ours are two ways to write one computation."""

import dataclasses

import pytest
import torch
from conftest import tiny_data

from rkd import data
from rkd.bench.conventional import Conventional, loaders
from rkd.bench.gradients import cosine, gradient, relative_error
from rkd.bench.variants import Workload
from rkd.data import normalise
from rkd.training import FrozenTeacher, Learner, accuracy
from rkd.training.learner import build_method

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images():
    return data.load(tiny_data())


def both(work, batch_norm, images):
    """The two loops with the same weights, in float64."""
    config = work.config("fp64", batch_norm)
    weight = config.options.loss_weight
    plain = Conventional(
        work.student_network(), work.teacher_network(), images, batch_norm, CPU, 4, loss_weight=weight
    )
    network, theirs = work.student_network().double(), work.teacher_network().double()
    method = build_method(config, network, theirs, 32, 100, 100).double()
    learner = Learner(config, network, method)
    plain.model.double(), plain.teacher.double()
    plain.model.abfs.load_state_dict(
        {k.removeprefix("connector.abfs."): v for k, v in method.state_dict().items()}
    )
    return plain, learner, FrozenTeacher(theirs, batch_norm)


@pytest.mark.parametrize(
    ("teacher", "student", "batch_norm"),
    [
        ("resnet14", "resnet8", "running"),
        ("resnet14", "resnet8", "batch"),
        ("resnet8x4", "shufflenetv2", "batch"),
    ],
)
def test_same_losses_and_same_update_in_float64(teacher, student, batch_norm, images):
    work = Workload(teacher, student, 4, CPU, train_images=100, test_images=20)
    plain, learner, frozen = both(work, batch_norm, images)
    names = dict(plain.model.student.named_parameters()).keys()
    assert names == dict(learner.student.named_parameters()).keys()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 32, 32, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 100, (4,), generator=generator)
    learner.begin_epoch()
    losses, logits = learner.losses(x, y, y, frozen.taps(x))
    ours = losses["ce"] + learner.config.options.loss_weight * losses["review"]
    theirs, their_logits = plain.loss(x, y)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-10)
    torch.testing.assert_close(logits, their_logits, rtol=1e-10, atol=1e-10)

    plain.optimiser.param_groups[0]["lr"] = learner.config.optimiser.lr
    plain.optimiser.zero_grad()
    plain.loss(x, y)[0].backward()
    plain.optimiser.step()
    learner.step(x, y, y, frozen.taps(x))
    pairs = [(learner.student, plain.model.student), (learner.method.connector.abfs, plain.model.abfs)]
    for mine, other in pairs:
        for (name, a), b in zip(mine.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-10, msg=name)


def test_loaders_crop_normalise_and_count(images):
    train, test = loaders(images, 30, workers=0)
    assert [len(y) for _, y in train] == [30, 30, 30, 10]
    x = torch.cat([x for x, _ in test])
    torch.testing.assert_close(x, normalise(images.test_x, images.mean, images.std), rtol=1e-5, atol=1e-5)
    longer, _ = loaders(images, 30, workers=0, epoch_images=270)
    labels = torch.cat([y for _, y in longer])
    assert len(longer) == 9 and len(labels) == 270
    assert (torch.bincount(labels, minlength=100) >= 2).all()  # two whole passes and a part of a third


def test_steps_train_and_evaluation_agrees_with_ours(images):
    work = Workload("resnet8", "resnet8", 25, CPU, train_images=100, test_images=20)
    few = dataclasses.replace(images, test_x=images.test_x[:40], test_y=images.test_y[:40])
    loop = Conventional(work.student_network(), work.teacher_network(), few, "batch", CPU, 25)
    before = loop.model.student.conv1.weight.clone()
    assert [loop.step() for _ in range(2)] == [25, 25]
    assert not torch.equal(before, loop.model.student.conv1.weight)
    assert loop.model.training and loop.teacher.training
    expected = accuracy(loop.model.student, few.test_x, few.test_y, few.mean, few.std)
    assert loop.evaluate() == pytest.approx(expected)
    assert loop.model.training
    loop.close()


def test_gradient_is_that_of_the_conventional_loop_in_float64():
    work = Workload("resnet8", "resnet8", 8, CPU, train_images=100, test_images=20)
    images = work.images
    ours = gradient(work, "fp64", "running", 8)
    plain, *_ = both(work, "running", images)
    x = normalise(images.train_x[:8], images.mean, images.std).double()
    plain.loss(x, images.train_y[:8])[0].backward()
    theirs = torch.cat([p.grad.flatten() for p in plain.model.parameters()])
    assert relative_error(ours, theirs) < 1e-10
    single = gradient(work, "fp32", "running", 8)
    assert 1e-9 < relative_error(single, ours) < 1e-2 and cosine(single, ours) > 0.999


def test_cosine_and_relative_error_by_hand():
    a, b = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0])
    assert cosine(a, b) == pytest.approx(0.6) and relative_error(a, b) == pytest.approx(4 / 3)
