"""Measure the test accuracy of a recorded run's weights again, or of a checkpoint file (RepDistiller, mdistiller,
ReviewKD and rkd files are read)."""

import argparse

from rkd.cli.common import add_profile, add_settings, given_settings

EPILOG = """examples:
  rkd evaluate 3f2a91c04b7d --profile smoke
  rkd evaluate 3f2a91c04b7d --weights best
  rkd evaluate --checkpoint resnet56.pth --model resnet56 --normalisation cifar100_crd --data-root DIR"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", help="id of a recorded run")
    parser.add_argument(
        "--weights", choices=("last", "best"), default="last", help="which of the run's weights"
    )
    parser.add_argument("--checkpoint", metavar="FILE", help="a checkpoint file instead of a run")
    parser.add_argument("--model", metavar="NAME", help="the checkpoint's network")
    parser.add_argument("--dataset", default="cifar100", help="test set for a checkpoint (default cifar100)")
    parser.add_argument("--normalisation", default="cifar100", help="input statistics for a checkpoint")
    add_profile(parser)
    add_settings(parser)


def call(options: argparse.Namespace) -> int:
    from rkd.errors import ConfigError, RecordError
    from rkd.experiments.execute import Executor, pick_device
    from rkd.experiments.settings import resolve
    from rkd.experiments.workspace import data_root, store_of

    settings = resolve("evaluate", {**given_settings(options), "profile": options.profile})
    if (options.run is None) == (options.checkpoint is None):
        raise ConfigError("name either a recorded run or --checkpoint FILE, not both and not neither")
    if options.checkpoint:
        if not options.model:
            raise ConfigError("--checkpoint needs --model, the name of its network; see `rkd models`")
        return _checkpoint(options, data_root(settings), pick_device(settings.device))
    executor = Executor(store_of(settings), data_root(settings), settings.device)
    record = executor.store.load(options.run)
    if executor.weights_file(record.id, options.weights) is None:
        raise RecordError(
            f"the {options.weights} weights of run {record.id} are not on this machine; train it again to have them"
        )
    again = executor.evaluate(record.config, options.weights)
    said = record.accuracy(options.weights)
    print(f"{record.id} {options.weights}: {again:.2f} % now, {said:.2f} % in the record")
    return 0 if abs(again - said) < 0.005 else 1


def _checkpoint(options, root, device) -> int:
    from rkd import data, models
    from rkd.training import accuracy

    network = models.build(options.model, 10 if options.dataset == "cifar10" else 100)
    models.load_weights(network, options.checkpoint)
    images = data.load(data.DataConfig(options.dataset, normalisation=options.normalisation), root).to(device)
    found = accuracy(network.to(device), images.test_x, images.test_y, images.mean, images.std)
    print(f"{options.checkpoint}: {found:.2f} % on {len(images.test_y)} test images of {options.dataset}")
    return 0
