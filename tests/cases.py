"""Every registered method, sums and variants of them, in a small form: what all of them must pass."""

from itertools import pairwise

from torch import nn

import rkd.review  # noqa: F401  (registers reviewkd)
from rkd.methods import method_names
from rkd.models import Taps

SUMS = ("at+kd", "crd+kd", "reviewkd+kd", "ab+kd")
# What would make a run long (stages of one epoch, few negatives), or leave the first epoch without its loss.
SMALL = {
    "reviewkd": {"warmup_epochs": 0},
    "ab": {"init_epochs": 1},
    "ft": {"init_epochs": 1},
    "fsp": {"init_epochs": 1},
    "crd": {"negatives": 40},
}
VARIANTS = {
    "fsp-single": ("fsp", {"schedule": "single_stage"}),
    "crd-relax": ("crd", {"negatives": 40, "positive": "relax"}),
    "logits-pooled": ("logits", {"on": "pooled"}),
    "kdrefine-2022": ("kdrefine", {"statistics": "layer_norm"}),
    "modreduce-pcl": ("modreduce", {"aggregation": "pcl"}),
    "modreduce-one": ("modreduce", {"aggregation": "one"}),
    "modreduce-fc": ("modreduce", {"aggregation": "fc"}),
    "modreduce-late": ("modreduce", {"aggregation": "wavg_fixed", "cutoff_epochs": 1}),
}
CASES = {
    **{name: (name, SMALL.get(name, {})) for name in method_names()},
    **{name: (name, {part: SMALL.get(part, {}) for part in name.split("+")}) for name in SUMS},
    **VARIANTS,
}


class Tiny(nn.Module):
    """Stages of one convolution each, buildable as "cases:Tiny" with three: the least that every method takes."""

    def __init__(self, num_classes, widths=(4, 8, 16, 32), strides=(2, 2, 2)):
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        pairs = zip(pairwise(widths), strides, strict=True)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride, 1) for (a, b), stride in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.fc = nn.Linear(widths[-1], num_classes)

    def final_norms(self):
        return self.norms

    def taps(self, x):
        x = stem = self.stem(x).relu()
        before, after = [], []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            before.append(norm(conv(x)))
            x = before[-1].relu()
            after.append(x)
        pooled = x.mean((2, 3))
        return Taps(stem, tuple(after), tuple(before), pooled, self.fc(pooled))

    def forward(self, x):
        return self.taps(x).logits
