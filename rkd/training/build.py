"""Build what a run trains, as it is before the first step (its network, and its method with the method's own modules),
and check that it can be trained at all."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkd import models, paths
from rkd.data import stream_seed, used_images
from rkd.errors import ConfigError, RkdError, one_line
from rkd.files import known_file
from rkd.methods import Batch, Context, Method, get_method
from rkd.training.config import RunConfig


def build_network(config: RunConfig, classes: int) -> nn.Module:
    """Return the run's network, which depends on its name, class count and seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "network"))
        return models.build(config.network, classes)


def load_pretrained(network: nn.Module, config: RunConfig, classes: int) -> str:
    """Load the weights that a run's network starts from; return, in words, what was taken and what was left out.

    Raises:
        RecordError: the file is missing, has another hash, or holds another network, NaN or infinity.
    """
    given, name = config.pretrained, models.display_name(config.network)
    what, remedy = (
        f"{name} is to start from weights, and the file",
        f"put the one with sha256 {given.sha256} there",
    )
    file = known_file(paths.home() / given.checkpoint, given.sha256, what, remedy)
    of_each = [build_network(config, count).state_dict() for count in (classes, classes + 1)]
    head = [key for key, value in of_each[0].items() if value.shape != of_each[1][key].shape]
    taken = models.load_weights(network, file, head=head, finite=True)
    return f"{name} starts from {given.checkpoint}" + (f" ({taken})" if taken else "")


def build_method(
    config: RunConfig, student: nn.Module, teacher: nn.Module, image_size: int, classes: int, labels: Tensor
) -> Method | None:
    """Return the run's method; its extra modules are initialised from their own stream. Arguments: see `Context`."""
    if config.method is None:
        return None
    own = {"batch_size": config.batch_size, "seed": config.seed, "network": config.network}
    context = Context(student, teacher, image_size, classes, labels.cpu(), **own)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "method"))
        return get_method(config.method).build(context, config.options)


def check_batches(config: RunConfig, train_images: int) -> None:
    """Raise ConfigError if the training images make no batch of two or more, or none that `drop_last` keeps."""
    size = config.batch_size
    if size == 1:
        raise ConfigError(
            "batch_size is 1; it must be at least 2: BatchNorm takes statistics over a batch's images"
        )
    if not used_images(train_images, size, config.drop_last):
        least = f"whole batch of {size}, and drop_last keeps no other" if train_images > 1 else "batch of two"
        raise ConfigError(
            f"{train_images} training image{'s make' if train_images > 1 else ' makes'} no {least}; take more images"
        )


def rehearse(config: RunConfig, pixels: int, classes: int, labels: Tensor) -> None:
    """Take two black images of `pixels` x `pixels` through everything that a run computes, before anything is trained.
    `labels`: (N,) int64, of the training images.

    Raises:
        ConfigError: the training images make no batch, the method refuses the pair, or a shape does not fit.
    """
    check_batches(config, len(labels))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            _two_images(config, pixels, classes, labels)
    except RkdError:
        raise
    except Exception as error:  # raised by torch, or by the user's own network or method
        raise ConfigError(
            f"{config.describe()}: two images of {pixels} x {pixels} and {classes} classes cannot be taken through "
            f"it ({type(error).__name__}: {one_line(error)})"
        ) from error


def _two_images(config: RunConfig, pixels: int, classes: int, labels: Tensor) -> None:
    indices, x = torch.arange(2), torch.zeros(2, 3, pixels, pixels)
    network = build_network(config, classes)
    taps = network.taps(x)
    F.cross_entropy(taps.logits, torch.tensor([0, classes - 1]))
    if config.teacher is None:
        return
    teacher = models.build(config.teacher.name, classes)
    method = build_method(config, network, teacher, pixels, classes, labels)
    seen = teacher.taps(x), labels[:2].cpu(), indices, x
    for stage in config.stages:
        method.stage_losses(stage.name, Batch(taps if stage.trains_student else None, *seen))
    method.begin_epoch(0)
    method.losses(Batch(taps, *seen))
    F.cross_entropy(method.classified(taps), seen[1])
