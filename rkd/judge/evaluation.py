"""Declared claims against what is known of their runs: one judge for every grade of evidence."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rkd.experiments.selectors import Selectors
from rkd.judge import rules
from rkd.judge.declared import BEST, Claim, load_claims
from rkd.judge.evidence import Evidence, Found
from rkd.judge.rules import RuleResult

if TYPE_CHECKING:
    from rkd.experiments.ended import Ended
    from rkd.records import Store

Accuracies = Sequence[Sequence[float]]  # in percent, of runs, for each of `claim.groups`


@dataclass(frozen=True)
class Runs:
    """What one grade of evidence has of the runs that a claim asks for.

    Attributes:
        last: accuracies after the last epoch; None where nothing can be judged by them.
        best: the same of each run's best epoch.
        why_not: what a claim without them is told.
        possible: whether there could ever be any.
        whose: begins the sentence of one that is judged.
        about: further attributes of its `Evaluation`.
    """

    last: Accuracies | None = None
    best: Accuracies | None = None
    why_not: str = ""
    possible: bool = True
    whose: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """What the evidence of one grade says of one claim.

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
        """One of rules.VERDICTS, by the last epoch."""
        return self.last.verdict


def evaluate(
    profile: str = "paper", claims: Sequence[Claim] | None = None, store: Store | None = None
) -> tuple[Evaluation, ...]:
    """All claims against the records of the published setting, in the order of the claims.

    Args:
        profile: whose runs and records are looked at: "paper", or the path of a profile with, say, more seeds.
        claims: which ones; None: params/claims.csv.
        store: of records; None: the profile's own.

    Raises:
        ConfigError: a malformed declaration or unknown profile.
    """
    selectors = Selectors(profile)
    if claims is None:
        claims = load_claims(selectors=selectors if profile == "paper" else None)
    evidence = Evidence(selectors, store.records if store else None)
    runs = [of_records(claim, evidence.of(claim), "run in the published setting") for claim in claims]
    return judged("A", claims, runs)


def judged(
    grade: str,
    claims: Sequence[Claim],
    runs: Sequence[Runs],
    rule: Callable[[Claim, Accuracies, str], RuleResult] = lambda claim, groups, _: rules.judge(
        claim, groups
    ),
) -> tuple[Evaluation, ...]:
    """What the evidence of one grade says: a rule on the runs of each claim, which is told the epoch, "last" or "best",
    then Holm's correction within families, by both epochs alike."""

    def result(claim: Claim, each: Runs, epoch: str) -> RuleResult:
        if (groups := getattr(each, epoch)) is None:
            return rules.not_run(each.why_not)
        found = rule(claim, groups, epoch)
        return replace(found, sentence=each.whose + found.sentence)

    pairs = list(zip(claims, runs, strict=True))
    last = _corrected(claims, runs, [result(claim, each, "last") for claim, each in pairs])
    best = _corrected(claims, runs, [result(claim, each, "best") for claim, each in pairs])
    return tuple(
        Evaluation(claim, last[i], best[i], grade=grade, **each.about)
        for i, (claim, each) in enumerate(pairs)
    )


def _corrected(
    claims: Sequence[Claim], runs: Sequence[Runs], results: Sequence[RuleResult]
) -> list[RuleResult]:
    """After Holm's correction within each family of several that this grade can say anything of."""
    corrected = list(results)
    for name in {claim.family for claim in claims} - {""}:
        members = [i for i, claim in enumerate(claims) if claim.family == name and runs[i].possible]
        if len(members) > 1:
            holm = rules.holm([results[i] for i in members], claims[members[0]].alpha)
            for i, result in zip(members, holm, strict=True):
                corrected[i] = result
    return corrected


def of_records(claim: Claim, found: Found, what: str, paired: bool = False) -> Runs:
    """The accuracies of a claim's records, and what is told of them.

    Args:
        claim: what is claimed.
        found: its records.
        what: each of them is.
        paired: whether only seeds count that all sides have, in the same order on each.
    """
    groups = _of_common_seeds(found.groups) if paired else found.groups
    entered = _once(groups)
    about = {
        "optimism": optimism((accuracy(r, "last", claim), accuracy(r, "best", claim)) for r in entered),
        "records": tuple(record.id for record in entered),
        "arithmetics": _named(entered),
        "left_out": _named(_once(found.others)),
        "missing": found.missing,
        "diverged": found.diverged,
    }
    if why_not := _why_not(claim, found, groups, what):
        return Runs(why_not=why_not, about=about)
    last, best = (
        [[accuracy(record, epoch, claim) for record in group] for group in groups]
        for epoch in ("last", "best")
    )
    return Runs(last, best, about=about)


def _of_common_seeds(groups: Sequence[Sequence[Ended]]) -> list[list[Ended]]:
    by_seed = [{record.seed: record for record in group} for group in groups]
    seeds = sorted(set.intersection(*map(set, by_seed)))
    return [[of[seed] for seed in seeds] for of in by_seed]


def _why_not(claim: Claim, found: Found, groups: Sequence[Sequence[Ended]], what: str) -> str:
    """Why no rule can judge by groups of what was found; empty where one can."""
    empty = [i for i, records in enumerate(found.groups) if not records]
    how, more = "", ""
    if other := _named(_once(found.others[i] for i in empty or range(len(groups)))):
        how, more = f" in {found.arithmetic}", f"; {other} is recorded"
    # A bound over many means says something of the rows there are; every other rule needs all its sides.
    if empty and (claim.kind != "bound" or len(empty) == len(groups)):
        lines = [" and ".join(claim.groups[i]) for i in empty]
        named = ", ".join(lines) if len(lines) <= 3 else f"{lines[0]} and {len(lines) - 1} more lines"
        return f"no {what} is recorded{how} of {named}{more}"
    return "" if any(groups) else f"no seed has finished on all sides{how}{more}"


def _once(groups: Iterable[Sequence[Ended]]) -> list[Ended]:
    """A run of several groups once."""
    return list({record.id: record for group in groups for record in group}.values())


def optimism(runs: Iterable[tuple[float | None, float | None]]) -> float:
    """Mean of best minus last accuracy over the runs that tell both, (last, best) each; NaN where none does."""
    gaps = [best - last for last, best in runs if last is not None and best is not None]
    return float(np.mean(gaps)) if gaps else math.nan


def accuracy(record: Ended, which: str, claim: Claim) -> float:
    """Test accuracy in percent at the "last" or "best" epoch: of the run's network or, where it trains several
    students, of the one the claim is about."""
    if not claim.which_student or record.method != "modreduce":
        return record.accuracy(which)
    from rkd.methods.modreduce import student_accuracies

    found = student_accuracies(record, which)
    return max(found.values()) if claim.which_student == BEST else found[claim.which_student]


def _named(records: Iterable[Ended]) -> str:
    """What they were computed in, and how many of them in each: "fp16 (3), fp32 (2)"; empty without records."""
    found = Counter(record.arithmetic for record in records)
    return ", ".join(f"{name} ({count})" for name, count in found.most_common())
