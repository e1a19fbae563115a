"""Train every run the chapters of a profile need and that is not recorded yet: teachers first, each run once although
several tables share it, runs of one seed in lock-step. Call it again after an interruption: it resumes. Several
processes may sweep one folder of results at once, on one machine or on several that share it; each run is trained by
one of them."""

import argparse
import shlex
from pathlib import Path

from rkd.cli.common import add_settings, add_tensorboard, given_settings

EPILOG = """examples:
  rkd sweep params/smoke.yaml
  rkd sweep params/paper.yaml --chapters table3,table4 --budget 9m
  rkd sweep params/mini.yaml --chapters table3 --data-root ~/cifar --dry-run

A sweep that runs out of its budget, or gets SIGTERM or Ctrl-C, finishes the batch under way, writes its checkpoints
and says how to go on; a second signal ends it at once. Exit status: 0 every run is recorded (or --dry-run), 1 runs are
left or diverged, 2 wrong call."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("params", type=Path, help="profile, for example params/paper.yaml")
    parser.add_argument("--chapters", metavar="A,B", help="chapters whose runs to train (default: all)")
    parser.add_argument(
        "--budget", metavar="TIME", help="stop in time to be done after 9m, 90s, 1h30m (default: no limit)"
    )
    parser.add_argument(
        "--gang", type=int, default=8, metavar="N", help="most runs trained in lock-step (default 8)"
    )
    parser.add_argument("--dry-run", action="store_true", help="list what would be trained, and how long")
    add_settings(parser)
    add_tensorboard(parser)


def call(options: argparse.Namespace) -> int:
    from rkd.errors import ConfigError
    from rkd.experiments.budget import Budget, parse_duration

    if options.gang < 1:
        raise ConfigError(f"--gang is {options.gang}; it must be >= 1")
    # Imports are part of the budget: torch comes after this line.
    budget = Budget(None if options.budget is None else parse_duration(options.budget))
    if options.dry_run:
        return _Sweep(options).list_runs()
    with budget:
        return _Sweep(options).train(budget)


class _Sweep:
    """What one call works on."""

    def __init__(self, options: argparse.Namespace) -> None:
        from rkd.cli.plan import chosen_chapters, plan
        from rkd.experiments.execute import pick_device, required
        from rkd.experiments.workspace import store_of

        self.options = options
        self.settings, self.chapters = plan(
            str(options.params), chosen_chapters(options.chapters), given_settings(options)
        )
        self.device = pick_device(self.settings.device)
        self.store = store_of(self.settings)
        self.runs = required(run for configs in self.chapters.values() for run in configs)

    def list_runs(self) -> int:
        """Print the plan and each run in it."""
        from rkd.cli.status import describe, progress_of
        from rkd.experiments.budget import in_words

        states, estimate = self._plan()
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
        from rkd.experiments.execute import Executor
        from rkd.experiments.tensorboard import watch
        from rkd.experiments.workspace import data_root
        from rkd.training.engine import Engine

        progress = watch(self.options.tensorboard)
        self._plan()
        executor = Executor(
            self.store,
            data_root(self.settings),
            self.settings.device,
            self.options.gang,
            progress,
            labels={"profile": self.settings.profile},
            engine=Engine.named(self.settings.engine, self.settings.compile, self.settings.threads),
            stop=budget.stop,
            left=budget.left,
        )
        try:
            executor.run(self.runs)
        except RkdError:
            self._report(None)
            raise
        return self._report(budget.reason if executor.stopped else None)

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
            gangs = lockstep(left, self.options.gang, self.device.type)
            print(
                f" ({_counted(states[run.id] for run in left)}) in {len(gangs)} gangs\ntime: {estimate}",
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

        return time_left(self.runs, self.settings, self.store, self.options.gang)

    def _command(self) -> str:
        """The call that goes on where this one stopped."""
        o = self.options
        words = ["rkd", "sweep", str(o.params)]
        named = ("chapters", "budget", "gang", "recipe", "data_root", "results", "device", "precision")
        named += ("threads", "tensorboard", "engine")
        for name in named:
            value = getattr(o, name)
            if value is not None and not (name == "gang" and value == 8):
                words += [f"--{name.replace('_', '-')}", str(value)]
        words += ["--compile"] if o.compile else []
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
