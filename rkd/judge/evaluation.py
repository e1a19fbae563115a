"""Each declared claim against the recorded runs."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rkd.experiments.selectors import Selectors
from rkd.judge import rules
from rkd.judge.declared import KINDS, Claim, load_claims
from rkd.judge.evidence import Evidence, accuracy
from rkd.judge.rules import RuleResult

if TYPE_CHECKING:
    from rkd.bench.gate import Gate
    from rkd.records import Record, Store


@dataclass(frozen=True)
class Evaluation:
    """What the records say of one claim.

    Attributes:
        claim: what is claimed.
        last: by the accuracy after the last epoch, which gives the verdict.
        best: the same by each run's best epoch, which is chosen on the test set and therefore flatters.
        optimism: mean best minus mean last accuracy of all runs, in percentage points; NaN without runs.
        records: ids of the records it stands on.
        arithmetics: what these were computed in: "fp16 (8), fp32 (2)"; several only where a gate shows them equal.
        left_out: the same of runs that are recorded in another arithmetic alone, and enter nothing.
        missing: ids of runs it still needs, teachers included.
        diverged: ids of runs that ended in NaN; they enter no mean.
    """

    claim: Claim
    last: RuleResult
    best: RuleResult
    optimism: float
    records: tuple[str, ...]
    arithmetics: str = ""
    left_out: str = ""
    missing: tuple[str, ...] = ()
    diverged: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """One of rules.VERDICTS, by the last epoch."""
        return self.last.verdict


def evaluate(
    profile: str = "paper",
    claims: Sequence[Claim] | None = None,
    store: Store | None = None,
    gates: Sequence[Gate] | None = None,
) -> tuple[Evaluation, ...]:
    """All claims against the records, in the order of the claims.

    Args:
        profile: whose runs and records are looked at: "paper", or the path of a profile with, say, more seeds.
        claims: which ones; None: params/claims.csv.
        store: of records; None: the profile's own.
        gates: that decide which arithmetics are pooled; None: those on record.

    Raises:
        ConfigError: a malformed declaration or unknown profile.
        RecordError: a damaged record.
    """
    selectors = Selectors(profile)
    if claims is None:
        claims = load_claims(selectors=selectors if profile == "paper" else None)
    evidence = Evidence(selectors, store, gates)
    last, best = (
        _corrected(claims, [_result(c, evidence, which) for c in claims]) for which in ("last", "best")
    )
    return tuple(_evaluation(evidence, *each) for each in zip(claims, last, best, strict=True))


def apply_rule(claim: Claim, groups: Sequence[np.ndarray]) -> RuleResult:
    """The rule of a claim's kind on accuracies in percent, one array for each of `claim.groups`, wherever they come
    from; before Holm's correction."""
    return _RULES[claim.kind](claim, *groups, alpha=claim.alpha, min_seeds=claim.min_seeds)


def _generator(claim: Claim) -> np.random.Generator:
    """One stream per claim, named by its id: the same records give the same interval, whatever else is evaluated."""
    return np.random.default_rng(zlib.crc32(claim.id.encode()))


_RULES: Mapping[str, Callable[..., RuleResult]] = {
    "value": lambda c, ours, **common: rules.value(
        ours, c.published, published_n=c.published_n, margin=c.margin, **common
    ),
    "chance": lambda c, ours, **common: rules.chance(ours, chance=c.chance, margin=c.margin, **common),
    "order": lambda c, a, b=None, **common: rules.order(
        a, c.published if b is None else b, rng=_generator(c), **common
    ),
    "effect": lambda c, a, b, **common: rules.effect(a, b, published=c.published, margin=c.margin, **common),
    "trend": lambda c, *groups, **common: rules.trend(
        groups, c.contrast, margin=c.margin, rng=_generator(c), best=c.best, **common
    ),
    "bound": lambda c, *groups, **common: rules.bound(groups, c.published, bound=c.margin, **common),
}
assert set(_RULES) == set(KINDS)


def _result(claim: Claim, evidence: Evidence, which: str) -> RuleResult:
    groups = evidence.groups(claim, which)
    empty = [" and ".join(s) for s, values in zip(claim.groups, groups, strict=True) if not len(values)]
    # A bound over many means says something of the rows there are; every other rule needs all its sides.
    if not empty or (claim.kind == "bound" and len(empty) < len(groups)):
        return apply_rule(claim, groups)
    lines = ", ".join(empty) if len(empty) <= 3 else f"{empty[0]} and {len(empty) - 1} more lines"
    how, more = "", ""
    if others := evidence.others(claim):
        how = f" in {evidence.pool(claim)[0]}"
        more = f"; {_named(others)} is recorded, which no gate shows equal to it here"
    return rules.not_run(f"no run in the published setting is recorded{how} of {lines}{more}", claim.kind)


def _evaluation(evidence: Evidence, claim: Claim, last: RuleResult, best: RuleResult) -> Evaluation:
    """Results with what they stand on."""
    entered = evidence.finished(claim, claim.selectors)
    gaps = [accuracy(record, "best", claim) - accuracy(record, "last", claim) for record in entered]
    return Evaluation(
        claim,
        last,
        best,
        float(np.mean(gaps)) if gaps else math.nan,
        tuple(record.id for record in entered),
        _named(entered),
        _named(evidence.others(claim)),
        evidence.missing(claim),
        evidence.diverged(claim),
    )


def _named(records: Sequence[Record]) -> str:
    """What they were computed in, and how many of them in each."""
    if not records:
        return ""
    from rkd.records import arithmetics

    return arithmetics(records)


def _corrected(claims: Sequence[Claim], results: list[RuleResult]) -> list[RuleResult]:
    """Holm's correction within each family."""
    families: dict[str, list[int]] = {}
    for index, claim in enumerate(claims):
        families.setdefault(claim.family, []).append(index)
    for name, members in families.items():
        if not name or len(members) == 1:  # one comparison needs no correction
            continue
        holm = rules.holm([results[i] for i in members], claims[members[0]].alpha)
        for index, result in zip(members, holm, strict=True):
            results[index] = result
    return results
