"""The frozen teacher of a run."""

import torch
from torch import nn

from rkd.models.frozen import freeze
from rkd.models.taps import Taps
from rkd.training.arithmetic import Arithmetic


class FrozenTeacher(nn.Module):
    """A network that never learns, and gives its taps.

    Args:
        network: already on its device; its parameters are frozen in place.
        batch_norm: "running" evaluates with the running statistics; BatchNorm is then folded into the convolutions.
            "batch" normalises each batch by its own statistics, as train mode does. The running statistics, which the
            released codes let drift meanwhile, are left alone: nothing computed in this mode reads them.
        numbers: the run's arithmetic; None: the network's own precision.
        compile: see Engine.
        image_size: height and width of the images it will see.

    Attributes:
        form: "folded", or "unfolded" if there was nothing to fold; None if the network could not be traced as a graph
            (its code depends on its data, or reads maps by hooks) and runs as it is.
        folded: number of BatchNorm layers folded into convolutions; None likewise.
    """

    def __init__(
        self,
        network: nn.Module,
        batch_norm: str,
        numbers: Arithmetic | None = None,
        compile: bool = False,
        image_size: int = 32,
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
        frozen = freeze(self.network, self._numbers.low, image_size)
        self.folded = None if frozen is None else frozen.folded
        self.form = None if frozen is None else "folded" if frozen.folded else "unfolded"
        self._run = self.network if frozen is None else frozen
        if compile and frozen is not None:
            # Weights that never change become constants of the kernels. A CUDA graph is captured around these later.
            frozen.graph_module = torch.compile(
                frozen.graph_module, dynamic=False, options={"freezing": True, "triton.cudagraphs": False}
            )

    @torch.no_grad()
    def taps(self, x: torch.Tensor) -> Taps:
        """Return the taps of a batch (B, 3, H, W), without gradient, in the run's low precision where it has one."""
        with self._numbers.autocast(x.device):  # its weights are stored in low precision
            return self._run.taps(x.to(self._numbers.low or self._numbers.master))
