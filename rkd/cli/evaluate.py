"""`rkd model evaluate`, `rkd model export`, `rkd model features`: measure a trained network, export it, write its
features."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rkd.cli.declare import File
from rkd.config import Percent, from_values, validate
from rkd.errors import ConfigError, RecordError
from rkd.experiments.settings import check_effect, resolve
from rkd.experiments.workspace import runner_of
from rkd.files import replacing
from rkd.plain_yaml import from_yaml
from rkd.trust import foreign_in, note_origin

if TYPE_CHECKING:
    from rkd.data import DataConfig

NOTED = 0.3  # percentage points; a larger gap between stated and measured accuracy is looked into
SPEED_BATCH = 128  # batch size when speed is measured
IMAGES = 64  # on which an exported network is checked


def evaluate(
    run: str | None = None,
    *,
    weights: Literal["last", "best"] = "last",
    deploy: bool = False,
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
    points the known input statistics are tried. With --deploy, merge the branches of a reparameterised student into
    single convolutions first; of a run, print what that saves: parameters, multiply-adds and speed of both forms,
    measured in turn, and how far their logits and accuracies are apart.

    Args:
        run: id of a recorded run
        weights: which of the run's weights (default last)
        deploy: merge the branches of a reparameterised network
        checkpoint: a checkpoint file instead of a run
        model: the checkpoint's network (default: what a file of `rkd model export` says, .safetensors)
        dataset: test set for a checkpoint (default: what the file says, else cifar100)
        normalisation: input statistics for a checkpoint, a preset or {mean: [..], std: [..]} of pixel values in [0, 1]
            (default: what the file says, else the data set's own)
        image_size: side in pixels that the images of a folder are brought to
        entry: which state dict of a checkpoint, where several fit

    Examples:
        rkd model evaluate 3f2a91c04b7d --profile smoke
        rkd model evaluate 3f2a91c04b7d --deploy
        rkd model export 3f2a91c04b7d --out student.safetensors && rkd model evaluate --checkpoint student.safetensors
        rkd model evaluate --checkpoint resnet56.pth --model resnet56 --normalisation cifar100_crd --data-root DIR

        Exit status: 0 the accuracy is that of the record (with --deploy, of both forms), 1 it is another, 2 wrong call.
    """
    if (run is None) == (checkpoint is None):
        raise ConfigError("name either a recorded run or --checkpoint FILE, not both and not neither")
    if checkpoint is not None and weights != "last":
        raise ConfigError("--weights is about a recorded run; a checkpoint file is one set of weights")
    runner = runner_for(profile, given)
    if checkpoint is not None:
        own = {"normalisation": normalisation, "image_size": image_size}
        if normalisation and "{" in normalisation:
            own["normalisation"] = from_yaml(normalisation, "--normalisation")
        return _checkpoint(checkpoint, runner, model, dataset, own, entry, deploy)
    told = {"model": model, "dataset": dataset, "normalisation": normalisation, "image-size": image_size}
    for name, value in (told | {"entry": entry}).items():
        if value is not None:
            raise ConfigError(f"--{name} describes a --checkpoint; a recorded run says what it is")
    record = load_run(runner, run, weights)
    said = record.accuracy(weights)
    if deploy:
        return _savings(runner, record.config, weights, said)
    again = _accuracy(f"run {run}", *runner.network(record.config, weights))
    print(f"{record.id} {weights}: {again:.2f} % now, {said:.2f} % in the record")
    return 0 if abs(again - said) < 0.005 else 1


def runner_for(profile: str, given: Mapping[str, Any]):
    """Return the runner of a call's settings; ConfigError for a parameter without effect on what is recorded."""
    check_effect(given, (), "an evaluation")
    return runner_of(resolve("evaluate", {**given, "profile": profile}))


def load_run(runner, run: str, weights: str):
    """Return the record of a run; RecordError if it cannot be read or its weights are not on this machine."""
    record = runner.store.load(run)
    note_origin(foreign_in(record.config.to_dict()), f"the record of run {run}")
    if runner.weights_file(record.id, weights) is None:
        raise RecordError(
            f"the {weights} weights of run {record.id} are not on this machine; train it again to have them"
        )
    return record


