"""The cost of a piece of work: seconds, operations and FLOP.

`torch.utils.benchmark.Timer` makes two extra calls before each measurement, which would triple a round of steps.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

_aten = torch.ops.aten
_FREE = {
    _aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty, _aten.new_empty_strided, _aten._unsafe_view,
}  # fmt: skip
_HOST_READS = {_aten._local_scalar_dense, _aten.equal, _aten.is_nonzero}


def seconds(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Return the mean seconds per call of `repeats` calls in a row, from an idle device to an idle device."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda device: None
    wait(device)
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    wait(device)
    return (time.perf_counter() - started) / repeats


def count(step: Callable[[], object]) -> dict[str, int]:
    """Run `step` once, eagerly (even compiled code), and count what it does.

    Returns:
        "ops": operations that compute or move data, each one or a few kernels; views and allocations do not count.
        "host_reads": how often the host waited for a value.
        "flops": floating-point operations of convolutions and matrix products; a multiply-add counts as two.
    """
    fused = dict.fromkeys((_aten.cudnn_convolution_relu, _aten.cudnn_convolution_add_relu), _fused_flops)
    with FlopCounterMode(display=False, custom_mapping=fused) as flops, _Operations() as seen:
        step()
    return {"ops": seen.ops, "host_reads": seen.host_reads, "flops": flops.get_total_flops()}


def _fused_flops(x: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Sequence[int]) -> int:
    return conv_flop_count(list(x), list(weight), list(out_shape))


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.ops = self.host_reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result, packet = func(*args, **(kwargs or {})), func.overloadpacket
        if packet in _HOST_READS:
            self.host_reads += 1
        elif not func.is_view and packet not in _FREE:
            self.ops += func._schema.is_mutable or any(isinstance(x, Tensor) for x in tree_leaves(result))
        return result
