"""Networks by name. Users register their own networks in the same way as the package does."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from rkd.config import Count, validate
from rkd.errors import unknown
from rkd.models.taps import check_network
from rkd.trust import call_foreign, import_trusted, is_foreign, trust  # noqa: F401

Builder = Callable[[int], nn.Module]
OWN = "own"  # group of networks registered without one
DEPLOYED = "_deploy"  # appended to a reparameterised network's name, it gives the name of its deploy form


@dataclass(frozen=True)
class NetworkEntry:
    """A network's canonical name, its name in tables, its builder for a number of classes, and its heading in lists
    (None: it is not listed)."""

    name: str
    display: str
    build: Builder
    group: str | None = None


_ENTRIES: dict[str, NetworkEntry] = {}  # by spelling, without case and separators
# By the form of their names: a regular expression for a name in lower case, without separators except a "_" between two
# digits, whose groups are whole numbers, and a function that makes an entry of these numbers or raises ConfigError.
# Registered names take precedence over families.
FAMILIES: dict[str, tuple[str, Callable[..., NetworkEntry]]] = {}


def register(
    name: str,
    *,
    display: str | None = None,
    aliases: Sequence[str] = (),
    group: str = OWN,
    deployed: Builder | None = None,
) -> Callable[[Builder], Builder]:
    """Return a decorator that makes `builder(num_classes) -> network` buildable as `name`.

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
    shown = display or name

    def add(builder: Builder) -> Builder:
        for spelling in (name, *aliases):
            _ENTRIES[_squash(spelling)] = NetworkEntry(name, shown, builder, group)
            if deployed is not None:
                _ENTRIES[_squash(spelling + DEPLOYED)] = NetworkEntry(
                    name + DEPLOYED, f"{shown} deploy", deployed
                )
        return builder

    return add


def names() -> list[str]:
    """Return all registered names, sorted; further members of families, and the deploy forms of reparameterised
    networks, are not among them."""
    return sorted({entry.name for entry in _ENTRIES.values() if entry.group})


def groups() -> dict[str, list[str]]:
    """Return registered names by group: groups sorted, with "own" last; names in the order of registration."""
    listed = {entry.name: entry.group for entry in _ENTRIES.values() if entry.group}
    heads = sorted(set(listed.values()), key=lambda group: (group == OWN, group))
    return {head: [name for name, group in listed.items() if group == head] for head in heads}


def deploy_name(name: str) -> str:
    """Return the canonical name of a reparameterised network's deploy form; ConfigError for an unknown network."""
    return canonical(name) + DEPLOYED


def canonical(name: str) -> str:
    """Return the name used in configurations and records, given any common spelling of it.

    Case, spaces, hyphens and underscores do not matter, except that a separator must stand between two numbers.
    `package.module:function` is returned as it is, and not imported here.

    >>> canonical("ResNet-56"), canonical("WRN40-2"), canonical("ShuffleV1")
    ('resnet56', 'wrn_40_2', 'shufflenetv1')

    Raises:
        ConfigError: no such network.
    """
    return _find(name).name


def display_name(name: str) -> str:
    """Return a name as tables and figures spell it: "wrn_40_2" -> "WRN-40-2"; ConfigError for an unknown network."""
    return _find(name).display


def builder_of(name: str) -> Callable[..., object]:
    """Return the function or class that builds a network; raise ConfigError for an unknown or untrusted one."""
    if is_foreign(name):
        return import_trusted("model", name, "function of num_classes")
    found = _find(name).build
    return found.func if isinstance(found, partial) else found


def build(name: str, num_classes: int = 100) -> nn.Module:
    """Return a freshly initialised network on the CPU; its weights are drawn from torch's global random stream.

    `name` is a registered name in any spelling, a member of a family (`wrn_22_4`), a deploy form
    (`represnet20_deploy`), or `package.module:function` naming a function of `num_classes`, which has to be trusted
    (see `rkd.trust`). Raises ConfigError for another name, for a function that is not trusted or fails, and for one
    that returns no network with `taps`.
    """
    network = _find(name).build(validate(Count, "num_classes", num_classes))
    check_network(f"model {name!r}", network)
    return network


def _find(name: str) -> NetworkEntry:
    if is_foreign(name):
        return NetworkEntry(name, name, partial(_build_imported, name))
    squashed = _squash(name) if isinstance(name, str) else ""
    if squashed in _ENTRIES:
        return _ENTRIES[squashed]
    for pattern, member in FAMILIES.values():
        if match := re.fullmatch(pattern, squashed):
            return member(*map(int, match.groups()))
    raise unknown("model", name, {*(e.name for e in _ENTRIES.values()), *FAMILIES, "package.module:function"})


def _squash(name: str) -> str:
    """Return a name in lower case without separators, but for a "_" between digits: wrn_16_1 is not wrn_1_61."""
    name = re.sub(r"[\s_\-]+", "_", name.strip().lower().replace("×", "x"))
    return re.sub(r"(?<!\d)_|_(?!\d)", "", name)


def _build_imported(name: str, num_classes: int) -> nn.Module:
    builder = import_trusted("model", name, "function of num_classes")
    return call_foreign(f"model {name!r}, built for num_classes,", builder, num_classes)
