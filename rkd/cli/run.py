"""Train one network and record it. With --teacher it is distilled by ReviewKD (the teacher is trained first, once, if
it is not recorded yet); without, it is trained on labels alone."""

import argparse

from rkd.cli.common import add_profile, add_settings, given_settings

EPILOG = """examples:
  rkd run --student resnet8 --profile smoke
  rkd run --student resnet20 --teacher resnet56 --profile paper --seed 1
  rkd run --student resnet8 --teacher resnet14 --set 'hcl_levels=[h, 2, 1]' --set 'hcl_weights=[1, .5, .25]'
  rkd run --student resnet20 --teacher resnet56 --set 'options={connector: mechanism, loss: l2}' --recipe text"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--student", required=True, metavar="NAME", help="network to train, see `rkd models`")
    parser.add_argument(
        "--teacher", metavar="NAME", help="network to learn from; none: train on labels alone"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="steers initialisation, data order and augmentation"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the run's id and config, train nothing")
    add_profile(parser)
    add_settings(parser)


def call(options: argparse.Namespace) -> int:
    import yaml

    from rkd.experiments.execute import Executor
    from rkd.experiments.recipes import Builder
    from rkd.experiments.settings import resolve
    from rkd.experiments.workspace import data_root, store_of

    settings = resolve("run", {**given_settings(options), "profile": options.profile})
    builder = Builder(settings)
    if options.teacher is None:
        config = builder.plain(options.student, options.seed)
    else:
        config = builder.review(options.teacher, options.student, options.seed)
    if options.dry_run:
        print(f"# run {config.id}")
        print(yaml.safe_dump(config.to_dict(), sort_keys=False), end="")
        return 0
    store = store_of(settings)
    known = store.has(config.id)
    labels = {"profile": settings.profile, "recipe": builder.recipe_name}
    record = Executor(store, data_root(settings), settings.device, labels=labels).run([config])[config.id]
    result = record.result
    print(
        f"{config.id} {record.status}{' (was recorded)' if known else ''}: last {result['last_accuracy']:.2f} %, "
        f"best {result['best_accuracy']:.2f} % at epoch {result['best_epoch'] + 1} of {result['epochs']}; "
        f"{store.path(config.id)}"
    )
    return 0 if record.status == "finished" else 1
