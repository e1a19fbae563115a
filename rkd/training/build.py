"""What a run trains, as it stands before the first step: its network, and its method with modules of its own."""

import torch
from torch import Tensor, nn

from rkd import models
from rkd.data import stream_seed
from rkd.methods import Context, Method, get_method
from rkd.training.config import RunConfig


def build_network(config: RunConfig, classes: int) -> nn.Module:
    """The run's network: a function of its name, class count and seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "network"))
        return models.build(config.network, classes)


def build_method(
    config: RunConfig,
    student: nn.Module,
    teacher: nn.Module,
    image_size: int,
    classes: int,
    train_images: int,
    labels: Tensor | None = None,
) -> Method | None:
    """The run's method with its extra modules, initialised from a stream of their own; arguments as in `Context`."""
    if config.method is None:
        return None
    context = Context(
        student,
        teacher,
        image_size,
        classes,
        train_images,
        labels=None if labels is None else labels.cpu(),
        batch_size=config.batch_size,
        seed=config.seed,
        network=config.network,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "method"))
        return get_method(config.method).build(context, config.options)
