"""What every registered method must do: train all it owns, resume to the bit, not depend on company, be recorded."""

import dataclasses
import functools
import math

import pytest
import torch
import torch.nn.functional as F
from cases import CASES
from conftest import StopAfter, again, assert_same, images_of, make, small, tiny_data, trained, values

from rkd.data import draw_epoch, normalise
from rkd.errors import ConfigError
from rkd.experiments.runner import Runner
from rkd.methods import get_method, make_options
from rkd.methods.sum import SumOptions
from rkd.training import RunConfig, SGDConfig, checkpoint, train
from rkd.training.build import build_network
from rkd.training.capture import checked_capture

FEW = tiny_data(train_images=40, test_images=10)


def config_of(case, **values):
    """A run of one epoch, of a whole batch and a short one, on networks of three convolutions."""
    method, options = CASES[case]
    given = {"method": method, "batch_norm": "running", "data": FEW, "epochs": 1, **values}
    return small(make_options(method, options), **given)


@functools.cache
def whole(case, **values):
    """A run with what its parameters were before it; several tests are held against it."""
    epochs = 2 if case == "modreduce-late" else 1  # its aggregator rests in the first
    config = config_of(case, **{"precision": "fp64", "epochs": epochs, **values})
    state, _ = make(config)
    before = {name: p.detach().clone() for name, p in named(state) if p.requires_grad}
    return config, trained(config, state), before


def named(state):
    for module in (state.student, state.method):
        yield from module.named_parameters(prefix=type(module).__name__)


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


PLAIN = {"optimiser": SGDConfig(lr=0.05, momentum=0.0, nesterov=False)}
LIKE = [*((case, {}) for case in CASES), ("reviewkd", {"precision": "fp16"}), ("ab", PLAIN), ("kd", PLAIN)]


@pytest.mark.parametrize(("case", "how"), LIKE)
def test_resumed_anywhere_is_equal_to_the_bit(case, how, tmp_path):
    """Stopped after every other step, within epochs and between them, and continued by fresh objects."""
    config, wanted, _ = whole(case, **how)
    part, calls = make(config)[0], 0
    while part.epoch < config.total_epochs:
        trained(config, part, stop=StopAfter(2))
        checkpoint.save(part.state_dict(), tmp_path / "checkpoint.pt")
        part, _ = make(config)
        part.load_state_dict(checkpoint.load(tmp_path / "checkpoint.pt"))
        calls += 1
    assert calls > config.total_epochs
    assert_same(part, wanted)


@pytest.mark.parametrize("case", CASES)
def test_trial_steps_leave_no_trace(case):
    """Captured steps, each after three trial steps, equal plain ones to the bit: over the stages, whole batches, a
    short one, and a run that is resumed at it."""
    config, wanted, _ = whole(case)
    tried = []

    def capture(body, changed):
        tried.append(len(changed))
        return checked_capture(body, changed, again)

    state = trained(config, capture=capture, stop=StopAfter(1))
    resumed, _ = make(config)
    resumed.load_state_dict(state.state_dict())
    assert resumed.position == 24
    trained(config, resumed, capture=capture)
    # Of each stage and the main training whole batches and a short one; in a second epoch whole ones of the resumed.
    assert len(tried) == 2 + 2 * len(config.stages) + config.epochs - 1
    assert_same(resumed, wanted)


@pytest.mark.parametrize("case", CASES)
def test_gang_equals_solo_in_float64(case):
    config, alone, _ = whole(case)
    first, other = (make(c)[0] for c in (config, dataclasses.replace(config, ce_weight=0.5)))
    train([first, other], images_of(config.data), make(config)[1])
    for name, value in values(alone).items():
        torch.testing.assert_close(values(first)[name], value, rtol=1e-12, atol=1e-14, msg=name)
    assert first.curves.keys() == alone.curves.keys()


@pytest.mark.parametrize("case", CASES)
def test_a_record_says_it_all(case, store, tmp_path, silent):
    """Of a run in bf16, which stays near the one in float64."""
    exact, config = whole(case)[1], config_of(case, precision="bf16")
    record = Runner(store, tmp_path, "cpu", progress=silent).run([config])[config.id]
    assert store.load(config.id) == record
    assert RunConfig.from_dict(record.config.to_dict()) == config and record.config.id == config.id
    assert record.curves.keys() == exact.curves.keys() and record.result["epochs"] == 1
    assert record.cost["extra_parameters"] >= 0
    for name, found in record.curves.items():
        if "loss_" in name:
            assert found == [pytest.approx(exact.curves[name][0], rel=0.1, abs=0.02)], name
    last = checkpoint.load(store.folder(config.id) / "last.pt")
    build_network(config, 100).load_state_dict(last["student"])
    further = {k.removeprefix("test_") for k in record.curves if k.startswith("test_accuracy_")}
    assert ("method" in last) == bool(further)
    assert all(f"last_{name}" in record.result for name in further)


