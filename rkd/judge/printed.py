"""What printed numbers alone decide: whether figures follow, by arithmetic, from others of the same source."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from rkd import published
from rkd.judge import rules
from rkd.judge.decide import NOT_REPRODUCED, NOT_RUN, REPRODUCED
from rkd.judge.declared import Claim, load_claims, who
from rkd.judge.rules import RuleResult
from rkd.published import Figure, others


class Statement(NamedTuple):
    """Something that printed numbers say, and whether it follows from other printed numbers.

    Attributes:
        figure: the id of the published figure it is about.
        kind: a key of KINDS.
        why: the arithmetic.
    """

    figure: str
    kind: str
    said: str
    follows: bool
    why: str


KINDS = {
    "derived": "a figure that the source computes from others it prints",
    "distance": "a reproduced accuracy, as near to the original as its source says",
    "comparison": "one accuracy above another",
    "mean of runs": "a printed mean whose single runs are public",
    "bold": "the best of its table's column, set in bold",
    "printings": "one result, printed in several places",
}

BOUND = "max_abs_difference"  # the metric of a bound on how far reproductions lie from originals begins so


def statements() -> list[Statement]:
    """Return all statements, in the order of KINDS and of the table of published figures."""
    rows = list(published.rows().values())
    derived = [found for row in rows if (found := check_derived(row))]
    bounds = [row for row in rows if row.metric.startswith(BOUND)]
    distances = [_distance(row, published.get(part)) for row in bounds for part in row.parts.split()]
    further = (kind(rows) for kind in (_of_comparisons, _of_means, _of_bold, _of_printings))
    return [*derived, *distances, *itertools.chain(*further)]


def check_derived(row: Figure) -> Statement | None:
    """Check a figure that its source derives from others; None for any other, or one whose parts are not printed.

    Rounding is allowed for: half a unit of the last digit of every number that enters.
    """
    parts = [published.get(part) for part in row.parts.split()]
    if row.answer != "derived" or not parts or math.isnan(value := published.first_number(row.value)):
        return None
    if row.metric.startswith(BOUND):
        largest = _distance(row, max(parts, key=lambda part: abs(_gap(part))))
        said = f"all {len(parts)} reproduced accuracies lie within {value:g} of the original"
        return Statement(row.id, "derived", said, largest.follows, f"the widest gap: {largest.why}")
    n = len(parts)
    weights = {2: [1.0, -1.0], 4: [0.25] * 4, 8: [0.25] * 4 + [-0.25] * 4}[n]
    computed = float(np.dot(weights, [part.number for part in parts]))
    slack = _half_digit(row.value) + np.dot(np.abs(weights), [_half_digit(part.value) for part in parts])
    if "+-" in row.value:
        slack += float(row.value.partition("+-")[2])
    terms = [part.value for part in parts]
    if n > 2:
        terms = [f"mean of {', '.join(terms[i : i + 4])}" for i in range(0, n, 4)]
    follows = bool(abs(computed - value) <= slack + 1e-9)
    why = f"{' − '.join(terms)} = {computed:.{3 if n > 2 else 2}f}"
    return Statement(row.id, "derived", f"{_name(row)} is {row.value}", follows, why)


def _distance(bound: Figure, part: Figure) -> Statement:
    """Check whether a figure and its reproduction are as close as the reproduction's bound says."""
    most, ours = published.first_number(bound.value), _reproduced(part)
    said = f"{_name(part)}: {ours.value} lies within {most:g} of {part.value}"
    why = f"{ours.value} − {part.value} = {_gap(part):+.2f}".replace("-", "−")
    return Statement(part.id, "distance", said, abs(_gap(part)) <= most + 1e-9, why)


def _of_comparisons(rows: Sequence[Figure]) -> Iterable[Statement]:
    """Yield the comparisons that are declared as claims, where both figures are printed."""
    for claim in load_claims(check=False):
        if claim.kind == "order" and (found := judge_printed(claim)).verdict != NOT_RUN:
            figure, follows = rows[claim.references[0]].id, found.verdict == REPRODUCED
            yield Statement(figure, "comparison", claim.statement, follows, found.sentence)


def _of_means(rows: Iterable[Figure]) -> Iterable[Statement]:
    """Yield means whose single runs are public, by their best epochs, or the last where no best one is told."""
    of_line = defaultdict(list)
    for run in others.other_runs():
        for line in run.lines:
            of_line[line, run.behind].append(run.last if run.best is None else run.best)
    for row in rows:
        runs = [a for line in row.lines.split() for a in of_line[line, row.source]]
        if row.answer == "run" and runs:
            mean = float(np.mean(runs))
            follows = abs(mean - row.number) <= _half_digit(row.value) + 1e-9
            why = f"mean of {', '.join(f'{a:.2f}' for a in runs)} = {mean:.3f}"
            yield Statement(row.id, "mean of runs", f"{_name(row)} is {row.value}", follows, why)


