"""The frozen teacher of a run, and on CUDA the choice of its quickest form."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from rkd.models.frozen import forms, freeze
from rkd.models.taps import Taps
from rkd.training.arithmetic import Arithmetic, exact_kernels
from rkd.training.capture import on, out_of_memory

# How far each tap may lie from that of the unfolded network in full precision, relative to its length; of the forms
# that stay within, the quickest is taken.
TOLERANCE = {"fp64": 1e-10, "fp32": 1e-3, "fp16": 2e-2, "bf16": 0.1}
CALLS, REPEATS = 5, 3  # forward passes in a row that are timed, and how often
AHEAD = 2**25  # GPU cycles, some 20 ms, in which that many passes are launched


class FrozenTeacher(nn.Module):
    """Gives taps of a network that never learns.

    Args:
        network: on its device; its parameters are frozen in place.
        batch_norm: "running" evaluates with the running statistics; BatchNorm then goes into the convolutions.
            "batch" normalises each batch by its own statistics, as train mode does. The running statistics, which the
            released codes let drift meanwhile, are left alone: nothing that is computed in this mode reads them.
        numbers: the run's arithmetic; None: the network's own precision.
        compile: see Engine.
        form: see `rkd.models.frozen`.

    Attributes:
        form: "unfolded" also where there was nothing to fold; None where no graph could be made of the network (its
            code depends on its data, or reads maps by hooks), which runs as it is.
        folded: BatchNorm layers that went into convolutions; None likewise.
    """

    def __init__(
        self,
        network: nn.Module,
        batch_norm: str,
        numbers: Arithmetic | None = None,
        compile: bool = False,
        form: str = "folded",
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        if batch_norm == "batch":
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.train()
                    module.momentum = 0.0  # new = 1.0 * running + 0.0 * batch
                    module.num_batches_tracked = None  # spares one counter update per layer and step
        weight = next(network.parameters())
        self._numbers = numbers or Arithmetic("own", weight.dtype)
        frozen = freeze(self.network, self._numbers.low, form)
        self.folded = None if frozen is None else frozen.folded
        self.form = None if frozen is None else form if frozen.folded else "unfolded"
        self._run = self.network if frozen is None else frozen
        if compile and frozen is not None:
            # Weights that never change become constants of the kernels. A CUDA graph is captured around them later.
            frozen.graph_module = torch.compile(
                frozen.graph_module, dynamic=False, options={"freezing": True, "triton.cudagraphs": False}
            )

    @torch.no_grad()
    def taps(self, x: torch.Tensor) -> Taps:
        """Taps of a batch (B, 3, H, W), without gradient, in the run's low precision where it has one."""
        with self._numbers.autocast(x.device):
            return self._run.taps(x.to(self._numbers.inputs))


def frozen_teacher(
    network: nn.Module,
    batch_norm: str,
    numbers: Arithmetic,
    compile: bool,
    batch: Sequence[int],
    say: Callable[[str], None],
) -> FrozenTeacher:
    """The teacher in the form that suits its device: folded on a CPU and where it is compiled, on CUDA the `quickest`,
    for steps of a batch of (B, 3, H, W) images; `say` is told what was measured."""
    folded = FrozenTeacher(network, batch_norm, numbers, compile)
    if next(network.parameters()).device.type != "cuda" or compile or not folded.folded:
        return folded
    return quickest(network, batch_norm, numbers, batch, say)


def gpu_seconds(call: Callable[[], object], device: torch.device) -> float:
    """What a call keeps the GPU busy for, in seconds: as in a CUDA graph, without the time it takes to launch it."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    took = []
    for _ in range(REPEATS + 1):  # the first is warm-up
        torch.cuda.synchronize(device)
        torch.cuda._sleep(AHEAD)  # launches get ahead of the GPU
        start.record()
        for _ in range(CALLS):
            call()
        end.record()
        torch.cuda.synchronize(device)
        took.append(start.elapsed_time(end) / 1000 / CALLS)
    return min(took[1:])


def quickest(
    network: nn.Module,
    batch_norm: str,
    numbers: Arithmetic,
    batch: Sequence[int],
    say: Callable[[str], None],
    seconds: Callable[[Callable[[], object], torch.device], float] = gpu_seconds,
) -> FrozenTeacher:
    """Of the forms whose taps agree with the unfolded network in full precision, the one that takes the least time.
    Arguments as of `frozen_teacher`; `seconds` tells how long a call takes on a device."""
    weight = next(network.parameters())
    x = torch.randn(*batch, generator=torch.Generator().manual_seed(0), dtype=weight.dtype)
    x = x.to(weight.device, memory_format=torch.channels_last)
    found: dict[str, tuple[float, FrozenTeacher]] = {}
    told = []
    with exact_kernels(), on(weight.device):
        exact = FrozenTeacher(network, batch_norm, form="unfolded").taps(x).tensors()
        for form in forms(weight.device, numbers.inputs):
            try:
                teacher = FrozenTeacher(network, batch_norm, numbers, form=form)
                apart = _apart(teacher.taps(x).tensors(), exact)
                took = seconds(lambda teacher=teacher: teacher.taps(x), weight.device)
            except RuntimeError as error:  # cuDNN has no kernel for one of the shapes
                if form == "unfolded" or out_of_memory(error):
                    raise
                told.append(f"{form} not possible ({str(error).splitlines()[0]})")
                continue
            # What the unfolded form loses is the arithmetic's own.
            if form == "unfolded" or apart <= TOLERANCE[numbers.name]:
                found[form] = took, teacher
            told.append(f"{form} {1000 * took:.2f} ms" + f" but off by {apart:.1g}" * (form not in found))
    best = min(found, key=lambda form: found[form][0])
    say(f"teacher's forward pass: {', '.join(told)}; going on {best}")
    return found[best][1]


def _apart(ours: Sequence[torch.Tensor], exact: Sequence[torch.Tensor]) -> float:
    """Length of the difference over that of `exact`, of the worst tap; NaN where a value is."""
    pairs = ((a.double(), b.double()) for a, b in zip(ours, exact, strict=True))
    return torch.stack([(a - b).norm() / b.norm() for a, b in pairs]).max().item()
