"""Measure the test accuracy of a recorded run's weights again, or of a checkpoint file (RepDistiller, mdistiller,
ReviewKD, hankyul2's and rkd files are read; those of `rkd convert` say themselves what they are)."""

import argparse

from rkd.cli.common import add_profile, add_settings, given_settings

EPILOG = """examples:
  rkd evaluate 3f2a91c04b7d --profile smoke
  rkd evaluate 3f2a91c04b7d --weights best
  rkd evaluate 3f2a91c04b7d --deploy                      a reparameterised student, its branches merged
  rkd evaluate --checkpoint represnet20.pt                a file of `rkd convert`
  rkd evaluate --checkpoint resnet56.pth --model resnet56 --normalisation cifar100_crd --data-root DIR"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", help="id of a recorded run")
    parser.add_argument(
        "--weights", choices=("last", "best"), default="last", help="which of the run's weights"
    )
    parser.add_argument(
        "--deploy", action="store_true", help="merge the branches of a reparameterised network first"
    )
    parser.add_argument("--checkpoint", metavar="FILE", help="a checkpoint file instead of a run")
    parser.add_argument(
        "--model", metavar="NAME", help="the checkpoint's network (default: what the file says)"
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="test set for a checkpoint (default: what the file says, else cifar100)",
    )
    parser.add_argument(
        "--normalisation",
        metavar="NAME",
        help="input statistics for a checkpoint (default: what the file says, else cifar100)",
    )
    add_profile(parser)
    add_settings(parser)


def call(options: argparse.Namespace) -> int:
    from rkd.errors import ConfigError, RecordError
    from rkd.experiments.settings import resolve
    from rkd.experiments.workspace import runner_of

    settings = resolve("evaluate", {**given_settings(options), "profile": options.profile})
    if (options.run is None) == (options.checkpoint is None):
        raise ConfigError("name either a recorded run or --checkpoint FILE, not both and not neither")
    runner = runner_of(settings)
    if options.checkpoint:
        return _checkpoint(options, runner.data_root, runner.device)
    record = runner.store.load(options.run)
    if runner.weights_file(record.id, options.weights) is None:
        raise RecordError(
            f"the {options.weights} weights of run {record.id} are not on this machine; train it again to have them"
        )
    if options.deploy:
        again, form = _deployed(runner, record.config, options.weights), " merged"
    else:
        again, form = runner.evaluate(record.config, options.weights), ""
    said = record.accuracy(options.weights)
    print(f"{record.id} {options.weights}{form}: {again:.2f} % now, {said:.2f} % in the record")
    return 0 if abs(again - said) < 0.005 else 1


def _deployed(runner, config, which: str) -> float:
    from rkd.experiments.deploy import deployed
    from rkd.training import accuracy

    _, network, images = deployed(runner, config, which)
    return accuracy(network, images.test_x, images.test_y, images.mean, images.std)


def _checkpoint(options, root, device) -> int:
    import dataclasses

    from rkd import data, models
    from rkd.errors import ConfigError
    from rkd.experiments.deploy import read_deployed
    from rkd.training import accuracy

    # A checkpoint is told what it is, or says so itself.
    said = (None if options.model else read_deployed(options.checkpoint)) or {}
    name = options.model or said.get("network")
    if name is None:
        raise ConfigError("--checkpoint needs --model, the name of its network; see `rkd models`")
    test_set = said.get("data", data.DataConfig(normalisation="cifar100"))
    if options.dataset:
        test_set = data.DataConfig(options.dataset, normalisation=test_set.normalisation)
    if options.normalisation:
        test_set = dataclasses.replace(test_set, normalisation=options.normalisation)
    images = data.load(test_set, root).to(device)
    network = models.build(name, images.classes)
    models.load_weights(network, options.checkpoint)
    if options.deploy:
        network = models.deploy(network)
    found = accuracy(network.to(device), images.test_x, images.test_y, images.mean, images.std)
    print(f"{options.checkpoint}: {found:.2f} % on {len(images.test_y)} test images of {test_set.name}")
    return 0
