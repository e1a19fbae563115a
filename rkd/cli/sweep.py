"""`rkd sweep`: all missing runs of chapters, in a good order, within a budget."""

import fnmatch
import itertools
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from rkd.cli.carry import PART, show
from rkd.cli.declare import Duration, Names, Size, spelt
from rkd.errors import ConfigError

FIRST_GROUPS = 8  # that a sweep shows before it trains


def sweep(
    params: Path,
    *,
    chapters: Names | None = None,
    budget: Duration | None = None,
    group: int = 8,
    order: Literal["chapters", "verdicts"] = "chapters",
    claims: Names | None = None,
    check: bool = False,
    out: Path | None = None,
    max_part: Size | None = None,
    max_files: int | None = None,
    dry_run: bool = False,
    tensorboard: Path | None = None,
    **given: Any,
) -> int:
    """Train every run the chapters of a profile need and that is not recorded yet: teachers first, each run once
    although several tables share it, runs of one seed in lock-step. Call it again after an interruption: it
    resumes. Several processes may sweep one folder of results at once, on one machine or on several that share it;
    each run is trained by one of them.

    On a machine that is held for minutes, let it begin with the runs that decide most claims per second (--order
    verdicts), see first whether the device computes what it should (--check), and keep what is new in a folder to be
    carried home (--out), for `rkd import`.

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

    Examples:
        rkd sweep params/smoke.yaml
        rkd sweep params/paper.yaml --chapters table3,table4 --budget 9m
        rkd sweep params/mini.yaml --chapters table3 --data-root ~/cifar --dry-run
        rkd sweep params/paper.yaml --order verdicts --dry-run
        rkd sweep params/paper.yaml --order verdicts --check --budget 28m --out carry --max-files 8
        rkd sweep params/paper.yaml --order verdicts --claims 'table1-*,table3-*'

        A sweep that runs out of its budget, or gets SIGTERM or Ctrl-C, finishes the batch under way, writes its
        checkpoints and says how to go on; a second signal ends it at once. Exit status: 0 every run is recorded (or
        --dry-run), 1 runs are left or diverged, 2 wrong call.
    """
    again = spelt(sweep, locals())
    from rkd.experiments.budget import Budget

    if group < 1:
        raise ConfigError(f"--group is {group}; it must be >= 1")
    if claims is not None and order != "verdicts":
        raise ConfigError("--claims goes with --order verdicts")
    for name, value in {"--max-part": max_part, "--max-files": max_files}.items():
        if value is not None and out is None:
            raise ConfigError(f"{name} goes with --out DIR")
    limit = Budget(budget)  # imports are part of it: torch comes after this line
    planned = _Sweep(params, chapters, group, order, claims, tensorboard, given, again)
    if dry_run:
        return planned.list_runs()
    with limit:
        return planned.train(limit, check, out, max_part or PART, max_files)


