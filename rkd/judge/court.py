"""Each declared claim against the recorded runs.

Evidence is narrow: records of the profile's own folder, of exactly the runs its chapters ask for, in the published
setting. Whatever else lies there, a short run or one on a subset, supports no verdict. Records of several arithmetics
are judged together only where a gate shows these equal (see pooling.py).
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rkd.bench.gate import Gate, committed
from rkd.experiments.selectors import Selectors, split
from rkd.experiments.workspace import store_for
from rkd.judge import rules
from rkd.judge.declared import BEST, KINDS, Claim, load_claims
from rkd.judge.pooling import ORDER, Forms, finished, pool, taken
from rkd.judge.rules import Judgement
from rkd.judge.setting import PublishedSetting, published_setting
from rkd.methods.modreduce import student_accuracies
from rkd.records import Record, Store, arithmetics
from rkd.training.config import RunConfig


@dataclass(frozen=True)
class Verdict:
    """What the records say of one claim.

    Attributes:
        claim: what is claimed.
        last: judged by the accuracy after the last epoch. This is the verdict.
        best: the same by each run's best epoch, which is chosen on the test set and therefore flatters.
        optimism: mean best minus mean last accuracy of all runs, in percentage points; NaN without runs.
        records: ids of the records it stands on.
        arithmetics: what these were computed in: "fp16 (8), fp32 (2)"; several only where a gate shows them equal.
        left_out: the same of runs that are recorded in another arithmetic alone, and enter nothing.
        missing: ids of runs it still needs, teachers included.
        diverged: ids of runs that ended in NaN; they enter no mean.
    """

    claim: Claim
    last: Judgement
    best: Judgement
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


def judge(
    profile: str = "paper",
    claims: Sequence[Claim] | None = None,
    store: Store | None = None,
    gates: Sequence[Gate] | None = None,
) -> tuple[Verdict, ...]:
    """All verdicts, in the order of the claims.

    Args:
        profile: whose runs and records are looked at: "paper", or the path of a profile with, say, more seeds.
        claims: what is judged; None: params/claims.csv.
        store: of records; None: the profile's own.
        gates: that decide which arithmetics are judged together; None: those on record.

    Raises:
        ConfigError: a malformed declaration or unknown profile.
        RecordError: a damaged record.
    """
    selectors = Selectors(profile)
    if claims is None:
        claims = load_claims(selectors=selectors if profile == "paper" else None)
    store = store_for(profile) if store is None else store
    bench = _Bench(selectors, store, committed() if gates is None else gates)
    judged = {
        which: _corrected(claims, [bench.judgement(c, which) for c in claims]) for which in ("last", "best")
    }
    return tuple(
        bench.verdict(claim, last, best)
        for claim, last, best in zip(claims, judged["last"], judged["best"], strict=True)
    )


class _Bench:
    """The evidence, each record read once."""

    def __init__(self, selectors: Selectors, store: Store, gates: Sequence[Gate]) -> None:
        self.selectors, self.store, self.gates = selectors, store, gates
        self._forms: dict[str, Forms] = {}
        self._pools: dict[str, tuple[str, ...]] = {}
        self._settings: dict[tuple[str, str], PublishedSetting] = {}

    def forms(self, selectors: Sequence[str], teachers: bool = False) -> dict[str, Forms]:
        """The records of some lines' runs, by the id by which the line asks and by arithmetic; none where the run is
        not of the published setting of its line."""
        found: dict[str, Forms] = {}
        for selector in selectors:
            setting = self._setting(selector)
            configs = self.selectors.needed([selector]) if teachers else self.selectors.runs([selector])
            for run, config in configs.items():
                found[run] = found.get(run) or (self._recorded(config) if setting.holds(config) else {})
        return found

    def _recorded(self, config: RunConfig) -> Forms:
        if config.id not in self._forms:
            forms: dict[str, Record] = {}
            for run in self.store.recorded(config):
                if run.precision not in forms:  # the same with several teachers: the first
                    forms[run.precision] = self.store.load(run.id)
            self._forms[config.id] = forms
        return self._forms[config.id]

    def pool(self, claim: Claim) -> tuple[str, ...]:
        """The arithmetics a claim is judged in."""
        if claim.id not in self._pools:
            sides = [list(self.forms(selectors).values()) for selectors in claim.groups]
            self._pools[claim.id] = pool(sides, self.gates)
        return self._pools[claim.id]

    def _setting(self, selector: str) -> PublishedSetting:
        place = split(selector)[0], self.selectors.recipe(selector)
        if place not in self._settings:
            self._settings[place] = published_setting(*place)
        return self._settings[place]

    def judgement(self, claim: Claim, which: str) -> Judgement:
        """One claim by the "last" or the "best" epoch, before Holm's correction."""
        groups = []
        for selectors in claim.groups:
            found = self._finished(claim, selectors)
            groups.append(np.array([_accuracy(record, which, claim) for record in found]))
        empty = [" and ".join(s) for s, values in zip(claim.groups, groups, strict=True) if not len(values)]
        # A bound over many means says something of the rows there are; every other rule needs all its sides.
        if empty and (claim.kind != "bound" or len(empty) == len(groups)):
            lines = ", ".join(empty) if len(empty) <= 3 else f"{empty[0]} and {len(empty) - 1} more lines"
            others = self._others(claim)
            how = f" in {self.pool(claim)[0]}" if others else ""
            more = (
                f"; {arithmetics(others)} is recorded, which no gate shows equal to it here" if others else ""
            )
            reason = f"no run in the published setting is recorded{how} of {lines}{more}"
            return rules.not_run(reason, claim.kind)
        return _RULES[claim.kind](claim, groups)

    def verdict(self, claim: Claim, last: Judgement, best: Judgement) -> Verdict:
        """Judgements with what they stand on."""
        forms = self.forms(claim.selectors, teachers=True)
        entered = self._finished(claim, claim.selectors)
        gaps = [_accuracy(record, "best", claim) - _accuracy(record, "last", claim) for record in entered]
        ended = [taken(each, self.pool(claim) or ORDER) for each in forms.values()]
        return Verdict(
            claim,
            last,
            best,
            float(np.mean(gaps)) if gaps else math.nan,
            tuple(record.id for record in entered),
            arithmetics(entered),
            arithmetics(self._others(claim)),
            tuple(run for run, each in forms.items() if not each),
            tuple(record.id for record in ended if record and record.status != "finished"),
        )

    def _finished(self, claim: Claim, selectors: Sequence[str]) -> list[Record]:
        """Records of some lines' runs that enter a claim's figures."""
        found = [taken(forms, self.pool(claim)) for forms in self.forms(selectors).values()]
        return [record for record in found if record and record.status == "finished"]

    def _others(self, claim: Claim) -> list[Record]:
        """A record of each run that ended, but in no arithmetic of the claim's."""
        chosen = self.pool(claim)
        left = [forms for forms in self.forms(claim.selectors).values() if not taken(forms, chosen)]
        return [next(iter(found.values())) for forms in left if (found := finished(forms))]


