"""What the evaluation of a claim says, in plain text: for the pages of the book and for the command line."""

import math
from collections.abc import Sequence

from rkd.judge import KINDS, VERDICTS, Claim, Evaluation, RuleResult
from rkd.judge.decide import NOT_RUN, THRESHOLD
from rkd.judge.declared import BEST

_MEASURED = {
    "order": "P = {:.2f}",
    "effect": "{:+.2f}",
    "trend": "{:+.2f}",
    "bound": "widest gap {:+.2f}",
}


def measured(result: RuleResult, kind: str) -> str:
    """The estimate as a table shows it; empty where nothing was run."""
    if result.verdict == NOT_RUN:
        return ""
    if kind in _MEASURED:
        return _MEASURED[kind].format(result.estimate)
    sd = result.details.get("sd", math.nan)
    return f"{result.details['mean']:.2f}" + (f" ± {sd:.2f}" if math.isfinite(sd) else "")


def why(result: RuleResult) -> str:
    """The result's reason as a sentence."""
    text = result.sentence.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def computed(found: Evaluation) -> str:
    """In which arithmetics the runs of a verdict were computed, and what was left out, as a sentence; empty without
    runs."""
    if not found.arithmetics:
        return ""
    left = f"; left out, in another arithmetic: {found.left_out}" if found.left_out else ""
    return f"Computed in {found.arithmetics}{left}."


def facts(found: Evaluation) -> list[tuple[str, str]]:
    """What stands behind a verdict, as (name, figures)."""
    claim, last, best, details = found.claim, found.last, found.best, found.last.details
    ran, unit = last.verdict != NOT_RUN, "" if claim.kind == "order" else " points"
    corrected = "" if last.p_holm is None else f", {_p(last.p_holm)} after Holm's correction"
    between = " against " if len(last.n) == 2 else ", "
    said: dict[str, str | None] = {
        KINDS[claim.kind].estimate: f"{last.estimate:.2f}{unit}" if ran else None,
        f"{100 * last.level:.0f} % interval": _range(*last.interval, unit),
        "p": None if last.p is None else _p(last.p) + corrected,
        "runs": between.join(map(str, last.n)),
        "computed in": found.arithmetics if ran else None,
        "left out, in another arithmetic": found.left_out,
        "margin": None if claim.margin is None else f"{claim.margin:g} points",
        "P(A > B) needed": f"{THRESHOLD:g}" if claim.kind == "order" else None,
    }
    if "prediction_low" in details:
        where = "inside" if details["published_inside"] else "outside"
        ends = _range(details["prediction_low"], details["prediction_high"])
        said["95 % prediction interval"] = f"{ends}, the published figure is {where}"
    for name, words in (
        ("ratio", "share of the published gain"),
        ("argmax_inside", "best mean where claimed, bootstrap"),
    ):
        said[words] = f"{100 * details[name]:.0f} %" if name in details else None
    if best.verdict != NOT_RUN:
        said["by the best epoch"] = f"{best.verdict}: {measured(best, claim.kind)}"
        said["optimism of the best epoch"] = f"{found.optimism:+.2f} points"
    if last.more_seeds is not None:
        said["would be decided by"] = f"about {last.more_seeds} more runs per side"
    if found.missing:
        said["missing"] = f"{counted(len(found.missing), 'run')}, teachers included"
    if found.diverged:
        said["diverged"] = f"{counted(len(found.diverged), 'run')}: {', '.join(found.diverged)}"
    said |= {
        "corrected within": claim.family,
        "student that is judged": "best of the three" if claim.which_student == BEST else claim.which_student,
        "the source's figures are of": claim.reports,
        "lines": ", ".join(claim.selectors),
        "on the source": "; ".join(claim.notes),
    }
    return [(name, text) for name, text in said.items() if text]


def location(claim: Claim) -> str:
    """Who says it, and where."""
    where = {
        "ReviewKD paper": f"ReviewKD paper, by {claim.table} of the [Re] paper",
        "this report": f"question of this report, on {claim.table}",
    }.get(claim.who, f"{claim.who}, {claim.table}")
    also = f", also in {' and '.join(claim.also_by)}" if claim.also_by else ""
    return f"{where}{also}: {claim.row}"


def tally(evaluations: Sequence[Evaluation]) -> dict[str, int]:
    """How many there are of each verdict that occurs, in the order of VERDICTS."""
    found = [e.verdict for e in evaluations]
    return {verdict: found.count(verdict) for verdict in VERDICTS if verdict in found}


def judged(evaluations: Sequence[Evaluation]) -> int:
    """How many claims have been looked at: every one that has runs, the inconclusive ones too."""
    return sum(e.verdict != NOT_RUN for e in evaluations)


def runs_missing(evaluations: Sequence[Evaluation]) -> int:
    """Runs the claims still need, each once, teachers included."""
    return len({run for e in evaluations for run in e.missing})


def counted(number: int, noun: str) -> str:
    """ "1 run", "2 runs"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _range(low: float, high: float, unit: str = "") -> str | None:
    return f"{low:.2f} to {high:.2f}{unit}" if math.isfinite(low) and math.isfinite(high) else None


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
