"""AB, FT and FSP: their losses against naive loops, their stages, and who learns in which of them."""

import pytest
import torch
from test_map_methods import SAME, SMALLER, WIDER, make, naive_pool

from rkd.errors import ConfigError
from rkd.methods import Batch, Stage
from rkd.methods.ab import AbOptions
from rkd.methods.fsp import FspOptions
from rkd.methods.ft import FtOptions

MOBILE = ("mobilenetv2", "resnet8")


def learning(loss, **modules):
    """Names of the parameters that `loss` reaches."""
    for module in modules.values():
        module.zero_grad(set_to_none=True)
    loss.backward()
    return {
        f"{name}.{key}"
        for name, module in modules.items()
        for key, parameter in module.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum() > 0
    }


def named(module, prefix):
    return {f"{prefix}.{key}" for key, _ in module.named_parameters()}


def assert_rests(method, batch, name):
    """A main training without the method's loss: no weight, no value and no graph to pay for."""
    assert method.weights(0) == method.weights(100) == {name: 0.0}
    loss = method.losses(batch)[name]
    assert loss.shape == () and loss == 0 and not loss.requires_grad


@pytest.mark.parametrize(("pair", "margin"), [(SAME, 1.0), (WIDER, 0.5), (SMALLER, 1.0), (MOBILE, 0.5)])
def test_ab_loss(pair, margin):
    method, batch, *_ = make("ab", pair, margin=margin)
    total = 0.0
    ours, theirs = batch.student.stages_pre, batch.teacher.stages_pre
    for k in range(min(len(ours), len(theirs))):
        mapped = method.connectors[-1 - k](ours[-1 - k])
        for s, t in zip(mapped, theirs[-1 - k], strict=True):
            s, t = (naive_pool(x, min(s.shape[-1], t.shape[-1])).flatten() for x in (s, t))
            wrong = s[(t > 0) & (s <= margin)] - margin, s[(t <= 0) & (s > -margin)] + margin
            total = total + sum((w**2).sum() for w in wrong) / len(mapped) * 3 / 1000 * 2.0**-k
    torch.testing.assert_close(method.stage_losses("ab", batch)["ab"], total, rtol=1e-10, atol=0)


def test_ab_stage_trains_connectors_and_student_but_its_classifier():
    assert AbOptions(init_epochs=3).stages() == (Stage("ab", 3, ("ab",)),)
    method, batch, student, teacher = make("ab", WIDER)
    (stage,) = method.options.stages()
    losses = method.stage_losses(stage.name, batch)
    assert tuple(losses) == stage.losses
    reached = learning(losses["ab"], student=student, method=method, teacher=teacher)
    everyone = named(student, "student") | named(method, "method")
    head = {"student.fc.weight", "student.fc.bias"}
    noise = {
        n for n in everyone if n.startswith("method.") and n.endswith(".0.bias")
    }  # BatchNorm takes them out
    assert not any(isinstance(m, torch.nn.ReLU) for m in method.modules())
    assert everyone - noise - head <= reached <= everyone - head


def test_ab_main_training():
    method, batch, *_ = make("ab", SAME)
    assert_rests(method, batch, "ab")
    assert method.options.unread() == {"loss_weight"}
    method, batch, student, _ = make("ab", SAME, keep=True, loss_weight=2.0)
    assert method.weights(7) == {"ab": 2.0} and method.options.unread() == set()
    loss = method.losses(batch)["ab"]
    torch.testing.assert_close(loss, method.stage_losses("ab", batch)["ab"])
    assert "student.conv1.weight" in learning(loss, student=student)


@pytest.mark.parametrize("pair", [SAME, WIDER, SMALLER, MOBILE])
def test_ft_loss(pair):
    method, batch, *_ = make("ft", pair)
    total = elements = 0
    codes = method.translator(batch.student.stages[-1]), method.paraphraser.encoder(batch.teacher.stages[-1])
    assert codes[0].shape[1] == codes[1].shape[1] == batch.teacher.stages[-1].shape[1] // 2
    for s, t in zip(*codes, strict=True):
        size = min(s.shape[-1], t.shape[-1])
        s, t = ((naive_pool(x, size) ** 2).mean(0) for x in (s, t))
        total = total + (s / s.norm() - t / t.norm()).abs().sum()
        elements += size * size
    torch.testing.assert_close(method.losses(batch)["ft"], total / elements, rtol=1e-10, atol=0)


