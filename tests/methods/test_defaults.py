"""Of every method: its name in tables, its published weights and sizes, and the values and pairs it refuses."""

import functools

import pytest
import torch
from cases import Tiny

from rkd import models
from rkd.errors import ConfigError
from rkd.methods import Context, MethodEntry, Options, Stage, get_method, method_names
from rkd.review import ABF, ReviewKD, ReviewOptions

TWO = ("resnet8", "resnet8")
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
    "semckd": ("SemCKD", {"semckd": 400}, {X4: 10_233_632, PLAIN: 656_288}),
    "sp": ("SP", {"sp": 3000}, {X4: 0}),
    "srrl": ("SRRL", {"srrl_feature": 1, "srrl_logits": 1}, {X4: 256 * 256 + 2 * 256}),
    "vid": ("VID", {"vid": 1}, {X4: 258_496, PLAIN: 16_240}),
}
SIZES = [(name, pair, count) for name, (_, _, sizes) in TABLE.items() for pair, count in sizes.items()]


LABELS = torch.arange(128) % 4
network = functools.cache(models.build)


def build(name, student, teacher, batch_size=64, labels=LABELS, **options):
    entry = get_method(name)
    student, teacher = (network(n) if isinstance(n, str) else n for n in (student, teacher))
    context = Context(student, teacher, 32, 100, labels, batch_size)
    return entry.build(context, entry.options(**options))


def test_none_is_forgotten():
    assert set(method_names()) - set(TABLE) <= {"reviewkd", "modreduce"}  # with tests of their own


@pytest.mark.parametrize(("name", "pair", "count"), SIZES)
def test_names_weights_and_sizes(name, pair, count):
    display, weights, _ = TABLE[name]
    assert get_method(name).display == display
    method = build(name, *pair)
    assert method.weights(100) == method.weights(239) == weights
    method.options = get_method(name).options(loss_weight=2 * method.options.loss_weight)
    assert method.weights(100) == {loss: 2 * weight for loss, weight in weights.items()}
    assert sum(p.numel() for p in method.parameters() if p.requires_grad) == count


