"""Four grades of evidence, best first, and what each says about a claim, judged in one way for all of them. No grade
lends its weight to another: a verdict is always shown with its grade and in that grade's words."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rkd.experiments.selectors import Selectors
from rkd.judge import rules
from rkd.judge.decide import EXCEEDED, INCONCLUSIVE, NOT_REPRODUCED, NOT_RUN, REPRODUCED, SMALLER, VERDICTS
from rkd.judge.declared import BEST, Claim, load_claims
from rkd.judge.evidence import Evidence, RecordedRuns
from rkd.judge.printed import judge_printed
from rkd.judge.rules import RuleResult
from rkd.published.others import OtherRun, other_runs

if TYPE_CHECKING:
    from rkd.experiments.ended import Ended
    from rkd.records import Store

EPOCHS = ("last", "best")
LEAST = 3  # runs per side that others' runs and short runs need for a verdict


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
class Evaluation:
    """What the evidence of one grade says about one claim.

    Attributes:
        claim: what is claimed.
        last: by the accuracy after the last epoch, which gives the verdict; of others' runs by the best epoch, where no
            other is told.
        best: the same by each run's best epoch, which is chosen on the test set and therefore flatters.
        optimism: mean best minus mean last accuracy of all runs, in percentage points; NaN without runs.
        records: ids of the records it stands on.
        arithmetics: what these were computed in: "fp16 (8)", or "fp16 from a fp32 teacher (8)".
        left_out: the same of runs that are recorded in another arithmetic alone, and enter nothing.
        missing: ids of runs it still needs, teachers included.
        diverged: ids of runs that ended in NaN; they enter no mean.
        grade: of the evidence, a key of GRADES.
    """

    claim: Claim
    last: RuleResult
    best: RuleResult
    optimism: float = math.nan
    records: tuple[str, ...] = ()
    arithmetics: str = ""
    left_out: str = ""
    missing: tuple[str, ...] = ()
    diverged: tuple[str, ...] = ()
    grade: str = "A"

    @property
    def verdict(self) -> str:
        """One of `rkd.judge.VERDICTS`, by the last epoch."""
        return self.last.verdict

    @property
    def wording(self) -> str:
        """The verdict in the words of its grade."""
        return GRADES[self.grade].wording(self.verdict)


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


# --- our own runs -------------------------------------------------------------------------------------------------


def evaluate_claims(
    profile: str = "paper", claims: Sequence[Claim] | None = None, store: Store | None = None
) -> tuple[Evaluation, ...]:
    """Evaluate claims by the records of the published setting, in the order of the claims.

    Args:
        profile: whose runs and records to use: "paper", or the path of a profile with, say, more seeds.
        claims: the claims; None: params/claims.csv.
        store: the records; None: the profile's own.

    Raises:
        ConfigError: a malformed declaration or unknown profile.
    """
    selectors = Selectors(profile)
    if claims is None:
        claims = load_claims(selectors=selectors if profile == "paper" else None)
    evidence = Evidence(selectors, store.records if store else None)
    what = "run in the published setting"
    return correct_families(evaluate_records("A", claim, evidence.of(claim), what) for claim in claims)


def correct_families(found: Iterable[Evaluation]) -> tuple[Evaluation, ...]:
    """Return evaluations after Holm's correction within each family of several claims, for each epoch by itself."""
    every, families = list(found), defaultdict(list)
    for i, each in enumerate(every):
        if each.claim.family:
            families[each.claim.family].append(i)
    for members in families.values():
        for epoch in EPOCHS if len(members) > 1 else ():
            results = [getattr(every[i], epoch) for i in members]
            for i, result in zip(
                members, rules.correct_holm(results, every[members[0]].claim.alpha), strict=True
            ):
                every[i] = replace(every[i], **{epoch: result})
    return tuple(every)


