"""Train one network and record it. With --teacher it is distilled, by ReviewKD or another --method (the teacher is
trained first, once, if it is not recorded yet); without, it is trained on labels alone. Or name a row of a chapter's
table with --row, or a published figure with --claim. At the end of a --budget, on SIGTERM and on Ctrl-C it stops after
the batch under way; the same call goes on there."""

import argparse

from rkd.cli.common import add_profile, add_settings, add_tensorboard, given_settings

EPILOG = """examples:
  rkd run --student resnet8 --profile smoke
  rkd run --row table3/rm_rlf --profile smoke            `rkd run --row table3/` lists a chapter's rows
  rkd run --student resnet20 --teacher resnet56 --profile paper --seed 1
  rkd run --method at --teacher resnet110 --student resnet20 --profile paper
  rkd run --method crd+kd --teacher resnet32x4 --student resnet8x4 --set 'options={crd: {loss_weight: 0.8}}'
  rkd run --method kd --teacher resnet56 --student resnet20 -r 0.1 -b 0.9 --set 'options={temperature: 4}'
  rkd run --student resnet8 --teacher resnet14 --set 'hcl_levels=[h, 2, 1]' --set 'hcl_weights=[1, .5, .25]'
  rkd run --student resnet20 --teacher resnet56 --set 'options={connector: mechanism, loss: l2}' --recipe text
  rkd run --claim kdrefine-benchmark-resnet56-resnet20-crd-cifar100 --profile paper

Who comes from RepDistiller: -r is -r, -b is -b, and -a is KD in a sum: --method crd+kd. `rkd claims` prints the ids of
the published figures. Options of a method go through --set 'options={...}', those of a sum by method.

Exit status: 0 the run is recorded (or --dry-run, or a claim that needs no run of its own), 1 it was stopped or has
diverged, 2 wrong call."""

