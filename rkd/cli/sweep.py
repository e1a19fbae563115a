"""Train every run the chapters of a profile need and that is not recorded yet: teachers first, each run once although
several tables share it, runs of one seed in lock-step. Call it again after an interruption: it resumes. Several
processes may sweep one folder of results at once, on one machine or on several that share it; each run is trained by
one of them.

On a machine that is held for minutes, let it begin with the runs that decide most claims per second (--order verdicts),
see first whether the device computes what it should (--check), and keep what is new in a folder to be carried home
(--out), for `rkd import`."""

import argparse
import fnmatch
import math
import shlex
from contextlib import nullcontext
from pathlib import Path

from rkd.cli.common import add_settings, add_tensorboard, given_settings
from rkd.cli.export import DEFAULT_PART, add_limits, show, size

EPILOG = """examples:
  rkd sweep params/smoke.yaml
  rkd sweep params/paper.yaml --chapters table3,table4 --budget 9m
  rkd sweep params/mini.yaml --chapters table3 --data-root ~/cifar --dry-run
  rkd sweep params/paper.yaml --order verdicts --dry-run
  rkd sweep params/paper.yaml --order verdicts --check --budget 28m --out carry --max-files 8
  rkd sweep params/paper.yaml --order verdicts --claims 'table1-*,table3-*'

A sweep that runs out of its budget, or gets SIGTERM or Ctrl-C, finishes the batch under way, writes its checkpoints
and says how to go on; a second signal ends it at once. Exit status: 0 every run is recorded (or --dry-run), 1 runs are
left or diverged, 2 wrong call."""


ORDERS = ("chapters", "verdicts")
FIRST_GROUPS = 8  # that a sweep shows before it trains


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("params", type=Path, help="profile, for example params/paper.yaml")
    parser.add_argument("--chapters", metavar="A,B", help="chapters whose runs to train (default: all)")
    parser.add_argument(
        "--budget", metavar="TIME", help="stop in time to be done after 9m, 90s, 1h30m (default: no limit)"
    )
    parser.add_argument(
        "--group",
        "--gang",
        type=int,
        default=8,
        metavar="N",
        help="most runs trained in lock-step (default 8)",
    )
    parser.add_argument(
        "--order", choices=ORDERS, default=ORDERS[0],
        help="chapters: as they come; verdicts: first what makes most claims decidable per second, shared runs counted "
        "once (default chapters)",
    )  # fmt: skip
    parser.add_argument(
        "--claims", metavar="A,B",
        help="with --order verdicts, only the runs of these claims: ids of params/claims.csv, * for any letters",
    )  # fmt: skip
    parser.add_argument(
        "--check", action="store_true",
        help="train a few steps of every method first, in lock-step and captured against alone and plainly, and do "
        "without what gives another result",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="DIR",
        help="keep an export of what this call trains there, new after every run and every checkpoint",
    )  # fmt: skip
    add_limits(parser)
    parser.add_argument("--dry-run", action="store_true", help="list what would be trained, and how long")
    add_settings(parser)
    add_tensorboard(parser)


def call(options: argparse.Namespace) -> int:
    from rkd.errors import ConfigError
    from rkd.experiments.budget import Budget, parse_duration

    if options.group < 1:
        raise ConfigError(f"--group is {options.group}; it must be >= 1")
    if options.claims is not None and options.order != "verdicts":
        raise ConfigError("--claims goes with --order verdicts")
    for name in ("max_part", "max_files"):
        if getattr(options, name) is not None and options.out is None:
            raise ConfigError(f"--{name.replace('_', '-')} goes with --out DIR")
    # Imports are part of the budget: torch comes after this line.
    budget = Budget(None if options.budget is None else parse_duration(options.budget))
    if options.dry_run:
        return _Sweep(options).list_runs()
    with budget:
        return _Sweep(options).train(budget)


