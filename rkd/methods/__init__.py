"""Distillation methods, one file each; the interface; and the registry a user's own method joins with a decorator."""

import importlib
import pkgutil

from rkd.methods.base import (
    Batch,
    Context,
    Method,
    MethodEntry,
    Options,
    SingleLoss,
    Stage,
    method_names,
    register_method,
)
from rkd.methods.sum import get_method, make_options

# Importing a method's file registers it. ReviewKD, the subject of the book, has a package of its own: rkd.review.
for _file in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_file.name)
