"""What a piece of work takes and does: seconds, operations, FLOP."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

_aten = torch.ops.aten
_ALLOCATIONS = ["empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view"]
_FREE = {getattr(_aten, name) for name in _ALLOCATIONS}
_HOST_READS = {_aten._local_scalar_dense, _aten.equal, _aten.is_nonzero}
_FUSED = {_aten.cudnn_convolution_relu, _aten.cudnn_convolution_add_relu}


def seconds(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Mean seconds of one of `repeats` calls in a row, from an idle device to an idle device."""
    _synchronise(device)
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    _synchronise(device)
    return (time.perf_counter() - started) / repeats


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def repeats(one: float, wanted: float, most: int = 200) -> int:
    """How many calls of `one` second each fill `wanted` seconds: at least one, at most `most`."""
    return max(1, min(most, math.ceil(wanted / max(one, 1e-9))))


@dataclass(frozen=True)
class Counts:
    """One step in numbers.

    Attributes:
        ops: operations that compute or move data, forward, backward and optimiser; views and allocations are none.
            Each is a kernel or a few.
        host_reads: times the host waited for a value.
        flops: floating-point operations of convolutions and matrix products, a multiply-add being two.
    """

    ops: int
    host_reads: int
    flops: int


def count(step: Callable[[], object]) -> Counts:
    """Run `step` once, eagerly, and count. Compiled code runs as if it were not compiled."""
    mapping = dict.fromkeys(_FUSED, _fused_flops)
    with FlopCounterMode(display=False, custom_mapping=mapping) as flops, _Operations() as seen:
        step()
    return Counts(seen.ops, seen.host_reads, flops.get_total_flops())


def _fused_flops(x: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Sequence[int]) -> int:
    return conv_flop_count(list(x), list(weight), list(out_shape))


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.ops = self.host_reads = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result, packet = func(*args, **(kwargs or {})), func.overloadpacket
        if packet in _HOST_READS:
            self.host_reads += 1
        elif not func.is_view and packet not in _FREE:
            self.ops += func._schema.is_mutable or any(isinstance(x, Tensor) for x in tree_leaves(result))
        return result