# The recipe of a method's own code, where it is not RepDistiller's.
RECIPES = {
    "reviewkd": "authors",
    "dkd": "mdistiller",
    "kdrefine": "kdrefine",
    "modreduce": "modreduce",
    "semckd": "semckd",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--student", metavar="NAME", help="network to train, see `rkd models`")
    what.add_argument("--row", metavar="CHAPTER/ROW", help="a row of a chapter's table, as its named variant")
    what.add_argument("--claim", metavar="ID", help="what answers a published figure, see `rkd claims`")
    parser.add_argument(
        "--teacher", metavar="NAME", help="network to learn from; none: train on labels alone"
    )
    parser.add_argument(
        "--method", metavar="NAME", help='how to learn from it, or a sum such as "at+kd" (default: reviewkd)'
    )
    parser.add_argument(
        "-r", "--ce-weight", type=float, metavar="W", help="weight of cross-entropy (default: the recipe's)"
    )
    parser.add_argument(
        "-b",
        "--loss-weight",
        type=float,
        metavar="W",
        help="weight of the method's loss (default: the recipe's)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="steers initialisation, data order and augmentation"
    )
    parser.add_argument(
        "--budget", metavar="TIME", help="stop in time to be done after 9m, 90s, 1h30m (default: no limit)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the run's id and config, train nothing")
    parser.add_argument(
        "--maps",
        action="store_true",
        help="keep maps of a few test images of a ReviewKD run beside its record",
    )
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

    from rkd.experiments.runner import Runner, pick_device
    from rkd.experiments.settle import settle
    from rkd.experiments.snapshots import SnapshotTaker
    from rkd.experiments.tensorboard import watch
    from rkd.experiments.workspace import data_root, store_of
    from rkd.training import Engine

    given = {**given_settings(options), "profile": options.profile}
    for name in ("ce_weight", "loss_weight"):
        if getattr(options, name) is not None:
            given[name] = getattr(options, name)
    if options.claim is not None:
        answered = _claim(options, given)
        if answered is None:
            return 0
        settings, config, labels = answered
    else:
        settings, config, labels = (_row if options.row is not None else _network)(options, given)
    store = store_of(settings)
    config = settle(config, store, pick_device(settings.device))
    if options.dry_run:
        print(f"# run {config.id}")
        print(yaml.safe_dump(config.to_dict(), sort_keys=False), end="")
        return 0
    known = store.has(config.id)
    runner = Runner(
        store,
        data_root(settings),
        settings.device,
        progress=watch(options.tensorboard),
        labels={"profile": settings.profile, **labels},
        engine=Engine.named(settings.engine, settings.compile, settings.threads),
        stop=budget.stop,
    )
    records = runner.run([config], snapshots=SnapshotTaker() if options.maps else None)
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
    from rkd.experiments.runner import required

    print(f"stopped: {reason}; the same call goes on here:")
    for run in required([config]):
        print(f"  {run.id} {run.network}: {'recorded' if store.has(run.id) else progress_of(store, run)}")
    return 1


def _network(options: argparse.Namespace, given: dict):
    """Settings, config and labels of --student, with or without --teacher."""
    from rkd.errors import ConfigError
    from rkd.experiments.recipes import Builder
    from rkd.experiments.settings import resolve

    settings = resolve("run", given)
    method = options.method or settings.method or "reviewkd"
    if options.teacher is None:
        if options.method is not None:
            raise ConfigError(f"--method {options.method} needs a --teacher to learn from")
        builder = Builder(settings)
        return settings, builder.plain(options.student, options.seed), {"recipe": builder.recipe_name}
    builder = Builder(settings, RECIPES.get(method, "crd"))
    config = builder.distilled(options.teacher, options.student, options.seed, method)
    return settings, config, {"recipe": builder.recipe_name}


def _row(options: argparse.Namespace, given: dict):
    """Settings, config and labels of a chapter's row under one seed."""
    from rkd.errors import unknown
    from rkd.experiments.chapters import get_chapter
    from rkd.experiments.settings import resolve

    _names_all(options, "--row", "; give another with --set teacher=NAME --set student=NAME")
    name, _, key = options.row.partition("/")
    chapter = get_chapter(name)
    settings = resolve(name, {**given, "seeds": [options.seed]})
    rows = {line.key: line for line in chapter.lines(settings)}
    if key not in rows:
        raise unknown(f"row of {name}", key, rows)
    return settings, rows[key].runs[0], {"row": options.row}


def _claim(options: argparse.Namespace, given: dict):
    """Settings, config and labels of the run that answers a claim; None, and a word about it, where none does."""
    from rkd import published
    from rkd.experiments.answers import Lines, answer_of
    from rkd.experiments.selectors import split
    from rkd.experiments.settings import resolve as resolve_settings

    _names_all(options, "--claim")
    found = answer_of(options.claim)
    if found.kind == "run":
        (selector,) = found.lines
        given = {**given, "seeds": [options.seed]}
        config = Lines(given).line(selector).runs[0]
        settings = resolve_settings(split(selector)[0], given)
        return settings, config, {"claim": options.claim, "row": selector}
    printed = published.get(options.claim).value
    print(f"{options.claim} (printed: {printed or 'nothing'}) needs no run of its own.")
    if found.kind == "derived":
        print(f"It is derived: {found.how}. Run what it derives from:")
        for part in found.parts:
            print(f"  rkd run --claim {part}")
        if not found.parts:
            for selector in found.lines:
                print(f"  rkd run --row {selector}")
    elif found.kind == "setting":
        print(f"It is a setting: {found.ours} ({found.how}).")
    else:
        print(found.how)
    return None


def _names_all(options: argparse.Namespace, what: str, hint: str = "") -> None:
    """ConfigError where --teacher or --method stands beside an option that names its own."""
    from rkd.errors import ConfigError

    if options.teacher is not None:
        raise ConfigError(f"{what} names its own pair{hint}")
    if options.method is not None:
        raise ConfigError(f"{what} names its own method")
