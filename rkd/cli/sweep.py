"""`rkd sweep`: train all missing runs of chapters, in a good order, within a budget."""

import fnmatch
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rkd.cli.carry import PART, print_export
from rkd.cli.cluster import ray_asked
from rkd.cli.declare import Duration, Folder, Names, Size, command_line
from rkd.cli.status import list_runs, states
from rkd.cluster.session import Resources, join_cluster
from rkd.devices import has_device, pick_device
from rkd.errors import ConfigError, RkdError, unknown
from rkd.experiments.budget import Budget
from rkd.experiments.selectors import Selectors
from rkd.experiments.workspace import data_root, runner_of, store_of

FIRST_GROUPS = 8  # shown before training begins


def sweep(
    params: Path,
    *,
    chapters: Names | None = None,
    budget: Duration | None = None,
    group: int = 8,
    order: Literal["chapters", "verdicts"] = "chapters",
    claims: Names | None = None,
    check: bool = False,
    out: Folder | None = None,
    max_part: Size | None = None,
    max_files: int | None = None,
    dry_run: bool = False,
    tensorboard: Folder | None = None,
    engine: str | None = None,
    address: str | None = None,
    each: str = "",
    storage: str | None = None,
    **given: Any,
) -> int:
    """Train every run the chapters of a profile need and that is not recorded yet: teachers first, each run once
    although several tables share it, runs of one seed in lock-step. Call it again after an interruption: it
    resumes. Several processes may sweep one folder of results at once, on one machine or on several that share it;
    each run is trained by one of them.

    On a machine that is held for minutes, let it begin with the runs that decide most claims per second (--order
    verdicts), see first whether the device computes what it should (--check), and keep what is new in a folder to be
    carried home (--out), for `rkd records import`.

    With --engine ray, run groups are tasks of a Ray cluster, whose nodes share the folders of results and checkpoints.

    Args:
        params: profile, for example params/paper.yaml
        chapters: chapters whose runs to train (default: all)
        budget: stop in time to be done after 9m, 90s, 1h30m (default: no limit)
        group: most runs trained in lock-step (default 8)
        order: chapters: as they come; verdicts: first what makes most claims decidable per second, shared runs counted
            once (default chapters)
        claims: with --order verdicts, only the runs of these claims: ids of params/claims.csv, * for any letters
        check: train a few steps of every method first, in lock-step and captured against alone and plainly, and do
            without what gives another result
        out: keep an export of what this call trains there, new after every run and every checkpoint
        max_part: of that export: most bytes of one part (default 15MB)
        max_files: of that export: most files, manifest included (default: no limit)
        dry_run: list what would be trained, and how long
        tensorboard: write each epoch's curves for TensorBoard, in a folder of this one
        engine: ray: train on a Ray cluster; local: in this process (default). Or how steps are launched: auto (a CUDA
            graph where there can be one), eager, graph
        address: with --engine ray: the cluster, auto (that of this machine) or host:port (default: one is started here)
        each: with --engine ray: what a run group takes (default gpu=1 where there are GPUs, cpu=1, memory=2GB)
        storage: with --engine ray: URL where records and checkpoints are kept instead, a folder or s3://BUCKET/FOLDER;
            records come here too

    Examples:
        rkd sweep params/paper.yaml --chapters table3,table4 --budget 9m
        rkd sweep params/paper.yaml --order verdicts --check --budget 28m --out carry --max-files 8
        rkd sweep params/paper.yaml --order verdicts --claims 'table1-*,table3-*'
        rkd sweep params/paper.yaml --engine ray --address auto --each gpu=0.5,cpu=2 --budget 8h

        A sweep that runs out of its budget, or gets SIGTERM or Ctrl-C, finishes the batch under way, writes its
        checkpoints and says how to go on; a second signal ends it at once. Exit status: 0 every run is recorded (or
        --dry-run), 1 runs are left or diverged, 2 wrong call.
    """
    again = command_line(sweep, locals())
    if group < 1:
        raise ConfigError(f"--group is {group}; it must be >= 1")
    if claims is not None and order != "verdicts":
        raise ConfigError("--claims goes with --order verdicts")
    for name, value in {"--max-part": max_part, "--max-files": max_files}.items():
        if value is not None and out is None:
            raise ConfigError(f"{name} goes with --out DIR")
    refused = {"--check": check, "--out": out, "--tensorboard": tensorboard}
    on_ray = ray_asked(engine, given, {"--address": address, "--each": each, "--storage": storage}, refused)
    limit = Budget(budget)  # started before torch is imported, as imports count too
    from rkd.experiments.check import LaunchMode
    from rkd.training import Engine

    selectors = Selectors(str(params), given, settled=True)
    settings, runs = selectors.plan(chapters)
    way = LaunchMode(Engine.named(settings.engine, settings.compile, settings.threads), group)
    plan = _Plan(selectors, settings, store_of(settings), runs, way, again)
    if order == "verdicts":
        plan.ask(claims)
    plan.elsewhere = on_ray and not has_device(settings.device)
    if storage:
        plan.match(storage, dry_run)
    estimate = plan.show()
    if dry_run:
        from rkd.experiments.runner import describe_schedules

        left = [run for run in plan.runs if run.id in estimate.each]
        print("\n".join(describe_schedules(left)))
        if plan.decidable is None:
            list_runs(left, plan.store, estimate.each)
        else:
            plan.show_groups(plan.groups(), estimate)
        return 0
    from rkd.experiments.tensorboard import TensorBoard
    from rkd.records.transfer import KeptExport

    if out is not None:
        plan.kept = KeptExport(plan.store, out, plan.runs, max_part or PART, max_files)
    progress = TensorBoard(tensorboard) if tensorboard else None
    joining = join_cluster(address, Resources.read(each), settings.device) if on_ray else nullcontext()
    with joining as cluster, limit:
        if check and estimate.each:
            plan.check()
        reason = plan.train(estimate, limit, progress, cluster)
        if plan.kept and plan.kept.last:
            print_export(plan.kept.last, out)
        return plan.report(reason)


