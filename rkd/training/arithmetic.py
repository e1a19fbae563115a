"""The precision in which a device computes a run."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Arithmetic:
    """The precisions that a run computes in.

    Attributes:
        name: "fp32", "bf16", "fp16" or "fp64", as records show it.
        master: precision of weights, optimiser (momentum), BatchNorm and losses, always.
        low: precision of convolutions and linear layers under autocast; None: `master`.
    """

    name: str
    master: torch.dtype
    low: torch.dtype | None = None

    @property
    def full(self) -> str:
        """Name of the precision that weights are held in."""
        return "fp64" if self.master is torch.float64 else "fp32"

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return a context manager under which convolutions and linear layers compute in `low`."""
        return torch.autocast(device.type, dtype=self.low, enabled=self.low is not None)


_NAMED = {
    "fp32": Arithmetic("fp32", torch.float32),
    "bf16": Arithmetic("bf16", torch.float32, torch.bfloat16),
    "fp16": Arithmetic("fp16", torch.float32, torch.float16),
    "fp64": Arithmetic("fp64", torch.float64),
}


def arithmetic(precision: str, device: torch.device) -> Arithmetic:
    """Return the arithmetic that `precision` means on `device`. "auto" is the fastest: on CUDA fp16 with a guarded loss
    scale, whose gradients are closer to fp32's than bf16's are; bf16 on CPUs that compute in it; fp32 anywhere else.
    `rkd.bench.gate` measures its cost in accuracy; `rkd.experiments.runner.settle` replaces "auto" for records."""
    if precision != "auto":
        return _NAMED[precision]
    if device.type == "cuda":
        return _NAMED["fp16"]
    # A CPU with AVX-512 BF16 or AMX; on others bf16 is emulated, and slow.
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return _NAMED["bf16" if device.type == "cpu" and native else "fp32"]


def exact_kernels(benchmark: bool = False) -> AbstractContextManager[object]:
    """Return a context manager that sets cuDNN up for training: deterministic, as in the released codes, and without
    TF32, its default for fp32. With `benchmark` it times its deterministic kernels first, as `rkd bench speed` can."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=benchmark, deterministic=True, allow_tf32=False)
