"""Four grades of evidence, best first, and what each says about a claim. No grade lends its weight to another: a
verdict is always shown with its grade and in that grade's words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from rkd.experiments.selectors import Selectors
from rkd.judge import rules
from rkd.judge.decide import EXCEEDED, INCONCLUSIVE, NOT_REPRODUCED, NOT_RUN, REPRODUCED, SMALLER, VERDICTS
from rkd.judge.declared import Claim, load_claims
from rkd.judge.evaluation import (
    EPOCHS,
    Evaluation,
    correct_families,
    evaluate_claims,
    evaluate_few,
    evaluate_records,
    optimism,
)
from rkd.judge.evidence import Evidence
from rkd.judge.printed import judge_printed
from rkd.published.others import OtherRun, other_runs

if TYPE_CHECKING:
    from rkd.records import Store


class Grade(NamedTuple):
    """A grade of evidence: its name in two words, what it rests on, and its own words for verdicts, if it has any."""

    name: str
    what: str
    says: Mapping[str, str]

    def wording(self, verdict: str) -> str:
        """Return one of VERDICTS in the words of this grade."""
        return self.says.get(verdict, verdict)


GRADES = {
    "A": Grade("published setting", "runs of this report: the whole data set, every epoch, the recipe's own teacher", {
        verdict: verdict for verdict in VERDICTS
    }),
    "B": Grade("others' runs", "single runs that others measured in the published setting", {
        REPRODUCED: "supported", SMALLER: "supported, smaller effect", EXCEEDED: EXCEEDED,
        NOT_REPRODUCED: "not supported",
    }),
    "C": Grade("short runs", "runs of this report: the whole data set, a real teacher, a shortened schedule", {
        REPRODUCED: "same direction", NOT_REPRODUCED: "opposite direction",
    }),
    "D": Grade("printed numbers", "what the printed numbers alone decide, by arithmetic", {
        REPRODUCED: "follows", NOT_REPRODUCED: "does not follow",
    }),
}  # fmt: skip


@dataclass(frozen=True)
class Assessment:
    """All evidence on one claim: what each grade of evidence says, by grade, the best first."""

    claim: Claim
    found: Mapping[str, Evaluation]

    @property
    def best(self) -> Evaluation:
        """The best grade whose runs decide; else the best that has runs; else grade D, even if no number decides."""
        by_runs = [self.found[grade] for grade in "ABC" if self.found[grade].verdict != NOT_RUN]
        decided = [e for e in by_runs if e.verdict != INCONCLUSIVE]
        return (decided or by_runs or [self.found["D"]])[0]

    @property
    def verdict(self) -> str:
        """One of VERDICTS, by the best evidence."""
        return self.best.verdict

    @property
    def grade(self) -> str:
        """The grade of the best evidence; empty if there is none."""
        return self.best.grade if self.verdict != NOT_RUN else ""

    @property
    def wording(self) -> str:
        """The verdict in the words of its grade."""
        return GRADES[self.best.grade].wording(self.verdict)


def assess(
    claims: Sequence[Claim] | None = None,
    profile: str = "paper",
    stores: Mapping[str, Store] | None = None,
    others: Sequence[OtherRun] | None = None,
) -> tuple[Assessment, ...]:
    """Assess claims by all grades of evidence, in the order of the claims.

    Args:
        claims: the claims; None: params/claims.csv.
        profile: that of the published setting: "paper", or the path of a profile with, say, more seeds.
        stores: the records, by grade A or C; None: those of the profiles.
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
        "A": evaluate_claims(profile, claims, stores.get("A")),
        "B": _by_others(claims, other_runs() if others is None else others, selectors),
        "C": _by_short(claims, stores.get("C")),
        "D": [Evaluation(claim, judge_printed(claim), no_epoch, grade="D") for claim in claims],
    }
    return tuple(Assessment(c, {grade: of[i] for grade, of in found.items()}) for i, c in enumerate(claims))


# --- others' runs ------------------------------------------------------------------------------------------------


def _by_others(
    claims: Sequence[Claim], runs: Sequence[OtherRun], selectors: Selectors
) -> tuple[Evaluation, ...]:
    """Evaluate claims by the rules of the published setting, from three runs per side: runs independent of the source
    if all sides have some, else those behind the source's own figure."""
    of_line: dict[tuple[str, bool], list[OtherRun]] = defaultdict(list)
    for run in runs:
        for line in run.lines:
            selectors.ids(line)  # raises if the line is unknown
            of_line[line, bool(run.behind)].append(run)
    return correct_families(_told(claim, _sides(claim, of_line)) for claim in claims)


def _sides(claim: Claim, of_line: Mapping[tuple[str, bool], list[OtherRun]]) -> list[list[OtherRun]]:
    for own in (False, True):
        sides = [
            list({id(run): run for line in side for run in of_line.get((line, own), ())}.values())
            for side in claim.groups
        ]
        if all(sides):
            return sides
    return []


def _told(claim: Claim, sides: Sequence[Sequence[OtherRun]]) -> Evaluation:
    """Evaluate a claim by the last epochs of others' runs, or by their best ones if not all runs tell the last."""
    runs = [run for side in sides for run in side]
    if not runs:
        return _not_run("B", claim, "no run that others measured is known of all its sides")
    told = [epoch for epoch in EPOCHS if all(getattr(run, epoch) is not None for run in runs)]
    whose = "the source's own runs" if runs[0].behind else "independent of the source"
    if "last" not in told:
        whose += ", by their best epochs on the test set, all that is told"
    found = {}
    for epoch in told:
        result = rules.judge(evaluate_few(claim), [[getattr(run, epoch) for run in side] for side in sides])
        found[epoch] = replace(result, sentence=f"{whose}: {result.sentence}")
    best = found.get("best") or rules.not_run("no epoch is told of all runs that others measured")
    gap = optimism((run.last, run.best) for run in runs)
    return Evaluation(claim, found.get("last", best), best, gap, grade="B")


def _not_run(grade: str, claim: Claim, why: str) -> Evaluation:
    nothing = rules.not_run(why)
    return Evaluation(claim, nothing, nothing, grade=grade)


# --- short runs --------------------------------------------------------------------------------------------------


def _by_short(claims: Sequence[Claim], store: Store | None) -> list[Evaluation]:
    """Evaluate comparisons, gains and trends by direction, over the seeds that all their sides have, with the spread of
    all distilled rows of the same table and pair. A short run does not say what a value is after all epochs."""
    evidence = Evidence(Selectors("short"), store.records if store else None, "whole")

    def judged(claim: Claim) -> Evaluation:
        lines = dict.fromkeys(chain(claim.selectors, *map(evidence.selectors.beside, claim.selectors)))
        found = evidence.of(claim)
        return evaluate_records("C", claim, found, "short run", evidence.rows(lines, found.arithmetic))

    possible = [c for c in claims if c.direction and all(map(evidence.selectors.has, c.selectors))]
    found = {each.claim.id: each for each in correct_families(map(judged, possible))}
    no_runs, no_word = "the short profile has no such runs", "short runs say nothing of it"
    return [found.get(c.id) or _not_run("C", c, no_runs if c.direction else no_word) for c in claims]
