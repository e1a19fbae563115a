"""`rkd evaluate`: accuracies measured again; deploy forms."""

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal

from rkd.cli.declare import Place
from rkd.errors import ConfigError, RecordError


def evaluate(
    run: str | None = None,
    *,
    weights: Literal["last", "best"] = "last",
    deploy: bool = False,
    out: Place | None = None,
    batch_size: int = 128,
    checkpoint: Path | None = None,
    model: str | None = None,
    dataset: str | None = None,
    normalisation: str | None = None,
    profile: str = "smoke",
    **given: Any,
) -> int:
    """Measure the test accuracy of a recorded run's weights again, or of a checkpoint file (RepDistiller,
    mdistiller, ReviewKD, hankyul2's and rkd files are read). With --deploy, merge the branches of a reparameterised
    student into single convolutions first; with --out too, write that form as a checkpoint that says itself what it
    is, and print what it saves: parameters, multiply-adds and speed of both forms, measured in turn, and how far
    their logits and accuracies are apart.

    Args:
        run: id of a recorded run
        weights: which of the run's weights (default last)
        deploy: merge the branches of a reparameterised network
        out: with --deploy: file to write, or a folder for NETWORK-RUN-WEIGHTS.pt
        batch_size: images at a time while speed is measured (default 128)
        checkpoint: a checkpoint file instead of a run
        model: the checkpoint's network (default: what the file says)
        dataset: test set for a checkpoint (default: what the file says, else cifar100)
        normalisation: input statistics for a checkpoint (default: what the file says, else cifar100)

    Examples:
        rkd evaluate 3f2a91c04b7d --profile smoke
        rkd evaluate 3f2a91c04b7d --deploy --out student.pt   the same, written, with what it saves
        rkd evaluate --checkpoint student.pt                  such a file
        rkd evaluate --checkpoint resnet56.pth --model resnet56 --normalisation cifar100_crd --data-root DIR

        Exit status: 0 the accuracy is that of the record (the file is written, and both forms have one accuracy), 1
        it is another, 2 wrong call.
    """
    from rkd.experiments.settings import resolve, without_effect
    from rkd.experiments.workspace import runner_of
    from rkd.trust import foreign_in, seen

    if (run is None) == (checkpoint is None):
        raise ConfigError("name either a recorded run or --checkpoint FILE, not both and not neither")
    without_effect(given, (), "an evaluation")
    if checkpoint is not None and (weights != "last" or out is not None):
        raise ConfigError(
            "--weights and --out are about a recorded run; a checkpoint file is one set of weights"
        )
    if batch_size != 128 and out is None:
        raise ConfigError(
            "--batch-size is of the speed that --deploy --out FILE measures, and goes with them"
        )
    settings = resolve("evaluate", {**given, "profile": profile})
    runner = runner_of(settings)
    if checkpoint is not None:
        return _checkpoint(
            checkpoint, model, {"name": dataset, "normalisation": normalisation}, deploy, runner
        )
    for name, value in {"model": model, "dataset": dataset, "normalisation": normalisation}.items():
        if value is not None:
            raise ConfigError(f"--{name} describes a --checkpoint; a recorded run says what it is")
    if out is not None and not deploy:
        raise ConfigError("--out writes the deploy form, and goes with --deploy")
    record = runner.store.load(run)
    config = record.config
    seen(foreign_in(config.to_dict()), f"the record of run {run}")
    if runner.weights_file(record.id, weights) is None:
        raise RecordError(
            f"the {weights} weights of run {record.id} are not on this machine; train it again to have them"
        )
    if out is not None:
        return _write(runner, config, weights, out, batch_size)
    from rkd.experiments.deploy import deployed

    network, images = deployed(runner, config, weights)[1:] if deploy else runner.network(config, weights)
    again = _accuracy(f"run {run}", network, images)
    said, form = record.accuracy(weights), " merged" if deploy else ""
    print(f"{record.id} {weights}{form}: {again:.2f} % now, {said:.2f} % in the record")
    return 0 if abs(again - said) < 0.005 else 1


def _checkpoint(file: Path, model: str | None, given: dict[str, str | None], deploy: bool, runner) -> int:
    from rkd import data, models
    from rkd.experiments.deploy import read_deployed
    from rkd.trust import seen

    # A checkpoint is told what it is, or says so itself.
    said = None if model else read_deployed(file)
    if not (said or model):
        raise ConfigError("--checkpoint needs --model, the name of its network; see `rkd show models`")
    test_set = said.data if said else data.DataConfig(normalisation="cifar100")
    if given["name"]:
        test_set = data.DataConfig(normalisation=test_set.normalisation)
    elif test_set.name.lower().endswith(".npz") and test_set.sha256 is None:
        raise ConfigError(
            f"{file} names the data set {test_set.name!r} without its sha256, so that any file could be meant; name it "
            "with --dataset"
        )
    test_set = dataclasses.replace(test_set, **{name: value for name, value in given.items() if value})
    if said:
        seen([said.network], str(file))
        models.check_name(said.network)
    images = data.load(test_set, runner.data_root).to(runner.device)
    if said and said.classes != images.classes:
        raise ConfigError(f"{file} is of {said.classes} classes, but {test_set.name} has {images.classes}")
    for note in images.notes:
        runner.say_once(note)
    network = models.build(said.network if said else model, images.classes)
    models.load_weights(network, file)
    if deploy:
        network = models.deploy(network)
    found = _accuracy(str(file), network.to(runner.device), images)
    print(f"{file}: {found:.2f} % on {len(images.test_y)} test images of {test_set.name}")
    return 0


def _accuracy(what: str, network, images) -> float:
    """Test accuracy in percent; weights that are no numbers are told of."""
    from rkd import models
    from rkd.training import accuracy

    if bad := models.not_finite(network.state_dict()):
        print(f"{what}: {len(bad)} of its tensors hold NaN or infinity, {bad[0]} first", file=sys.stderr)
    return accuracy(network, images.test_x, images.test_y, images.mean, images.std)


def _write(runner, config, weights: str, out: Path, batch_size: int) -> int:
    import torch

    from rkd import models
    from rkd.experiments.deploy import deploy_report, save_deployed

    report = deploy_report(runner, config, weights, batch_size=batch_size)
    if out.is_dir():
        out = out / f"{models.deploy_name(config.network)}-{config.id}-{weights}.pt"
    where = f"{torch.get_num_threads()} threads" if runner.device.type == "cpu" else runner.device
    trained, merged = report.loc["trained"], report.loc["deployed"]
    print(f"{models.display_name(config.network)}, run {config.id}, {weights} weights")
    print(f"{'':17}{'trained':>14}{'deployed':>14}")
    for title, column, form in (
        ("parameters", report["parameters"], "{:,}"),
        ("M multiply-adds", report["macs"] / 1e6, "{:.2f}"),
        ("images/s", report["images_per_second"], "{:,.0f}"),
        ("accuracy, %", report["accuracy"], "{:.2f}"),
    ):
        print(f"{title:17}" + "".join(f"{form.format(n):>14}" for n in column))
    print(
        f"speed on {where}, {batch_size} images at a time: "
        f"{merged['images_per_second'] / trained['images_per_second']:.2f} times as many\n"
        f"logits of the test images differ by at most {merged['logit_difference']:.1e} (the largest is "
        f"{trained['largest_logit']:.1f}); {merged['changed_predictions']:.0f} predictions differ"
    )
    save_deployed(runner, config, out, weights)
    print(f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB)")
    return 0 if report["accuracy"].nunique() == 1 else 1