def export_model(
    run: str,
    *,
    out: File,
    weights: Literal["last", "best"] = "last",
    profile: str = "smoke",
    **given: Any,
) -> int:
    """Write a recorded run's network as a file that runs without this package: .safetensors (weights alone), .ts
    (TorchScript, traced), .pt2 (torch.export) or .onnx, by the suffix of --out. Class names, input statistics and the
    size of the images stand inside as text. The branches of reparameterised networks are merged. The file is read back
    and its logits are compared with torch's. `rkd model evaluate --checkpoint` reads .safetensors without --model.

    Args:
        run: id of a recorded run
        out: file to write
        weights: which of the run's weights (default last)

    Examples:
        rkd model export 3f2a91c04b7d --out student.onnx
        rkd model export 3f2a91c04b7d --out student.pt2 --profile paper --weights best

        Images go in as (B, 3, H, W), pixel values in [0, 1] less the mean, over the deviation, by channel. ONNX needs
        the packages of rkd[onnx]. Exit status: 0 written, 2 wrong call, or what was read back computes something else.
    """
    from rkd import data, models
    from rkd.models.packaging import FORMS, package

    if out.suffix not in FORMS:
        raise ConfigError(f"--out is {str(out)!r}; its suffix says what is written: {', '.join(FORMS)}")
    record = load_run(runner := runner_for(profile, given), run, weights)
    network, images = runner.network(record.config, weights)
    network, name = network.cpu().float(), record.config.network
    if bad := models.not_finite(network.state_dict()):
        raise RecordError(f"the {weights} weights of run {record.id} hold NaN or infinity, {bad[0]} first")
    if models.is_reparameterised(network):
        network, name = models.deploy(network), models.deploy_name(name)
    few = images.to("cpu")
    x, _ = next(data.evaluation_batches(few.test_x, few.test_y, few.mean, few.std, IMAGES))
    trained_on = json.dumps(dataclasses.asdict(record.config.data))
    facts = {
        "network": name, "run": record.id, "weights": weights, "data": trained_on,
        "class_names": json.dumps(images.class_names), "mean": json.dumps(images.mean), "std": json.dumps(images.std),
        "size": str(x.shape[-1]), "accuracy": f"{record.accuracy(weights):.4g}",
    }  # fmt: skip
    apart = package(network, out, x, facts)
    print(
        f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB): {models.display_name(record.config.network)}, "
        f"run {record.id}, {weights} weights, {FORMS[out.suffix].title}\n"
        f"its logits of {len(x) - 1} images differ from torch's by at most {apart:.1e} of the largest"
    )
    return 0


def features(
    run: str,
    *,
    out: File,
    weights: Literal["last", "best"] = "last",
    profile: str = "smoke",
    **given: Any,
) -> int:
    """Write what a recorded run's network makes of its images, as one npz file: of the training and of the test images
    (neither cropped nor mirrored) the vectors before the classifier, pooled_train and pooled_test (N, C), the logits
    (N, classes), both float32, and the labels y_train and y_test (N,); class_names.

    Args:
        run: id of a recorded run
        out: file to write, .npz
        weights: which of the run's weights (default last)

    Examples:
        rkd model features 3f2a91c04b7d --out features.npz

        Exit status: 0 written, 2 wrong call.
    """
    import numpy as np
    import torch

    from rkd import data
    from rkd.training.evaluation import usual_batch

    if out.suffix != ".npz":
        raise ConfigError(f"--out is {str(out)!r}; features are written as .npz")
    record = load_run(runner := runner_for(profile, given), run, weights)
    network, images = runner.network(record.config, weights)
    dtype, found = next(network.parameters()).dtype, {"class_names": np.array(images.class_names)}
    with torch.no_grad():
        network.eval()
        for split, x, y in (
            ("train", images.train_x, images.train_y),
            ("test", images.test_x, images.test_y),
        ):
            size = usual_batch(y.device, x.shape[1] * x.shape[2])
            batches = data.evaluation_batches(x, y, images.mean, images.std, size)
            taps = (network.taps(batch.to(dtype)) for batch, _ in batches)
            parts = [(tap.pooled.float().cpu(), tap.logits.float().cpu()) for tap in taps]  # lets the maps go
            for name, values in zip(("pooled", "logits"), zip(*parts, strict=True), strict=True):
                found[f"{name}_{split}"] = torch.cat(values).numpy()
            found[f"y_{split}"] = y.cpu().numpy()
    with replacing(out) as temporary, open(temporary, "wb") as file:
        np.savez(file, **found)
    print(
        f"wrote {out}: "
        + ", ".join(f"{name} {found[name].shape}" for name in ("pooled_train", "pooled_test"))
    )
    return 0


class ModelFacts(NamedTuple):
    """The facts stored in a file that `rkd model export` wrote; the accuracy in percent."""

    network: str
    data: "DataConfig"
    classes: int
    accuracy: float


