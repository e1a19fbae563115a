"""Networks by name. A user registers an own network the same way the package does."""

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from rkd.errors import ConfigError, unknown

Builder = Callable[[int], nn.Module]


@dataclass(frozen=True)
class _Entry:
    build: Builder
    display: str
    group: str
    deployed: Builder | None


@dataclass(frozen=True)
class _Family:
    pattern: re.Pattern[str]
    form: str
    display: str
    check: Callable[..., None]
    build: Callable[..., nn.Module]


OWN = "own"  # group of networks registered without one
DEPLOYED = "_deploy"  # a reparameterised network's name and this are the name of its deploy form

_ENTRIES: dict[str, _Entry] = {}
_SPELLINGS: dict[str, str] = {}  # spelling without case and separators -> registered name
_FAMILIES: list[_Family] = []


def register(
    name: str,
    *,
    display: str | None = None,
    aliases: Sequence[str] = (),
    group: str = OWN,
    deployed: Builder | None = None,
) -> Callable[[Builder], Builder]:
    """Decorator: make `builder(num_classes) -> network` buildable as `name`.

    Args:
        name: as written in configurations and records.
        display: as written in tables and figures; default `name`.
        aliases: further names that mean the same network.
        group: heading in lists.
        deployed: builds the deploy form of a reparameterised network, buildable as `<name>_deploy` (see reparam).

    Example:
        >>> @register("my_net")
        ... def my_net(num_classes):
        ...     return MyNet(num_classes)
    """

    def add(builder: Builder) -> Builder:
        _ENTRIES[name] = _Entry(builder, display or name, group, deployed)
        for spelling in (name, *aliases):
            _SPELLINGS[_squash(spelling)] = name
        return builder

    return add


def register_family(
    pattern: str, *, form: str, display: str, check: Callable[..., None]
) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Decorator: make `builder(num_classes, *numbers) -> network` buildable for every name of a pattern.

    Registered names go before families.

    Args:
        pattern: regular expression over the name in lower case, without separators except a "_" between two
            digits; every group is a whole number.
        form: canonical name, a format string of the numbers, such as "wrn_{}_{}".
        display: as written in tables, a format string of the numbers.
        check: called with the numbers, raises ConfigError for those that are not allowed.
    """

    def add(builder: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        _FAMILIES.append(_Family(re.compile(pattern), form, display, check, builder))
        return builder

    return add


def names() -> list[str]:
    """All registered names, sorted. Families have further members beyond these, reparameterised networks their deploy
    forms."""
    return sorted(_ENTRIES)


def groups() -> dict[str, list[str]]:
    """Registered names by group: groups sorted, own networks last; names in the order of registration."""
    found: dict[str, list[str]] = {}
    for name, entry in sorted(_ENTRIES.items(), key=lambda item: (item[1].group == OWN, item[1].group)):
        found.setdefault(entry.group, []).append(name)
    return found


def deploy_name(name: str) -> str:
    """Canonical name of a reparameterised network's deploy form.

    Raises:
        ConfigError: no such network, or none with a registered deploy form.
    """
    return _find_deployed(canonical(name))[0]


def canonical(name: str) -> str:
    """The name used in configurations and records for any common spelling of it.

    Case, spaces, hyphens and underscores do not matter, except between two digits, where one must stand.
    `package.module:function` stays as it is.

    >>> canonical("ResNet-56"), canonical("WRN40-2"), canonical("ShuffleV1")
    ('resnet56', 'wrn_40_2', 'shufflenetv1')

    Raises:
        ConfigError: no such network.
    """
    return _find(name)[0]


def display_name(name: str) -> str:
    """The spelling of tables and figures: "wrn_40_2" -> "WRN-40-2".

    Raises:
        ConfigError: no such network.
    """
    return _find(name)[1]


def check_name(name: str) -> None:
    """Raise ConfigError unless `build` could find `name`; `package.module:function` is not imported here."""
    _find(name)


def build(name: str, num_classes: int = 100) -> nn.Module:
    """A freshly initialised network on the CPU, drawing from torch's global random stream.

    `name` is a registered name in any spelling, a member of a family (`wrn_22_4`), a deploy form
    (`represnet20_deploy`), or `package.module:function` naming a function of `num_classes`.

    Raises:
        ConfigError: no such network, or what the function returns has no `taps`.
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise ConfigError(f"num_classes must be a whole number of at least 1, not {num_classes!r}")
    return _find(name)[2](num_classes)


def _find(name: str) -> tuple[str, str, Builder]:
    """Canonical name, display name and builder."""
    if not isinstance(name, str):
        raise unknown("model", name, _allowed())
    if ":" in name:
        return name, name, partial(_build_imported, name)
    squashed = _squash(name)
    key = name if name in _ENTRIES else _SPELLINGS.get(squashed)
    if key is not None:
        return key, _ENTRIES[key].display, _ENTRIES[key].build
    if squashed.endswith(_squash(DEPLOYED)):
        return _find_deployed(_find(squashed.removesuffix(_squash(DEPLOYED)))[0])
    for family in _FAMILIES:
        if match := family.pattern.fullmatch(squashed):
            numbers = [int(group) for group in match.groups()]
            family.check(*numbers)
            found = family.form.format(*numbers)
            build_member = partial(_build_member, family, numbers)
            return found, family.display.format(*numbers), build_member
    raise unknown("model", name, _allowed())


def _find_deployed(name: str) -> tuple[str, str, Builder]:
    """The deploy form of the network of that canonical name."""
    entry = _ENTRIES.get(name)
    if entry is None or entry.deployed is None:
        having = ", ".join(name for name, entry in sorted(_ENTRIES.items()) if entry.deployed)
        raise ConfigError(
            f"model {name!r} has no deploy form, since it was not registered with one; those that have: {having}"
        )
    return f"{name}{DEPLOYED}", f"{entry.display} deploy", entry.deployed


def _build_member(family: _Family, numbers: list[int], num_classes: int) -> nn.Module:
    return family.build(num_classes, *numbers)


def _allowed() -> list[str]:
    return [*names(), *(family.form.format("<depth>", "<width>") for family in _FAMILIES)]


def _squash(name: str) -> str:
    """Lower case without separators; between two digits one "_" stays, since wrn_16_1 is not wrn_1_61."""
    name = re.sub(r"[\s_\-]+", "_", name.strip().lower().replace("×", "x"))
    return re.sub(r"(?<!\d)_|_(?!\d)", "", name)


def imported(kind: str, name: str, form: str) -> Callable[..., Any]:
    """The function that "package.module:function" names.

    Args:
        kind: "model" or "method", for the message.
        name: what was written.
        form: what the function has to be.

    Raises:
        ConfigError: no such module or function.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"{kind} {name!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ConfigError(f"{kind} {name!r} names a {type(found).__name__}, not a {form}")
    return found


def _build_imported(name: str, num_classes: int) -> nn.Module:
    network = imported("model", name, "function of num_classes")(num_classes)
    if not (isinstance(network, nn.Module) and callable(getattr(network, "taps", None))):
        raise ConfigError(
            f"model {name!r} returns a {type(network).__name__} without a taps(x) method; wrap any torch "
            "module with rkd.models.from_module"
        )
    return network
