"""What every registered method must do: train all it owns, resume to the bit, not depend on company, be recorded."""

import dataclasses
import functools
import math

import pytest
import torch
from cases import CASES
from conftest import tiny_data, tiny_plain, tiny_review

from rkd import data
from rkd.errors import ConfigError
from rkd.experiments.runner import Runner
from rkd.methods import get_method, make_options
from rkd.methods.sum import SumOptions
from rkd.records import Store
from rkd.training import FrozenTeacher, RunConfig, TeacherConfig, TrainState, arithmetic, checkpoint, train
from rkd.training.build import build_method, build_network
from rkd.training.capture import captured

TINY = "cases:Tiny"  # the least that every method takes
WHOLE = tiny_data(train_images=48, test_images=10)  # two whole batches
FEW = {"data": tiny_data(train_images=40, test_images=10), "batch_size": 24, "epochs": 1}


def config_of(case, **values):
    """A run of one epoch, of a whole batch and a short one, on networks of three convolutions."""
    method, options = CASES[case]
    run = tiny_plain(network=TINY, epochs=1)
    teacher = TeacherConfig(run=run, weights="random", batch_norm="running")
    options = make_options(method, options)
    return tiny_plain(
        **{"network": TINY, "method": method, "options": options, "teacher": teacher, **FEW, **values}
    )


@functools.cache
def images_of(config):
    return data.load(config)


@functools.cache
def teacher_of(teacher, precision):
    dtype = torch.float64 if precision == "fp64" else torch.float32
    numbers = arithmetic(precision, torch.device("cpu"))
    return FrozenTeacher(build_network(teacher.run, 100).to(dtype), teacher.batch_norm, numbers)


def make_state(config):
    """A state, its teacher (shared: it has no state) and its images."""
    dtype = torch.float64 if config.precision == "fp64" else torch.float32
    images, teacher = images_of(config.data), build_network(config.teacher.run, 100)
    student = build_network(config, 100)
    method = build_method(config, student, teacher, 32, 100, len(images.train_y), images.train_y)
    state = TrainState(config, student.to(dtype), method.to(dtype))
    return state, teacher_of(config.teacher, config.precision), images


class StopAfter:
    """A `stop` that lets so many steps and evaluations happen."""

    def __init__(self, pieces):
        self.left = pieces

    def __call__(self, needed):
        self.left -= 1
        return self.left < 0


def state_of(state):
    return {
        **{f"student.{k}": v for k, v in state.student.state_dict().items()},
        **{f"method.{k}": v for k, v in state.method.state_dict().items()},
    }


@functools.cache
def whole(case):
    """A run in float64 with what its parameters were before it; several tests are held against it."""
    epochs = 2 if case == "modreduce-late" else 1  # its aggregator rests in the first
    config = config_of(case, precision="fp64", epochs=epochs)
    state, teacher, images = make_state(config)
    before = {name: p.detach().clone() for name, p in named(state) if p.requires_grad}
    assert train([state], images, teacher)
    return config, state, before


def named(state):
    for module in (state.student, state.method):
        yield from module.named_parameters(prefix=type(module).__name__)


def assert_same(state, wanted):
    for name, value in state_of(wanted).items():
        assert torch.equal(state_of(state)[name], value), name
    assert state.curves == wanted.curves


@pytest.mark.parametrize("case", CASES)
def test_training_changes_every_parameter_it_owns(case):
    """Over the stages and the main training, each trainable parameter of student and method moves; and every loss is
    finite and recorded under its name."""
    config, state, before = whole(case)
    after = dict(named(state))
    still = [name for name, p in before.items() if torch.equal(p, after[name])]
    assert not still, f"{len(still)} of {len(before)} parameters did not move: {still[:5]}"
    assert not state.diverged and all(math.isfinite(v) for c in state.curves.values() for v in c)
    for name in state.method.weights(0):
        assert len(state.curves[f"loss_{name}"]) == config.epochs
    for stage in config.stages:
        assert len(state.curves[f"{stage.name}_loss_{stage.losses[0]}"]) == stage.epochs


@pytest.mark.parametrize("case", CASES)
def test_resumed_anywhere_is_equal_to_the_bit(case, tmp_path):
    """Stopped after every other step, within epochs and between them, and continued by fresh objects."""
    config, wanted, _ = whole(case)
    saved, done, calls = None, False, 0
    while not done:
        part, teacher, images = make_state(config)
        if saved is not None:
            part.load_state_dict(saved)
        done = train([part], images, teacher, stop=StopAfter(2))
        checkpoint.save(part.state_dict(), tmp_path / "checkpoint.pt")
        saved = checkpoint.load(tmp_path / "checkpoint.pt")
        calls += 1
    assert calls > config.total_epochs
    assert_same(part, wanted)


