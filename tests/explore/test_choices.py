"""Choices become the runs that `rkd run` would train, and are checked before."""

import pytest
import yaml

from rkd import cli
from rkd.config import docstring_entries
from rkd.errors import ConfigError, DataError
from rkd.explore.runs import choose_runs
from rkd.methods import get_method, method_names

pytest_plugins = ["exploring"]


def test_choices_become_runs(home):
    for kind in (get_method(name).options for name in method_names()):
        assert {*kind.__dataclass_fields__} <= {*docstring_entries(kind)}, "every choice says what it means"
    chosen = {
        "teacher": "resnet56", "student": "resnet20", "recipe": "reproduction", "loss_weight": 0.7, "attention": False,
        "hcl_levels": ["h", "h/2", 2], "hcl_weights": [1, 0.5, 0.25], "dataset": "cifar100", "train_images": 5000,
        "test_images": 700, "epochs": 24, "teacher_epochs": 12, "seed": 3, "ce_weight": 0.5,
    }  # fmt: skip
    plan = choose_runs(chosen)
    run, o = plan.distilled, plan.distilled.options
    assert (run.network, run.teacher.name, run.seed) == ("resnet20", "resnet56", 3)
    assert (run.epochs, run.batch_size, run.ce_weight) == (24, 64, 0.5)
    assert (run.data.name, run.data.train_images, run.data.test_images) == ("cifar100", 5000, 700)
    assert (o.hcl_levels, o.hcl_weights, o.loss_weight) == (("h", "h/2", 2), (1, 0.5, 0.25), 0.7)
    assert not o.attention and o.hcl_assign == "position", "the recipe's other options"
    assert run.optimiser.decay_epochs == (15, 18, 21), "the recipe's schedule, scaled"
    teacher, alone = plan.runs["teacher"], plan.runs["without distillation"]
    assert (teacher.network, teacher.epochs, teacher.seed) == ("resnet56", 12, 0)
    assert (alone.network, alone.seed, alone.epochs, alone.data) == ("resnet20", 3, 24, run.data)
    assert (alone.method, alone.ce_weight, alone.optimiser) == (None, 1.0, run.optimiser)


@pytest.mark.parametrize(
    "values",
    [
        {"method": "at+kd", "at.loss_weight": 9.0, "dataset": "cifar10"},
        {"seed": 4, "stem": True, "ce_weight": 0.5},
    ],
)
def test_command_is_that_of_the_run(values, home, tiny, capsys):
    plan = choose_runs({**tiny, **values}, device="cpu")
    for name in ("with distillation", "without distillation"):
        assert cli.main([*plan.command(name == "with distillation"), "--dry-run"]) == 0
        said, _, config = capsys.readouterr().out.partition("\n")
        assert said == f"# run {plan.runs[name].id}" and yaml.safe_load(config)["network"] == "resnet8"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"epoch": 3}, "unknown choice 'epoch' (did you mean 'epochs'?)"),
        ({"hcl_weights": [1, 0.5]}, "give one weight per size"),
        ({"hcl_levels": [64, 48], "hcl_weights": [1, 1]}, "fits none of the maps that are compared (32 x 32, 16 x 16"),
        ({"train_images": 1}, "1 training image makes no batch of two"),
        ({"train_images": 10_001}, "10,001 training images were asked for, but embedded has 10,000"),
        ({"method": "kd", "attention": False}, "unknown choice 'attention'"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_one_sentence(home, tiny, values, sentence):
    with pytest.raises((ConfigError, DataError)) as caught:
        choose_runs({**tiny, **values}, device="cpu")
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