def test_ft_stage_trains_the_paraphraser_alone():
    stage = Stage("ft_paraphraser", 30, ("reconstruction",), 0.01, trains_student=False)
    assert FtOptions().stages() == (stage,)
    assert FtOptions(paraphraser_lr=None).stages()[0].lr is None
    method, batch, *_ = make("ft", SAME)
    alone = Batch(None, batch.teacher, batch.labels, batch.indices, batch.images)
    losses = method.stage_losses(stage.name, alone)
    assert tuple(losses) == stage.losses
    target = batch.teacher.stages[-1]
    x = target
    for i, layer in enumerate([*method.paraphraser.encoder, *method.paraphraser.decoder]):
        if i % 2 == 0:
            assert type(layer) is (torch.nn.Conv2d if i < 6 else torch.nn.ConvTranspose2d)
            x = layer(x)
        else:
            x = torch.where(x > 0, x, 0.1 * x)
    squares = [((a - b) ** 2).mean() for a, b in zip(x, target, strict=True)]
    torch.testing.assert_close(losses["reconstruction"], sum(squares) / len(squares))
    assert learning(losses["reconstruction"], method=method) == named(
        method.paraphraser, "method.paraphraser"
    )


def test_ft_main_training_leaves_the_paraphraser_alone():
    method, batch, student, teacher = make("ft", SAME)
    reached = learning(method.losses(batch)["ft"], student=student, method=method, teacher=teacher)
    assert all(p.grad is None for p in method.paraphraser.parameters())
    translator = named(method.translator, "method.translator")
    biases = {f"method.translator.{i}.bias" for i in (0, 3, 6)}  # BatchNorm takes them out again
    assert translator - biases <= reached and "student.conv1.weight" in reached


def naive_matrix(lower, upper):
    """One image's matrix, one entry after the other."""
    size = min(lower.shape[-1], upper.shape[-1])
    lower, upper = naive_pool(lower, size), naive_pool(upper, size)
    return torch.stack([torch.stack([(low * up).sum() / size**2 for up in upper]) for low in lower])


def naive_transitions(batch):
    """Per transition: mean over images of the mean squared difference of the matrices."""
    ours, theirs = ([taps.stem, *taps.stages] for taps in (batch.student, batch.teacher))
    for k in range(1, len(ours)):
        images = zip(ours[k - 1], ours[k], theirs[k - 1], theirs[k], strict=True)
        errors = [((naive_matrix(s0, s1) - naive_matrix(t0, t1)) ** 2).mean() for s0, s1, t0, t1 in images]
        yield sum(errors) / len(errors)


@pytest.mark.parametrize("pair", [SAME, ("wrn_16_1", "resnet8")])
def test_fsp_losses_of_both_schedules(pair):
    method, batch, *_ = make("fsp", pair, batch=2)
    transitions = list(naive_transitions(batch))
    assert len(transitions) == 3
    torch.testing.assert_close(method.stage_losses("fsp", batch)["fsp"], sum(transitions), rtol=1e-10, atol=0)
    method, batch, *_ = make("fsp", pair, batch=2, schedule="single_stage")
    torch.testing.assert_close(method.losses(batch)["fsp"], sum(transitions) / 9, rtol=1e-10, atol=0)


def test_fsp_stage_trains_all_but_the_classifier():
    assert FspOptions().stages() == (Stage("fsp", 30, ("fsp",)),)
    method, batch, student, teacher = make("fsp", SAME)
    reached = learning(method.stage_losses("fsp", batch)["fsp"], student=student, teacher=teacher)
    assert reached == named(student, "student") - {"student.fc.weight", "student.fc.bias"}


def test_fsp_main_training():
    method, batch, *_ = make("fsp", SAME)
    assert_rests(method, batch, "fsp")
    assert method.options.unread() == {"loss_weight"}
    method, batch, student, _ = make("fsp", SAME, schedule="single_stage", loss_weight=1.0)
    assert method.options.stages() == () and method.options.unread() == {"init_epochs"}
    assert method.weights(3) == {"fsp": 1.0}
    assert "student.conv1.weight" in learning(method.losses(batch)["fsp"], student=student)


def test_fsp_refusals():
    with pytest.raises(
        ConfigError, match=r"fsp .* map 0 is \(16, 32, 32\) in the student and \(32, 32, 32\)"
    ):
        make("fsp", WIDER)
