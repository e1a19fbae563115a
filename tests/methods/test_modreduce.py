"""ModReduce against its formulas written out by hand, in float64."""

import dataclasses
import math

import pytest
import torch
from naive import cross_entropy, kl

from rkd import models
from rkd.errors import ConfigError
from rkd.methods import Batch, Context, Options, Stage, base, get_method
from rkd.methods.modreduce import (
    AGGREGATIONS,
    STUDENTS,
    ModReduceOptions,
    consistency,
    mean_decay,
    online_share,
)
from rkd.training import RunConfig, TeacherConfig

CLASSES, IMAGES, B = 5, 30, 6
CHEAP = {"relational": "rkd", "feature": "fitnet"}
FACTORS = {"response": 10.0, "relational": 1.0, "feature": 100.0}
METHOD_WEIGHTS = {"crd": 0.8, "rkd": 1.0, "semckd": 400.0, "fitnet": 100.0}


class Bench:
    """A method with its run's student and teacher, and one batch, in float64."""

    def __init__(self, student="cases:Tiny", **options):
        torch.manual_seed(0)
        self.student = models.build(student, CLASSES)
        self.teacher = models.build("cases:Tiny", CLASSES).eval()
        labels = torch.arange(IMAGES) % CLASSES
        context = Context(self.student, self.teacher, 32, CLASSES, labels, B, network=student)
        self.method = get_method("modreduce").build(context, ModReduceOptions(**options))
        for module in (self.student, self.teacher, self.method):
            module.double()
        self.indices = torch.arange(B) * 2
        self.labels = labels[self.indices]
        self.images = torch.randn(B, 3, 32, 32, dtype=torch.float64)
        self.method.begin_epoch(0)

    def batch(self):
        with torch.no_grad():
            taught = self.teacher.taps(self.images)
        return Batch(self.student.taps(self.images), taught, self.labels, self.indices, self.images)

    def networks(self):
        own = {name: getattr(self.method, name).network for name in STUDENTS[1:]}
        return {"response": self.student, **own}

    def total(self, epoch):
        """The weighted sum a run minimises."""
        losses, weights = self.method.losses(self.batch()), self.method.weights(epoch)
        assert losses.keys() == weights.keys()
        return sum(weights[name] * losses[name] for name in losses)

    def gradients(self, value):
        """Name -> gradient of all parameters; every one is reached."""
        named = {f"student.{n}": p for n, p in self.student.named_parameters()}
        named |= {f"method.{n}": p for n, p in self.method.named_parameters() if p.requires_grad}
        return dict(zip(named, torch.autograd.grad(value, list(named.values())), strict=True))


def group_by_hand(bench, logits):
    """Group logits, image by image and class by class."""
    aggregator, kind = bench.method.aggregator, bench.method.options.aggregation
    rows = []
    for i, image in enumerate(bench.images):
        z = [logits[name][i].detach() for name in STUDENTS]
        if kind == "fc":
            rows.append(aggregator.linear.weight @ torch.cat(z) + aggregator.linear.bias)
            continue
        if kind == "wavg":
            shares = aggregator.weights
        elif kind == "wavg_fixed":
            shares = aggregator.weights.exp() / aggregator.weights.exp().sum()
        else:
            halves = slice(16), slice(16, 32)
            pooled = [image[c, y, x].mean() for c in range(3) for y in halves for x in halves]
            score = (aggregator.gate.weight @ torch.stack(pooled) + aggregator.gate.bias).clamp_min(0).exp()
            shares = score / score.sum()
        rows.append(sum(shares[s] * z[s] for s in range(3)))
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("aggregation", "relational", "feature"),
    [*((a, "crd", "semckd") for a in AGGREGATIONS), ("wavg", "rkd", "fitnet"), ("pcl", "rkd", "fitnet")],
)
def test_one_step_by_hand(aggregation, relational, feature):
    """Losses and all gradients: each student learns from its own alone, and the aggregator from the group's."""
    epoch = 100 if aggregation != "pcl" else 40
    bench = Bench(aggregation=aggregation, relational=relational, feature=feature)
    batch, chosen = bench.batch(), {"relational": relational, "feature": feature}
    taps = {name: network.taps(bench.images) for name, network in bench.networks().items()}
    logits = {name: t.logits for name, t in taps.items()}
    w, c = 0.01 * 70 ** (11 / 24), math.exp(-5 * 0.25)
    group = None if aggregation == "pcl" else group_by_hand(bench, logits)
    total = 0.0 if group is None else cross_entropy(group, bench.labels)
    for name in STUDENTS:
        ce = cross_entropy(logits[name], bench.labels)
        taught = kl(logits[name], batch.teacher.logits, 4.0, floor=1e-7)
        own, weight = 0.0, 0.0
        if name in chosen:  # how these losses come about is other files' business
            distiller, weight = getattr(bench.method, name).distiller, METHOD_WEIGHTS[chosen[name]]
            losses = distiller.losses(dataclasses.replace(batch, student=taps[name]))
            own = sum(distiller.weights(0)[key] * value for key, value in losses.items())
        if group is None:
            peers = 0.0
            for peer in set(STUDENTS) - {name}:
                with torch.no_grad():
                    said = bench.method.means[peer](bench.images)
                peers = peers + kl(logits[name], said, 3.0, floor=1e-7)
            total = total + (ce + own + c * taught + c * peers) / (1 + weight + 1 + c) * FACTORS[name]
        else:
            offline = (ce + taught + own) / (2 + weight) * FACTORS[name]
            total = total + w * kl(logits[name], group.detach(), 4.0, floor=1e-7) + (1 - w) * offline
    ours = bench.total(epoch)
    assert ours.item() == pytest.approx(total.item(), rel=1e-10)
    torch.testing.assert_close(bench.gradients(ours), bench.gradients(total), rtol=1e-7, atol=1e-10)