def _of_bold(rows: Iterable[Figure]) -> Iterable[Statement]:
    columns = defaultdict(list)
    for row in rows:
        if row.method != "teacher" and not math.isnan(row.number):
            columns[row.source, row.table, row.teacher, row.student, row.metric].append(row)
    for column in columns.values():
        for row in column:
            if row.note.startswith("bold"):
                best = max(column, key=lambda other: other.number)
                said = f"{_name(row)}, {row.value}, is the best of {len(column)}"
                why = f"the largest is {best.value} ({best.method})"
                yield Statement(row.id, "bold", said, row.number >= best.number, why)


def _of_printings(rows: Iterable[Figure]) -> Iterable[Statement]:
    printings = defaultdict(list)
    for row in rows:
        if row.answer == "run" and not math.isnan(row.number):
            printings[_result(row)].append(row)
    for same in printings.values():
        if len(same) > 1:
            by_value = defaultdict(list)
            for row in same:
                by_value[f"{row.number:.2f}"].append(f"{published.SHORT_SOURCE[row.source]}, {row.table}")
            places = (f"{value} ({'; '.join(dict.fromkeys(found))})" for value, found in by_value.items())
            said = f"{_name(same[0])} is the same in {len(same)} places"
            yield Statement(same[0].id, "printings", said, len(by_value) == 1, " and ".join(places))


def _result(row: Figure) -> tuple[str, ...]:
    """Return a key for what was measured: rows with the same key print one result."""
    if row.method in ("teacher", "student baseline"):  # per source: others may have trained their own
        return row.source, row.method, row.teacher if row.method == "teacher" else row.student, row.dataset
    if row.variant.startswith("quoted"):  # all from one benchmark, whose cell is the pair and the method
        return "quoted", row.lines.partition("/")[2]
    return row.lines, who(row) if row.variant == "paper" else row.variant


# --- what they decide of a claim ---------------------------------------------------------------------------------


def judge_printed(claim: Claim) -> RuleResult:
    """Judge a claim by the printed numbers; "not run" if they leave it open.

    A derived figure follows from its parts or does not; an order or a trend is there in the printed numbers or is not.
    No printed number can decide whether a value is reached.
    """
    index = list(published.rows().values())
    for row in (index[i] for i in claim.references):
        if found := check_derived(row):
            return _decided(found.follows, found.why)
    if claim.kind == "order":
        return _order(claim)
    if claim.kind == "trend" and isinstance(claim.published, tuple):
        slope = float(np.dot(claim.contrast, claim.published))
        return _decided(slope > 0, f"the contrast of the printed accuracies is {slope:.2f}", slope)
    return rules.not_run("no printed number decides it")


def _order(claim: Claim) -> RuleResult:
    if isinstance(claim.published, tuple):
        ours, theirs = claim.published
        return _decided(ours > theirs, f"{ours:.2f} against {theirs:.2f} in print", ours - theirs)
    own = [
        row
        for line in claim.runs["a"]
        for row in published.figures_of_line(line)
        if not math.isnan(row.number)
    ]
    if claim.published is None or not own:
        return rules.not_run("no printed number decides it")
    said = ", ".join(dict.fromkeys(f"{row.number:.2f} ({who(row)})" for row in own))
    least = min(row.number for row in own) - claim.published
    return _decided(least > 0, f"{said} against {claim.published:.2f} in print", least)


def _decided(follows: bool, why: str, estimate: float = math.nan) -> RuleResult:
    return RuleResult(REPRODUCED if follows else NOT_REPRODUCED, estimate, sentence=why)


def _name(row: Figure) -> str:
    pair = row.student if row.teacher in ("", "-", row.student) else f"{row.student} ← {row.teacher}"
    pair = {"teacher": row.teacher, "student baseline": row.student}.get(row.method, pair)
    what = ", ".join(dict.fromkeys(part for part in (row.method, row.variant) if part))
    metric = {"delta_vs_baseline_percent": ", gain"}.get(row.metric, "")
    of = "average" if row.dataset == "avg" else row.dataset
    return f"{published.SHORT_SOURCE[row.source]}, {row.table}: {pair}, {what}{metric} on {of}"


def _gap(paper: Figure) -> float:
    return round(_reproduced(paper).number - paper.number, 6)


def _reproduced(paper: Figure) -> Figure:
    """Return the reproduction's figure for one of the paper's figures."""
    same = ("source", "table", "teacher", "student", "method", "dataset", "metric")
    key: Sequence[str] = [getattr(paper, name) for name in same]
    (found,) = (
        row for row in published.rows().values()
        if row.variant == "reproduction" and [getattr(row, name) for name in same] == key
    )  # fmt: skip
    return found


def _half_digit(printed: str) -> float:
    """Return half a unit of the last digit of a number as it is printed."""
    digits = printed.split()[0].lstrip("+~-").partition(".")[2]
    return 0.5 * 10.0 ** -len(digits)
