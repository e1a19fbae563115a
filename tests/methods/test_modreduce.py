"""ModReduce against its formulas written out by hand, in float64."""

import dataclasses
import math

import pytest
import torch

from rkd import models
from rkd.errors import ConfigError
from rkd.methods import Batch, Context, Options, Stage, base, get_method
from rkd.methods.modreduce import (
    AGGREGATIONS,
    STUDENTS,
    ModReduceOptions,
    consistency,
    is_online,
    mean_decay,
    online_share,
    softened_kl,
)
from rkd.training import RunConfig, TeacherConfig

CLASSES, IMAGES, B = 5, 30, 6
COMBINATIONS = [("crd", "semckd"), ("rkd", "fitnet"), ("crd", "fitnet"), ("rkd", "semckd")]
FACTORS = {"response": 10.0, "relational": 1.0, "feature": 100.0}
METHOD_WEIGHTS = {"crd": 0.8, "rkd": 1.0, "semckd": 400.0, "fitnet": 100.0}


class Bench:
    """A method with its run's student and teacher, and one batch, in float64."""

    def __init__(self, seed=0, student="cases:Tiny", **options):
        torch.manual_seed(seed)
        self.student = models.build(student, CLASSES).double()
        self.teacher = models.build("cases:Tiny", CLASSES).double().eval()
        labels = torch.arange(IMAGES) % CLASSES
        context = Context(
            self.student, self.teacher, 32, CLASSES, IMAGES, labels, batch_size=B, seed=seed, network=student
        )
        # Networks are built and shapes are read in the default precision, as in a run.
        self.student.float(), self.teacher.float()
        self.method = get_method("modreduce").build(context, ModReduceOptions(**options))
        for module in (self.student, self.teacher, self.method):
            module.double()
        self.method.train()
        self.indices = torch.arange(B) * 2
        self.labels = labels[self.indices]
        self.images = torch.randn(B, 3, 32, 32, dtype=torch.float64)
        self.method.begin_epoch(0)

    def batch(self):
        with torch.no_grad():
            taught = self.teacher.taps(self.images)
        return Batch(self.student.taps(self.images), taught, self.labels, self.indices, self.images)

    def networks(self):
        return {
            "response": self.student,
            "relational": self.method.relational.network,
            "feature": self.method.feature.network,
        }

    def total(self, epoch, only=""):
        """The weighted sum a run minimises; of the losses whose names start with `only`."""
        losses, weights = self.method.losses(self.batch()), self.method.weights(epoch)
        assert losses.keys() == weights.keys()
        return sum(weights[name] * losses[name] for name in losses if name.startswith(only))

    def gradients(self, value):
        """Name -> gradient of all parameters, None where `value` does not depend on one."""
        named = {f"student.{n}": p for n, p in self.student.named_parameters()}
        named |= {f"method.{n}": p for n, p in self.method.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(value, list(named.values()), allow_unused=True)
        return dict(zip(named, found, strict=True))


def ce_by_hand(logits, labels):
    return sum(row.exp().sum().log() - row[label] for row, label in zip(logits, labels, strict=True)) / len(
        labels
    )


def kl_by_hand(logits, target, temperature):
    total = 0.0
    for row, wanted in zip(logits, target, strict=True):
        p, q = (e / e.sum() for e in ((row / temperature).exp(), (wanted / temperature).exp()))
        total = total + ((q + 1e-7) * ((q + 1e-7) / p).log()).sum()
    return temperature**2 * total / len(logits)


def group_by_hand(bench, logits):
    """Group logits, image by image and class by class."""
    aggregator, kind = bench.method.aggregator, bench.method.options.aggregation
    stacked = [logits[name].detach() for name in STUDENTS]
    rows = []
    for i in range(B):
        z = [student[i] for student in stacked]
        if kind == "wavg":
            shares = aggregator.weights
        elif kind == "wavg_fixed":
            shares = aggregator.weights.exp() / aggregator.weights.exp().sum()
        elif kind == "one":
            image = bench.images[i]
            halves = slice(16), slice(16, 32)
            pooled = [image[c, y, x].mean() for c in range(3) for y in halves for x in halves]
            score = (aggregator.gate.weight @ torch.stack(pooled) + aggregator.gate.bias).clamp_min(0).exp()
            shares = score / score.sum()
        else:
            rows.append(aggregator.linear.weight @ torch.cat(z) + aggregator.linear.bias)
            continue
        rows.append(sum(shares[s] * z[s] for s in range(3)))
    return torch.stack(rows)


def method_loss_by_weight(bench, name, taps, batch):
    """A distiller's weighted losses; how these come about is other files' business."""
    distiller = getattr(bench.method, name).distiller
    losses = distiller.losses(dataclasses.replace(batch, student=taps))
    return sum(distiller.weights(0)[key] * value for key, value in losses.items())


@pytest.mark.parametrize(
    ("aggregation", "relational", "feature"),
    [(a, *COMBINATIONS[0]) for a in AGGREGATIONS]
    + [(a, *c) for a in ("wavg", "pcl") for c in COMBINATIONS[1:]],
)
def test_one_step_by_hand(aggregation, relational, feature):
    epoch = 100 if aggregation != "pcl" else 40
    bench = Bench(aggregation=aggregation, relational=relational, feature=feature)
    batch = bench.batch()
    taps = {name: network.taps(bench.images) for name, network in bench.networks().items()}
    logits = {name: t.logits for name, t in taps.items()}
    group = None if aggregation == "pcl" else group_by_hand(bench, logits)
    w, c = 0.01 * 70 ** (11 / 24), math.exp(-5 * 0.25)
    chosen = {"relational": relational, "feature": feature}
    total = 0.0
    for name in STUDENTS:
        ce = ce_by_hand(logits[name], bench.labels)
        kd = kl_by_hand(logits[name], batch.teacher.logits, 4.0)
        own, weight = 0.0, 0.0
        if name in chosen:
            own = method_loss_by_weight(bench, name, taps[name], batch)
            weight = METHOD_WEIGHTS[chosen[name]]
        if aggregation == "pcl":
            peers = 0.0
            for peer in STUDENTS:
                if peer != name:
                    with torch.no_grad():
                        said = bench.method.means[peer](bench.images)
                    peers = peers + kl_by_hand(logits[name], said, 3.0)
            total = total + (ce + own + c * kd + c * peers) / (1 + weight + 1 + c) * FACTORS[name]
        else:
            offline = (ce + kd + own) / (2 + weight) * FACTORS[name]
            total = total + w * kl_by_hand(logits[name], group.detach(), 4.0) + (1 - w) * offline
    if group is not None:
        total = total + ce_by_hand(group, bench.labels)
    ours = bench.total(epoch)
    assert ours.item() == pytest.approx(total.item(), rel=1e-10)
    by_hand, computed = bench.gradients(total), bench.gradients(ours)
    for name, gradient in by_hand.items():
        assert gradient is not None, name
        torch.testing.assert_close(computed[name], gradient, rtol=1e-7, atol=1e-10, msg=name)


def test_synchronous_share_is_that_of_the_released_code():
    """Grown step by step, as a loop over epochs does it."""
    o, w = ModReduceOptions(), 0.01
    for epoch in range(240):
        if epoch % 10 == 0:
            w *= 70 ** (1 / 24)
        assert online_share(epoch, o) == pytest.approx(w, rel=1e-12)
    assert online_share(1000, o) == 0.7, "it grows no further"


def test_asynchronous_share_and_ramp():
    late = ModReduceOptions(cutoff_epochs=220)
    assert [online_share(e, late) for e in (0, 219, 220, 239)] == [0.0, 0.0, 0.7, 0.7]
    o = ModReduceOptions(aggregation="pcl")
    assert consistency(0, o) == pytest.approx(math.exp(-5))
    assert consistency(40, o) == pytest.approx(math.exp(-1.25))
    assert [consistency(e, o) for e in (80, 239)] == [1.0, 1.0]
    late = dataclasses.replace(late, aggregation="pcl")
    assert (consistency(219, late), consistency(220, late)) == (0.0, 1.0)
    assert [mean_decay(e, o) for e in (0, 1, 3, 5000)] == [0.0, 0.5, 0.75, 0.999]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_before_the_cutoff_each_student_learns_offline_alone(aggregation):
    o = dict(aggregation=aggregation, cutoff_epochs=3, relational="rkd", feature="fitnet")
    method = Bench(**o).method
    before, after = method.weights(2), method.weights(3)
    assert not is_online(2, method.options) and is_online(3, method.options)
    for name, others in (("response", 0), ("relational", 1), ("feature", 100)):
        expected = FACTORS[name] / (2 + others)
        assert before[f"{name}_ce"] == before[f"{name}_kd"] == pytest.approx(expected)
    mutual = [k for k in before if k.endswith(("_online", "_peers"))] + ["aggregation"] * (
        aggregation != "pcl"
    )
    assert len(mutual) == 3 + (aggregation != "pcl")
    assert all(before[k] == 0 for k in mutual) and all(after[k] > 0 for k in mutual)
    if aggregation != "pcl":
        assert method.rates(2, 0.05) == {"aggregator.": 0.0}
        assert method.rates(3, 0.05) == method.rates(239, 0.00005) == {"aggregator.": 0.1}
    else:
        assert method.rates(3, 0.05) == {}


def test_replaced_average_under_its_own_steps_and_fixed_average_differ():
    """Each step: replace, use, SGD with momentum; against the same in plain numbers with gradients by differences."""
    torch.manual_seed(0)
    logits = 3 * torch.randn(3, 20, CLASSES, dtype=torch.float64)
    labels = torch.randint(CLASSES, (20,))
    aggregator = AGGREGATIONS["wavg"](CLASSES).double()
    aggregator.weights.data.fill_(0.33)
    aggregator.after_step()  # the replacement before the first use
    sgd = torch.optim.SGD(aggregator.parameters(), 0.1, 0.9, weight_decay=5e-4)
    w, velocity = torch.full((3,), 0.33, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)

    def loss(weights):
        return ce_by_hand(sum(weights[s] * logits[s] for s in range(3)), labels)

    for _ in range(8):
        sgd.zero_grad()
        torch.nn.functional.cross_entropy(aggregator(logits)[0], labels).backward()
        sgd.step()
        aggregator.after_step()
        w = w.exp() / w.exp().sum()
        slope = torch.stack([(loss(w + 1e-6 * e) - loss(w - 1e-6 * e)) / 2e-6 for e in torch.eye(3).double()])
        velocity = 0.9 * velocity + slope + 5e-4 * w
        w = w - 0.1 * velocity
    assert aggregator.weights.tolist() == pytest.approx((w.exp() / w.exp().sum()).tolist(), rel=1e-6)
    assert (w < 0).any(), "stored weights go negative and are softmaxed again"


def test_running_means_of_parameters_from_the_cutoff_on():
    bench = Bench(aggregation="pcl", relational="rkd", feature="fitnet", mean_decay=0.6, cutoff_epochs=2)
    first = {n: next(network.parameters()).detach().clone() for n, network in bench.networks().items()}
    mean = {n: next(bench.method.means[n].parameters()) for n in STUDENTS}
    assert all(not torch.equal(mean[n], first[n]) for n in STUDENTS), "initialised by themselves"
    kept = {n: mean[n].detach().clone() for n in STUDENTS}
    statistics = {n: b.clone() for n, b in bench.method.means.named_buffers()}
    for epoch, alpha in enumerate([1.0, 1.0, 0.6, 0.6]):  # they wait for the cutoff
        bench.method.begin_epoch(epoch)
        with torch.no_grad():
            for network in bench.networks().values():
                for p in network.parameters():
                    p.add_(0.1 * torch.randn_like(p))
        bench.method.end_epoch(bench.student)
        for n, network in bench.networks().items():
            kept[n] = alpha * kept[n] + (1 - alpha) * next(network.parameters()).detach()
            torch.testing.assert_close(mean[n].detach(), kept[n], rtol=1e-12, atol=1e-12)
    assert all(torch.equal(b, statistics[n]) for n, b in bench.method.means.named_buffers())
    assert not any(p.requires_grad for p in bench.method.means.parameters())


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_gradients_stay_where_they_belong(aggregation):
    bench = Bench(aggregation=aggregation, relational="rkd", feature="fitnet")
    prefixes = {"response": "student.", "relational": "method.relational.", "feature": "method.feature."}
    for student, own in prefixes.items():
        for name, gradient in bench.gradients(bench.total(0, only=student)).items():
            assert (gradient is not None) == name.startswith(own), (student, name)
    if aggregation != "pcl":
        for name, gradient in bench.gradients(bench.total(0, only="aggregation")).items():
            assert (gradient is not None) == name.startswith("method.aggregator."), name


def test_kl_has_the_added_probability():
    """A target that is certain keeps the KL finite, and 1e-7 on each class is counted."""
    logits = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    target = torch.tensor([[1e4, 0.0]], dtype=torch.float64, requires_grad=True)
    expected = 4 * ((1 + 1e-7) * math.log((1 + 1e-7) * 2) + 1e-7 * math.log(1e-7 * 2))
    assert softened_kl(logits, target, 2.0).item() == pytest.approx(expected, rel=1e-12)
    assert not softened_kl(logits, target, 2.0).requires_grad
    low = softened_kl(logits.bfloat16(), target.bfloat16(), 2.0)
    assert low.dtype == torch.float32


def test_epochs_report_shares_and_networks_are_scored():
    bench = Bench(aggregation="one", relational="rkd", feature="fitnet")
    method, said = bench.method, []
    for _ in range(3):
        bench.images = torch.randn(B, 3, 32, 32, dtype=torch.float64)
        method.losses(bench.batch())
        said.append(method._pending.clone())
        method.after_step()
    mean, report = torch.stack(said).mean(0), method.report()
    assert mean.sum().item() == pytest.approx(1)
    assert [report[f"weight_{name}"] for name in STUDENTS] == pytest.approx(mean.tolist(), rel=1e-6)
    assert report["online_share"] == online_share(0, method.options)
    networks = method.networks(bench.student)
    assert list(networks) == ["relational", "feature", "group"]
    logits = torch.stack([network(bench.images) for network in bench.networks().values()])
    torch.testing.assert_close(networks["group"](bench.images), method.aggregator(logits, bench.images)[0])
    networks["group"].eval()
    assert not bench.student.training


def test_students_of_other_architectures_and_rates():
    bench = Bench(
        student="resnet8", relational_student="wrn_16_1", feature_student="shufflenetv1", feature_rate=0.2,
        relational="rkd", feature="fitnet", aggregation="pcl",
    )  # fmt: skip
    kinds = [type(bench.method.means[name]).__name__ for name in STUDENTS]
    assert kinds == [type(network).__name__ for network in bench.networks().values()]
    assert len(set(kinds)) == 3
    assert bench.method.rates(0, 0.05) == {"feature.": pytest.approx(0.01)}
    assert torch.isfinite(bench.total(10))


def test_fully_connected_shares_are_norms_of_blocks():
    aggregator = AGGREGATIONS["fc"](2).double()
    aggregator.linear.weight.data = torch.tensor([[3.0, 0, 0, 0, 1, 0], [0, 4, 0, 0, 0, 0]]).double()
    _, shares = aggregator(torch.zeros(3, 1, 2, dtype=torch.float64))
    assert shares.tolist() == pytest.approx([5 / 6, 0, 1 / 6])


@dataclasses.dataclass(frozen=True)
class StagedOptions(Options):
    def stages(self):
        return (Stage("first", 1, ("loss",)),)


def test_refused_surroundings(monkeypatch):
    with pytest.raises(ConfigError, match="nosuch"):
        Bench(relational="nosuch")
    monkeypatch.setitem(base._METHODS, "staged", base.Entry(StagedOptions, lambda context, options: None))
    with pytest.raises(ConfigError, match="'staged', which trains in stages"):
        Bench(relational="rkd", feature="staged")
    student, teacher = models.build("resnet8", CLASSES), models.build("resnet14", CLASSES)
    with pytest.raises(ConfigError, match="name of the run's network"):
        get_method("modreduce").build(Context(student, teacher, 32, CLASSES), ModReduceOptions())
    bench = Bench(relational="rkd", feature="fitnet")
    with pytest.raises(ConfigError, match="images of a batch"):
        bench.method.losses(dataclasses.replace(bench.batch(), images=None))


def test_what_a_run_does_not_read_does_not_name_it():
    def name(**options):
        run = RunConfig("resnet14", epochs=1)
        return RunConfig(
            "resnet8", method="modreduce", options=ModReduceOptions(**options), teacher=TeacherConfig(run=run)
        ).id

    assert name() == name(ramp_epochs=3) != name(growth_epochs=3)
    assert name(cutoff_epochs=9) == name(cutoff_epochs=9, growth_epochs=3) != name(cutoff_epochs=8)
    assert (
        name(aggregation="pcl")
        == name(aggregation="pcl", aggregator_lr=0.2)
        != name(aggregation="pcl", ramp_epochs=3)
    )
    assert ModReduceOptions().in_epochs() == ("cutoff_epochs", "growth_epochs", "ramp_epochs")
