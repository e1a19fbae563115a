"""CIFAR ResNets with a 7x7 stem (hankyul2's KnowledgeDistillation code, whose checkpoints load unchanged).

The stem pads by one pixel, so that maps of 32x32 images are 28x28, 14x14 and 7x7.
"""

from functools import partial

from torch import nn

from rkd.models.layers import init_kaiming
from rkd.models.registry import register
from rkd.models.resnet import ResNet


class WideStemResNet(ResNet):
    """As `ResNet` but for the stem, and for the linear layer's weights, which start Xavier-uniform.

    Args:
        num_classes: number of logits.
        depth: 6n+2.
    """

    def __init__(self, num_classes: int, depth: int) -> None:
        super().__init__(num_classes, depth)
        self.conv1 = nn.Conv2d(3, self.conv1.out_channels, 7, padding=1, bias=False)
        init_kaiming(self.conv1)
        nn.init.xavier_uniform_(self.fc.weight)


for _depth in (20, 110):
    register(
        f"resnet{_depth}_7x7",
        display=f"ResNet-{_depth}-7x7",
        aliases=(f"resnet_32_{_depth}",),
        group="ResNet with 7x7 stem",
    )(partial(WideStemResNet, depth=_depth))