@dataclass
class _Plan:
    """What one call works on: `runs`, and how (`way`). After `ask`, `needs` holds the missing runs of each claim and
    `decidable` those claims that can get a verdict. `elsewhere`: the device is on other machines. `again`: the command
    that continues. `kept`: the export updated meanwhile."""

    selectors: Any
    settings: Any
    store: Any
    runs: list[Any]
    way: Any
    again: str
    needs: dict[str, dict[str, Any]] = field(default_factory=dict)
    decidable: set[str] | None = None
    elsewhere: bool = False
    storage: str | None = None
    kept: Any = None

    def ask(self, patterns: Sequence[str] | None) -> None:
        """Train for all claims, or only for those that match the patterns, leaving out runs that none of them needs."""
        from rkd.experiments.runner import required
        from rkd.judge import load_claims
        from rkd.judge.order import can_be_decided, missing_runs

        known = {claim.id: claim for claim in load_claims(check=False)}
        for pattern in patterns or ():
            if not fnmatch.filter(known, pattern):
                raise unknown("claim", pattern, known)
        chosen = {id for pattern in patterns or ("*",) for id in fnmatch.filter(known, pattern)}
        claims = [claim for id, claim in known.items() if id in chosen]
        self.needs = missing_runs(claims, self.selectors, self.store, {run.id for run in self.runs})
        self.decidable = {id for id in self.needs if can_be_decided(known[id], self.selectors)}
        if patterns is not None:
            self.runs = required(run for need in self.needs.values() for run in need.values())

    def match(self, storage: str, dry_run: bool) -> None:
        """Exchange records of the runs between this store and a storage, and fetch weights of the teachers needed; in a
        dry run, print how many records would be fetched."""
        from rkd.cluster.storage import Storage
        from rkd.experiments.runner import teachers_of

        self.storage, there, ids = storage, Storage(storage), [run.id for run in self.runs]
        if dry_run:
            come = there.ids().intersection(ids).difference(self.store.ids())
            print(f"{len(come)} of these runs are recorded in {storage} alone, and would come here first")
            return
        there.match(self.store, ids, teachers_of(self.runs))

    def check(self) -> None:
        """Choose how to train by checking the device; runs that cannot be trained on it at all are left out."""
        from rkd.experiments.check import check_device
        from rkd.experiments.runner import unfinished

        device = pick_device(self.settings.device)
        methods = {run.method for run in unfinished(self.runs, self.store)}
        print(f"check of {device}: {self.way.describe(device)}")
        print("method        arithmetic  difference  verdict")

        def say(row) -> None:
            name, fault = row.method or "no teacher", row.fault or "equal"
            print(f"{name:14}{row.arithmetic:10}{row.difference:12.1e}  {fault}", flush=True)

        way, broken = check_device(device, methods, self.settings.precision, self.way, say)
        if not self.way.engine.captures(device):
            print("nothing to capture here: two runs in lock-step were compared with one alone")
        if way != self.way:
            print(f"from here on: {way.describe(device)}")
        self.way = way
        for method, why in broken.items():
            print(f"{method or 'no teacher'} cannot be trained here, and is left out: {why}")
        self.runs = [r for r in self.runs if not set((r.method or "").split("+")) & broken.keys()]
        left = {run.id for run in self.runs}
        self.needs = {claim: need for claim, need in self.needs.items() if need.keys() <= left}

    def train(self, estimate, limit, progress, cluster) -> str | None:
        """Train the missing runs until done or told to stop; return why it stopped, None if it did not."""
        groups, where = [(self.runs, ())], {}
        if self.decidable is not None:
            groups = self.groups()
            self.show_groups(groups, estimate, FIRST_GROUPS)
        if cluster is not None:
            from rkd.cluster.sweeping import ClusterRunner

            print(f"cluster: {cluster.describe()}", flush=True)
            # One group, so that no node waits for a claim's runs to end.
            groups = [([run for runs, _ in groups for run in runs], ())]
            where = {
                "kind": ClusterRunner, "cluster": cluster, "limit": limit, "workers": self.settings.device,
                "storage": self.storage, **({"device": "cpu"} if self.elsewhere else {}),
            }  # fmt: skip

        def stop(needed: float) -> bool:
            last_export = self.kept.seconds if self.kept else 0.0
            return limit.stop(needed + last_export)

        try:
            with self.kept or nullcontext():
                runner = runner_of(
                    self.settings, self.store, stop=stop, labels={"profile": self.settings.profile},
                    group=self.way.group, engine=self.way.engine, progress=progress, **where,
                )  # fmt: skip
                for runs, _ in groups:
                    if not runner.stopped:
                        runner.run(runs)
        except RkdError:
            self.report(None)
            raise
        return limit.reason if runner.stopped else None

    def groups(self):
        """Return pairs (runs, claims they decide) in training order; runs that no claim needs come last."""
        from rkd.experiments.estimate import LEAST_IMAGE, remaining_macs
        from rkd.experiments.runner import unfinished
        from rkd.judge.order import rank_groups

        left = {run.id: run for run in unfinished(self.runs, self.store)}
        cost = remaining_macs(left.values(), self.store, data_root(self.settings), LEAST_IMAGE)
        wanted = [claim for claim in self.needs if claim in (self.decidable or ())] or self.needs
        needs = {claim: self.needs[claim].keys() & left.keys() for claim in wanted}
        groups = rank_groups({claim: need for claim, need in needs.items() if need}, cost)
        found = [([left.pop(run) for run in runs], claims) for runs, claims in groups]
        rest = sorted(left.values(), key=lambda run: cost[run.id])
        return [*found, *([(rest, ())] if rest else [])]

    def show_groups(self, groups, estimate, most: int | None = None) -> None:
        """Print the groups: number of runs, claims decided and minutes, the latter two also as running totals."""
        import pandas as pd

        if not groups:
            return
        rows = []
        for runs, claims in groups:
            each = [estimate.each.get(run.id) for run in runs]
            words = list(dict.fromkeys(run.describe().partition(", seed")[0] for run in runs))
            listed = "; ".join(words[:3]) + (f"; {len(words) - 3} more" if len(words) > 3 else "")
            rows.append((len(runs), len(claims), None if None in each else sum(each) / 60, listed))
        table = pd.DataFrame(rows, columns=["runs", "claims", "minutes", ""]).astype({"minutes": float})
        for place, name in ((2, "claims"), (4, "minutes")):
            table.insert(place, f"{name} in all", table[name].cumsum(skipna=False))
        table.index += 1
        table[""] = table[""].str.ljust(table[""].str.len().max())  # pandas right-aligns text
        print(table[:most].to_string(float_format="{:.1f}".format, na_rep="?", max_colwidth=200))
        if most is not None and len(groups) > most:
            print(f"and {len(groups) - most} more groups; --dry-run lists them")
        if undecided := len(self.needs.keys() - (self.decidable or ())):
            print(
                f"{undecided} of these {len(self.needs)} claims get no verdict from this profile: its runs are too "
                "few, or say nothing of them"
            )

    def show(self):
        """Print what is recorded and what is to be trained; return the estimate of the time."""
        estimate = self.time_left()
        states = self._states()
        count = Counter(states.values())
        recorded = count["recorded"] + count["diverged"]
        said = f"{len(self.runs)} runs: {recorded} recorded, {len(estimate.each)} to train"
        if count["damaged"]:
            said += f"; the records of {count['damaged']} are damaged, and are left alone"
        if estimate.each:
            missing = _counted(told for id, told in states.items() if id in estimate.each)
            said += f" ({missing})\ntime: {estimate}"
        print(said, flush=True)
        return estimate

    def report(self, reason: str | None) -> int:
        """Print what is done, begun and left, how long the rest takes and how to continue; return the exit status."""
        if reason:
            print(f"stopped: {reason}")
        states = self._states()
        left = [state for state in states.values() if state not in ("recorded", "diverged", "damaged")]
        recorded = sum(state in ("recorded", "diverged") for state in states.values())
        share = f"{recorded} of {len(self.runs)}" if recorded < len(self.runs) else f"{recorded}"
        print(f"{share} runs are recorded in {self.store.records}")
        list_runs([r for r in self.runs if states[r.id] not in ("recorded", "missing")], self.store)
        if not left:
            return 1 if {"diverged", "damaged"} & {*states.values()} else 0
        print(f"{len(left)} runs left ({_counted(left)}); time: {self.time_left()}")
        print(f"continue with: {self.again}", flush=True)
        return 1

    def time_left(self):
        from rkd.experiments.estimate import estimate, time_left

        if self.elsewhere:
            return estimate(self.runs, self.store, "", data_root=data_root(self.settings))
        return time_left(self.runs, self.settings, self.store)

    def _states(self) -> dict[str, str]:
        """Return the state of each run, by id."""
        return states(self.store.records, self.store.work, {r.id: [r.id] for r in self.runs})


def _counted(states: Iterable[str]) -> str:
    """Return "4 begun, 24 missing"; a recorded run is among those to train only if its weights are lost."""
    said = {"recorded": "recorded without their weights"}
    return ", ".join(
        f"{number} {said.get(state, state)}" for state, number in sorted(Counter(states).items())
    )
