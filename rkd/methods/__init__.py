"""Distillation methods, one file each; the interface; and the registry a user's own method joins with a decorator."""

# Importing a method's file registers it. ReviewKD, the subject of the book, has a package of its own: rkd.review.
from rkd.methods import (  # noqa: F401
    ab,
    at,
    cc,
    crd,
    dkd,
    fitnet,
    fsp,
    ft,
    kd,
    kdrefine,
    kdsvd,
    logits,
    modreduce,
    nst,
    ofd,
    pkt,
    relational,
    semckd,
    sp,
    srrl,
    vid,
)
from rkd.methods.base import (
    Batch,
    Context,
    Entry,
    Method,
    Options,
    SingleLoss,
    Stage,
    method_names,
    register_method,
)
from rkd.methods.sum import get_method, make_options

__all__ = [
    "Batch", "Context", "Entry", "Method", "Options", "SingleLoss", "Stage", "get_method", "make_options",
    "method_names", "register_method",
]  # fmt: skip
