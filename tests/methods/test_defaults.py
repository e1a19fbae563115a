"""Of every method: its name in tables, its published weights and sizes, who learns, and the values it refuses."""

import math

import pytest
import torch
from cases import Tiny

from rkd import models
from rkd.errors import ConfigError
from rkd.methods import Batch, Context, get_method, method_names

X4 = ("resnet8x4", "resnet32x4")
PLAIN = ("resnet20", "resnet56")
# display, weight of each loss after any warm-up, trained parameters of a pair at batch 64 (RepDistiller's and others')
TABLE = {
    "ab": ("AB", {"ab": 0}, {PLAIN: 0, ("resnet8", "resnet8x4"): 16 * 64 + 32 * 128 + 64 * 256 + 3 * 448}),
    "at": ("AT", {"at": 1000}, {X4: 0}),
    "cc": ("CC", {"cc": 0.02}, {X4: 65_792}),
    "crd": ("CRD", {"crd": 0.8}, {X4: 65_792, PLAIN: 16_640}),
    "dkd": ("DKD", {"tckd": 1, "nckd": 8}, {X4: 0}),
    "fitnet": ("FitNet", {"fitnet": 100}, {X4: 16_768, PLAIN: 1_120}),
    "fsp": ("FSP", {"fsp": 0}, {PLAIN: 0}),
    "ft": ("FT", {"ft": 200}, {X4: 1_033_728 + 2_065_536, PLAIN: 64_896 + 129_312}),
    "kd": ("KD", {"kd": 1}, {X4: 0}),
    "kdrefine": ("KDrefine", {"kdrefine": 1}, {X4: 0}),
    "kdsvd": ("KDSVD", {"kdsvd": 1}, {X4: 0}),
    "logits": ("Logits", {"logits": 1}, {X4: 0}),
    "nst": ("NST", {"nst": 50}, {X4: 0}),
    "ofd": ("OFD", {"ofd": 0.001}, {PLAIN: sum(c * c + 2 * c for c in (16, 32, 64))}),
    "pkt": ("PKT", {"pkt": 30000}, {X4: 0}),
    "rkd": ("RKD", {"rkd_distance": 25, "rkd_angle": 50}, {X4: 0}),
    "semckd": ("SemCKD", {"semckd": 400}, {X4: 10_233_632, PLAIN: 656_288, ("vgg8", "vgg13"): 96_174_464}),
    "sp": ("SP", {"sp": 3000}, {X4: 0}),
    "srrl": ("SRRL", {"srrl_feature": 1, "srrl_logits": 1}, {X4: 256 * 256 + 2 * 256}),
    "vid": ("VID", {"vid": 1}, {X4: 258_496, PLAIN: 16_240}),
}
SIZES = [(name, pair, count) for name, (_, _, sizes) in TABLE.items() for pair, count in sizes.items()]


def build(name, student, teacher, batch_size=64, **options):
    entry = get_method(name)
    labels = torch.arange(128) % 4
    context = Context(student, teacher, 32, 100, 128, labels, batch_size)
    return entry.build(context, entry.options(**options))


def test_none_is_forgotten():
    assert set(method_names()) - set(TABLE) <= {"reviewkd", "modreduce"}  # with tests of their own


@pytest.mark.parametrize(("name", "pair", "count"), SIZES)
def test_names_weights_and_sizes(name, pair, count):
    display, weights, _ = TABLE[name]
    assert get_method(name).display == display
    student, teacher = map(models.build, pair)
    method = build(name, student, teacher)
    assert method.weights(100) == method.weights(239) == weights
    twice = build(name, student, teacher, loss_weight=2 * method.options.loss_weight)
    assert twice.weights(100) == {loss: 2 * weight for loss, weight in weights.items()}
    assert sum(p.numel() for p in method.parameters() if p.requires_grad) == count


@pytest.mark.parametrize("name", [name for name in TABLE if name not in ("ab", "fsp")])
def test_losses_are_wide_and_reach_the_student_and_all_that_is_trained(name):
    """Under autocast, with taps in bf16; the teacher and what rests get no gradient."""
    torch.manual_seed(0)
    student, teacher = Tiny(100), Tiny(100)
    method = build(name, student, teacher, 8)
    x, indices = torch.randn(8, 3, 32, 32), torch.arange(8)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            theirs = teacher.taps(x)
        losses = method.losses(Batch(student.taps(x), theirs, indices % 4, indices, x))
    assert all(loss.dtype == torch.float32 and loss.shape == () for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in student.parameters() if p.grad is not None)
    assert student.stem.weight.grad.abs().sum() > 0
    resting = {"ft": "paraphraser."}.get(name, "-")
    for key, parameter in method.named_parameters():
        assert (parameter.grad is not None) == (parameter.requires_grad and not key.startswith(resting)), key
    assert all(p.grad is None for p in teacher.parameters())


def test_stages_last_an_epoch_at_least():
    for name in ("ab", "ft", "fsp"):
        with pytest.raises(ConfigError, match="init_epochs is 0"):
            get_method(name).options(init_epochs=0)
        assert get_method(name).options().in_epochs() == ("init_epochs",)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("kd", {"temperature": 0.0}, "temperature is 0.0; it must be a finite number > 0"),
        ("at", {"p": 0}, "p is 0"),
        ("logits", {"on": "poled"}, "unknown on 'poled' .did you mean 'pooled'"),
        ("dkd", {"beta": math.nan}, "beta is nan"),
        ("kdrefine", {"statistics": "biased"}, "unknown statistics 'biased'.*allowed: layer_norm, unbiased"),
        ("crd", {"momentum": 1.0}, "momentum is 1.0"),
        ("modreduce", {"factors": (1.0, 2.0)}, "three numbers"),
        ("modreduce", {"online_weight": 0.001}, "online_weight is 0.001"),
        ("modreduce", {"mean_decay": 1.0}, "mean_decay is 1"),
        ("modreduce", {"relational": "modreduce"}, "relational is 'modreduce'"),
    ],
)
def test_bad_options_get_one_sentence(name, options, message):
    with pytest.raises(ConfigError, match=message):
        get_method(name).options(**options)


def test_pairs_that_do_not_fit_get_one_sentence():
    student, teacher = models.build("mobilenetv2"), models.build("resnet8")
    with pytest.raises(ConfigError, match=r"hint_layer is 4; .* 0 \(stem\) to 3"):
        build("fitnet", student, teacher, hint_layer=4)
    with pytest.raises(ConfigError, match=r"rate is 0\.01; of 64 channels"):
        build("ft", student, teacher, rate=0.01)
