"""Networks by name. A user registers an own network the same way the package does."""

import importlib
from collections.abc import Callable

from torch import nn

from rkd.errors import ConfigError, unknown

_BUILDERS: dict[str, Callable[[int], nn.Module]] = {}


def register(name: str) -> Callable[[Callable[[int], nn.Module]], Callable[[int], nn.Module]]:
    """Decorator: make `builder(num_classes) -> network` buildable as `name`.

    >>> @register("my_net")
    ... def my_net(num_classes):
    ...     return MyNet(num_classes)
    """

    def add(builder: Callable[[int], nn.Module]) -> Callable[[int], nn.Module]:
        _BUILDERS[name] = builder
        return builder

    return add


def names() -> list[str]:
    """All registered names, sorted."""
    return sorted(_BUILDERS)


def check_name(name: str) -> None:
    """Raise ConfigError unless `build` could find `name`."""
    if name not in _BUILDERS and ":" not in name:
        raise unknown("model", name, names())


def build(name: str, num_classes: int = 100) -> nn.Module:
    """A freshly initialised network on the CPU, drawing from torch's global random stream.

    `name` is a registered name, or `package.module:function` naming a function of `num_classes`.

    Raises:
        ConfigError: no such network.
    """
    if ":" in name:
        module, _, function = name.partition(":")
        try:
            builder = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"model {name!r} cannot be imported: {error}") from error
        return builder(num_classes)
    check_name(name)
    return _BUILDERS[name](num_classes)
