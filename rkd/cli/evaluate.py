"""`rkd evaluate`: accuracies measured again; deploy forms."""

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal

from rkd.cli.declare import Place
from rkd.errors import ConfigError, RecordError

NOTED = 0.3  # points between a stated accuracy and the measured one


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
    image_size: int | None = None,
    entry: str | None = None,
    profile: str = "smoke",
    **given: Any,
) -> int:
    """Measure the test accuracy of a recorded run's weights again, or of a checkpoint file, whatever entry and
    prefix its state dict has. Where the file states an accuracy, both are shown, and where they differ by more than 0.3
    points the known input statistics are tried. With --deploy, merge the branches of a reparameterised
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
        normalisation: input statistics for a checkpoint, a preset or {mean: [..], std: [..]} of pixel values in [0, 1]
            (default: what the file says, else the data set's own)
        image_size: side in pixels that the images of a folder are brought to
        entry: which state dict of a checkpoint, where several fit

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
            checkpoint, model, _test_set(dataset, normalisation, image_size), entry, deploy, runner
        )
    told = {"model": model, "dataset": dataset, "normalisation": normalisation, "entry": entry}
    for name, value in (told | {"image-size": image_size}).items():
        if value is not None:
            raise ConfigError(f"--{name} describes a --checkpoint; a recorded run says what it is")
    if out is not None and not deploy:
        raise ConfigError("--out writes the deploy form, and goes with --deploy")
    record = recorded(runner, run, weights)
    config = record.config
    if out is not None:
        return _write(runner, config, weights, out, batch_size)
    from rkd.experiments.deploy import deployed

    network, images = deployed(runner, config, weights)[1:] if deploy else runner.network(config, weights)
    again = _accuracy(f"run {run}", network, images)
    said, form = record.accuracy(weights), " merged" if deploy else ""
    print(f"{record.id} {weights}{form}: {again:.2f} % now, {said:.2f} % in the record")
    return 0 if abs(again - said) < 0.005 else 1


def recorded(runner, run: str, weights: str):
    """The record of a run; RecordError where it cannot be read, or its weights are not here."""
    from rkd.trust import foreign_in, seen

    record = runner.store.load(run)
    seen(foreign_in(record.config.to_dict()), f"the record of run {run}")
    if runner.weights_file(record.id, weights) is None:
        raise RecordError(
            f"the {weights} weights of run {record.id} are not on this machine; train it again to have them"
        )
    return record


def _test_set(dataset: str | None, normalisation: str | None, image_size: int | None) -> dict[str, Any]:
    """What a call says of a checkpoint's test set, by the names of DataConfig."""
    from rkd.data import full_name
    from rkd.plain_yaml import from_yaml

    numbers = from_yaml(normalisation, "--normalisation") if "{" in (normalisation or "") else normalisation
    return {"name": dataset and full_name(dataset), "normalisation": numbers, "image_size": image_size}


def _checkpoint(
    file: Path, model: str | None, given: dict[str, Any], entry: str | None, deploy: bool, runner
) -> int:
    from rkd import data, models
    from rkd.experiments.deploy import read_deployed
    from rkd.trust import seen

    # A checkpoint is told what it is, or says so itself.
    said = None if model else read_deployed(file)
    if not (said or model):
        raise ConfigError("--checkpoint needs --model, the name of its network; see `rkd show models`")
    test_set = said.data if said else data.DataConfig(normalisation="cifar100")
    if given["name"]:
        own = given["name"] if given["name"] in data.PRESETS else "measured"
        test_set = data.DataConfig(normalisation=said.data.normalisation if said else own)
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
    taken = models.load_weights(network, file, entry)
    if taken and not said:
        print(f"{file}: {taken}")
    if deploy:
        network = models.deploy(network)
    found = _accuracy(str(file), network.to(runner.device), images)
    stated = models.stated_accuracy(file)
    beside = "" if stated is None or said else f"; {stated:.2f} % stated in the file"
    shown = test_set.normalisation if isinstance(test_set.normalisation, str) else "the given"
    print(
        f"{file}: {found:.2f} % on {len(images.test_y)} test images of {test_set.name} with {shown} statistics{beside}"
    )
    if beside and abs(stated - found) > NOTED:
        _try_statistics(network, images, stated, abs(stated - found))
    return 0


def _try_statistics(network, images, stated: float, apart: float) -> None:
    """Print which of the known input statistics comes nearest to a stated accuracy, from which others are `apart`."""
    from rkd.data import PRESETS

    found = {
        name: _accuracy("", network, dataclasses.replace(images, mean=norm.mean, std=norm.std))
        for name, norm in PRESETS.items()
    }
    best = min(found, key=lambda name: abs(found[name] - stated))
    if abs(found[best] - stated) >= apart:
        print("none of the known statistics comes nearer")
        return
    fits = "fits" if abs(found[best] - stated) <= NOTED else "comes nearest, and does not fit either"
    print(f"of the known statistics {best} {fits}: {found[best]:.2f} % (--normalisation {best})")


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