@pytest.mark.parametrize("case", CASES)
def test_trial_steps_leave_no_trace(case):
    """Captured steps, each after three trial steps, equal plain ones to the bit: over the stages, whole batches, a
    short one, and a run that is resumed at it."""
    config, wanted, _ = whole(case)
    tried = []

    def again(body):
        body()
        return body

    def capture(body, changed, moving):
        tried.append(len(moving))
        return captured(body, changed, moving, again)

    state, teacher, images = make_state(config)
    assert not train([state], images, teacher, capture=capture, stop=StopAfter(1))
    resumed, teacher, images = make_state(config)
    resumed.load_state_dict(state.state_dict())
    assert resumed.position == 24
    assert train([resumed], images, teacher, capture=capture)
    # Of each stage and epoch whole batches and a short one; and scoring.
    assert len(tried) == 3 + 2 * (len(config.stages) + config.epochs - 1)
    assert_same(resumed, wanted)


@pytest.mark.parametrize("case", CASES)
def test_gang_equals_solo_in_float64(case):
    config, alone, _ = whole(case)
    other = dataclasses.replace(config, ce_weight=0.5)
    together = [make_state(config)[0], make_state(other)[0]]
    _, teacher, images = make_state(config)
    train(together, images, teacher)
    for name, value in state_of(alone).items():
        torch.testing.assert_close(state_of(together[0])[name], value, rtol=1e-12, atol=1e-14, msg=name)
    assert together[0].curves.keys() == alone.curves.keys()


@pytest.mark.parametrize("case", CASES)
def test_steps_in_bf16_stay_near_those_in_fp32(case):
    found = {}
    for precision in ("fp32", "bf16"):
        state, teacher, images = make_state(config_of(case, precision=precision, data=WHOLE))
        train([state], images, teacher)
        found[precision] = {k: v[0] for k, v in state.curves.items() if "loss_" in k}
    for name, value in found["fp32"].items():
        assert math.isfinite(found["bf16"][name])
        assert found["bf16"][name] == pytest.approx(value, rel=0.1, abs=0.02), name


@pytest.mark.parametrize("case", CASES)
def test_a_record_says_it_all(case, tmp_path, silent):
    config = config_of(case)
    store = Store(tmp_path / "records", tmp_path / "work")
    record = Runner(store, tmp_path, "cpu", progress=silent).run([config])[config.id]
    assert store.load(config.id) == record
    assert RunConfig.from_dict(record.config.to_dict()) == config and record.config.id == config.id
    assert all(len(v) == 1 for k, v in record.curves.items() if "_loss_" not in k)
    assert record.result["epochs"] == 1 and record.cost["extra_parameters"] >= 0
    last = checkpoint.load(store.folder(config.id) / "last.pt")
    network = build_network(config, 100)
    network.load_state_dict(last["student"])
    further = {k for k in record.curves if k.startswith("test_accuracy_")}
    assert ("method" in last) == bool(further)
    assert all(f"last_{k.removeprefix('test_')}" in record.result for k in further)


def test_sums_check_themselves():
    kd = {"method": "kd", "options": {}}
    with pytest.raises(ConfigError, match="at least two different methods"):
        SumOptions(parts=(kd,))
    with pytest.raises(ConfigError, match="at least two different methods"):
        SumOptions(parts=(kd, kd))
    with pytest.raises(ConfigError, match="unknown method 'kdd'"):
        get_method("at+kdd")
    with pytest.raises(ConfigError, match="has options of"):
        tiny_review(method="crd+kd", options=make_options("at+kd", {}))


def test_a_sum_is_the_sum_of_its_parts():
    """Same seeds, one step's losses: of the sum, and of each method alone."""
    together, teacher, _ = make_state(config_of("at+kd", precision="fp64"))
    x = torch.randn(8, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(8)
    losses, _ = together.losses(x, y, y, teacher.taps(x))
    for name in ("at", "kd"):
        alone, teacher, _ = make_state(config_of(name, precision="fp64"))
        torch.testing.assert_close(losses[name], alone.losses(x, y, y, teacher.taps(x))[0][name])
    assert together.method.weights(0) == {"at": 1000.0, "kd": 1.0}


def test_a_part_means_the_same_however_its_numbers_are_spelt():
    """One run, one id: 1 and 1.0, a list and a tuple, a mapping and the options themselves."""
    kd = get_method("kd").options(loss_weight=1.0)
    spelt = SumOptions(
        parts=({"method": "at", "options": {}}, {"method": "kd", "options": {"loss_weight": 1}})
    )
    built = SumOptions(parts=({"method": "at", "options": {}}, {"method": "kd", "options": kd}))
    assert tiny_review(method="at+kd", options=spelt).id == tiny_review(method="at+kd", options=built).id
    with pytest.raises(ConfigError, match="temprature"):
        SumOptions(parts=({"method": "at", "options": {}}, {"method": "kd", "options": {"temprature": 1}}))


def test_a_stage_without_losses_gets_a_sentence():
    method = get_method("kd").build(None, get_method("kd").options())
    with pytest.raises(ConfigError, match="no stage_losses"):
        method.stage_losses("warm", None)
