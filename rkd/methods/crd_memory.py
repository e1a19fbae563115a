"""CRD's two memories of embeddings, and the contrastive loss of one side against the other's memory (Tian et al. 2020,
section 3.2; the constants as in RepDistiller)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-7
# Images per wanted score up to which one product with the whole memory is quicker than gathering the wanted rows
# (B x K x D numbers): break-even lies near 50 on a CPU with D = 128, and higher on GPUs, where the product costs less.
PRODUCT_UP_TO = 32


class Memory(nn.Module):
    """One embedding per training image, and the constant Z that its scores are divided by.

    Args:
        images: N.
        dim: D of the embeddings.

    Attributes:
        rows: (N, D), drawn uniformly from +-1 / sqrt(D / 3), which makes their expected squared length 1.
        z: scalar; 0 until the first update has fixed it.
    """

    def __init__(self, images: int, dim: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(dim / 3)
        self.register_buffer("rows", torch.empty(images, dim).uniform_(-bound, bound))
        self.register_buffer("z", torch.zeros(()))

    def contrast(self, embedding: Tensor, wanted: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """The loss of embeddings of the other network against this memory.

        With p_bi = exp(rows_i . e_b / T) / Z and c = K / N, the loss is
        -1/B sum_b [log p/(p + c + eps) of the positive + sum over negatives of log c/(p + c + eps)].

        Args:
            embedding: (B, D), of length 1.
            wanted: (B, 1 + K) int64, images: each one's positive and then its negatives.
            temperature: T.

        Returns:
            (loss, z): the scalar, and the constant used: `self.z`, or in the first step the mean of the B (1 + K)
            scores before division, times N.
        """
        images, share = len(self.rows), (wanted.shape[1] - 1) / len(self.rows)
        scores = similarities(self.rows, embedding / temperature, wanted).exp()
        z = torch.where(self.z > 0, self.z.to(scores.dtype), scores.detach().mean() * images)
        p = scores / z
        # The same logarithms, in the form that keeps their digits where p is small against c, or large.
        positive = torch.log1p((share + EPS) / p[:, 0])
        negative = torch.log1p((p[:, 1:] + EPS) / share)
        return (positive.sum() + negative.sum()) / len(p), z

    @torch.no_grad()
    def update(self, indices: Tensor, embedding: Tensor, momentum: float, z: Tensor) -> None:
        """row <- normalise(momentum row + (1 - momentum) embedding) for the images `indices` (B,), all different; and
        fix the constant."""
        old = self.rows.index_select(0, indices).to(embedding.dtype)
        new = F.normalize(momentum * old + (1 - momentum) * embedding, dim=1)
        self.rows.index_copy_(0, indices, new.to(self.rows.dtype))
        self.z.copy_(z)


def similarities(rows: Tensor, embedding: Tensor, wanted: Tensor) -> Tensor:
    """Products of each embedding with the rows wanted for it.

    Args:
        rows: (N, D).
        embedding: (B, D).
        wanted: (B, K) int64, rows.

    Returns:
        (B, K), [b, k] = rows[wanted[b, k]] . embedding[b]. Which way they are computed is a matter of sizes alone: all
        N x B products and a selection of them, or, with few wanted of very many, the rows themselves gathered.
    """
    rows = rows.to(embedding.dtype)
    if len(rows) <= PRODUCT_UP_TO * wanted.shape[1]:
        return (embedding @ rows.t()).gather(1, wanted)
    gathered = rows.index_select(0, wanted.flatten()).view(*wanted.shape, rows.shape[1])
    return torch.bmm(gathered, embedding[:, :, None]).squeeze(2)
