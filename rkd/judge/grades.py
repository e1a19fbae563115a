"""Four grades of evidence, best first, and what each says of a claim. None lends another its weight: a verdict is
always shown with its grade, and in that grade's words."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rkd.experiments.selectors import Selectors
from rkd.judge import rules
from rkd.judge.decide import EXCEEDED, INCONCLUSIVE, NOT_REPRODUCED, NOT_RUN, REPRODUCED, SMALLER, VERDICTS
from rkd.judge.declared import Claim, load_claims
from rkd.judge.evaluation import Evaluation, accuracy, corrected, evaluate
from rkd.judge.evidence import Evidence, is_whole
from rkd.judge.printed import judge_printed
from rkd.judge.rules import RuleResult
from rkd.published.others import OtherRun, other_runs

if TYPE_CHECKING:
    from rkd.records import Record, Store


class Grade(NamedTuple):
    """One grade of evidence.

    Attributes:
        name: in two words.
        what: it rests on.
        says: the verdicts in its words.
    """

    name: str
    what: str
    says: Mapping[str, str]

    def words(self, verdict: str) -> str:
        """One of VERDICTS in the words of this grade."""
        return self.says.get(verdict, verdict)


_OPEN = {INCONCLUSIVE: INCONCLUSIVE, NOT_RUN: NOT_RUN}
GRADES = {
    "A": Grade("published setting", "runs of this report: the whole data set, every epoch, the recipe's own teacher", {
        verdict: verdict for verdict in VERDICTS
    }),
    "B": Grade("others' runs", "single runs that others measured in the published setting", {
        REPRODUCED: "supported", SMALLER: "supported, smaller effect", EXCEEDED: EXCEEDED,
        NOT_REPRODUCED: "not supported", **_OPEN,
    }),
    "C": Grade("short runs", "runs of this report: the whole data set, a real teacher, a shortened schedule", {
        REPRODUCED: "same direction", NOT_REPRODUCED: "opposite direction", **_OPEN,
    }),
    "D": Grade("printed numbers", "what the printed numbers alone decide, by arithmetic", {
        REPRODUCED: "follows", NOT_REPRODUCED: "does not follow", NOT_RUN: NOT_RUN,
    }),
}  # fmt: skip
LEAST = 3  # runs a side from which others' runs and short ones have a verdict


@dataclass(frozen=True)
class Assessment:
    """Everything there is on one claim.

    Attributes:
        claim: what is claimed.
        found: grade -> what its evidence says; every grade, best first.
    """

    claim: Claim
    found: Mapping[str, Evaluation]

    @property
    def best(self) -> Evaluation:
        """The best grade whose runs decide; else the best that has runs; else what is printed, be it nothing."""
        by_runs = [self.found[grade] for grade in "ABC" if self.found[grade].verdict != NOT_RUN]
        decided = [e for e in by_runs if e.verdict != INCONCLUSIVE]
        return (decided or by_runs or [self.found["D"]])[0]

    @property
    def verdict(self) -> str:
        """One of VERDICTS, by the best evidence."""
        return self.best.verdict

    @property
    def grade(self) -> str:
        """Of the best evidence; empty where there is none."""
        return self.best.grade if self.verdict != NOT_RUN else ""

    @property
    def said(self) -> str:
        """The verdict in the words of its grade."""
        return GRADES[self.best.grade].words(self.verdict)


def assess(
    claims: Sequence[Claim] | None = None,
    profile: str = "paper",
    stores: Mapping[str, Store] | None = None,
    others: Sequence[OtherRun] | None = None,
) -> tuple[Assessment, ...]:
    """All claims under all grades of evidence, in the order of the claims.

    Args:
        claims: which ones; None: params/claims.csv.
        profile: of the published setting: "paper", or the path of a profile with, say, more seeds.
        stores: of records, by grade A or C; None: those of the profiles.
        others: runs that others measured; None: those in results/others.

    Raises:
        ConfigError: a malformed declaration or unknown profile, or a run of others that names an unknown line.
        RecordError: a damaged table of others' runs.
    """
    stores, selectors = stores or {}, Selectors()
    if claims is None:
        claims = load_claims(selectors=selectors)
    found = {
        "A": evaluate(profile, claims, stores.get("A")),
        "B": _by_others(claims, other_runs() if others is None else others, selectors),
        "C": _by_short(claims, stores.get("C")),
        "D": [_evaluation(claim, "D", judge_printed(claim)) for claim in claims],
    }
    every = (dict(zip(found, of_claim, strict=True)) for of_claim in zip(*found.values(), strict=True))
    return tuple(Assessment(claim, by_grade) for claim, by_grade in zip(claims, every, strict=True))


def _evaluation(
    claim: Claim, grade: str, last: RuleResult, best: RuleResult | None = None, **more: float
) -> Evaluation:
    return Evaluation(claim, last, best or rules.not_run("no best epoch is told"), grade=grade, **more)


# --- others' runs ------------------------------------------------------------------------------------------------


def _by_others(claims: Sequence[Claim], runs: Sequence[OtherRun], selectors: Selectors) -> list[Evaluation]:
    """By the rules of the published setting, from three runs a side: of runs that are independent of the source where
    all sides have some, else of those behind its own figure. The last epoch decides, or where it is not told the best
    one."""
    of_line: dict[tuple[str, bool], list[OtherRun]] = defaultdict(list)
    for run in runs:
        for line in run.lines:
            selectors.ids(line)  # an unknown one stops here
            of_line[line, bool(run.behind)].append(run)
    chosen = [_sides(claim, of_line) for claim in claims]
    few = [replace(claim, min_seeds=min(claim.min_seeds, LEAST)) for claim in claims]
    results = {
        which: corrected(
            few, [_of_runs(claim, sides, which) for claim, sides in zip(few, chosen, strict=True)]
        )
        for which in ("last", "best")
    }
    return [
        _of_epochs(claim, last, best, [run for side in sides for run in side])
        for claim, sides, last, best in zip(claims, chosen, results["last"], results["best"], strict=True)
    ]


def _sides(claim: Claim, of_line: Mapping[tuple[str, bool], list[OtherRun]]) -> list[list[OtherRun]]:
    for own in (False, True):
        sides = [
            list({id(run): run for line in side for run in of_line.get((line, own), ())}.values())
            for side in claim.groups
        ]
        if all(sides):
            return sides
    return []


def _of_runs(claim: Claim, sides: Sequence[Sequence[OtherRun]], which: str) -> RuleResult:
    values = [[getattr(run, which) for run in side] for side in sides]
    if not sides or any(value is None for side in values for value in side):
        return rules.not_run("no run that others measured is known of all its sides")
    return rules.judge(claim, values)


def _of_epochs(claim: Claim, last: RuleResult, best: RuleResult, runs: Sequence[OtherRun]) -> Evaluation:
    told = [run.best - run.last for run in runs if run.best is not None and run.last is not None]
    optimism = float(np.mean(told)) if told else math.nan
    decides = last if last.verdict != NOT_RUN else best
    if runs:
        own = "the source's own runs" if runs[0].behind else "independent of the source"
        epoch = "" if decides is last else "; by their best epochs on the test set, all that is told"
        decides = replace(decides, sentence=f"{own}: {decides.sentence}{epoch}")
    return _evaluation(claim, "B", decides, best, optimism=optimism)


# --- short runs --------------------------------------------------------------------------------------------------


def _by_short(claims: Sequence[Claim], store: Store | None) -> list[Evaluation]:
    """Comparisons, gains and trends by their direction, over the seeds that all their sides have. What a value is after
    all epochs, a short run does not say."""
    evidence = Evidence(Selectors("short"), store, counts=is_whole)
    found = [_short(claim, evidence) for claim in claims]
    return [
        replace(e, last=last)
        for e, last in zip(found, corrected(claims, [e.last for e in found]), strict=True)
    ]


def _short(claim: Claim, evidence: Evidence) -> Evaluation:
    weights = _weights(claim)
    if not weights:
        return _evaluation(claim, "C", rules.not_run("short runs say nothing of it"))
    if not all(evidence.selectors.has(line) for line in claim.selectors):
        return _evaluation(claim, "C", rules.not_run("the short profile has no such runs"))
    if not evidence.on_all_sides(claim):
        return _evaluation(claim, "C", rules.not_run("no short run is recorded of some side"))
    runs = evidence.of(claim)
    by_seed = [{record.config.seed: record for record in group} for group in runs.groups]
    seeds = sorted(set.intersection(*map(set, by_seed)))
    if not seeds:
        return _evaluation(claim, "C", rules.not_run("no seed has finished on all sides"))
    last, best = (_direction(claim, by_seed, seeds, weights, which) for which in ("last", "best"))
    used = tuple(record.id for group in by_seed for record in group.values())
    return replace(
        _evaluation(claim, "C", last, best), records=used, missing=runs.missing, diverged=runs.diverged
    )


def _weights(claim: Claim) -> tuple[float, ...]:
    """Of the groups, the claimed way upwards; empty for a claim that no direction answers."""
    if claim.kind == "trend":
        return claim.contrast
    if claim.kind in ("order", "effect") and len(claim.groups) == 2:
        sign = math.copysign(1.0, claim.published) if claim.kind == "effect" else 1.0
        return sign, -sign
    return ()


def _direction(
    claim: Claim,
    by_seed: Sequence[Mapping[int, Record]],
    seeds: Sequence[int],
    weights: Sequence[float],
    which: str,
) -> RuleResult:
    groups = [np.array([accuracy(found[seed], which, claim) for seed in seeds]) for found in by_seed]
    return rules.direction(replace(claim, min_seeds=LEAST), groups, weights)