def test_shares_and_ramps():
    """A synchronous share grown step by step, as the released code does it in its loop over epochs."""
    o, w = ModReduceOptions(), 0.01
    for epoch in range(240):
        if epoch % 10 == 0:
            w *= 70 ** (1 / 24)
        assert online_share(epoch, o) == pytest.approx(w, rel=1e-12)
    assert online_share(1000, o) == 0.7, "it grows no further"
    late, o = ModReduceOptions(cutoff_epochs=220), ModReduceOptions(aggregation="pcl")
    assert [online_share(e, late) for e in (0, 219, 220, 239)] == [0.0, 0.0, 0.7, 0.7]
    found = [consistency(e, o) for e in (0, 40, 80, 239)]
    assert found == pytest.approx([math.exp(-5), math.exp(-1.25), 1, 1])
    late = dataclasses.replace(late, aggregation="pcl")
    assert (consistency(219, late), consistency(220, late)) == (0.0, 1.0)
    assert [mean_decay(e, o) for e in (0, 1, 3, 5000)] == [0.0, 0.5, 0.75, 0.999]


@pytest.mark.parametrize("aggregation", ["wavg", "pcl"])
def test_before_the_cutoff_each_student_learns_offline_alone(aggregation):
    method = Bench(aggregation=aggregation, cutoff_epochs=3, **CHEAP).method
    before, after, grouped = method.weights(2), method.weights(3), aggregation != "pcl"
    for name, others in (("response", 0), ("relational", 1), ("feature", 100)):
        expected = FACTORS[name] / (2 + others)
        assert before[f"{name}_ce"] == before[f"{name}_kd"] == pytest.approx(expected)
    mutual = [k for k in before if k.endswith(("_online", "_peers")) or k == "aggregation"]
    assert len(mutual) == 3 + grouped
    assert all(before[k] == 0 for k in mutual) and all(after[k] > 0 for k in mutual)
    assert method.rates(2, 0.05) == ({"aggregator.": 0.0} if grouped else {})
    assert method.rates(3, 0.05) == method.rates(239, 5e-5) == ({"aggregator.": 0.1} if grouped else {})


def test_replaced_average_under_its_own_steps():
    """Each step: replace, use, SGD with momentum; against the same in plain numbers with gradients by differences."""
    torch.manual_seed(0)
    logits = 3 * torch.randn(3, 20, CLASSES, dtype=torch.float64)
    labels = torch.randint(CLASSES, (20,))
    aggregator = AGGREGATIONS["wavg"](CLASSES).double()
    aggregator.weights.data.fill_(0.33)
    aggregator.after_step(torch.tensor(True))  # the replacement before the first use
    sgd = torch.optim.SGD(aggregator.parameters(), 0.1, 0.9, weight_decay=5e-4)
    w, velocity = torch.full((3,), 0.33, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)

    def loss(weights):
        return cross_entropy(sum(weights[s] * logits[s] for s in range(3)), labels)

    for _ in range(8):
        sgd.zero_grad()
        torch.nn.functional.cross_entropy(aggregator(logits)[0], labels).backward()
        sgd.step()
        aggregator.after_step(torch.tensor(True))
        w = w.exp() / w.exp().sum()
        slope = torch.stack([(loss(w + 1e-6 * e) - loss(w - 1e-6 * e)) / 2e-6 for e in torch.eye(3).double()])
        velocity = 0.9 * velocity + slope + 5e-4 * w
        w = w - 0.1 * velocity
    assert aggregator.weights.tolist() == pytest.approx((w.exp() / w.exp().sum()).tolist(), rel=1e-6)
    assert (w < 0).any(), "stored weights go negative and are softmaxed again"


