"""What a run trains, as it stands before the first step: its network, and its method with modules of its own; and
whether it can be trained at all."""

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
    """The run's network: a function of its name, class count and seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "network"))
        return models.build(config.network, classes)


def load_pretrained(network: nn.Module, config: RunConfig, classes: int) -> str:
    """Fill a run's network with the weights that it starts from; what was taken and left out, in words.

    Raises:
        RecordError: the file is missing, another one, or of another network.
    """
    given, name = config.pretrained, models.display_name(config.network)
    what, remedy = (
        f"{name} is to start from weights, and the file",
        f"put the one with sha256 {given.sha256} there",
    )
    file = known_file(paths.home() / given.checkpoint, given.sha256, what, remedy)
    of_each = [build_network(config, count).state_dict() for count in (classes, classes + 1)]
    head = [key for key, value in of_each[0].items() if value.shape != of_each[1][key].shape]
    taken = models.load_weights(network, file, head=head)
    return f"{name} starts from {given.checkpoint}" + (f" ({taken})" if taken else "")


def build_method(
    config: RunConfig, student: nn.Module, teacher: nn.Module, image_size: int, classes: int, labels: Tensor
) -> Method | None:
    """The run's method with its extra modules, initialised from a stream of their own; arguments as in `Context`."""
    if config.method is None:
        return None
    own = {"batch_size": config.batch_size, "seed": config.seed, "network": config.network}
    context = Context(student, teacher, image_size, classes, labels.cpu(), **own)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "method"))
        return get_method(config.method).build(context, config.options)


def check_batches(config: RunConfig, train_images: int) -> None:
    """Raise ConfigError where so many training images make no batch of two, or none that `drop_last` keeps."""
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
    """Take two black images, so many pixels high and wide, through all that a run computes, before anything is trained.
    `labels`: (N,) int64, of the training images.

    Raises:
        ConfigError: they make no batch, the method refuses the pair, or a shape does not fit.
    """
    check_batches(config, len(labels))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            _two_images(config, pixels, classes, labels)
    except RkdError:
        raise
    except Exception as error:  # of torch, or of a network or a method of the user's own
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
