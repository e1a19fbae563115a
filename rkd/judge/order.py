"""In which order to train: most decidable claims per second first."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rkd.errors import ConfigError
from rkd.experiments.selectors import Selectors, split
from rkd.judge.declared import Claim
from rkd.judge.setting import published_setting

if TYPE_CHECKING:
    from rkd.records import Store
    from rkd.training import RunConfig

Needs = Mapping[str, frozenset[str]]  # by claim: ids of the runs that it needs


@dataclass(frozen=True)
class Group:
    """Runs that are worth training together.

    Attributes:
        runs: ids, those of groups before left out.
        claims: ids of the claims that become decidable with them.
        seconds: what they cost, in the unit of the costs given.
    """

    runs: tuple[str, ...]
    claims: tuple[str, ...]
    seconds: float


def ranked(lacking: Mapping[str, Collection[str]], seconds: Mapping[str, float]) -> list[Group]:
    """Groups of runs in the order that makes claims decidable soonest.

    First comes the set of claims with most claims per second, the runs that several need counted once; then the densest
    of what is left, and so on. When such a set is done, no other choice of runs that costs as much makes more claims
    decidable. Within a set, the claim whose runs bring most claims per second comes first, and takes along all that
    need nothing more.

    Args:
        lacking: by claim, ids of the runs that it needs and that are still to be trained, at least one.
        seconds: cost of each run, above 0.
    """
    place = {run: number for number, run in enumerate(seconds)}
    blocks = [block for part in _apart(lacking) for block in _blocks(part, seconds)]
    # Within a part densities only fall, so that sorting keeps its order.
    blocks.sort(key=lambda block: -_density(block, frozenset().union(*block.values()), seconds))
    groups = []
    for block in blocks:
        while block:
            chosen = max(block.values(), key=lambda need: _density(block, need, seconds))
            done = tuple(claim for claim, need in block.items() if need <= chosen)
            runs = tuple(sorted(chosen, key=place.__getitem__))
            groups.append(Group(runs, done, sum(seconds[run] for run in runs)))
            block = _without(block, chosen)
    return groups


def _apart(needs: Mapping[str, Collection[str]]) -> list[Needs]:
    """The claims in parts that share no run."""
    parts: list[tuple[set[str], Needs]] = []
    for claim, need in needs.items():
        touched = [part for part in parts if not part[0].isdisjoint(need)]
        parts = [part for part in parts if part[0].isdisjoint(need)]
        joined = {name: runs for _, claims in touched for name, runs in claims.items()}
        parts.append((set(need).union(*(runs for runs, _ in touched)), {**joined, claim: frozenset(need)}))
    return [claims for _, claims in parts]


def _blocks(needs: Needs, seconds: Mapping[str, float]) -> Iterator[Needs]:
    """The densest set of claims with what each needs, then the densest of those left, and so on."""
    while needs:
        block = _densest(needs, seconds)
        yield block
        needs = _without(needs, frozenset().union(*block.values()))


def _without(needs: Needs, trained: frozenset[str]) -> Needs:
    """What claims need after these runs, those that need nothing more left out."""
    return {claim: need - trained for claim, need in needs.items() if not need <= trained}


def _density(needs: Needs, runs: frozenset[str], seconds: Mapping[str, float]) -> float:
    """Claims per second of training these runs."""
    return sum(need <= runs for need in needs.values()) / sum(seconds[run] for run in runs)


def _densest(needs: Needs, seconds: Mapping[str, float]) -> Needs:
    """The claims that together have most claims per second: where the linear program of Charikar (2000) has its maximum
    of all claims' shares, none larger than that of a run it needs, at a fixed cost of the runs' shares."""
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    # Runs of the same claims are one: seeds of a line are never apart.
    users: dict[str, list[str]] = defaultdict(list)
    for claim, need in needs.items():
        for run in need:
            users[run].append(claim)
    cost: dict[tuple[str, ...], float] = defaultdict(float)
    for run, claims in users.items():
        cost[tuple(claims)] += seconds[run]
    total = sum(cost.values())  # as the unit, for numbers near 1
    column = {claim: number for number, claim in enumerate(needs)}
    pairs = [(column[claim], len(needs) + atom) for atom, claims in enumerate(cost) for claim in claims]
    rows = range(len(pairs))
    shape = len(pairs), len(needs) + len(cost)
    entries = [1.0] * len(pairs) + [-1.0] * len(pairs)
    places = [*rows, *rows], [c for c, _ in pairs] + [a for _, a in pairs]
    shares = linprog(
        [-1.0] * len(needs) + [0.0] * len(cost),
        A_ub=coo_array((entries, places), shape=shape),
        b_ub=[0.0] * len(pairs),
        A_eq=[[0.0] * len(needs) + [price / total for price in cost.values()]],
        b_eq=[1.0],
    ).x[: len(needs)]
    chosen = frozenset().union(
        *(need for need, x in zip(needs.values(), shares, strict=True) if x > shares.max() / 2)
    )
    return {claim: need for claim, need in needs.items() if need <= chosen}


def lacking(
    claims: Iterable[Claim], selectors: Selectors, store: "Store", runs: Collection[str] | None = None
) -> "dict[str, dict[str, RunConfig]]":
    """The runs that each claim needs before it can be decided, teachers first; claims that lack nothing are left out.

    A claim can be decided once every side has as many finished runs as it asks for, or all that the profile gives it,
    if those are fewer (see `can_be_decided`). A side whose runs have diverged in too great a number never has.

    Args:
        claims: declared ones.
        selectors: lines of the profile whose runs are meant.
        store: of records and weights.
        runs: ids; a claim that needs others, or a line the profile lacks, is left out. None: any.
    """
    from rkd.experiments.estimate import unfinished

    finished: dict[str, bool | None] = {}

    def state(run: str) -> bool | None:
        """Whether a recorded run finished; None for one that is not recorded."""
        if run not in finished:
            finished[run] = store.load(run).status == "finished" if store.has(run) else None
        return finished[run]

    found = {}
    for claim in claims:
        missing: dict[str, RunConfig] = {}
        try:
            sides = [selectors.runs(side) for side in claim.groups]
        except ConfigError:  # a line this profile does not have
            continue
        for side in sides:
            open_runs = [config for run, config in side.items() if state(run) is None]
            wanted = min(claim.min_seeds, len(side)) - sum(state(run) is True for run in side)
            if wanted > len(open_runs):
                break
            missing |= {config.id: config for config in open_runs[: max(wanted, 0)]}
        else:
            needed = {config.id: config for config in unfinished(missing.values(), store)}
            if needed and (runs is None or needed.keys() <= set(runs)):
                found[claim.id] = needed
    return found


def can_be_decided(claim: Claim, selectors: Selectors) -> bool:
    """Whether a profile's runs can give a claim a verdict: enough of them on every side, all in the published
    setting."""
    return all(
        len(selectors.runs(side)) >= claim.min_seeds
        and all(
            published_setting(split(line)[0], selectors.recipe(line)).holds(config)
            for line in side
            for config in selectors.runs([line]).values()
        )
        for side in claim.groups
    )
