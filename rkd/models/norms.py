"""The BatchNorm before each stage's final ReLU, from whose parameters the spread of what that ReLU sees is known."""

from torch import nn

from rkd.errors import ConfigError


def final_norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    """One BatchNorm per stage, shallow to deep: the last that acts on `Taps.stages_pre`.

    ResNets: the last one of the stage's last block (what its shortcut adds is not seen by it). WRN: the first one of
    the next group, and the network's own after the last group. VGG: the last one of each block but the first, which is
    the stem. A network of another make may say it itself, by a method `final_norms()`.

    Raises:
        ConfigError: a network without such layers (ShuffleNets and MobileNetV2, whose stages do not end in BatchNorm
            and ReLU; reparameterised blocks; modules from elsewhere).

    Example:
        >>> from rkd import models
        >>> [norm.num_features for norm in final_norms(models.build("wrn_16_2"))]
        [32, 64, 128]
    """
    if callable(own := getattr(network, "final_norms", None)):
        return list(own())
    for finder in (_wide_resnet, _resnet, _vgg):
        norms = finder(network)
        if norms:
            return norms
    raise ConfigError(
        f"{type(network).__name__} has no BatchNorm before the last ReLU of each stage; networks that have: ResNets, "
        "WRNs, VGGs, and any network with a method final_norms()"
    )


def _numbered(network: nn.Module, prefix: str, first: int) -> list[nn.Module]:
    """Children called `<prefix><number>`, from `first` on, as far as the numbers go."""
    found: list[nn.Module] = []
    while (child := getattr(network, f"{prefix}{first + len(found)}", None)) is not None:
        found.append(child)
    return found


def _wide_resnet(network: nn.Module) -> list[nn.BatchNorm2d]:
    groups = _numbered(network, "block", 1)
    if not groups or not all(isinstance(getattr(g, "layer", None), nn.Sequential) for g in groups):
        return []
    norms = [getattr(group.layer[0], "bn1", None) for group in groups[1:]]
    return _complete([*norms, getattr(network, "bn1", None)])


def _resnet(network: nn.Module) -> list[nn.BatchNorm2d]:
    stages = _numbered(network, "layer", 1)
    if not all(isinstance(stage, nn.Sequential) for stage in stages):
        return []
    # A ResNet block adds its shortcut, so its last BatchNorm has all the channels of the map; ShuffleNets concatenate.
    if any(not hasattr(stage[-1], "downsample") and not hasattr(stage[-1], "shortcut") for stage in stages):
        return []
    return _complete([_last_norm(stage[-1]) for stage in stages])


def _vgg(network: nn.Module) -> list[nn.BatchNorm2d]:
    blocks = _numbered(network, "block", 0)
    return _complete([_last_norm(block) for block in blocks[1:]])


def _last_norm(module: nn.Module) -> nn.BatchNorm2d | None:
    """The last BatchNorm among the direct children: not those of a shortcut, nor of a reparameterised branch."""
    return next((m for m in reversed(list(module.children())) if isinstance(m, nn.BatchNorm2d)), None)


def _complete(norms: list[nn.Module | None]) -> list[nn.BatchNorm2d]:
    """All of them, or none at all where one is missing."""
    return norms if all(isinstance(norm, nn.BatchNorm2d) for norm in norms) else []