def read_model_facts(file: Path) -> ModelFacts | None:
    """Return the facts stored in a file that `rkd model export` wrote; None for other files.

    Raises:
        RecordError: it cannot be read, or is damaged.
    """
    from rkd.data import DataConfig
    from rkd.models.packaging import facts_in

    facts = facts_in(file)
    if not {"network", "class_names"} <= facts.keys():
        return None
    note_origin([facts["network"]], str(file))
    try:
        data = from_values(DataConfig, json.loads(facts["data"]))
        if data.normalisation == "measured":  # measured on the images it was trained on
            numbers = {name: json.loads(facts[name]) for name in ("mean", "std")}
            data = dataclasses.replace(data, normalisation=numbers)
        return ModelFacts(
            facts["network"],
            data,
            len(validate(tuple[str, ...], "class_names", json.loads(facts["class_names"]))),
            validate(Percent, "accuracy", float(facts["accuracy"])),
        )
    except (ConfigError, KeyError, ValueError, RecursionError) as error:
        raise RecordError(
            f"{file}: what it says of itself is damaged ({error}); name it with --model"
        ) from error


def _checkpoint(
    file: Path, runner, model: str | None, dataset: str | None, own: Mapping[str, Any], entry: str | None, deploy: bool
) -> int:  # fmt: skip
    """Print a checkpoint file's accuracy on the test set named by the call, else by the file, else on CIFAR-100; `own`:
    further data-set values given by the call."""
    from rkd import data, models

    said = None if model else read_model_facts(file)
    if dataset is not None:
        name = data.full_name(dataset)
        usual = said.data.normalisation if said else name if name in data.PRESETS else "measured"
        test_set = data.DataConfig(name, usual)
    else:
        test_set = said.data if said else data.DataConfig(normalisation="cifar100")
        if test_set.name.lower().endswith(".npz") and test_set.sha256 is None:
            raise ConfigError(
                f"{file} names the data set {test_set.name!r} without its sha256, so that any file could be meant; "
                "name it with --dataset"
            )
    test_set = dataclasses.replace(test_set, **{name: value for name, value in own.items() if value})
    if not (model := said.network if said else model):
        raise ConfigError("--checkpoint needs --model, the name of its network; see `rkd show models`")
    models.canonical(model)
    images = data.load(test_set, runner.data_root).to(runner.device)
    if said and said.classes != images.classes:
        raise ConfigError(f"{file} is of {said.classes} classes, but {test_set.name} has {images.classes}")
    for note in images.notes:
        runner.say_once(note)
    network = models.build(model, images.classes)
    if taken := models.load_weights(network, file, entry):
        print(f"{file}: {taken}")
    if deploy:
        network = models.deploy(network)
    found = _accuracy(str(file), network.to(runner.device), images)
    stated = said.accuracy if said else models.stated_accuracy(file)
    beside = "" if stated is None else f"; {stated:.2f} % stated in the file"
    shown = test_set.normalisation if isinstance(test_set.normalisation, str) else "the given"
    print(
        f"{file}: {found:.2f} % on {len(images.test_y)} test images of {test_set.name} with {shown} statistics{beside}"
    )
    if stated is not None and abs(stated - found) > NOTED:
        _try_statistics(network, images, stated, abs(stated - found))
    return 0


def _try_statistics(network, images, stated: float, apart: float) -> None:
    """Print which known input statistics come nearest to a stated accuracy; those in use miss it by `apart` points."""
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
    """Return the test accuracy in percent; warn of weights that are NaN or infinite."""
    from rkd import models
    from rkd.training import accuracy

    if bad := models.not_finite(network.state_dict()):
        print(f"{what}: {len(bad)} of its tensors hold NaN or infinity, {bad[0]} first", file=sys.stderr)
    return accuracy(network, images.test_x, images.test_y, images.mean, images.std)


def _savings(runner, config, weights: str, said: float) -> int:
    """Print what merging the branches of a run's network saves; return the exit status."""
    import torch

    from rkd import models
    from rkd.experiments.deploy import deploy_report

    report = deploy_report(runner, config, weights, batch_size=SPEED_BATCH)
    where = f"{torch.get_num_threads()} threads" if runner.device.type == "cpu" else runner.device
    trained, merged = report.loc["trained"], report.loc["deployed"]
    print(
        f"{models.display_name(config.network)}, run {config.id}, {weights} weights: {said:.2f} % in the record"
    )
    print(f"{'':17}{'trained':>14}{'deployed':>14}")
    for title, column, form in (
        ("parameters", report["parameters"], "{:,}"),
        ("M multiply-adds", report["macs"] / 1e6, "{:.2f}"),
        ("images/s", report["images_per_second"], "{:,.0f}"),
        ("accuracy, %", report["accuracy"], "{:.2f}"),
    ):
        print(f"{title:17}" + "".join(f"{form.format(n):>14}" for n in column))
    print(
        f"speed on {where}, {SPEED_BATCH} images at a time: "
        f"{merged['images_per_second'] / trained['images_per_second']:.2f} times as many\n"
        f"logits of the test images differ by at most {merged['logit_difference']:.1e} (the largest is "
        f"{trained['largest_logit']:.1f}); {merged['changed_predictions']:.0f} predictions differ"
    )
    return 0 if (report["accuracy"] - said).abs().max() < 0.005 else 1
