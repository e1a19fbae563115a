"""A network that never learns again, made faster without changing what it computes.

`freeze` writes the network's taps down as a graph and rewrites it: convolutions take the BatchNorm that follows them
into their weights (running statistics only), the branches of reparameterised blocks become one convolution, and
weights are stored in the precision they are used in.
"""

import copy
import warnings

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rkd.models.reparam import merge_branches
from rkd.models.taps import Taps


class _Outputs(nn.Module):
    """A network whose forward returns its taps as one flat tuple, which is what a graph can carry."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.stages = 0

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        taps = self.network.taps(x)
        self.stages = len(taps.stages)
        return (taps.stem, *taps.stages, *taps.stages_pre, taps.pooled, taps.logits)


class Frozen(nn.Module):
    """What `freeze` returns: a network with `taps` and `forward`, for inference alone.

    Attributes:
        graph_module: the rewritten network, giving (stem, *stages, *stages_pre, pooled, logits).
        stages: number of stages.
        folded: BatchNorm layers that went into a convolution's weights, of branches too.
    """

    def __init__(self, graph_module: nn.Module, stages: int, folded: int) -> None:
        super().__init__()
        self.graph_module, self.stages, self.folded = graph_module, stages, folded

    def taps(self, x: Tensor) -> Taps:
        """Taps of a batch (B, 3, H, W)."""
        stem, *rest = self.graph_module(x)
        n = self.stages
        return Taps(stem, tuple(rest[:n]), tuple(rest[n : 2 * n]), rest[-2], rest[-1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, classes)."""
        return self.graph_module(x)[-1]


def freeze(network: nn.Module, dtype: torch.dtype | None = None) -> Frozen | None:
    """A frozen copy of `network` with the same taps.

    Args:
        network: in the mode (train or eval, layer by layer) it is to be used in; stays as it is. Where a BatchNorm
            uses batch statistics it stays a layer of its own.
        dtype: precision of convolutions and linear layers; None: as they are. BatchNorm keeps its own.

    Returns:
        None where no graph can stand for the network: its Python code depends on its data, or reads maps by hooks.
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
    stages = outputs.stages
    module = fx.GraphModule(outputs, graph)
    folded = merged + _fold(module)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    if not _same(module, reference):  # a branch that was taken while the graph was drawn, say
        return None
    for part in module.to(own).modules():
        if dtype is not None and isinstance(part, nn.Conv2d | nn.Linear):
            part.to(dtype)
    return Frozen(module, stages, folded)


@torch.no_grad()
def _same(module: fx.GraphModule, network: nn.Module) -> bool:
    """Whether the rewritten graph gives what the network gives for two images, in float64."""
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    x = x.to(next(network.parameters()))
    taps = network.taps(x)
    expected = (taps.stem, *taps.stages, *taps.stages_pre, taps.pooled, taps.logits)
    return all((a - b).abs().max() <= 1e-8 * a.abs().max() for a, b in zip(expected, module(x), strict=True))


def _layer(module: fx.GraphModule, node: object, kind: type) -> nn.Module | None:
    if isinstance(node, fx.Node) and node.op == "call_module":
        found = module.get_submodule(node.target)
        return found if isinstance(found, kind) else None
    return None


def _put(module: fx.GraphModule, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, layer)


def _calls(module: fx.GraphModule) -> dict[str, int]:
    """How often each layer is called: a layer called twice must stay as it is."""
    targets = [node.target for node in module.graph.nodes if node.op == "call_module"]
    return {target: targets.count(target) for target in targets}


def _fold(module: fx.GraphModule) -> int:
    count, calls = 0, _calls(module)
    for node in list(module.graph.nodes):
        bn = _layer(module, node, nn.BatchNorm2d)
        if bn is None or bn.training or bn.running_mean is None:
            continue
        before = node.args[0]
        conv = _layer(module, before, nn.Conv2d)
        if conv is None or len(before.users) > 1 or calls[before.target] > 1 or calls[node.target] > 1:
            continue
        _put(module, before.target, fuse_conv_bn_eval(conv.eval(), bn).requires_grad_(False))
        node.replace_all_uses_with(before)
        module.graph.erase_node(node)
        count += 1
    return count
