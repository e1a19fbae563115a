"""What a piece of work takes and does: seconds, operations, FLOP; and what a device does at best."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

_aten = torch.ops.aten
_ALLOCATIONS = ["empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view"]
_FREE = {getattr(_aten, name) for name in _ALLOCATIONS}
_HOST_READS = {_aten._local_scalar_dense, _aten.equal, _aten.is_nonzero}
_FUSED = {_aten.cudnn_convolution_relu, _aten.cudnn_convolution_add_relu}
# With the place of the weight among the arguments.
_CONVOLUTIONS = {_aten.convolution: 1, _aten.convolution_backward: 2, **dict.fromkeys(_FUSED, 1)}


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
        convolution_flops: of them, those of convolutions larger than 1x1, by output channels (as text).
    """

    ops: int
    host_reads: int
    flops: int
    convolution_flops: dict[str, int] = field(default_factory=dict)


def count(step: Callable[[], object]) -> Counts:
    """Run `step` once, eagerly, and count. Compiled code runs as if it were not compiled."""
    mapping = dict.fromkeys(_FUSED, _fused_flops)
    with FlopCounterMode(display=False, custom_mapping=mapping) as flops, _Operations(flops) as seen:
        step()
    return Counts(seen.ops, seen.host_reads, flops.get_total_flops(), dict(seen.convolution_flops))


def _fused_flops(x: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Sequence[int]) -> int:
    return conv_flop_count(list(x), list(weight), list(out_shape))


class _Operations(TorchDispatchMode):
    def __init__(self, flops: FlopCounterMode) -> None:
        super().__init__()
        self.ops = self.host_reads = 0
        self._flops = flops.flop_registry
        self.convolution_flops: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result, packet = func(*args, **(kwargs or {})), func.overloadpacket
        if packet in _HOST_READS:
            self.host_reads += 1
        elif not func.is_view and packet not in _FREE:
            self.ops += func._schema.is_mutable or any(isinstance(x, Tensor) for x in tree_leaves(result))
        if packet in _CONVOLUTIONS:
            channels, _, *kernel = args[_CONVOLUTIONS[packet]].shape
            if math.prod(kernel) > 1:
                flops = self._flops[packet](*args, **(kwargs or {}), out_val=result)
                self.convolution_flops[str(channels)] += flops
        return result


@dataclass(frozen=True)
class Ceilings:
    """Best rates seen, one addition or multiplication counted as one operation (FLOP).

    Attributes:
        matmul: FLOP/s of a large matrix product, by arithmetic ("fp32", "bf16", ...).
        convolution: FLOP/s of a 3x3 convolution, forward, channels last, by arithmetic, then by its channels (in and
            out alike, as text).
    """

    matmul: dict[str, float]
    convolution: dict[str, dict[str, float]]

    def floor_ms(self, counts: Counts, arithmetic: str) -> float:
        """What a step's floating-point operations take at these rates: convolutions at that of the nearest width (by
        ratio), all others at the highest."""
        rates = self.convolution[arithmetic]
        each = {
            width: rates[min(rates, key=lambda w: abs(math.log(int(w) / int(width))))]
            for width in counts.convolution_flops
        }
        rest = counts.flops - sum(counts.convolution_flops.values())
        rest_s = rest / max(self.matmul[arithmetic], *rates.values())
        return 1000 * (rest_s + sum(n / each[width] for width, n in counts.convolution_flops.items()))


def measure_ceilings(
    device: torch.device,
    dtypes: dict[str, torch.dtype],
    maps: Iterable[tuple[int, int]],
    batch_size: int,
    wanted: float = 0.3,
) -> Ceilings:
    """Measure them, each for `wanted` seconds.

    Args:
        device: where.
        dtypes: of each arithmetic, by its name.
        maps: (channels, height) of the maps whose convolutions are measured; of one width the largest map counts.
        batch_size: images of a convolution.
    """
    side = 8192 if device.type == "cuda" else 768
    heights = dict(sorted(maps))

    def best(work: Callable[[], object]) -> float:
        each = repeats(max(seconds(work, 1, device) for _ in range(2)), wanted / 8)
        end, found = time.monotonic() + wanted, [seconds(work, each, device)]
        while time.monotonic() < end:
            found.append(seconds(work, each, device))
        return min(found)

    def matmul(dtype: torch.dtype) -> float:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        return 2 * side**3 / best(lambda: torch.mm(a, b))

    def convolution(dtype: torch.dtype, channels: int, height: int) -> float:
        shapes = (batch_size, channels, height, height), (channels, channels, 3, 3)
        drawn = (torch.randn(*shape, device=device).to(dtype) for shape in shapes)
        x, weight = (t.to(memory_format=torch.channels_last) for t in drawn)
        return 2 * 9 * channels**2 * height**2 * batch_size / best(lambda: F.conv2d(x, weight, padding=1))

    with torch.no_grad():
        return Ceilings(
            {name: matmul(dtype) for name, dtype in dtypes.items()},
            {name: {str(c): convolution(dtype, c, h) for c, h in heights.items()} for name, dtype in dtypes.items()},
        )  # fmt: skip
