"""torchvision's networks for photographs: a stem of stride 2 and a pooling layer, for images of 64 pixels and more.

They are named like `torchvision_resnet50`, and read torchvision's own weight files if the number of classes matches.
The package's own networks do not shrink 32 pixels in the stem, and cost forty times as much at 224 pixels.
"""

from functools import partial

from torch import nn

from rkd.models.external import from_module
from rkd.models.registry import register

_STAGES = ["layer1", "layer2", "layer3", "layer4"]
_RESNET = {"stem": "relu", "stages": _STAGES, "pooled": "avgpool"}


def _features(*stages: int) -> dict[str, object]:
    """Return `from_module` arguments for the numbers of the features that end each stage and, last, give the vector."""
    *maps, last = (f"features.{number}" for number in stages)
    return {"stem": "features.0", "stages": maps, "pooled": last}


# The submodules that are taps, see `from_module`.
NETWORKS = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), _RESNET),
    **dict.fromkeys(("resnext50_32x4d", "wide_resnet50_2"), _RESNET),
    "mobilenet_v2": _features(3, 6, 13, 17, 18),
    "mobilenet_v3_large": _features(3, 6, 12, 15, 16),
    "mobilenet_v3_small": _features(1, 3, 8, 11, 12),
    **dict.fromkeys(("efficientnet_b0", "efficientnet_b4"), _features(2, 3, 5, 7, 8)),
    "efficientnet_v2_s": _features(2, 3, 5, 6, 7),
}


def build_torchvision(num_classes: int, name: str) -> nn.Module:
    """Return one of torchvision's networks, initialised by torchvision, with taps."""
    from torchvision import models  # takes a second to import

    return from_module(models.get_model(name, weights=None, num_classes=num_classes), **NETWORKS[name])


for _name in NETWORKS:
    _how = {"display": f"torchvision {_name}", "group": "torchvision, for photographs"}
    register(f"torchvision_{_name}", **_how)(partial(build_torchvision, name=_name))
