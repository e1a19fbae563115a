"""The answer to one published figure, and rules that find it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

TOP1 = "top1_acc_percent"
KINDS = {
    "run": "the runs of one line of a chapter",
    "derived": "computed from several lines",
    "setting": "a value of a recipe, a profile, a data set or a network",
    "explained": "no run or value can answer it; one sentence says why",
}
NOT_PRINTED = "The source prints nothing in this cell."
THEIR_MACHINE = (
    "What a run cost on the authors' V100; `rkd status --profile paper` estimates it for your machine."
)
REASONS = (NOT_PRINTED, THEIR_MACHINE)


@dataclass(frozen=True)
class Resolution:
    """What answers one published figure.

    Attributes:
        claim: id of its row.
        kind: a key of KINDS.
        lines: "chapter/line" under the paper profile: one of a run, several of what is derived.
        claims: ids of the rows that a derived figure is computed from; none where they are not printed.
        how: the computation, the place where a setting stands, or the sentence that explains.
        ours: of a setting: its value here, written as the source writes it.
        agrees: of a setting: whether that is the printed value.
    """

    claim: str
    kind: str
    lines: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    how: str = ""
    ours: str = ""
    agrees: bool = True


@dataclass(frozen=True)
class Rule:
    """Which rows a rule is for, column by column, and what it makes of one."""

    columns: Mapping[str, tuple[str, ...]]
    make: Callable[[Any], Resolution]

    def fits(self, row: Any) -> bool:
        return all(getattr(row, column) in allowed for column, allowed in self.columns.items())


RULES: list[Rule] = []
Make = Callable[[Any], Resolution]


def rule(**columns: str | tuple[str, ...]) -> Callable[[Make], Make]:
    """Decorator: a rule for the rows whose columns have one of these values. The first rule that fits a row is its."""

    def add(make: Make) -> Make:
        wanted = {name: (value,) if isinstance(value, str) else value for name, value in columns.items()}
        RULES.append(Rule(wanted, make))
        return make

    return add
