"""Train every run the chapters of a profile need and that is not recorded yet: teachers first, each run once although
several tables share it, runs of one seed in lock-step. Call it again after an interruption: it resumes."""

import argparse
from pathlib import Path

from rkd.cli.common import add_settings, given_settings

EPILOG = """examples:
  rkd sweep params/smoke.yaml
  rkd sweep params/paper.yaml --chapters table3,table4
  rkd sweep params/mini.yaml --chapters table3 --data-root ~/cifar --dry-run"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("params", type=Path, help="profile, for example params/paper.yaml")
    parser.add_argument("--chapters", metavar="A,B", help="chapters whose runs to train (default: all)")
    parser.add_argument(
        "--gang", type=int, default=8, metavar="N", help="most runs trained in lock-step (default 8)"
    )
    parser.add_argument("--dry-run", action="store_true", help="list what would be trained")
    add_settings(parser)


def call(options: argparse.Namespace) -> int:
    from rkd.cli.plan import chosen_chapters, plan
    from rkd.cli.status import describe
    from rkd.errors import ConfigError
    from rkd.experiments.execute import Executor, required
    from rkd.experiments.workspace import data_root, store_of

    if options.gang < 1:
        raise ConfigError(f"--gang is {options.gang}; it must be >= 1")
    settings, chapters = plan(str(options.params), chosen_chapters(options.chapters), given_settings(options))
    store = store_of(settings)
    runs = required(run for configs in chapters.values() for run in configs)
    missing = [run for run in runs if not store.has(run.id)]
    print(
        f"{len(runs)} runs in {len(chapters)} chapters: {len(runs) - len(missing)} recorded, {len(missing)} to train"
    )
    if options.dry_run:
        for run in missing:
            print(f"  {run.id}  {describe(run)}")
        return 0
    labels = {"profile": settings.profile}
    records = Executor(store, data_root(settings), settings.device, options.gang, labels=labels).run(runs)
    diverged = [run for run, record in records.items() if record.status != "finished"]
    print(f"{len(records)} runs are recorded in {store.records}")
    for run in diverged:
        print(f"  {run} diverged")
    return 1 if diverged else 0
