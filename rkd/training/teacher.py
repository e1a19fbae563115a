"""The frozen teacher of a run."""

import torch
from torch import nn

from rkd.models.taps import Taps


class FrozenTeacher:
    """Gives taps of a network that never learns.

    Args:
        network: on its device; its parameters are frozen in place.
        batch_norm: "running" evaluates with the running statistics. "batch" normalises each batch by its own
            statistics, as train mode does. The running statistics, which the released codes let drift meanwhile, are
            left alone: nothing that is computed in this mode reads them.
    """

    def __init__(self, network: nn.Module, batch_norm: str) -> None:
        self.network = network.requires_grad_(False).eval()
        if batch_norm == "batch":
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.train()
                    module.momentum = 0.0  # new = 1.0 * running + 0.0 * batch
                    module.num_batches_tracked = None  # spares one counter update per layer and step

    @torch.no_grad()
    def taps(self, x: torch.Tensor) -> Taps:
        """Taps of a batch, without gradient."""
        return self.network.taps(x)