def evaluate_records(
    grade: str, claim: Claim, found: RecordedRuns, what: str, rows: Sequence[dict[int, Ended]] | None = None
) -> Evaluation:
    """Evaluate a claim by its records, before Holm's correction.

    Args:
        what: what one of its records is called, such as "short run".
        rows: for short runs, which tell only the direction: the records by seed of each row of their table. Then only
            seeds that all sides have count, in the same order on each. None: the rule of the claim's kind decides.
    """
    groups = found.groups if rows is None else _of_common_seeds(found.groups)
    entered, why_not = _once(groups), _why_not(claim, found, groups, what)

    def judged(epoch: str) -> RuleResult:
        if why_not:
            return rules.not_run(why_not)
        accuracies = [[claim_accuracy(record, epoch, claim) for record in group] for group in groups]
        if rows is None:
            return rules.judge(claim, accuracies)
        seeds = sorted(set().union(*rows))
        table = [
            [claim_accuracy(row[seed], epoch, claim) if seed in row else math.nan for seed in seeds]
            for row in rows
        ]
        return rules.judge_direction(evaluate_few(claim), accuracies, claim.direction, np.array(table))

    return Evaluation(
        claim, *map(judged, EPOCHS), grade=grade,
        optimism=optimism([claim_accuracy(record, epoch, claim) for epoch in EPOCHS] for record in entered),
        records=tuple(record.id for record in entered), arithmetics=_named(entered),
        left_out=_named(_once(found.others)), missing=found.missing, diverged=found.diverged,
    )  # fmt: skip


def evaluate_few(claim: Claim) -> Claim:
    """Return the claim as others' runs and short runs answer it: with fewer runs per side than grade A needs."""
    return replace(claim, min_seeds=min(claim.min_seeds, LEAST))


def _of_common_seeds(groups: Sequence[Sequence[Ended]]) -> list[list[Ended]]:
    by_seed = [{record.seed: record for record in group} for group in groups]
    seeds = sorted(set.intersection(*map(set, by_seed)))
    return [[of[seed] for seed in seeds] for of in by_seed]


def _why_not(claim: Claim, found: RecordedRuns, groups: Sequence[Sequence[Ended]], what: str) -> str:
    """Return why no rule can judge these groups of the records found; empty if one can."""
    empty = [i for i, records in enumerate(found.groups) if not records]
    how, more = "", ""
    if other := _named(_once(found.others[i] for i in empty or range(len(groups)))):
        how, more = f" in {found.arithmetic}", f"; {other} is recorded"
    # A bound over many means can be judged by the rows that have runs; every other rule needs all its sides.
    if empty and (claim.kind != "bound" or len(empty) == len(groups)):
        lines = [" and ".join(claim.groups[i]) for i in empty]
        named = ", ".join(lines) if len(lines) <= 3 else f"{lines[0]} and {len(lines) - 1} more lines"
        return f"no {what} is recorded{how} of {named}{more}"
    return "" if any(groups) else f"no seed has finished on all sides{how}{more}"


def _once(groups: Iterable[Sequence[Ended]]) -> list[Ended]:
    """Return every run once, even if it is in several groups."""
    return list({record.id: record for group in groups for record in group}.values())


def optimism(runs: Iterable[Sequence[float | None]]) -> float:
    """Return the mean of best minus last accuracy over the runs, (last, best) each, that tell both; NaN if none do."""
    gaps = [best - last for last, best in runs if last is not None and best is not None]
    return float(np.mean(gaps)) if gaps else math.nan


def claim_accuracy(record: Ended, which: str, claim: Claim) -> float:
    """Return the test accuracy in percent at the "last" or "best" epoch: of the run's network or, where the run trains
    several students, of the one that the claim is about."""
    if not claim.which_student or record.method != "modreduce":
        return record.accuracy(which)
    from rkd.methods.modreduce import student_accuracies

    found = student_accuracies(record, which)
    return max(found.values()) if claim.which_student == BEST else found[claim.which_student]


def _named(records: Iterable[Ended]) -> str:
    """Return the records' arithmetics and how many each has: "fp16 (3), fp32 (2)"; empty without records."""
    found = Counter(record.arithmetic for record in records)
    return ", ".join(f"{name} ({count})" for name, count in found.most_common())


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
