"""In which order to train: most decidable claims per second first."""

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from rkd.errors import ConfigError
from rkd.experiments.estimate import unfinished
from rkd.experiments.selectors import Selectors, split
from rkd.judge.declared import Claim
from rkd.judge.setting import published_setting
from rkd.records import Store
from rkd.training import RunConfig

_NOTHING = 1e-9  # claims; what rounding leaves of a gain of zero


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

    First comes the set of claims with most claims per second, the runs that several need counted once: the densest set,
    found exactly by maximum flow (Goldberg, 1984; Dinkelbach, 1967). Then the densest of what is left, and so on. When
    such a set is done, no other choice of runs that costs as much makes more claims decidable. Within a set, the claim
    whose runs bring most claims per second comes first, and takes along all that need nothing more.

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


def _apart(needs: Mapping[str, Collection[str]]) -> list[dict[str, frozenset[str]]]:
    """The claims in parts that share no run."""
    parts: list[tuple[set[str], dict[str, frozenset[str]]]] = []
    for claim, need in needs.items():
        runs, joined = set(need), {claim: frozenset(need)}
        others = []
        for part in parts:
            if runs.isdisjoint(part[0]):
                others.append(part)
            else:
                runs, joined = runs | part[0], part[1] | joined
        parts = [*others, (runs, joined)]
    return [joined for _, joined in parts]


def _blocks(
    needs: dict[str, frozenset[str]], seconds: Mapping[str, float]
) -> Iterator[dict[str, frozenset[str]]]:
    """The densest set of claims with what each needs, then the densest of those left, and so on."""
    while needs:
        block = _densest(needs, seconds)
        yield block
        needs = _without(needs, frozenset().union(*block.values()))


def _without(needs: dict[str, frozenset[str]], trained: frozenset[str]) -> dict[str, frozenset[str]]:
    """What claims need after these runs, those that need nothing more left out."""
    return {claim: need - trained for claim, need in needs.items() if not need <= trained}


def _density(
    needs: Mapping[str, frozenset[str]], runs: frozenset[str], seconds: Mapping[str, float]
) -> float:
    """Claims per second of training these runs."""
    return sum(need <= runs for need in needs.values()) / sum(seconds[run] for run in runs)


def _densest(needs: Mapping[str, frozenset[str]], seconds: Mapping[str, float]) -> dict[str, frozenset[str]]:
    """The claims that together have most claims per second. Dinkelbach: the price of a second rises to the density of
    the best set at the price before, until no set is worth more than it costs."""
    # Claims of the same runs are one, and so are runs of the same claims: seeds of a line are never apart.
    claims: dict[frozenset[str], list[str]] = defaultdict(list)
    for claim, need in needs.items():
        claims[need].append(claim)
    users: dict[str, set[int]] = defaultdict(set)
    for number, need in enumerate(claims):
        for run in need:
            users[run].add(number)
    atoms: dict[frozenset[int], float] = defaultdict(float)
    for run, numbers in users.items():
        atoms[frozenset(numbers)] += seconds[run]
    worth = [float(len(same)) for same in claims.values()]
    needed: list[list[int]] = [[] for _ in worth]
    for atom, numbers in enumerate(atoms):
        for number in numbers:
            needed[number].append(atom)
    cost = list(atoms.values())

    def density(chosen: Iterable[int]) -> float:
        chosen = list(chosen)
        return sum(worth[c] for c in chosen) / sum(cost[a] for a in {a for c in chosen for a in needed[c]})

    best = [max(range(len(worth)), key=lambda c: density([c]))]
    while True:
        price = density(best)
        chosen = _worth_it(worth, needed, [price * c for c in cost])
        if not chosen or density(chosen) <= price * (1 + _NOTHING):
            wanted = list(claims)
            return {claim: wanted[c] for c in sorted(best) for claim in claims[wanted[c]]}
        best = chosen


def _worth_it(worth: list[float], needed: list[list[int]], price: list[float]) -> list[int]:
    """The claims whose worth exceeds the price of all they need, together, by most: those that a maximum flow from
    worth to price leaves unsaturated."""
    room = list(worth)
    paid = [0.0] * len(price)
    flow: list[dict[int, float]] = [defaultdict(float) for _ in price]  # by atom: what each claim sends there
    while True:
        # From every claim with worth left: forwards to what it needs, backwards to claims that pay for it too.
        came: dict[tuple[str, int], tuple[str, int] | None] = {
            ("claim", c): None for c, rest in enumerate(room) if rest > _NOTHING
        }
        queue, end = deque(came), None
        while queue and end is None:
            kind, number = here = queue.popleft()
            if kind == "claim":
                further = [("atom", a) for a in needed[number]]
            elif price[number] - paid[number] > _NOTHING:
                end = here
                break
            else:
                further = [("claim", c) for c, sent in flow[number].items() if sent > _NOTHING]
            for there in further:
                if there not in came:
                    came[there] = here
                    queue.append(there)
        if end is None:
            return [number for kind, number in came if kind == "claim"]
        path = [end]
        while came[path[-1]] is not None:
            path.append(came[path[-1]])
        steps = list(zip(path[1:], path, strict=False))
        amount = min(
            room[path[-1][1]],
            price[end[1]] - paid[end[1]],
            *(flow[a][c] for (kind, a), (_, c) in steps if kind == "atom"),
        )
        room[path[-1][1]] -= amount
        paid[end[1]] += amount
        for (kind, one), (_, other) in steps:
            if kind == "claim":
                flow[other][one] += amount
            else:
                flow[one][other] -= amount


def lacking(
    claims: Iterable[Claim], selectors: Selectors, store: Store, runs: Collection[str] | None = None
) -> dict[str, dict[str, RunConfig]]:
    """The runs that each claim needs before it can be decided, teachers first; claims that lack nothing are left out.

    A claim can be decided once every side has as many finished runs as it asks for, or all that the profile gives it,
    if those are fewer (see `can_be_decided`). A side whose runs have diverged in too great a number never has.

    Args:
        claims: declared ones.
        selectors: lines of the profile whose runs are meant.
        store: of records and weights.
        runs: ids; a claim that needs others, or a line the profile lacks, is left out. None: any.
    """
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
