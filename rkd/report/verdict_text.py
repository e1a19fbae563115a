"""What the evidence on a claim says, in plain text, for the pages of the book and for the command line."""

import math
from collections.abc import Iterable, Mapping, Sequence

from rkd.judge import GRADES, KINDS, VERDICTS, Assessment, Claim, Evaluation, RuleResult
from rkd.judge.decide import NOT_RUN, THRESHOLD
from rkd.judge.declared import BEST


def with_evidence(assessment: Assessment) -> list[Evaluation]:
    """Return the evaluations of a claim that have evidence, the best first; empty if none has any."""
    found = (e for e in assessment.found.values() if e.verdict != NOT_RUN)
    return sorted(found, key=lambda e: e is not assessment.best)


def estimate_text(result: RuleResult, claim: Claim, grade: str) -> str:
    """Return the estimate as a table shows it; empty if there is none."""
    if not math.isfinite(result.estimate):
        return ""
    if "mean" in result.details:
        sd = result.details.get("sd", math.nan)
        return f"{result.details['mean']:.2f}" + (f" ± {sd:.2f}" if math.isfinite(sd) else "")
    if _is_probability(claim, grade):
        return f"P = {result.estimate:.2f}"
    return f"{'widest gap ' * (claim.kind == 'bound')}{result.estimate:+.2f}"


def _is_probability(claim: Claim, grade: str) -> bool:
    """Whether the estimate is P(A > B): short runs and printed numbers give a difference instead."""
    return claim.kind == "order" and grade in "AB"


def reason(result: RuleResult) -> str:
    """Return the result's reason as a sentence."""
    text = result.sentence.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def arithmetic_sentence(found: Evaluation) -> str:
    """Return a sentence on the arithmetics of a verdict's runs and on what was left out; empty without runs."""
    if not found.arithmetics:
        return ""
    left = f"; left out, in another arithmetic: {found.left_out}" if found.left_out else ""
    return f"Computed in {found.arithmetics}{left}."


def evidence_facts(found: Evaluation) -> list[tuple[str, str]]:
    """Return what one grade's verdict stands on, as (name, figures)."""
    claim, last, best, details = found.claim, found.last, found.best, found.last.details
    ran, odds = last.verdict != NOT_RUN, _is_probability(claim, found.grade)
    unit = "" if odds else " points"
    estimate = KINDS[claim.kind].estimate if odds or claim.kind != "order" else "difference of means"
    corrected = "" if last.p_holm is None else f", {_p(last.p_holm)} after Holm's correction"
    between = " against " if len(last.n) == 2 else ", "
    named: dict[str, str | None] = {
        estimate: f"{last.estimate:.2f}{unit}" if math.isfinite(last.estimate) else None,
        f"{100 * last.level:.0f} % interval": _range(*last.interval, unit),
        "p": None if last.p is None else _p(last.p) + corrected,
        "runs": between.join(map(str, last.n)),
        "computed in": found.arithmetics if ran else None,
        "left out, in another arithmetic": found.left_out,
        "P(A > B) needed": f"{THRESHOLD:g}" if odds and ran else None,
    }
    if "prediction_low" in details:
        where = "inside" if details["published_inside"] else "outside"
        ends = _range(details["prediction_low"], details["prediction_high"])
        named["95 % prediction interval"] = f"{ends}, the published figure is {where}"
    shares = {"ratio": "share of the published gain", "argmax_inside": "best mean where claimed, bootstrap"}
    named |= {words: f"{100 * details[name]:.0f} %" for name, words in shares.items() if name in details}
    if best.verdict != NOT_RUN and best.estimate != last.estimate:
        told = GRADES[found.grade].wording(best.verdict), estimate_text(best, claim, found.grade)
        named["by the best epoch"] = ": ".join(filter(None, told))
    if math.isfinite(found.optimism):
        named["optimism of the best epoch"] = f"{found.optimism:+.2f} points"
    if last.more_seeds is not None:
        named["would be decided by"] = f"about {plural(last.more_seeds, 'more run')} per side"
    if found.missing:
        named["missing"] = f"{plural(len(found.missing), 'run')}, teachers included"
    if found.diverged:
        named["diverged"] = f"{plural(len(found.diverged), 'run')}: {', '.join(found.diverged)}"
    return _filled(named)


def declared_facts(claim: Claim) -> list[tuple[str, str]]:
    """Return what was fixed about a claim beforehand, as (name, figures)."""
    return _filled({
        "margin": None if claim.margin is None else f"{claim.margin:g} points",
        "corrected within": claim.family,
        "student that is judged": "best of the three" if claim.which_student == BEST else claim.which_student,
        "the source's figures are of": claim.reports,
        "lines": ", ".join(claim.selectors),
        "on the source": "; ".join(claim.notes),
    })  # fmt: skip


def _filled(named: Mapping[str, str | None]) -> list[tuple[str, str]]:
    return [(name, text) for name, text in named.items() if text]


def location(claim: Claim) -> str:
    """Return who makes the claim, and where."""
    where = {
        "ReviewKD paper": f"ReviewKD paper, by {claim.table} of the [Re] paper",
        "this report": f"question of this report, on {claim.table}",
    }.get(claim.who, f"{claim.who}, {claim.table}")
    also = f", also in {' and '.join(claim.also_by)}" if claim.also_by else ""
    return f"{where}{also}: {claim.row}"


def tally(found: Iterable[Evaluation | Assessment]) -> dict[str, int]:
    """Return how many there are of each verdict that occurs, in the order of VERDICTS."""
    verdicts = [each.verdict for each in found]
    return {verdict: verdicts.count(verdict) for verdict in VERDICTS if verdict in verdicts}


def of_grade(assessments: Sequence[Assessment], grade: str) -> list[Evaluation]:
    """Return what one grade says about the claims that it has evidence on."""
    return [e for a in assessments if (e := a.found[grade]).verdict != NOT_RUN]


def runs_missing(assessments: Sequence[Assessment]) -> int:
    """Return how many runs the claims still need in the published setting, each counted once, teachers included."""
    return len({run for a in assessments for run in a.found["A"].missing})


def plural(number: int, noun: str) -> str:
    """Return the number with its noun: "1 run", "2 runs"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _range(low: float, high: float, unit: str = "") -> str | None:
    return f"{low:.2f} to {high:.2f}{unit}" if math.isfinite(low) and math.isfinite(high) else None


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
