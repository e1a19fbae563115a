"""What a verdict says, in plain text: for the pages of the book and for the command line."""

import math
from collections.abc import Sequence

from rkd.experiments.chapters import chapter_names, get_chapter
from rkd.judge import KINDS, VERDICTS, Judgement, Verdict
from rkd.judge.decide import NOT_RUN
from rkd.judge.declared import BEST

KIND_NAMES = {
    "value": "accuracy",
    "order": "comparison",
    "effect": "gain",
    "trend": "trend",
    "bound": "bound",
    "chance": "chance",
}
assert set(KIND_NAMES) == set(KINDS)


def measured(judgement: Judgement, kind: str) -> str:
    """The estimate as a table shows it; empty where nothing was run."""
    if judgement.verdict == NOT_RUN:
        return ""
    return _MEASURED[kind](judgement)


def _mean(judgement: Judgement) -> str:
    sd = judgement.details.get("sd", math.nan)
    spread = f" ± {sd:.2f}" if math.isfinite(sd) else ""
    return f"{judgement.details['mean']:.2f}{spread}"


_MEASURED = {
    "value": _mean,
    "chance": _mean,
    "order": lambda j: f"P = {j.estimate:.2f}",
    "effect": lambda j: f"{j.estimate:+.2f}",
    "trend": lambda j: f"{j.estimate:+.2f}",
    "bound": lambda j: f"widest gap {j.estimate:+.2f}",
}


def why(judgement: Judgement) -> str:
    """The judgement's reason as a sentence."""
    text = judgement.sentence.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def computed(verdict: Verdict) -> str:
    """In which arithmetics the runs of a verdict were computed, and what was left out, as a sentence; empty without
    runs."""
    if not verdict.arithmetics:
        return ""
    left = f"; left out, in another arithmetic: {verdict.left_out}" if verdict.left_out else ""
    return f"Computed in {verdict.arithmetics}{left}."


def facts(verdict: Verdict) -> list[tuple[str, str]]:
    """What stands behind a verdict, as (name, figures)."""
    claim, last, best = verdict.claim, verdict.last, verdict.best
    found: list[tuple[str, str]] = []
    if last.verdict != NOT_RUN:
        unit = "" if claim.kind == "order" else " points"
        found.append((_ESTIMATES[claim.kind], f"{last.estimate:.2f}{unit}"))
        if all(map(math.isfinite, last.interval)):
            low, high = last.interval
            found.append((f"{100 * last.level:.0f} % interval", f"{low:.2f} to {high:.2f}{unit}"))
        if last.p is not None:
            holm = "" if last.p_holm is None else f", {_p(last.p_holm)} after Holm's correction"
            found.append(("p", _p(last.p) + holm))
        found.append(("runs", _runs(last.n)))
        found.append(("computed in", verdict.arithmetics))
    if verdict.left_out:
        found.append(("left out, in another arithmetic", verdict.left_out))
    if claim.margin is not None:
        found.append(("margin", f"{claim.margin:g} points"))
    if claim.kind == "order":
        found.append(("P(A > B) needed", f"{last.details.get('threshold', 0.75):g}"))
    if "prediction_low" in last.details:
        low, high = last.details["prediction_low"], last.details["prediction_high"]
        where = "inside" if last.details["published_inside"] else "outside"
        found.append(
            ("95 % prediction interval", f"{low:.2f} to {high:.2f}, the published figure is {where}")
        )
    if "ratio" in last.details:
        found.append(("share of the published gain", f"{100 * last.details['ratio']:.0f} %"))
    if "argmax_inside" in last.details:
        found.append(("best mean where claimed, bootstrap", f"{100 * last.details['argmax_inside']:.0f} %"))
    if best.verdict != NOT_RUN:
        found.append(("by the best epoch", f"{best.verdict}: {measured(best, claim.kind)}"))
        found.append(("optimism of the best epoch", f"{verdict.optimism:+.2f} points"))
    if last.more_seeds is not None:
        found.append(("would be decided by", f"about {last.more_seeds} more runs per side"))
    if verdict.missing:
        found.append(("missing", f"{counted(len(verdict.missing), 'run')}, teachers included"))
    if verdict.diverged:
        found.append(("diverged", f"{counted(len(verdict.diverged), 'run')}: {', '.join(verdict.diverged)}"))
    if claim.family:
        found.append(("corrected within", claim.family))
    if claim.which_student:
        student = "best of the three" if claim.which_student == BEST else claim.which_student
        found.append(("student that is judged", student))
    if claim.reports:
        found.append(("the source's figures are of", claim.reports))
    found.append(("lines", ", ".join(claim.selectors)))
    if claim.notes:
        found.append(("on the source", "; ".join(claim.notes)))
    return found


_ESTIMATES = {
    "value": "ours minus published",
    "chance": "ours minus chance",
    "order": "P(A > B)",
    "effect": "difference of means",
    "trend": "contrast",
    "bound": "widest gap",
}


def location(verdict: Verdict) -> str:
    """Who says it, and where."""
    claim = verdict.claim
    where = {
        "ReviewKD paper": f"ReviewKD paper, by {claim.table} of the [Re] paper",
        "this report": f"question of this report, on {claim.table}",
    }.get(claim.who, f"{claim.who}, {claim.table}")
    also = f", also in {' and '.join(claim.also_by)}" if claim.also_by else ""
    return f"{where}{also}: {claim.row}"


def chapter_label(name: str) -> str:
    """A chapter's short name: "Table 3", "no cross entropy"."""
    title = get_chapter(name).title
    return title.partition(":")[0] if title.startswith(("Table", "Figure")) else name.replace("_", " ")


def chapter_order(name: str) -> int:
    """Place of a chapter in the book."""
    return chapter_names().index(name)


def tally(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many there are of each verdict that occurs, in the order of VERDICTS."""
    found = [v.verdict for v in verdicts]
    return {verdict: found.count(verdict) for verdict in VERDICTS if verdict in found}


def judged(verdicts: Sequence[Verdict]) -> int:
    """How many claims have been looked at: every one that has runs, the inconclusive ones too."""
    return sum(v.verdict != NOT_RUN for v in verdicts)


def runs_missing(verdicts: Sequence[Verdict]) -> int:
    """Runs the claims still need, each once, teachers included."""
    return len({run for verdict in verdicts for run in verdict.missing})


def counted(number: int, noun: str) -> str:
    """ "1 run", "2 runs"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _runs(n: Sequence[int]) -> str:
    return " against ".join(map(str, n)) if len(n) == 2 else ", ".join(map(str, n))


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