class _Sweep:
    """What one call works on."""

    def __init__(self, options: argparse.Namespace) -> None:
        from rkd.cli.plan import chosen_chapters, plan_of
        from rkd.experiments.check import Way
        from rkd.experiments.runner import pick_device, required
        from rkd.experiments.selectors import Selectors
        from rkd.experiments.workspace import store_of
        from rkd.training.engine import Engine

        self.options = options
        self.selectors = Selectors(str(options.params), given_settings(options), settled=True)
        self.settings, self.chapters = plan_of(self.selectors, chosen_chapters(options.chapters))
        self.device = pick_device(self.settings.device)
        self.store = store_of(self.settings)
        self.runs = required(run for configs in self.chapters.values() for run in configs)
        s = self.settings
        self.way = Way(Engine.named(s.engine, s.compile, s.threads), options.group)
        self.measured: list = []
        self.claims = self._claims() if options.order == "verdicts" else []
        self.needs = self._needs()

    def _claims(self):
        """Those that are declared; with --claims, the ones it names."""
        from rkd.errors import unknown
        from rkd.judge import load_claims

        claims = load_claims(check=False)
        if self.options.claims is not None:
            patterns = [pattern.strip() for pattern in self.options.claims.split(",")]
            for pattern in patterns:
                if not fnmatch.filter([claim.id for claim in claims], pattern):
                    raise unknown("claim", pattern, [claim.id for claim in claims])
            claims = [c for c in claims if any(fnmatch.fnmatchcase(c.id, p) for p in patterns)]
        return claims

    def _needs(self):
        """What each claim lacks; with --claims, `runs` shrinks to that."""
        from rkd.experiments.runner import required
        from rkd.judge.order import lacking

        there = {run.id for run in self.runs}
        needs = lacking(self.claims, self.selectors, self.store, there)
        if self.options.claims is not None:
            self.runs = required(run for need in needs.values() for run in need.values())
        return needs

    def list_runs(self) -> int:
        """Print the plan and each run in it."""
        from rkd.cli.status import describe, progress_of
        from rkd.experiments.budget import in_words

        states, estimate = self._plan()
        if self.options.order == "verdicts":
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

    def train(self, budget) -> int:
        """Train what is missing, until it is done or `budget` says stop; then say where things stand."""
        from rkd.errors import RkdError
        from rkd.records.transfer import KeptExport

        o, kept = self.options, None
        if o.out is not None:
            kept = KeptExport(self.store, o.out, self.runs, size(o.max_part or DEFAULT_PART), o.max_files)
        _, estimate = self._plan()
        if o.check and estimate.runs:
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
            show(kept.last, o.out)
        return self._report(budget.reason if stopped else None)

    def _train(self, estimate, stop) -> bool:
        """Whether it was stopped."""
        groups = [(self.runs, ())]
        if self.options.order == "verdicts":
            if estimate.seconds is None:
                estimate = self._measure(stop) or estimate
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
            watch(self.options.tensorboard),
            labels={"profile": self.settings.profile},
            engine=self.way.engine,
            stop=stop,
        )

    def _check(self) -> None:
        """Choose the way of training by a check of the device; what cannot be trained at all is left out."""
        from rkd.experiments.check import check_device
        from rkd.experiments.estimate import unfinished

        methods = {run.method for run in unfinished(self.runs, self.store)}
        captured = self.way.engine.captures(self.device)
        print(f"check of {self.device}: {self.way.words(self.device)}")
        print("method        arithmetic  difference  ms alone  ms for two  verdict")

        def say(row) -> None:
            numbers = f"{row.difference:12.1e}{row.plain_ms:10.1f}{row.fast_ms:12.1f}"
            print(
                f"{row.method or 'no teacher':14}{row.arithmetic:10}{numbers}  {row.fault or 'equal'}",
                flush=True,
            )

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
        from rkd.experiments.estimate import costs, unfinished
        from rkd.experiments.workspace import data_root
        from rkd.judge.order import ranked

        left = {run.id: run for run in unfinished(self.runs, self.store)}
        root, device = data_root(self.settings), self.device.type
        cost = costs(list(left.values()), self.store, device=device, group=self.way.group, data_root=root)
        needs = {claim: need.keys() & left.keys() for claim, need in self.needs.items()}
        groups = ranked({claim: need for claim, need in needs.items() if need}, cost)
        found = [([left.pop(run) for run in group.runs], group.claims) for group in groups]
        rest = sorted(left.values(), key=lambda run: cost[run.id])
        return [*found, *([(rest, ())] if rest else [])]

    def _measure(self, stop):
        """Train the first run group for a moment, to time its step; returns the estimate that follows, or None where
        nothing was measured."""
        from rkd.experiments.check import Pace
        from rkd.experiments.estimate import lockstep, measured_sample
        from rkd.experiments.workspace import data_root

        groups = self._groups()
        if not groups or stop(0.0):
            return None
        members = lockstep(groups[0][0], self.way.group, self.device.type)[0]
        pace = Pace(stop)
        runner = self._runner(pace)
        runner.run(members)
        seconds = pace.step_seconds()
        if seconds is None or runner.group < len(members):
            return None
        self.measured = [
            measured_sample(
                members[0],
                len(members),
                seconds,
                device=self.device.type,
                compiled=self.settings.compile,
                data_root=data_root(self.settings),
            )
        ]
        print(f"a step of the first run group ({len(members)} in lock-step) takes {1000 * seconds:.3g} ms")
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
        from rkd.experiments.estimate import lockstep

        states = {run.id: state_of(self.store, run) for run in self.runs}
        estimate = self._time_left()
        recorded = sum(self.store.has(run.id) for run in self.runs)
        left = [run for run in self.runs if run.id in estimate.each]
        print(
            f"{len(self.runs)} runs in {len(self.chapters)} chapters: {recorded} recorded, {len(left)} to train",
            end="",
        )
        if left:
            groups = lockstep(left, self.way.group, self.device.type)
            print(
                f" ({_counted(states[run.id] for run in left)}) in {len(groups)} run groups\ntime: {estimate}",
                end="",
            )
        print(flush=True)
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
        print(f"continue with: {self._command()}", flush=True)
        return 1

    def _time_left(self):
        from rkd.cli.status import time_left

        return time_left(self.runs, self.settings, self.store, self.way.group, self.measured)

    def _command(self) -> str:
        """The call that goes on where this one stopped."""
        o = self.options
        words = ["rkd", "sweep", str(o.params)]
        named = ("chapters", "budget", "group", "recipe", "data_root", "results", "device", "precision")
        named += ("threads", "engine", "tensorboard", "order", "claims", "out", "max_part", "max_files")
        usual = {"group": 8, "order": ORDERS[0]}
        for name in named:
            value = getattr(o, name)
            if value is not None and value != usual.get(name):
                words += [f"--{name.replace('_', '-')}", str(value)]
        words += [f"--{name}" for name in ("compile", "check") if getattr(o, name)]
        for entry in o.set:
            words += ["--set", entry]
        return shlex.join(words)


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