@pytest.mark.parametrize("case", CASES)
def test_a_last_batch_of_one_image_is_left_out(case):
    """Of 65 images in batches of 64; equal to torch's own optimiser on the one batch that is left, written out."""
    data = tiny_data(train_images=65, test_images=10)
    config = config_of(case, precision="fp64", data=data, batch_size=64)
    (plain, teacher), images, optimiser = make(config), images_of(data), None
    draws = [draw_epoch(65, epoch, config.seed, 4, True) for epoch in range(config.total_epochs)]
    for epoch, draw in enumerate(draws):
        stage, at = config.stage_at(epoch)
        if at == 0:
            how = {"momentum": 0.9, "weight_decay": 5e-4, "nesterov": True, "foreach": False}
            rates, owned = plain.method.rates(0, 0.05).items(), plain.method.named_parameters()
            own = {p: lr for name, p in owned for part, lr in rates if name.startswith(part)}
            lr = stage.lr if stage and stage.lr else 0.05
            groups = [{"params": [p], "lr": own.get(p, lr)} for p in plain.parameters]
            optimiser = torch.optim.SGD(groups, lr, **how)
        plain.epoch = epoch
        plain.begin_epoch()
        index = draw.order[:64]
        padded = F.pad(images.train_x[index], (0, 0, 4, 4, 4, 4))
        places = zip(draw.dy[index], draw.dx[index], strict=True)
        crops = [p[y : y + 32, x : x + 32] for p, (y, x) in zip(padded, places, strict=True)]
        crops = [c.flip(1) if mirrored else c for c, mirrored in zip(crops, draw.flip[index], strict=True)]
        x = normalise(torch.stack(crops), images.mean, images.std).double()
        losses, _ = plain.losses(x, images.train_y[index], index, teacher.taps(x))
        weights = dict.fromkeys(losses, 1.0) if stage else {"ce": 1.0, **plain.method.weights(at)}
        optimiser.zero_grad()
        sum(weights[name] * loss for name, loss in losses.items()).backward()
        optimiser.step()
        if stage is None:
            with torch.no_grad():
                plain.method.after_step(torch.tensor(True))
                plain.method.end_epoch(plain.student)
    state = trained(config)
    assert len(state.threads) == 1 and sum(state.threads.values()) == config.total_epochs, "one step an epoch"
    counters = {n for n in values(plain) if n.endswith("num_batches_tracked")}
    for name, value in values(plain).items():
        if name not in counters:
            torch.testing.assert_close(values(state)[name], value, rtol=1e-9, atol=1e-12, msg=name)


def test_sums_check_themselves():
    kd = {"method": "kd", "options": {}}
    for parts in ((kd,), (kd, kd)):
        with pytest.raises(ConfigError, match="at least two different methods"):
            SumOptions(parts=parts)
    with pytest.raises(ConfigError, match="unknown method 'kdd'"):
        get_method("at+kdd")
    with pytest.raises(ConfigError, match="has options of"):
        small(method="crd+kd", options=make_options("at+kd", {}))


def test_a_sum_is_the_sum_of_its_parts():
    """Same seeds, one step's losses: of the sum, and of each method alone."""
    together, teacher = make(config_of("at+kd", precision="fp64"))
    x, y = torch.randn(8, 3, 32, 32, dtype=torch.float64), torch.arange(8)
    losses, _ = together.losses(x, y, y, teacher.taps(x))
    for name in ("at", "kd"):
        alone, _ = make(config_of(name, precision="fp64"))
        torch.testing.assert_close(losses[name], alone.losses(x, y, y, teacher.taps(x))[0][name])
    assert together.method.weights(0) == {"at": 1000.0, "kd": 1.0}


def test_a_part_means_the_same_however_its_numbers_are_spelt():
    """One run, one id: 1 and 1.0, a list and a tuple, a mapping and the options themselves."""
    kd, at = get_method("kd").options(loss_weight=1.0), {"method": "at", "options": {}}
    spelt = SumOptions(parts=(at, {"method": "kd", "options": {"loss_weight": 1}}))
    built = SumOptions(parts=(at, {"method": "kd", "options": kd}))
    by_method = {"kd": {"loss_weight": 1}}
    assert len({small(method="at+kd", options=options).id for options in (spelt, built, by_method)}) == 1
    for none_of_its_own in (None, 3, kd, {"kd": None}):
        with pytest.raises(ConfigError, match=r"(AT \+ KD takes SumOptions|KD takes KdOptions), not "):
            make_options("at+kd", none_of_its_own)
    with pytest.raises(ConfigError, match="temprature"):
        SumOptions(parts=(at, {"method": "kd", "options": {"temprature": 1}}))


def test_a_stage_without_losses_gets_a_sentence():
    method = get_method("kd").builder(None, get_method("kd").options())
    with pytest.raises(ConfigError, match="no stage_losses"):
        method.stage_losses("warm", None)