def test_running_means_of_parameters_from_the_cutoff_on():
    bench = Bench(aggregation="pcl", mean_decay=0.6, cutoff_epochs=2, **CHEAP)
    first = {n: next(network.parameters()).detach().clone() for n, network in bench.networks().items()}
    mean = {n: next(bench.method.means[n].parameters()) for n in STUDENTS}
    assert all(not torch.equal(mean[n], first[n]) for n in STUDENTS), "initialised by themselves"
    kept = {n: mean[n].detach().clone() for n in STUDENTS}
    statistics = {n: b.clone() for n, b in bench.method.means.named_buffers()}
    for epoch, alpha in enumerate([1.0, 1.0, 0.6, 0.6]):  # they wait for the cutoff
        bench.method.begin_epoch(epoch)
        with torch.no_grad():
            for p in (p for network in bench.networks().values() for p in network.parameters()):
                p.add_(0.1 * torch.randn_like(p))
        bench.method.end_epoch(bench.student)
        for n, network in bench.networks().items():
            kept[n] = alpha * kept[n] + (1 - alpha) * next(network.parameters()).detach()
            torch.testing.assert_close(mean[n].detach(), kept[n], rtol=1e-12, atol=1e-12)
    assert all(torch.equal(b, statistics[n]) for n, b in bench.method.means.named_buffers())


def test_epochs_report_shares_and_networks_are_scored():
    bench, said = Bench(aggregation="one", **CHEAP), []
    method = bench.method
    for _ in range(3):
        bench.images = torch.randn(B, 3, 32, 32, dtype=torch.float64)
        method.losses(bench.batch())
        said.append(method._pending.clone())
        method.after_step(torch.tensor(True))
    mean, report = torch.stack(said).mean(0), method.report()
    assert [report[f"weight_{name}"] for name in STUDENTS] == pytest.approx(mean.tolist(), rel=1e-6)
    assert sum(mean) == pytest.approx(1) and report["online_share"] == online_share(0, method.options)
    networks = method.networks(bench.student)
    assert list(networks) == ["relational", "feature", "group"]
    logits = torch.stack([network(bench.images) for network in bench.networks().values()])
    torch.testing.assert_close(networks["group"](bench.images), method.aggregator(logits, bench.images)[0])
    aggregator = AGGREGATIONS["fc"](2).double()  # whose shares are norms of blocks
    aggregator.linear.weight.data = torch.tensor([[3.0, 0, 0, 0, 1, 0], [0, 4, 0, 0, 0, 0]]).double()
    assert aggregator(torch.zeros(3, 1, 2).double())[1].tolist() == pytest.approx([5 / 6, 0, 1 / 6])


def test_students_of_other_architectures_and_rates():
    others = {"relational_student": "wrn_16_1", "feature_student": "resnet8", "feature_rate": 0.2}
    bench = Bench(aggregation="pcl", **others, **CHEAP)
    kinds = [type(bench.method.means[name]).__name__ for name in STUDENTS]
    assert kinds == [type(network).__name__ for network in bench.networks().values()] and len(set(kinds)) == 3
    assert bench.method.rates(0, 0.05) == {"feature.": pytest.approx(0.01)}
    assert torch.isfinite(bench.total(10))


class StagedOptions(Options):
    def stages(self):
        return (Stage("first", 1, ("loss",)),)


def test_refused_surroundings(monkeypatch):
    with pytest.raises(ConfigError, match="nosuch"):
        Bench(relational="nosuch")
    monkeypatch.setitem(base._METHODS, "staged", base.MethodEntry(StagedOptions, lambda *given: None))
    with pytest.raises(ConfigError, match="'staged', which trains in stages"):
        Bench(relational="rkd", feature="staged")
    with pytest.raises(ConfigError, match="name of the run's network"):
        context = Context(models.build("resnet8"), models.build("resnet14"))
        get_method("modreduce").build(context, ModReduceOptions())
    bench = Bench(**CHEAP)
    with pytest.raises(ConfigError, match="images of a batch"):
        bench.method.losses(dataclasses.replace(bench.batch(), images=None))


def test_what_a_run_does_not_read_does_not_name_it():
    def name(**options):
        taught = TeacherConfig(run=RunConfig("resnet14", epochs=1))
        return RunConfig("resnet8", method="modreduce", options=options, teacher=taught).id

    late, pcl = {"cutoff_epochs": 9}, {"aggregation": "pcl"}
    assert name() == name(ramp_epochs=3) != name(growth_epochs=3)
    assert name(**late) == name(**late, growth_epochs=3) != name(cutoff_epochs=8)
    assert name(**pcl) == name(**pcl, aggregator_lr=0.2) != name(**pcl, ramp_epochs=3)
    assert ModReduceOptions().in_epochs() == ("cutoff_epochs", "growth_epochs", "ramp_epochs")
