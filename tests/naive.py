"""Building blocks of formulas written out, for tests: slow, plain, and by no code of the package."""

import torch


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softmax(z):
    """Of a vector."""
    e = (z - z.max()).exp()
    return e / e.sum()


def kl(student, teacher, temperature, floor=0.0):
    """T^2 sum q log(q / p) / B of logits, image by image; `floor` is added to q."""
    total = 0.0
    for ours, theirs in zip(student, teacher, strict=True):
        p, q = softmax(ours / temperature), softmax(theirs / temperature) + floor
        total = total + (q * (q / p).log()).sum()
    return temperature**2 * total / len(student)


def cross_entropy(logits, labels):
    """Mean over images."""
    return sum(-softmax(row)[label].log() for row, label in zip(logits, labels, strict=True)) / len(labels)


def batch_norm(layer, x):
    """By the statistics of the batch, with biased variance; (B, C) or (B, C, H, W)."""
    every = [d for d in range(x.ndim) if d != 1]
    mean = x.mean(every, keepdim=True)
    variance = ((x - mean) ** 2).mean(every, keepdim=True)
    form = [-1, *[1] * (x.ndim - 2)]
    return (x - mean) / (variance + layer.eps).sqrt() * layer.weight.view(form) + layer.bias.view(form)


def conv1x1(layer, x):
    out = torch.einsum("oc,bchw->bohw", layer.weight[:, :, 0, 0], x)
    return out if layer.bias is None else out + layer.bias[:, None, None]


def pool(x, size, kind="average"):
    """Adaptive pooling of (..., H, H) by its definition: cell i covers [floor(iH/n), ceil((i+1)H/n))."""
    h = x.shape[-1]
    spans = [slice(i * h // size, -(-(i + 1) * h // size)) for i in range(size)]
    cells = [[x[..., rows, columns].flatten(-2) for columns in spans] for rows in spans]
    done = [[c.mean(-1) if kind == "average" else c.amax(-1) for c in row] for row in cells]
    return torch.stack([torch.stack(row, -1) for row in done], -2)


def nearest(x, size):
    """Nearest-neighbour resize by index arithmetic."""
    rows = torch.arange(size) * x.shape[2] // size
    return x[:, :, rows][:, :, :, rows]
