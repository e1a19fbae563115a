"""`rkd export-model` and `rkd features`: what a trained network is for."""

import json
from dataclasses import asdict
from typing import Any, Literal

from rkd.cli.declare import File
from rkd.cli.evaluate import recorded, runner_for
from rkd.errors import ConfigError, RecordError
from rkd.files import replacing

IMAGES = 64  # that a written network is tried on


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
    and its logits are compared with torch's. What `rkd evaluate --checkpoint` reads without --model is .safetensors.

    Args:
        run: id of a recorded run
        out: file to write
        weights: which of the run's weights (default last)

    Examples:
        rkd export-model 3f2a91c04b7d --out student.onnx
        rkd export-model 3f2a91c04b7d --out student.pt2 --profile paper --weights best

        Images go in as (B, 3, H, W), pixel values in [0, 1] less the mean, over the deviation, by channel. ONNX needs
        the packages of rkd[onnx]. Exit status: 0 written, 2 wrong call, or what was read back computes something else.
    """
    from rkd import data, models
    from rkd.models.packaging import FORMS, package

    if out.suffix not in FORMS:
        raise ConfigError(f"--out is {str(out)!r}; its suffix says what is written: {', '.join(FORMS)}")
    record = recorded(runner := runner_for(profile, given), run)
    network, images = runner.network(record.config, weights)
    network, name = network.cpu().float(), record.config.network
    if bad := models.not_finite(network.state_dict()):
        raise RecordError(f"the {weights} weights of run {record.id} hold NaN or infinity, {bad[0]} first")
    if models.is_reparameterised(network):
        network, name = models.deploy(network), models.deploy_name(name)
    few = images.to("cpu")
    x, _ = next(data.evaluation_batches(few.test_x, few.test_y, few.mean, few.std, IMAGES))
    facts = {
        "network": name, "run": record.id, "weights": weights, "data": json.dumps(asdict(record.config.data)),
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
        rkd features 3f2a91c04b7d --out features.npz

        Exit status: 0 written, 2 wrong call.
    """
    import numpy as np
    import torch

    from rkd import data
    from rkd.training.evaluation import usual_batch

    if out.suffix != ".npz":
        raise ConfigError(f"--out is {str(out)!r}; features are written as .npz")
    record = recorded(runner := runner_for(profile, given), run)
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
            parts = [(tap.pooled.float().cpu(), tap.logits.float().cpu()) for tap in taps]  # maps are let go
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
