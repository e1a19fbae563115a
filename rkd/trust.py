"""Code that a name such as "my_package.my_module:function" refers to: imported only if the user vouches for the name.

Records, checkpoints and profiles come from anywhere, and could name any function there is. What they name stays mere
text until the user gives that very name: in a call's arguments, among a notebook's parameters, or as `trust`.
"""

import importlib
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rkd import paths
from rkd.errors import ConfigError, RkdError

_FORM = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")

_TRUSTED: set[str] = set()
_SEEN: dict[str, str] = {}  # where names that were read from files come from


def is_foreign(name: object) -> bool:
    """Whether a name has the form package.module:function."""
    return isinstance(name, str) and _FORM.fullmatch(name) is not None


def foreign_in(values: Any) -> set[str]:
    """Return such names found in plain values at any depth, also in sums ("at+my:loss") and pairs ("my:net/vgg8")."""
    if isinstance(values, str):
        return {part for part in re.split(r"[\s,+/]+", values) if is_foreign(part)}
    if isinstance(values, Mapping):
        values = [*values, *values.values()]
    return {n for v in values for n in foreign_in(v)} if isinstance(values, list | tuple) else set()


def trust(names: Iterable[str]) -> None:
    """Allow these names to be imported in this process; raise ConfigError for one of another form."""
    for name in names:
        if not is_foreign(name):
            raise ConfigError(f"trust names {name!r}; it must name functions, as package.module:function")
        _TRUSTED.add(name)


def trusted() -> frozenset[str]:
    """Return the names that this process may import, to pass on to the processes that work for it."""
    return frozenset(_TRUSTED)


def note_origin(names: Iterable[str], where: str) -> None:
    """Note where names come from, for the message that refuses them."""
    _SEEN.update(dict.fromkeys(names, where))


def import_trusted(kind: str, name: str, form: str) -> Callable[..., Any]:
    """Return the function that a trusted name refers to; `kind` and `form` tell messages what it should be. The user's
    folder is searched last for its module, so that it hides no installed one.

    Raises:
        ConfigError: nobody vouched for the name, it is of Python's own library, or it cannot be imported as a function.
    """
    if name not in _TRUSTED:
        place = f", named by {_SEEN[name]}," if name in _SEEN else ""
        raise ConfigError(
            f"{kind} {name!r}{place} is code from elsewhere, and is not run; if you know and trust it, say --trust "
            f"{name}, or trust = [{name!r}] in a notebook"
        )
    module, _, function = name.partition(":")
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise ConfigError(f"{kind} {name!r} is of Python's own library, which holds no {form}")
    if (folder := str(paths.user_folder())) not in sys.path:
        sys.path.append(folder)
    try:
        found = getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as error:
        where = f"; it is looked for in this folder, {folder}, and in those of PYTHONPATH"
        lacking = isinstance(error, ModuleNotFoundError) and module.startswith(error.name or " ")
        raise ConfigError(f"{kind} {name!r} cannot be imported: {_told(error)}{where * lacking}") from error
    if not callable(found):
        raise ConfigError(f"{kind} {name!r} names a {type(found).__name__}, not a {form}")
    return found


def call_foreign(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a user's own function returns; raise a ConfigError that says what it raised, and where."""
    try:
        return function(*arguments)
    except RkdError:
        raise
    except (Exception, SystemExit) as error:
        *_, last = traceback.extract_tb(error.__traceback__)
        place = "" if last.filename == __file__ else f" ({last.filename}, line {last.lineno})"
        raise ConfigError(f"{what} failed: {_told(error)}{place}") from error


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
