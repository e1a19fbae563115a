"""Four grades of evidence, best first, and what each says of a claim. None lends another its weight: a verdict is
always shown with its grade, and in that grade's words."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rkd.experiments.selectors import Selectors
from rkd.judge import rules
from rkd.judge.decide import EXCEEDED, INCONCLUSIVE, NOT_REPRODUCED, NOT_RUN, REPRODUCED, SMALLER, VERDICTS
from rkd.judge.declared import Claim, load_claims
from rkd.judge.evaluation import (
    Accuracies,
    Evaluation,
    Runs,
    accuracy,
    evaluate,
    judged,
    of_records,
    optimism,
)  # fmt: skip
from rkd.judge.evidence import Evidence
from rkd.judge.printed import judge_printed
from rkd.published.others import OtherRun, other_runs

if TYPE_CHECKING:
    from rkd.records import Store


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
    no_epoch = rules.not_run("no best epoch is told")
    found = {
        "A": evaluate(profile, claims, stores.get("A")),
        "B": _by_others(claims, other_runs() if others is None else others, selectors),
        "C": _by_short(claims, stores.get("C")),
        "D": [Evaluation(claim, judge_printed(claim), no_epoch, grade="D") for claim in claims],
    }
    every = (dict(zip(found, of_claim, strict=True)) for of_claim in zip(*found.values(), strict=True))
    return tuple(Assessment(claim, by_grade) for claim, by_grade in zip(claims, every, strict=True))


def few(claim: Claim) -> Claim:
    """As others' runs and short ones answer it: from fewer runs a side than those of grade A."""
    return replace(claim, min_seeds=min(claim.min_seeds, LEAST))


# --- others' runs ------------------------------------------------------------------------------------------------


def _by_others(
    claims: Sequence[Claim], runs: Sequence[OtherRun], selectors: Selectors
) -> tuple[Evaluation, ...]:
    """By the rules of the published setting, from three runs a side: of runs that are independent of the source where
    all sides have some, else of those behind its own figure."""
    of_line: dict[tuple[str, bool], list[OtherRun]] = defaultdict(list)
    for run in runs:
        for line in run.lines:
            selectors.ids(line)  # an unknown one stops here
            of_line[line, bool(run.behind)].append(run)
    found = [_told(_sides(claim, of_line)) for claim in claims]
    return judged("B", claims, found, lambda claim, groups, _: rules.judge(few(claim), groups))


def _sides(claim: Claim, of_line: Mapping[tuple[str, bool], list[OtherRun]]) -> list[list[OtherRun]]:
    for own in (False, True):
        sides = [
            list({id(run): run for line in side for run in of_line.get((line, own), ())}.values())
            for side in claim.groups
        ]
        if all(sides):
            return sides
    return []


def _told(sides: Sequence[Sequence[OtherRun]]) -> Runs:
    """Their accuracies by the last epoch, or where it is not told of all by the best one."""
    runs = [run for side in sides for run in side]
    if not runs:
        return Runs(why_not="no run that others measured is known of all its sides")
    last, best = (
        None if any(getattr(run, epoch) is None for run in runs)
        else [[getattr(run, epoch) for run in side] for side in sides]
        for epoch in ("last", "best")
    )  # fmt: skip
    whose = "the source's own runs" if runs[0].behind else "independent of the source"
    if last is None:
        last, whose = best, f"{whose}, by their best epochs on the test set, all that is told"
    about = {"optimism": optimism((run.last, run.best) for run in runs)}
    return Runs(
        last, best, "no epoch is told of all runs that others measured", whose=f"{whose}: ", about=about
    )


# --- short runs --------------------------------------------------------------------------------------------------


def _by_short(claims: Sequence[Claim], store: Store | None) -> tuple[Evaluation, ...]:
    """Comparisons, gains and trends by their direction, over the seeds that all their sides have, and by the spread of
    all distilled rows of the same table and pair. What a value is after all epochs, a short run does not say."""
    evidence = Evidence(Selectors("short"), store.records if store else None, "whole")
    found = {
        c.id: evidence.of(c) for c in claims if c.direction and all(map(evidence.selectors.has, c.selectors))
    }

    def runs(claim: Claim) -> Runs:
        if claim.id in found:
            return of_records(claim, found[claim.id], "short run", paired=True)
        why_not = "the short profile has no such runs" if claim.direction else "short runs say nothing of it"
        return Runs(why_not=why_not, possible=False)

    def rule(claim: Claim, groups: Accuracies, epoch: str) -> rules.RuleResult:
        lines = dict.fromkeys(chain(claim.selectors, *map(evidence.selectors.beside, claim.selectors)))
        rows = evidence.rows(lines, found[claim.id].arithmetic)
        seeds = sorted(set().union(*rows))
        table = [
            [accuracy(row[seed], epoch, claim) if seed in row else math.nan for seed in seeds] for row in rows
        ]
        return rules.direction(few(claim), groups, claim.direction, np.array(table))

    return judged("C", claims, [runs(claim) for claim in claims], rule)
