"""In which precision a device computes a run."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Arithmetic:
    """One way to compute. Weights, momentum, BatchNorm and losses are always held in `master`.

    Attributes:
        name: "fp32", "bf16", "fp16" or "fp64", as records show it.
        master: of weights, optimiser, BatchNorm and losses.
        low: of convolutions and linear layers under autocast; None: `master`.
    """

    name: str
    master: torch.dtype
    low: torch.dtype | None = None

    @property
    def full(self) -> str:
        """Name of the precision that weights are held in."""
        return "fp64" if self.master is torch.float64 else "fp32"

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """A block whose convolutions and linear layers compute in `low`."""
        return torch.autocast(device.type, dtype=self.low, enabled=self.low is not None)


_NAMED = {
    "fp32": Arithmetic("fp32", torch.float32),
    "bf16": Arithmetic("bf16", torch.float32, torch.bfloat16),
    "fp16": Arithmetic("fp16", torch.float32, torch.float16),
    "fp64": Arithmetic("fp64", torch.float64),
}


def arithmetic(precision: str, device: torch.device) -> Arithmetic:
    """What `precision` means on `device`. "auto" is the device's fastest: bf16 on CPUs that compute in it, fp16 with a
    guarded loss scale on CUDA, whose gradients lie closer to fp32's than bf16's do, and fp32 anywhere else. What it
    costs in accuracy is measured by `rkd.bench.gate`; in records `rkd.experiments.runner.settle` names one instead."""
    if precision != "auto":
        return _NAMED[precision]
    if device.type == "cuda":
        return _NAMED["fp16"]
    # A CPU with AVX-512 BF16 or AMX; elsewhere bf16 is emulated, and slow.
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return _NAMED["bf16" if device.type == "cpu" and native else "fp32"]


def exact_kernels(benchmark: bool = False) -> AbstractContextManager[object]:
    """cuDNN while a run is trained: deterministic, as in the released codes, and fp32 is fp32, where cuDNN would take
    TF32 by itself. With `benchmark` it times its deterministic kernels before it takes one, as `rkd bench` can."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=benchmark, deterministic=True, allow_tf32=False)
