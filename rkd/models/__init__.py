"""Networks by name, with feature taps; importing this package registers the built-in ones."""

import importlib
import pkgutil

from rkd.models.checkpoints import load_weights, not_finite, stated_accuracy
from rkd.models.external import from_module
from rkd.models.registry import (
    build,
    builder_of,
    canonical,
    deploy_name,
    display_name,
    groups,
    names,
    register,
    trust,
)
from rkd.models.reparam import deploy, is_reparameterised
from rkd.models.taps import Taps, macs, parameter_count, tap_shapes

for _file in pkgutil.iter_modules(__path__, f"{__name__}."):  # importing a family's file registers it
    importlib.import_module(_file.name)