class _Sweep:
    """What one call works on."""

    def __init__(
        self, params: Path, chapters: Sequence[str] | None, group: int, order: str, claims: Sequence[str] | None,
        tensorboard: Path | None, given: dict[str, Any], again: str,
    ) -> None:  # fmt: skip
        from rkd.experiments.check import Way
        from rkd.experiments.runner import pick_device, required
        from rkd.experiments.selectors import Selectors
        from rkd.experiments.workspace import store_of
        from rkd.training.capture import Engine

        self.by_verdicts, self.named, self.tensorboard, self.again = (
            order == "verdicts",
            claims,
            tensorboard,
            again,
        )
        self.selectors = Selectors(str(params), given, settled=True)
        self.settings, self.chapters = self.selectors.plan(chapters)
        self.device = pick_device(self.settings.device)
        self.store = store_of(self.settings)
        self.runs = required(run for configs in self.chapters.values() for run in configs)
        s = self.settings
        self.way = Way(Engine.named(s.engine, s.compile, s.threads), group)
        self.claims = self._claims() if self.by_verdicts else []
        self.needs = self._needs()

    def _claims(self):
        """Those that are declared; with --claims, the ones it names."""
        from rkd.errors import unknown
        from rkd.judge import load_claims

        claims = load_claims(check=False)
        for pattern in self.named or ():
            if not fnmatch.filter([claim.id for claim in claims], pattern):
                raise unknown("claim", pattern, [claim.id for claim in claims])
        return [
            c for c in claims if self.named is None or any(fnmatch.fnmatchcase(c.id, p) for p in self.named)
        ]

    def _needs(self):
        """What each claim lacks; with --claims, `runs` shrinks to that."""
        from rkd.experiments.runner import required
        from rkd.judge.order import lacking

        there = {run.id for run in self.runs}
        needs = lacking(self.claims, self.selectors, self.store, there)
        if self.named is not None:
            self.runs = required(run for need in needs.values() for run in need.values())
        return needs

    def list_runs(self) -> int:
        """Print the plan and each run in it."""
        from rkd.cli.status import describe, progress_of
        from rkd.experiments.budget import in_words

        states, estimate = self._plan()
        if self.by_verdicts:
            self._show_groups(self._groups(), estimate)
            return 0
        for run in self.runs:
            if run.id not in estimate.each:
                continue
            seconds = estimate.each[run.id]
            words = {"begun": progress_of, "running": progress_of}.get(states[run.id])
            notes = [states[run.id] + (f", {words(self.store, run)}" if words else "")]
            notes += [f"about {in_words(seconds)}"] if seconds is not None else []
            print(f"  {run.id}  {describe(run)}  [{'; '.join(notes)}]")
        return 0

    def train(self, budget, check: bool, out: Path | None, max_part: int, max_files: int | None) -> int:
        """Train what is missing, until it is done or `budget` says stop; then say where things stand."""
        from rkd.errors import RkdError
        from rkd.records.transfer import KeptExport

        kept = None if out is None else KeptExport(self.store, out, self.runs, max_part, max_files)
        _, estimate = self._plan()
        if check and estimate.runs:
            self._check()

        def stop(needed: float) -> bool:
            return budget.stop(needed + (kept.seconds if kept else 0.0))  # the last export comes after

        try:
            with kept or nullcontext():
                stopped = self._train(estimate, stop)
        except RkdError:
            self._report(None)
            raise
        if kept and kept.last:
            show(kept.last, out)
        return self._report(budget.reason if stopped else None)

    def _train(self, estimate, stop) -> bool:
        """Whether it was stopped."""
        groups = [(self.runs, ())]
        if self.by_verdicts:
            if estimate.seconds is None:
                estimate = self._measure(stop)
            groups = self._groups()
            self._show_groups(groups, estimate, FIRST_GROUPS)
        runner = self._runner(stop)
        for runs, _ in groups:
            if not runner.stopped:
                runner.run(runs)
        return runner.stopped

    def _runner(self, stop):
        from rkd.experiments.runner import Runner
        from rkd.experiments.tensorboard import watch
        from rkd.experiments.workspace import data_root

        return Runner(
            self.store,
            data_root(self.settings),
            self.settings.device,
            self.way.group,
            watch(self.tensorboard),
            labels={"profile": self.settings.profile},
            engine=self.way.engine,
            stop=stop,
        )

    def _check(self) -> None:
        """Choose the way of training by a check of the device; what cannot be trained at all is left out."""
        from rkd.experiments.check import check_device
        from rkd.experiments.runner import unfinished

        methods = {run.method for run in unfinished(self.runs, self.store)}
        captured = self.way.engine.captures(self.device)
        print(f"check of {self.device}: {self.way.words(self.device)}")
        print("method        arithmetic  difference  verdict")

        def say(row) -> None:
            name, fault = row.method or "no teacher", row.fault or "equal"
            print(f"{name:14}{row.arithmetic:10}{row.difference:12.1e}  {fault}", flush=True)

        found = check_device(self.device, methods, self.settings.precision, self.way, say)
        if not captured:
            print("nothing to capture here: two runs in lock-step were compared with one alone")
        if found.way != self.way:
            print(f"from here on: {found.way.words(self.device)}")
        self.way = found.way
        for method, why in found.broken.items():
            print(f"{method or 'no teacher'} cannot be trained here, and is left out: {why}")
        self.runs = [r for r in self.runs if not set((r.method or "").split("+")) & found.broken.keys()]
        here = {run.id for run in self.runs}
        self.needs = {claim: need for claim, need in self.needs.items() if need.keys() <= here}

    def _groups(self):
        """(runs, claims they decide) in the order of training; what no claim needs comes last."""
        from rkd.experiments.estimate import costs
        from rkd.experiments.runner import unfinished
        from rkd.experiments.workspace import data_root
        from rkd.judge.order import ranked

        left = {run.id: run for run in unfinished(self.runs, self.store)}
        cost = costs(left.values(), self.store, data_root(self.settings))
        needs = {claim: need.keys() & left.keys() for claim, need in self.needs.items()}
        groups = ranked({claim: need for claim, need in needs.items() if need}, cost)
        found = [([left.pop(run) for run in runs], claims) for runs, claims in groups]
        rest = sorted(left.values(), key=lambda run: cost[run.id])
        return [*found, *([(rest, ())] if rest else [])]

    def _measure(self, stop):
        """Train the first runs for a moment, since what is begun tells the rate; returns the estimate that follows."""
        groups, steps, began = self._groups(), itertools.count(), time.monotonic()

        def enough(needed: float) -> bool:
            asked = next(steps)
            return stop(needed) or asked > 120 or (asked > 8 and time.monotonic() - began > 15)

        if groups:
            self._runner(enough).run(groups[0][0])
        return self._time_left()

    def _show_groups(self, groups, estimate, most: int | None = None) -> None:
        """Print the groups: rank, number of runs, claims decided, minutes, the latter two also in all so far."""
        from rkd.cli.status import describe
        from rkd.judge.order import can_be_decided

        print("rank  runs  claims  in all  minutes   in all")
        decided, minutes = 0, 0.0
        for rank, (runs, claims) in enumerate(groups[:most], 1):
            each = [estimate.each.get(run.id) for run in runs]
            took = math.nan if None in each else sum(each) / 60
            decided, minutes = decided + len(claims), minutes + took
            time = f"{took:9.1f}{minutes:9.1f}" if math.isfinite(minutes) else f"{'?':>9}{'?':>9}"
            words = list(dict.fromkeys(describe(run).partition(", seed")[0] for run in runs))
            listed = "; ".join(words[:3]) + (f"; {len(words) - 3} more" if len(words) > 3 else "")
            print(f"{rank:4}{len(runs):6}{len(claims):8}{decided:8}{time}  {listed}")
        if most is not None and len(groups) > most:
            print(f"and {len(groups) - most} more groups; --dry-run lists them")
        wanted = [claim for claim in self.claims if claim.id in self.needs]
        undecided = sum(not can_be_decided(claim, self.selectors) for claim in wanted)
        if undecided:
            print(
                f"{undecided} of these {len(wanted)} claims get no verdict from this profile: its runs are too few, or "
                "not of the published setting"
            )

    def _plan(self):
        """Print what there is and what is to be done; returns each run's state and the estimate."""
        from rkd.cli.status import state_of

        states = {run.id: state_of(self.store, run) for run in self.runs}
        estimate = self._time_left()
        recorded = sum(self.store.has(run.id) for run in self.runs)
        left = [run for run in self.runs if run.id in estimate.each]
        said = f"{len(self.runs)} runs in {len(self.chapters)} chapters: {recorded} recorded, {len(left)} to train"
        if left:
            said += f" ({_counted(states[run.id] for run in left)})\ntime: {estimate}"
        print(said, flush=True)
        return states, estimate

    def _report(self, reason: str | None) -> int:
        """Print what is done, begun and left, how long that takes and how to go on; returns the exit status."""
        from rkd.cli.status import describe, progress_of, state_of

        states = {run.id: state_of(self.store, run) for run in self.runs}
        done = sum(self.store.has(run.id) for run in self.runs)
        left = [run for run in self.runs if not self.store.has(run.id)]
        diverged = [run for run in self.runs if states[run.id] == "diverged"]
        if reason:
            print(f"stopped: {reason}")
        share = f"{done} of {len(self.runs)}" if left else f"{done}"
        print(f"{share} runs are recorded in {self.store.records}")
        for run in diverged:
            print(f"  {run.id} diverged")
        for run in left:
            if states[run.id] != "missing":
                where = "running elsewhere" if states[run.id] == "running" else "begun"
                print(f"  {run.id} {where}, {progress_of(self.store, run)}  {describe(run)}")
        if not left:
            return 1 if diverged else 0
        estimate = self._time_left()
        print(f"{len(left)} runs left ({_counted(states[run.id] for run in left)}); time: {estimate}")
        print(f"continue with: {self.again}", flush=True)
        return 1

    def _time_left(self):
        from rkd.cli.status import time_left

        return time_left(self.runs, self.settings, self.store)


def _counted(states) -> str:
    """ "4 begun, 24 missing"; a recorded run is listed only where its weights are lost."""
    words = {
        "begun": "begun",
        "running": "being trained by another process",
        "missing": "missing",
        "recorded": "recorded, but their weights are needed again",
        "diverged": "diverged",
    }
    states = list(states)
    return ", ".join(f"{states.count(s)} {text}" for s, text in words.items() if s in states)