def _accuracy(record: Record, which: str, claim: Claim) -> float:
    """Test accuracy in percent at the "last" or "best" epoch: of the run's network or, where it trains several
    students, of the one the claim is about."""
    if not claim.which_student or record.config.method != "modreduce":
        return record.accuracy(which)
    found = student_accuracies(record, which)
    return max(found.values()) if claim.which_student == BEST else found[claim.which_student]


# --- the rule of each kind --------------------------------------------------------------------------------------------

Groups = Sequence[np.ndarray]  # accuracies in percent per group of runs, in the order of Claim.groups
Rule = Callable[[Claim, Groups], Judgement]
_RULES: dict[str, Rule] = {}


def _rule(kind: str) -> Callable[[Rule], Rule]:
    def add(apply: Rule) -> Rule:
        _RULES[kind] = apply
        return apply

    return add


def _common(claim: Claim) -> Mapping[str, float]:
    return {"alpha": claim.alpha, "min_seeds": claim.min_seeds}


def _generator(claim: Claim) -> np.random.Generator:
    """One stream per claim, named by its id: the same records give the same interval, whatever else is judged."""
    return np.random.default_rng(zlib.crc32(claim.id.encode()))


@_rule("value")
def _value(claim: Claim, groups: Groups) -> Judgement:
    (ours,) = groups
    return rules.value(
        ours, claim.published, published_n=claim.published_n, margin=claim.margin, **_common(claim)
    )


@_rule("chance")
def _chance(claim: Claim, groups: Groups) -> Judgement:
    (ours,) = groups
    return rules.chance(ours, chance=claim.chance, margin=claim.margin, **_common(claim))


@_rule("order")
def _order(claim: Claim, groups: Groups) -> Judgement:
    a, b = groups if len(groups) == 2 else (groups[0], claim.published)
    return rules.order(a, b, rng=_generator(claim), **_common(claim))


@_rule("effect")
def _effect(claim: Claim, groups: Groups) -> Judgement:
    a, b = groups
    return rules.effect(a, b, published=claim.published, margin=claim.margin, **_common(claim))


@_rule("trend")
def _trend(claim: Claim, groups: Groups) -> Judgement:
    return rules.trend(
        groups, claim.contrast, margin=claim.margin, rng=_generator(claim), best=claim.best, **_common(claim)
    )


@_rule("bound")
def _bound(claim: Claim, groups: Groups) -> Judgement:
    return rules.bound(groups, claim.published, bound=claim.margin, **_common(claim))


if set(_RULES) != set(KINDS):
    raise RuntimeError(f"kinds {sorted(KINDS)} and rules {sorted(_RULES)} differ")


def _corrected(claims: Sequence[Claim], judgements: Sequence[Judgement]) -> list[Judgement]:
    """Holm's correction within each family."""
    families: dict[str, list[int]] = {}
    for index, claim in enumerate(claims):
        if claim.family:
            families.setdefault(claim.family, []).append(index)
    corrected = list(judgements)
    for members in families.values():
        if len(members) == 1:  # one comparison needs no correction
            continue
        holm = rules.holm([judgements[i] for i in members], claims[members[0]].alpha)
        for index, judgement in zip(members, holm, strict=True):
            corrected[index] = judgement
    return corrected
