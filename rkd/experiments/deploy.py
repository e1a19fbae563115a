"""Deploy forms of reparameterised students: what merging their branches saves, and that it changes nothing.

>>> from rkd.experiments.deploy import deploy_report, save_deployed        # doctest: +SKIP
>>> report = deploy_report(runner, record.config)                        # doctest: +SKIP
>>> report.deployed.parameters, report.speedup, report.logit_difference    # doctest: +SKIP
>>> save_deployed(runner, record.config, "student.pt")                   # doctest: +SKIP
"""

import dataclasses
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rkd import models
from rkd.config import build
from rkd.data import DataConfig, ImageSet, evaluation_batches
from rkd.errors import ConfigError, RecordError
from rkd.experiments.group import place
from rkd.experiments.runner import Runner
from rkd.files import sha256
from rkd.training import RunConfig, checkpoint
from rkd.training.arithmetic import exact_kernels

FORMAT = "rkd deploy 1"
BATCH = 128
ROUNDS = 7
SECONDS = 0.25  # of one measurement, or one batch where that takes longer


@dataclass(frozen=True)
class Form:
    """A network in one of its two forms.

    Attributes:
        parameters: their number.
        macs: multiply-adds for one image.
        images_per_second: of forward passes in eval mode, median over the rounds.
        accuracy: test accuracy in percent.
    """

    parameters: int
    macs: int
    images_per_second: float
    accuracy: float


@dataclass(frozen=True)
class DeployReport:
    """A trained network and its deploy form, measured in turn in one process.

    Attributes:
        run, network, weights: whose and which weights.
        trained, deployed: the two forms.
        device, precision, batch_size, threads: what the speeds were measured with; threads on the CPU.
        images: test images that accuracies and logits are of.
        logit_difference: largest absolute difference of a logit.
        largest_logit: for scale, the largest absolute logit of the trained form.
        changed_predictions: test images whose predicted class differs.
    """

    run: str
    network: str
    weights: str
    trained: Form
    deployed: Form
    device: str
    precision: str
    batch_size: int
    threads: int
    images: int
    logit_difference: float
    largest_logit: float
    changed_predictions: int

    @property
    def speedup(self) -> float:
        """Images per second of the deployed form over those of the trained one."""
        return self.deployed.images_per_second / self.trained.images_per_second


def deployed(runner: Runner, config: RunConfig, which: str = "last") -> tuple[nn.Module, nn.Module, ImageSet]:
    """An ended run's network, its deploy form, both in eval mode on the runner's device, and its data set.

    Raises:
        ConfigError: the run's network is not reparameterised.
        RkdError: its weights are not on this machine.
    """
    network, images = runner.network(config, which)
    network.eval()
    if not models.is_reparameterised(network):
        raise ConfigError(
            f"run {config.id} is of {config.network}, which is not reparameterised: it has no branches to merge; "
            f"networks of the package that have: {', '.join(models.groups()['reparameterised'])}"
        )
    return network, place(models.deploy(network), config, runner.device), images


def deploy_report(
    runner: Runner,
    config: RunConfig,
    which: str = "last",
    *,
    batch_size: int = BATCH,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
) -> DeployReport:
    """Sizes, speeds and accuracies of an ended run's network as trained and as deployed.

    The two forms take turns, `rounds` times, and the medians of their speeds count, so that what else the machine does
    meets both. Convolutions are computed in full fp32 (no TF32).

    Args:
        runner: knows the store, the data and the device.
        config: of an ended run.
        which: "last" or "best" weights.
        batch_size: images of a forward pass while speed is measured.
        rounds: measurements of each form.
        seconds: of one measurement.

    Raises:
        ConfigError: the run's network is not reparameterised, or a number below 1.
        RkdError: its weights are not on this machine.
    """
    for name, value in (("batch_size", batch_size), ("rounds", rounds)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}")
    trained, merged, images = deployed(runner, config, which)
    dtype = next(trained.parameters()).dtype
    with torch.no_grad(), exact_kernels():
        agreement = _compare(trained, merged, images, dtype)
        x, _ = next(evaluation_batches(images.test_x, images.test_y, images.mean, images.std, batch_size))
        x = x.to(dtype)
        rates = _rates((trained, merged), x, rounds, seconds)
    forms = [
        Form(models.parameter_count(network), models.macs(network, images.test_x.shape[1]), rate, accuracy)
        for network, rate, accuracy in zip((trained, merged), rates, agreement.pop("accuracies"), strict=True)
    ]
    return DeployReport(
        run=config.id,
        network=config.network,
        weights=which,
        trained=forms[0],
        deployed=forms[1],
        device=_device_name(runner.device),
        precision=str(dtype).removeprefix("torch.").replace("float", "fp"),
        batch_size=len(x),
        threads=torch.get_num_threads(),
        images=len(images.test_y),
        **agreement,
    )


