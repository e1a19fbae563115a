"""Values are checked and brought to their types, and what is wrong is said in one sentence."""

from dataclasses import dataclass, replace
from typing import Literal

import pytest

from rkd.config import Count, Flag, Positive, Weight, from_values, frozen
from rkd.errors import ConfigError


@frozen
class Base:
    loss_weight: Weight = 1.0
    levels: tuple[int | str, ...] = ("h", 4)
    mode: Literal["mid", "output"] = "mid"
    flag: Flag = True


@frozen
class Derived(Base):
    temperature: Positive = 4.0
    epochs: Count | None = None

    def __post_init__(self) -> None:
        if self.temperature == 7:
            raise ConfigError("seven is not allowed")


@frozen
class Outer:
    options: Derived = Derived()
    other: Base | None = None


@dataclass(frozen=True)
class Own(Base):
    """As a user writes one."""

    steps: int = 3


def test_spellings_of_one_value_are_one():
    assert Derived(2, ["h", 1], epochs=3.0) == Derived(2.0, ("h", 1), epochs=3)
    assert hash(Derived(2)) == hash(Derived(2.0))
    assert isinstance(Derived(2).loss_weight, float) and isinstance(Derived(epochs=3.0).epochs, int)
    assert from_values(Own, {"loss_weight": 2, "levels": ["h"]}) == Own(2.0, ("h",))
    assert from_values(Outer, {"options": {"temperature": 2}}) == Outer(Derived(temperature=2.0))


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({"loss_weight": -1}, "loss_weight is -1; it must be a finite number >= 0"),
        ({"loss_weight": "1"}, "loss_weight is '1'; it must be a finite number >= 0"),
        ({"loss_weight": float("nan")}, "loss_weight is nan; it must be a finite number >= 0"),
        ({"temperature": 0}, "temperature is 0; it must be a finite number > 0"),
        ({"temperature": 7}, "seven is not allowed"),
        ({"epochs": True}, "epochs is True; it must be a whole number >= 1"),
        ({"epochs": 1.5}, "epochs is 1.5; it must be a whole number >= 1"),
        ({"flag": 1}, "flag is 1; it must be True or False"),
        ({"levels": 4}, "levels is 4; it must be a list"),
        ({"mode": "Mid"}, "unknown mode 'Mid' (did you mean 'mid'?); allowed: mid, output"),
    ],
)
def test_one_sentence(values, sentence):
    for make in (
        lambda: Derived(**values),
        lambda: from_values(Derived, values),
        lambda: from_values(Outer, {"options": values}),
    ):
        with pytest.raises(ConfigError) as error:
            make()
        assert str(error.value) == sentence


def test_unknown_names_are_told_with_those_of_the_right_class():
    for make, allowed in (
        (lambda: Derived(tempperature=1), "temperature"),
        (lambda: from_values(Outer, {"options": {"tempperature": 1}}), "temperature"),
        (lambda: from_values(Outer, {"option": {}}), "options, other"),
    ):
        with pytest.raises(ConfigError, match=allowed):
            make()
    with pytest.raises(ConfigError, match="Outer setting 'option'"):
        from_values(Outer, {"option": {}})


def test_a_change_is_checked_too():
    with pytest.raises(ConfigError, match="temperature is 0"):
        replace(Derived(), temperature=0)
