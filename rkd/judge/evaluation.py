"""Each declared claim against the recorded runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rkd.experiments.selectors import Selectors
from rkd.judge import rules
from rkd.judge.declared import BEST, Claim, load_claims
from rkd.judge.evidence import Evidence, Found
from rkd.judge.rules import RuleResult

if TYPE_CHECKING:
    from rkd.records import Record, Store


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
    profile: str = "paper",
    claims: Sequence[Claim] | None = None,
    store: Store | None = None,
) -> tuple[Evaluation, ...]:
    """All claims against the records, in the order of the claims.

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
    evidence = Evidence(selectors, store)
    found = [(claim, evidence.of(claim)) for claim in claims]
    last, best = (corrected(claims, [_result(*each, which) for each in found]) for which in ("last", "best"))
    return tuple(
        Evaluation(
            claim, results[0], results[1], _optimism(claim, runs.entered), tuple(r.id for r in runs.entered),
            _named(runs.entered), _named(runs.others), runs.missing, runs.diverged,
        )
        for (claim, runs), *results in zip(found, last, best, strict=True)
    )  # fmt: skip


def _optimism(claim: Claim, records: Sequence[Record]) -> float:
    gaps = [accuracy(record, "best", claim) - accuracy(record, "last", claim) for record in records]
    return float(np.mean(gaps)) if gaps else math.nan


def _result(claim: Claim, found: Found, which: str) -> RuleResult:
    empty = [
        " and ".join(side) for side, records in zip(claim.groups, found.groups, strict=True) if not records
    ]
    # A bound over many means says something of the rows there are; every other rule needs all its sides.
    if not empty or (claim.kind == "bound" and len(empty) < len(found.groups)):
        return rules.judge(claim, [np.array([accuracy(r, which, claim) for r in g]) for g in found.groups])
    lines = ", ".join(empty) if len(empty) <= 3 else f"{empty[0]} and {len(empty) - 1} more lines"
    how, more = "", ""
    if found.others:
        how, more = f" in {found.arithmetic}", f"; {_named(found.others)} is recorded"
    return rules.not_run(f"no run in the published setting is recorded{how} of {lines}{more}")


def accuracy(record: Record, which: str, claim: Claim) -> float:
    """Test accuracy in percent at the "last" or "best" epoch: of the run's network or, where it trains several
    students, of the one the claim is about."""
    if not claim.which_student or record.config.method != "modreduce":
        return record.accuracy(which)
    from rkd.methods.modreduce import student_accuracies

    found = student_accuracies(record, which)
    return max(found.values()) if claim.which_student == BEST else found[claim.which_student]


def corrected(claims: Sequence[Claim], results: list[RuleResult]) -> list[RuleResult]:
    """Holm's correction within each family of several."""
    for name in {claim.family for claim in claims} - {""}:
        members = [i for i, claim in enumerate(claims) if claim.family == name]
        if len(members) > 1:
            holm = rules.holm([results[i] for i in members], claims[members[0]].alpha)
            for i, result in zip(members, holm, strict=True):
                results[i] = result
    return results


def _named(records: Sequence[Record]) -> str:
    """What they were computed in, and how many of them in each."""
    if not records:
        return ""
    from rkd.records import arithmetics  # with torch

    return arithmetics(records)
