"""RunConfig: identity, round trip, and the sentence each bad value gets."""

import dataclasses
import json

import pytest
from conftest import tiny_data, tiny_plain, tiny_review

from rkd.errors import ConfigError
from rkd.review import ReviewOptions
from rkd.training import RunConfig, SGDConfig, TeacherConfig


def test_id_is_a_pure_function_of_the_content():
    assert tiny_review().id == tiny_review().id
    assert len(tiny_review().id) == 12
    changed = [
        tiny_review(seed=1), tiny_review(epochs=3), tiny_review(batch_norm="running"), tiny_review(ce_weight=0.5),
        tiny_review(ReviewOptions(warmup_epochs=0, loss_weight=0.9)), tiny_review(data=tiny_data(train_images=90)),
        tiny_review(optimiser=SGDConfig(lr=0.2)), tiny_review(network="resnet14"), tiny_plain(),
    ]  # fmt: skip
    assert len({config.id for config in changed} | {tiny_review().id}) == len(changed) + 1


def test_ids_do_not_drift():
    """Committed records are found by these; a change here orphans every one of them."""
    assert RunConfig("resnet20").id == RunConfig("ResNet-20", epochs=240.0).id == "b95746538e87"
    teacher, options = TeacherConfig(run=RunConfig("resnet56")), ReviewOptions(loss_weight=0.6)
    run = RunConfig("resnet20", method="reviewkd", options=options, teacher=teacher)
    assert run.id == "356f1fcc42a8"


def test_options_without_effect_make_no_other_run():
    l2 = ReviewOptions(loss="l2")
    assert tiny_review(l2).id == tiny_review(dataclasses.replace(l2, hcl_normaliser="all")).id
    none = ReviewOptions(connector="none")
    assert tiny_review(none).id == tiny_review(dataclasses.replace(none, attention=False, mid_channels=32)).id
    assert tiny_review().id != tiny_review(ReviewOptions(warmup_epochs=0, hcl_normaliser="all")).id


def test_round_trip():
    levels = ReviewOptions(hcl_levels=("h", "h/2", 1), hcl_weights=(1, 1, 1))
    for config in (tiny_plain(), tiny_review(), tiny_review(levels)):
        again = RunConfig.from_dict(json.loads(json.dumps(config.to_dict())))
        assert again == config and again.id == config.id


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tiny_plain(network="resnet21"), "resnet21"),
        (lambda: tiny_plain(ce_weight=0), "nothing would be trained"),
        (lambda: tiny_plain(method="review"), "did you mean 'reviewkd'"),
        (lambda: tiny_plain(method="reviewkd", options=ReviewOptions()), "needs a teacher"),
        (lambda: tiny_plain(options=ReviewOptions()), "without a method"),
        (lambda: tiny_review(data=tiny_data(name="cifar10")), "trained on 'embedded'"),
        (lambda: SGDConfig(momentum=0), "nesterov is on"),
        (lambda: TeacherConfig(), "either a run or a checkpoint"),
        (lambda: TeacherConfig(checkpoint="x.pt"), "sha256"),
        (lambda: TeacherConfig(run=tiny_plain(), weights="worst"), "allowed: best, last, random"),
        (lambda: TeacherConfig(run=tiny_review()), "itself be distilled"),
        (lambda: RunConfig.from_dict({"network": "resnet8", "epoch": 3}), "did you mean 'epochs'"),
    ],
)
def test_bad_values_get_one_sentence(make, message):
    with pytest.raises(ConfigError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_learning_rate_schedules():
    """151, 30, 30, 29 epochs when decay follows the named epoch; 150, 30, 30, 30 when it precedes it."""
    after, before = SGDConfig(decay_when="after"), SGDConfig(decay_when="before")
    for sgd, lengths in ((after, [151, 30, 30, 29]), (before, [150, 30, 30, 30])):
        rates = [round(sgd.lr_at(e), 9) for e in range(240)]
        assert [rates.count(r) for r in (0.1, 0.01, 0.001, 0.0001)] == lengths
