"""Train one network and record it. With --teacher it is distilled by ReviewKD (the teacher is trained first, once, if
it is not recorded yet); without, it is trained on labels alone. Or name a row of a chapter's table with --row. At the
end of a --budget, on SIGTERM and on Ctrl-C it stops after the batch under way; the same call goes on there."""

import argparse

from rkd.cli.common import add_profile, add_settings, add_tensorboard, given_settings

EPILOG = """examples:
  rkd run --student resnet8 --profile smoke
  rkd run --row table3/rm_rlf --profile smoke            `rkd run --row table3/` lists a chapter's rows
  rkd run --student resnet20 --teacher resnet56 --profile paper --seed 1
  rkd run --student resnet8 --teacher resnet14 --set 'hcl_levels=[h, 2, 1]' --set 'hcl_weights=[1, .5, .25]'
  rkd run --student resnet20 --teacher resnet56 --set 'options={connector: mechanism, loss: l2}' --recipe text

Exit status: 0 the run is recorded (or --dry-run), 1 it was stopped or has diverged, 2 wrong call."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--student", metavar="NAME", help="network to train, see `rkd models`")
    what.add_argument("--row", metavar="CHAPTER/ROW", help="a row of a chapter's table, as its named variant")
    parser.add_argument(
        "--teacher", metavar="NAME", help="network to learn from; none: train on labels alone"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="steers initialisation, data order and augmentation"
    )
    parser.add_argument(
        "--budget", metavar="TIME", help="stop in time to be done after 9m, 90s, 1h30m (default: no limit)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the run's id and config, train nothing")
    add_profile(parser)
    add_settings(parser)
    add_tensorboard(parser)


def call(options: argparse.Namespace) -> int:
    from rkd.experiments.budget import Budget, parse_duration

    # Imports are part of the budget: torch comes after this line.
    budget = Budget(None if options.budget is None else parse_duration(options.budget))
    if options.dry_run:
        return _call(options, budget)
    with budget:
        return _call(options, budget)


def _call(options: argparse.Namespace, budget) -> int:
    import yaml

    from rkd.experiments.execute import Executor
    from rkd.experiments.recipes import Builder
    from rkd.experiments.settings import resolve
    from rkd.experiments.tensorboard import watch
    from rkd.experiments.workspace import data_root, store_of
    from rkd.training import Engine

    given = {**given_settings(options), "profile": options.profile}
    settings = resolve("run", given)
    builder = Builder(settings)
    if options.row is not None:
        settings, config = _row(options, given)
    elif options.teacher is None:
        config = builder.plain(options.student, options.seed)
    else:
        config = builder.review(options.teacher, options.student, options.seed)
    if options.dry_run:
        print(f"# run {config.id}")
        print(yaml.safe_dump(config.to_dict(), sort_keys=False), end="")
        return 0
    store = store_of(settings)
    known = store.has(config.id)
    labels = {
        "profile": settings.profile,
        "row" if options.row else "recipe": options.row or builder.recipe_name,
    }
    executor = Executor(
        store,
        data_root(settings),
        settings.device,
        progress=watch(options.tensorboard),
        labels=labels,
        engine=Engine(compile=settings.compile),
        stop=budget.stop,
    )
    records = executor.run([config])
    if config.id not in records:
        return _stopped(config, store, budget.reason)
    record = records[config.id]
    result = record.result
    print(
        f"{config.id} {record.status}{' (was recorded)' if known else ''}: last {result['last_accuracy']:.2f} %, "
        f"best {result['best_accuracy']:.2f} % at epoch {result['best_epoch'] + 1} of {result['epochs']}; "
        f"{store.path(config.id)}"
    )
    return 0 if record.status == "finished" else 1


def _stopped(config, store, reason: str) -> int:
    """Say how far the run, and its teacher's, have come."""
    from rkd.cli.status import progress_of
    from rkd.experiments.execute import required

    print(f"stopped: {reason}; the same call goes on here:")
    for run in required([config]):
        print(f"  {run.id} {run.network}: {'recorded' if store.has(run.id) else progress_of(store, run)}")
    return 1


def _row(options: argparse.Namespace, given: dict):
    """The settings and config of a chapter's row under one seed."""
    from rkd.errors import ConfigError, unknown
    from rkd.experiments.chapters import get_chapter
    from rkd.experiments.settings import resolve

    if options.teacher is not None:
        raise ConfigError("--row names its own pair; give another with --set teacher=NAME --set student=NAME")
    name, _, key = options.row.partition("/")
    chapter = get_chapter(name)
    settings = resolve(name, {**given, "seeds": [options.seed]})
    rows = {line.key: line for line in chapter.lines(settings)}
    if key not in rows:
        raise unknown(f"row of {name}", key, rows)
    return settings, rows[key].runs[0]
