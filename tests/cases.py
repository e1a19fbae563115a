"""Every registered method, sums and variants of them, in a small form: what all of them must pass."""

import rkd.review  # noqa: F401  (registers reviewkd)
from rkd.methods import method_names

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