def save_deployed(runner: Runner, config: RunConfig, path: str | Path, which: str = "last") -> dict[str, Any]:
    """Write an ended run's deploy form as a checkpoint, atomically.

    It is a torch file of plain values: the state dict under "model", and beside it what `read_deployed` returns.

    Args:
        runner, config, which: see `deployed`.
        path: of the file.

    Returns:
        What stands beside the state dict.

    Raises:
        ConfigError: the run's network is not reparameterised, or has no registered deploy form.
        RkdError: its weights are not on this machine.
    """
    _, merged, images = deployed(runner, config, which)
    header = {
        "format": FORMAT,
        "network": models.deploy_name(config.network),
        "run": config.id,
        "weights": which,
        "source_sha256": sha256(runner.weights_file(config.id, which)),
        "accuracy": runner.store.load(config.id).accuracy(which),
        "classes": images.classes,
        "data": dataclasses.asdict(config.data),
        "normalisation": {"mean": list(images.mean), "std": list(images.std)},
    }
    state = {name: value.detach().cpu().contiguous() for name, value in merged.state_dict().items()}
    checkpoint.save({**header, "model": state}, Path(path))
    return header


def read_deployed(path: str | Path) -> dict[str, Any] | None:
    """What `save_deployed` wrote beside the state dict; None for other checkpoints.

    Returns:
        network (name of the deploy form), run and weights ("last" or "best") it comes from, source_sha256 (of that
        file), accuracy (in percent, as recorded), classes, data (a `DataConfig`), normalisation (mean and std of pixel
        values in [0, 1]).

    Raises:
        RecordError: the file cannot be read, or is a damaged one of this form.
    """
    header = models.checkpoint_header(path)
    if header.pop("format", None) != FORMAT:
        return None
    missing = {"network", "run", "weights", "source_sha256", "accuracy", "classes", "data"} - set(header)
    if missing or not isinstance(header["data"], Mapping):
        raise RecordError(
            f"{path}: the deploy form is damaged: it lacks {', '.join(sorted(missing)) or 'data'}"
        )
    try:
        header["data"] = build(DataConfig, header["data"])
    except ConfigError as error:
        raise RecordError(f"{path}: its data set is one this version cannot read: {error}") from error
    return header


def _compare(trained: nn.Module, merged: nn.Module, images: ImageSet, dtype: torch.dtype) -> dict[str, Any]:
    """Accuracies, and differences of logits and predictions, over the test images."""
    correct, changed = [0, 0], 0
    difference = largest = 0.0
    batch_size = 2000 if images.test_x.is_cuda else 500
    for x, y in evaluation_batches(images.test_x, images.test_y, images.mean, images.std, batch_size):
        logits = [network(x.to(dtype)) for network in (trained, merged)]
        difference = max(difference, (logits[0] - logits[1]).abs().max().item())
        largest = max(largest, logits[0].abs().max().item())
        chosen = [one.argmax(1) for one in logits]
        correct = [n + (c == y).sum().item() for n, c in zip(correct, chosen, strict=True)]
        changed += (chosen[0] != chosen[1]).sum().item()
    return {
        "accuracies": [100.0 * n / len(images.test_y) for n in correct],
        "logit_difference": difference,
        "largest_logit": largest,
        "changed_predictions": changed,
    }


def _rates(
    networks: tuple[nn.Module, nn.Module], x: torch.Tensor, rounds: int, seconds: float
) -> list[float]:
    """Images per second of each network, medians of measurements taken in turn."""

    def measure(network: nn.Module, repeats: int) -> float:
        _wait(x.device)
        started = time.perf_counter()
        for _ in range(repeats):
            network(x)
        _wait(x.device)
        return (time.perf_counter() - started) / repeats

    for network in networks:
        measure(network, 2)  # kernels are chosen, memory is taken
    repeats = [max(1, round(seconds / measure(network, 1))) for network in networks]
    taken: list[list[float]] = [[], []]
    for _ in range(rounds):
        for i, network in enumerate(networks):
            taken[i].append(measure(network, repeats[i]))
    return [len(x) / statistics.median(times) for times in taken]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
