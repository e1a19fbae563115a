"""The order in which to train: first what makes the most claims decidable per second."""

import functools
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from rkd.errors import ConfigError
from rkd.experiments.selectors import Selectors
from rkd.judge.declared import Claim
from rkd.judge.evaluation import evaluate_few

if TYPE_CHECKING:
    from rkd.records import Store
    from rkd.training import RunConfig


def rank_groups(
    lacking: Mapping[str, Collection[str]], seconds: Mapping[str, float]
) -> list[tuple[list[str], list[str]]]:
    """Return groups of runs in the order that makes claims decidable soon, each with the claims decidable after it.

    The choice is greedy: first the one claim's runs that make the most claims decidable per second, counting claims
    that need no other runs; then the same again for what is left to be trained.

    Args:
        lacking: for each claim, the ids of the runs that it needs and that are still to be trained, at least one.
        seconds: the cost of each run, above 0; the runs of a group are in this order.
    """
    claims: dict[frozenset[str], list[str]] = defaultdict(list)  # by the exact runs they need
    for claim, need in lacking.items():
        claims[frozenset(need)].append(claim)
    groups = []
    while claims:
        density = {runs: len(_decided(claims, runs)) / sum(map(seconds.get, runs)) for runs in claims}
        chosen = max(density, key=density.get)
        groups.append(([run for run in seconds if run in chosen], _decided(claims, chosen)))
        rest: dict[frozenset[str], list[str]] = defaultdict(list)
        for need, names in claims.items():
            if left := need - chosen:
                rest[left] += names
        claims = rest
    return groups


def _decided(claims: Mapping[frozenset[str], Collection[str]], runs: frozenset[str]) -> list[str]:
    """Return the claims that need nothing but these runs."""
    return [name for need, names in claims.items() if need <= runs for name in names]


def missing_runs(
    claims: Iterable[Claim], selectors: Selectors, store: "Store", runs: Collection[str] | None = None
) -> "dict[str, dict[str, RunConfig]]":
    """Return the runs that each claim needs before it can be decided, teachers first; leave out claims that lack none.

    A claim can be decided once every side has as many finished runs as the claim asks for, or all that the profile
    gives it if those are fewer (see `can_be_decided`): never, if too many runs of a side have diverged.

    Args:
        selectors: the lines of the profile whose runs are meant.
        runs: ids; a claim that needs others, or a line that the profile lacks, is left out. None: any.
    """
    from rkd.experiments.runner import unfinished

    @functools.cache
    def finished(run: str) -> bool | None:
        """Whether a recorded run finished (False if its record is damaged); None for one that is not recorded."""
        if not store.has(run):
            return None
        return any(record.status == "finished" for record in store.read([run]).values())

    found = {}
    for claim in claims:
        try:
            sides = [selectors.runs(side) for side in claim.groups]
            least = (_answered(claim, selectors) or claim).min_seeds
        except ConfigError:  # a line this profile does not have
            continue
        missing: dict[str, RunConfig] = {}
        for side in sides:
            left = [config for run, config in side.items() if finished(run) is None]
            wanted = min(least, len(side)) - sum(finished(run) is True for run in side)
            if wanted > len(left):
                break
            missing |= {config.id: config for config in left[: max(wanted, 0)]}
        else:
            needed = {config.id: config for config in unfinished(missing.values(), store)}
            if needed and (runs is None or needed.keys() <= set(runs)):
                found[claim.id] = needed
    return found


def can_be_decided(claim: Claim, selectors: Selectors) -> bool:
    """Whether a profile's runs can give a claim a verdict: enough on every side, and of a setting that bears on it."""
    answered = _answered(claim, selectors)
    return bool(answered) and all(len(selectors.runs(side)) >= answered.min_seeds for side in claim.groups)


def _answered(claim: Claim, selectors: Selectors) -> Claim | None:
    """Return the claim as a profile's runs answer it: by grade A or, on the whole data set but for fewer epochs, by
    grade C; None if neither says anything about it."""

    def all_of(setting: str) -> bool:
        return all(selectors.ids(s).keys() <= {*selectors.of_setting(s, setting)} for s in claim.selectors)

    if all_of("published"):
        return claim
    return evaluate_few(claim) if claim.direction and all_of("whole") else None
