"""How fast this machine is at best: matrix products, 3x3 convolutions, copying. What a step is held against."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from rkd.bench import clock

PROBE_SECONDS = 0.3  # of each ceiling


@dataclass(frozen=True)
class Ceilings:
    """Best rates seen, one addition or multiplication counted as one operation (FLOP).

    Attributes:
        matmul: FLOP/s of a large matrix product, by arithmetic ("fp32", "bf16", ...).
        convolution: FLOP/s of a 3x3 convolution, forward, channels last, by arithmetic, then by its channels (in and
            out alike).
        copy: bytes/s of copying a tensor that no cache holds, read and written bytes together.
    """

    matmul: dict[str, float]
    convolution: dict[str, dict[int, float]]
    copy: float

    def peak(self, arithmetic: str) -> float:
        """The highest rate of an arithmetic."""
        return max(self.matmul[arithmetic], *self.convolution[arithmetic].values())

    def or_better(self, other: "Ceilings") -> "Ceilings":
        """The better of two measurements, rate by rate: what disturbs one may spare the other."""
        return Ceilings(
            {name: max(rate, other.matmul[name]) for name, rate in self.matmul.items()},
            {
                name: {width: max(rate, other.convolution[name][width]) for width, rate in rates.items()}
                for name, rates in self.convolution.items()
            },
            max(self.copy, other.copy),
        )

    def of_width(self, arithmetic: str, channels: int) -> float:
        """The rate of 3x3 convolutions at the measured width nearest to `channels` (by ratio)."""
        rates = self.convolution[arithmetic]
        return rates[min(rates, key=lambda width: abs(math.log(width / channels)))]


def measure_ceilings(
    device: torch.device,
    dtypes: dict[str, torch.dtype],
    maps: Iterable[tuple[int, int]],
    batch_size: int,
    seconds: float = PROBE_SECONDS,
) -> Ceilings:
    """Measure them.

    Args:
        device: where.
        dtypes: of each arithmetic, by its name.
        maps: (channels, height) of the maps whose convolutions are measured; of one width the largest map counts.
        batch_size: images of a convolution.
        seconds: each ceiling is probed for.
    """
    large = device.type == "cuda"
    side = 8192 if large else 1536
    heights: dict[int, int] = {}
    for channels, height in maps:
        heights[channels] = max(height, heights.get(channels, 0))
    with torch.no_grad():
        return Ceilings(
            {name: 2 * side**3 / _matmul(side, dtype, device, seconds) for name, dtype in dtypes.items()},
            {
                name: {
                    channels: 2 * 9 * channels**2 * height**2 * batch_size
                    / _convolution(channels, height, batch_size, dtype, device, seconds)
                    for channels, height in sorted(heights.items())
                }
                for name, dtype in dtypes.items()
            },
            _copy(2**30 if large else 2**28, device, seconds),
        )  # fmt: skip


def _best(work: Callable[[], object], device: torch.device, wanted: float) -> float:
    """Least mean seconds of a call, over eight stretches."""
    work()
    each = clock.repeats(max(clock.seconds(work, 1, device), 1e-9), wanted / 8)
    return min(clock.seconds(work, each, device) for _ in range(8))


def _matmul(side: int, dtype: torch.dtype, device: torch.device, wanted: float) -> float:
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return _best(lambda: torch.mm(a, b, out=out), device, wanted)


def _convolution(
    channels: int, height: int, batch_size: int, dtype: torch.dtype, device: torch.device, wanted: float
) -> float:
    x = torch.randn(batch_size, channels, height, height, device=device)
    weight = torch.randn(channels, channels, 3, 3, device=device)
    x, weight = (t.to(dtype).to(memory_format=torch.channels_last) for t in (x, weight))
    return _best(lambda: F.conv2d(x, weight, padding=1), device, wanted)


def _copy(size: int, device: torch.device, wanted: float) -> float:
    """Bytes/s, of `size` bytes read and as many written."""
    source = torch.zeros(size // 4, device=device)
    target = torch.zeros_like(source)
    return 2 * size / _best(lambda: target.copy_(source), device, wanted)
