"""A network that never learns again, made faster without changing what it computes.

`freeze` writes the network's taps down as a graph, in one of three forms; in each, weights are stored in the precision
they are used in.

- "unfolded": as it is.
- "folded": convolutions take the BatchNorm that follows them into their weights (running statistics only), and the
  branches of reparameterised blocks become one convolution. On CUDA a convolution's bias is a kernel of its own, so
  that this alone saves little there.
- "fused": folded, and each convolution with its bias and the ReLU behind it, or with an addition between them, is one
  operation of cuDNN. These choose their kernels without `torch.backends.cudnn.deterministic`.
"""

import copy
import operator
import warnings
from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rkd.errors import ConfigError, unknown
from rkd.models.reparam import merge_branches
from rkd.models.taps import TapNet, Taps

FORMS = ("unfolded", "folded", "fused")
# Where cuDNN's fused operations are, and in which precisions.
FUSED = {"cuda": (torch.float16, torch.float32)}
_CONV_RELU = torch.ops.aten.cudnn_convolution_relu.default
_CONV_ADD_RELU = torch.ops.aten.cudnn_convolution_add_relu.default
_ADDITIONS = {operator.add, operator.iadd, torch.add}
_RELUS = {F.relu, torch.relu, "relu", "relu_"}


class _Outputs(nn.Module):
    """A network whose forward returns its taps as one flat tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.network.taps(x).tensors()


class Frozen(TapNet):
    """What `freeze` returns: a network for inference alone, whose `graph_module` gives `Taps.tensors`; with the
    numbers of BatchNorm layers (of branches too) that went into a convolution's weights, and of convolutions that are
    one operation with the ReLU behind them."""

    def __init__(self, graph_module: nn.Module, folded: int, fused: int) -> None:
        super().__init__()
        self.graph_module, self.folded, self.fused = graph_module, folded, fused

    def taps(self, x: Tensor) -> Taps:
        """Taps of a batch (B, 3, H, W)."""
        return Taps.of(self.graph_module(x))


def forms(device: torch.device, dtype: torch.dtype) -> tuple[str, ...]:
    """Those that a network can take on `device` with weights in `dtype`."""
    return FORMS if dtype in FUSED.get(device.type, ()) else FORMS[:2]


def freeze(network: nn.Module, dtype: torch.dtype | None = None, form: str = "folded") -> Frozen | None:
    """A frozen copy of `network` with the same taps.

    Args:
        network: in the mode (train or eval, layer by layer) it is to be used in; stays as it is. Where a BatchNorm
            uses batch statistics it stays a layer of its own.
        dtype: precision of convolutions and linear layers; None: as they are. BatchNorm keeps its own.
        form: "unfolded", "folded" or "fused", see the module.

    Returns:
        None where no graph can stand for the network: its Python code depends on its data, or reads maps by hooks.

    Raises:
        ConfigError: an unknown form, or one that is not for this device and precision.
    """
    weight = next(network.parameters())
    own, device = weight.dtype, weight.device
    if form not in FORMS:
        raise unknown("teacher form", form, FORMS)
    if form not in forms(device, dtype or own):
        raise ConfigError(
            f"teacher form {form!r} is for CUDA, in float16 or float32, and this is {device.type} in "
            f"{str(dtype or own).removeprefix('torch.')}; allowed here: {', '.join(forms(device, dtype or own))}"
        )
    reference = copy.deepcopy(network).requires_grad_(False).double()
    outputs = _Outputs(copy.deepcopy(reference))
    merged = 0 if form == "unfolded" else merge_branches(outputs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = fx.Tracer().trace(outputs)
    except (fx.proxy.TraceError, TypeError, RuntimeError, AttributeError, ValueError):
        return None
    module = fx.GraphModule(outputs, graph)
    folded = 0 if form == "unfolded" else merged + _fold(module)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    if not _same(module, reference):  # a branch that was taken while the graph was drawn, say
        return None
    fused = _fuse(module) if form == "fused" else 0
    for part in module.to(own).requires_grad_(False).modules():
        if dtype is not None and isinstance(part, nn.Conv2d | nn.Linear):
            part.to(dtype)
    return Frozen(module, folded, fused)


@torch.no_grad()
def _same(module: fx.GraphModule, network: nn.Module) -> bool:
    """Whether the rewritten graph gives what the network gives for two images, in float64."""
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
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


def _fuse(module: fx.GraphModule) -> int:
    """Convolution, bias and ReLU, and convolution, bias, addition and ReLU, become one operation each."""
    count, graph = 0, module.graph
    for node in list(graph.nodes):  # what stands where a merged block had its BatchNorm
        if _layer(module, node, nn.Identity) is not None:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    ShapeProp(module).propagate(torch.zeros(2, 3, 32, 32).to(next(module.parameters())))
    for relu in list(graph.nodes):
        summed = relu.args[0] if _is_relu(module, relu) else None
        if summed is None or len(summed.users) > 1:  # what stands before the ReLU is asked for
            continue
        pairs = (
            [tuple(summed.args), tuple(reversed(summed.args))] if _is_addition(summed) else [(summed, None)]
        )
        for node, other in pairs:
            conv = _fusible(module, node)
            if conv is None or (other is not None and _shape(other) != _shape(node)):
                continue
            with graph.inserting_before(relu):
                weight, bias = (graph.get_attr(f"{node.target}.{name}") for name in ("weight", "bias"))
                rest = (bias, list(conv.stride), list(conv.padding), list(conv.dilation), conv.groups)
                if other is None:
                    made = graph.call_function(_CONV_RELU, (node.args[0], weight, *rest))
                else:
                    made = graph.call_function(_CONV_ADD_RELU, (node.args[0], weight, other, 1.0, *rest))
            made.meta = dict(relu.meta)
            relu.replace_all_uses_with(made)
            for gone in dict.fromkeys((relu, summed, node)):
                graph.erase_node(gone)
            count += 1
            break
    graph.lint()
    module.recompile()
    return count


def _is_relu(module: fx.GraphModule, node: fx.Node) -> bool:
    called = node.op in ("call_function", "call_method") and node.target in _RELUS and len(node.args) > 0
    return called or _layer(module, node, nn.ReLU) is not None


def _is_addition(node: fx.Node) -> bool:
    return node.target in _ADDITIONS and len(node.args) == 2 and not node.kwargs


def _shape(node: object) -> tuple[int, ...] | None:
    return tuple(node.meta["tensor_meta"].shape) if isinstance(node, fx.Node) else None


def _fusible(module: fx.GraphModule, node: Any) -> nn.Conv2d | None:
    """The convolution of a node, if its result serves nothing but the operation it is to be one with."""
    conv = _layer(module, node, nn.Conv2d)
    plain = conv is not None and conv.bias is not None and conv.groups == 1 and len(node.users) == 1
    return conv if plain and conv.padding_mode == "zeros" and isinstance(conv.padding, tuple) else None