# options -> weights by epoch, and which options say nothing then
WEIGHTS = [
    ("dkd", {"alpha": 2.0, "beta": 6.0, "loss_weight": 3.0},
     {0: {"tckd": 0.3, "nckd": 0.9}, 9: {"tckd": 3, "nckd": 9}, 19: {"tckd": 6, "nckd": 18}}, set()),
    ("dkd", {"warmup_epochs": 0}, {0: {"tckd": 1, "nckd": 8}}, set()),
    ("dkd", {"terms": "non_target", "loss_weight": 2.0}, {0: {"nckd": 0.1}, 50: {"nckd": 2}}, {"alpha", "beta"}),
    ("rkd", {"distance_weight": 3.0, "angle_weight": 7.0}, {0: {"rkd_distance": 3, "rkd_angle": 7}}, set()),
    ("reviewkd", {"loss_weight": 0.6},
     {0: {"review": 0}, 1: {"review": 0.03}, 19: {"review": 0.57}, 20: {"review": 0.6}, 239: {"review": 0.6}},
     {"projection"}),
    ("reviewkd", {"warmup_epochs": 0}, {0: {"review": 1}}, {"projection"}),
    ("ab", {}, {0: {"ab": 0}}, {"loss_weight"}),
    ("ab", {"keep": True, "loss_weight": 2.0}, {7: {"ab": 2}}, set()),
    ("fsp", {}, {0: {"fsp": 0}}, {"loss_weight"}),
    ("fsp", {"schedule": "single_stage", "loss_weight": 1.0}, {3: {"fsp": 1}}, {"init_epochs"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "weights", "unread"), WEIGHTS)
def test_weights_by_epoch(name, options, weights, unread):
    method = build(name, Tiny(100), Tiny(100), **options)
    for epoch, wanted in weights.items():
        assert method.weights(epoch) == pytest.approx(wanted)
    assert method.options.unread() == unread


def test_stages():
    ab, ft, fsp = (get_method(name).options for name in ("ab", "ft", "fsp"))
    assert ab(init_epochs=3).stages() == (Stage("ab", 3, ("ab",)),)
    assert fsp().stages() == (Stage("fsp", 30, ("fsp",)),) and fsp(schedule="single_stage").stages() == ()
    stage = Stage("ft_paraphraser", 30, ("reconstruction",), 0.01, trains_student=False)
    assert ft().stages() == (stage,) and ft(paraphraser_lr=None).stages()[0].lr is None
    assert ab().in_epochs() == ("init_epochs",)
    assert get_method("dkd").options().in_epochs() == ("warmup_epochs",)


class TwoHeads(Tiny):
    """Of which either could be the classifier."""

    def __init__(self, classes):
        super().__init__(classes)
        self.other = torch.nn.Linear(32, classes)


def with_norms(count):
    network = Tiny(100)
    network.final_norms = lambda: network.norms[:count]
    return network


@pytest.mark.parametrize(
    ("name", "student", "teacher", "values", "message"),
    [
        ("fitnet", *TWO, {"hint_layer": 4}, r"hint_layer is 4; .* 0 \(stem\) to 3"),
        ("ft", *TWO, {"rate": 0.01}, r"rate is 0\.01; of 64 channels"),
        ("logits", "resnet8", "resnet8x4", {"on": "pooled"}, "has 64 channels and the teacher's 256; set on='logits'"),
        ("kdsvd", "resnet8", "resnet8x4", {}, r"level 1 is \(16, 32, 32\) in the student and \(64, 32, 32\)"),
        ("kdsvd", "resnet8x4", "resnet8x4", {"k": 62}, "k = 62 needs 65 singular vectors"),
        ("kdsvd", "resnet8x4", "resnet8", {"k": 6, "vectors": "columns"}, r"level 3 of shape \(256, 8, 8\) has 8"),
        ("kdsvd", "resnet8", "vgg8", {"vectors": "columns"}, r"equal width, but level 1 is \(16, 32, 32\) in"),
        ("fsp", "resnet8", "resnet8x4", {}, r"map 0 is \(16, 32, 32\) in the student and \(32, 32, 32\)"),
        ("ofd", "resnet8", "shufflenetv1", {}, "no BatchNorm before the last ReLU of each stage"),
        ("ofd", "resnet8", with_norms(1), {}, r"\[8, 16, 32\], but final_norms gives \[8\]"),
        ("srrl", "resnet8", TwoHeads(100), {}, "exactly one .* 32 -> 100.*: fc 32 -> 100, other 32 -> 100"),
        ("semckd", *TWO, {"batch_size": 3}, "batch_size 3 is too small"),
        ("semckd", *TWO, {"labels": LABELS[:63]}, "exactly batch_size 64 images; there are 63"),
        ("crd", *TWO, {"labels": LABELS[:0]}, "at least two classes"),
        ("crd", *TWO, {"labels": None}, "classes .labels. are missing"),
        ("crd", *TWO, {"labels": torch.zeros(128).long()}, "at least two classes"),
        ("ab", *TWO, {"init_epochs": 0}, "init_epochs is 0"),
        ("logits", *TWO, {"on": "poled"}, "unknown on 'poled' .did you mean 'pooled'"),
        ("crd", *TWO, {"momentum": 1.0}, "momentum is 1.0"),
        ("vid", *TWO, {"init_variance": 1e-5}, "init_variance is 1e-05"),
        ("modreduce", *TWO, {"factors": (1.0, 2.0)}, "three numbers"),
        ("modreduce", *TWO, {"online_weight": 0.001}, "online_weight is 0.001"),
        ("modreduce", *TWO, {"mean_decay": 1.0}, "mean_decay is 1"),
        ("modreduce", *TWO, {"relational": "modreduce"}, "relational is 'modreduce'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_gets_one_sentence(name, student, teacher, values, message):
    with pytest.raises(ConfigError, match=message):
        build(name, student, teacher, **values)


def test_builders_take_options_by_name_and_nothing_else_for_them():
    nets = network("resnet8"), network("resnet8")
    kd, at = get_method("kd"), get_method("at")
    assert kd.build(Context(*nets), {"temperature": 2}).options == kd.options(temperature=2)
    assert kd.build(Context(*nets)).options == kd.options()
    for call, message in (
        (lambda: kd.build(Context(*nets), {"temprature": 2}), "did you mean 'temperature'"),
        (lambda: kd.build(Context(*nets), at.options()), "takes KdOptions, not AtOptions"),
        (lambda: kd.build(Context(*nets), 3), "takes KdOptions, not int"),
        (lambda: kd.builder(Context(*nets), {"temperature": 2}), "are a dict; rkd.methods.make_options"),
        (lambda: ReviewKD(*nets, {"mid_channels": 64}), "are a dict; rkd.methods.make_options makes"),
        (lambda: ReviewKD(nets[0], None), r"the network is None, not a network with a taps\(x\) method"),
        (lambda: kd.build(Context(nets[0], torch.nn.Linear(1, 1))), "the teacher is a Linear, not a network"),
        (lambda: MethodEntry(Options, lambda *given: 3).build(Context(*nets)), "returns a int, not a rkd"),
        (lambda: ReviewOptions(mid_channels=64.5), "mid_channels is 64.5; it must be a whole number >= 1"),
        (lambda: ABF(16, 64.5, 16, None), "mid_channels is 64.5; it must be a whole number >= 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()
