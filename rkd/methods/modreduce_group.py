"""How ModReduce makes one set of logits out of three students'."""

import torch
from torch import Tensor, nn

COUNT = 3  # students


class Mean(nn.Module):
    """Group logits from the students': their mean. PCL trains no aggregator; this is the group that is scored. The
    others derive from it; each is built for a number of classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()

    def forward(self, logits: Tensor, images: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits of the group (B, classes), and the share (3,) each student has in them, which sums to 1.

        Args:
            logits: (3, B, classes), of response, relational and feature student.
            images: (B, 3, H, W), for aggregations that look at them.
        """
        return logits.mean(0), logits.new_full((COUNT,), 1 / COUNT)

    def after_step(self, made: Tensor) -> None:
        """See `Method.after_step`."""


class ReplacedAverage(Mean):
    """One weight per student. The released code replaces the stored weights by their softmax before each use, once a
    step; to do so after each step is the same, and leaves `forward` without side effects."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.weights = nn.Parameter(torch.full((COUNT,), 1 / COUNT))  # the softmax of equal weights

    def forward(self, logits: Tensor, images: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (self.weights[:, None, None] * logits).sum(0), self.weights.detach().clone()

    @torch.no_grad()
    def after_step(self, made: Tensor) -> None:
        self.weights.copy_(torch.where(made, self.weights.softmax(0), self.weights))


class FreeAverage(Mean):
    """The softmax of one free weight per student: what `wavg` would be without its replacements."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.weights = nn.Parameter(torch.zeros(COUNT))

    def forward(self, logits: Tensor, images: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shares = self.weights.softmax(0)
        return (shares[:, None, None] * logits).sum(0), shares.detach()


class GatedAverage(Mean):
    """Shares for each image from the image itself, averaged over its four quarters (ONE's gate, on pixels)."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.gate = nn.Linear(3 * 2 * 2, COUNT)

    def forward(self, logits: Tensor, images: Tensor | None = None) -> tuple[Tensor, Tensor]:
        quarters = nn.functional.adaptive_avg_pool2d(images.to(logits.dtype), 2).flatten(1)
        shares = self.gate(quarters).relu().softmax(1)
        return torch.einsum("bs,sbc->bc", shares, logits), shares.detach().mean(0)


class LinearLayer(Mean):
    """A linear layer on the logits of all students. A student's share is the norm of its block of the matrix over the
    sum of the three norms."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.linear = nn.Linear(COUNT * classes, classes)

    def forward(self, logits: Tensor, images: Tensor | None = None) -> tuple[Tensor, Tensor]:
        norms = self.linear.weight.detach().unflatten(1, (COUNT, -1)).square().sum((0, 2)).sqrt()
        return self.linear(torch.cat(tuple(logits), 1)), norms / norms.sum()


AGGREGATIONS: dict[str, type[Mean]] = {
    "wavg": ReplacedAverage, "wavg_fixed": FreeAverage, "one": GatedAverage, "fc": LinearLayer, "pcl": Mean,
}  # fmt: skip
