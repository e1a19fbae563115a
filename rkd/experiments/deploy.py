"""Deploy forms of reparameterised students: measure what merging their branches saves, and that it changes nothing."""

import logging

import numpy as np
import pandas as pd
import torch
from torch import nn

from rkd import models
from rkd.data import ImageSet, evaluation_batches
from rkd.errors import ConfigError
from rkd.experiments.group import to_device
from rkd.experiments.runner import Runner
from rkd.training import RunConfig
from rkd.training.arithmetic import exact_kernels


def deployed(runner: Runner, config: RunConfig, which: str = "last") -> tuple[nn.Module, nn.Module, ImageSet]:
    """Return a finished run's network and its deploy form, both in eval mode on the runner's device, and its data set.

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
    return network, to_device(models.deploy(network), config, runner.device), images


def deploy_report(
    runner: Runner,
    config: RunConfig,
    which: str = "last",
    *,
    batch_size: int = 128,
    rounds: int = 7,
    seconds: float = 0.25,
) -> pd.DataFrame:
    """Measure sizes, speeds and accuracies of a finished run's network as trained and as deployed, in one process.

    The two forms take turns, `rounds` times for at least `seconds` each, so that other load on the machine affects both
    alike. Convolutions are computed in full fp32 (no TF32).

    Returns:
        Index: trained, deployed. Columns: parameters, macs (multiply-adds for one image), images_per_second (forward
        passes of `batch_size` images in eval mode, median over the rounds), accuracy (test, %), largest_logit (largest
        absolute logit of the test images), and, compared with the trained form: logit_difference (largest absolute
        difference), changed_predictions (number of test images predicted as another class).

    Raises:
        ConfigError: the run's network is not reparameterised, or `batch_size` or `rounds` is below 1.
        RkdError: its weights are not on this machine.
    """
    # It looks for a CUDA toolkit when imported.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils.benchmark import Timer

    if min(batch_size, rounds) < 1:
        raise ConfigError(f"batch_size is {batch_size} and rounds is {rounds}; both must be at least 1")
    *forms, images = deployed(runner, config, which)
    dtype, labels = next(forms[0].parameters()).dtype, images.test_y

    def batches(size: int) -> list[torch.Tensor]:
        found = evaluation_batches(images.test_x, labels, images.mean, images.std, size)
        return [x.to(dtype) for x, _ in found]

    with torch.no_grad(), exact_kernels():
        logits = [torch.cat([form(x) for x in batches(500)]) for form in forms]
        x, threads = batches(batch_size)[0], torch.get_num_threads()
        timers = [Timer("form(x)", globals={"form": form, "x": x}, num_threads=threads) for form in forms]
        taken = [[t.blocked_autorange(min_run_time=seconds).median for t in timers] for _ in range(rounds)]
    trained = logits[0]
    return pd.DataFrame(
        {
            "parameters": [models.parameter_count(form) for form in forms],
            "macs": [models.macs(form, images.test_x.shape[1]) for form in forms],
            "images_per_second": len(x) / np.median(taken, axis=0),
            "accuracy": [100 * (own.argmax(1) == labels).double().mean().item() for own in logits],
            "largest_logit": [own.abs().max().item() for own in logits],
            "logit_difference": [(own - trained).abs().max().item() for own in logits],
            "changed_predictions": [(own.argmax(1) != trained.argmax(1)).sum().item() for own in logits],
        },
        index=["trained", "deployed"],
    )
