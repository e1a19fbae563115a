"""Make a network that never learns again faster, without changing what it computes.

`freeze` traces the network's taps as a graph, in which BatchNorm is folded into the weights of the convolution before
it (running statistics only), the branches of reparameterised blocks become one convolution, and weights are stored in
the precision they are used in.
"""

import copy
import warnings
from collections import Counter

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rkd.models.reparam import merge_branches
from rkd.models.taps import TapNet, Taps


class _Outputs(nn.Module):
    """A network whose forward returns its taps as one flat tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.network.taps(x).tensors()


class Frozen(TapNet):
    """What `freeze` returns: a network for inference only, whose `graph_module` returns `Taps.tensors`; `folded` is the
    number of BatchNorm layers (including those of branches) folded into a convolution's weights."""

    def __init__(self, graph_module: nn.Module, folded: int) -> None:
        super().__init__()
        self.graph_module, self.folded = graph_module, folded

    def taps(self, x: Tensor) -> Taps:
        """Return the taps of a batch (B, 3, H, W)."""
        return Taps.of(self.graph_module(x))


def freeze(network: nn.Module, dtype: torch.dtype | None = None, image_size: int = 32) -> Frozen | None:
    """Return a frozen copy of `network` with the same taps.

    Args:
        network: in the mode (train or eval, layer by layer) it is to be used in; it is not changed. A BatchNorm that
            uses batch statistics stays a layer of its own.
        dtype: precision of convolutions and linear layers; None: as they are. BatchNorm keeps its own.
        image_size: height and width of images the network can take; the copy is compared with it on two such images.

    Returns:
        None if no graph can replace the network: its Python code depends on its data, or reads maps by hooks.
    """
    own = next(network.parameters()).dtype
    reference = copy.deepcopy(network).requires_grad_(False).double()
    outputs = _Outputs(copy.deepcopy(reference))
    merged = merge_branches(outputs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = fx.Tracer().trace(outputs)
    except (fx.proxy.TraceError, TypeError, RuntimeError, AttributeError, ValueError):
        return None
    module = fx.GraphModule(outputs, graph)
    folded = merged + _fold(module)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    if not _same(module, reference, image_size):  # for example, a branch was taken while tracing
        return None
    for part in module.to(own).requires_grad_(False).modules():
        if dtype is not None and isinstance(part, nn.Conv2d | nn.Linear):
            part.to(dtype)
    return Frozen(module, folded)


@torch.no_grad()
def _same(module: fx.GraphModule, network: nn.Module, image_size: int) -> bool:
    """Whether the rewritten graph gives the same taps as the network for two images, in float64."""
    x = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    x = x.to(next(network.parameters()))
    pairs = zip(network.taps(x).tensors(), module(x), strict=True)
    return all((a - b).abs().max() <= 1e-8 * a.abs().max() for a, b in pairs)


def _layer(module: fx.GraphModule, node: object, kind: type) -> nn.Module | None:
    if isinstance(node, fx.Node) and node.op == "call_module":
        found = module.get_submodule(node.target)
        return found if isinstance(found, kind) else None
    return None


def _fold(module: fx.GraphModule) -> int:
    count = 0
    calls = Counter(node.target for node in module.graph.nodes if node.op == "call_module")
    for node in list(module.graph.nodes):
        bn = _layer(module, node, nn.BatchNorm2d)
        if bn is None or bn.training or bn.running_mean is None:
            continue
        before = node.args[0]
        conv = _layer(module, before, nn.Conv2d)
        if conv is None or len(before.users) > 1 or calls[before.target] > 1 or calls[node.target] > 1:
            continue  # a layer called twice must stay as it is
        module.set_submodule(before.target, fuse_conv_bn_eval(conv.eval(), bn))
        node.replace_all_uses_with(before)
        module.graph.erase_node(node)
        count += 1
    return count
