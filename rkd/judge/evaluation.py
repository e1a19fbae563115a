"""Declared claims judged by what is known of their runs, in one way for every grade of evidence."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rkd.experiments.selectors import Selectors
from rkd.judge import rules
from rkd.judge.declared import BEST, Claim, load_claims
from rkd.judge.evidence import Evidence, RecordedRuns
from rkd.judge.rules import RuleResult

if TYPE_CHECKING:
    from rkd.experiments.ended import Ended
    from rkd.records import Store

EPOCHS = ("last", "best")
LEAST = 3  # runs per side that others' runs and short runs need for a verdict


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
        grade: of the evidence, a key of `rkd.judge.grades.GRADES`.
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
