"""Dataclasses whose fields hold their annotated types, whatever spelling of a value YAML, JSON or a caller had."""

import functools
import typing
from collections.abc import Mapping
from dataclasses import fields
from types import UnionType
from typing import Any

from rkd import config
from rkd.errors import ConfigError, unknown


def build_dataclass(kind: type, values: Mapping[str, Any]) -> Any:
    """`kind(**values)`, with one clear sentence for unknown keys and lists turned into tuples."""
    if hasattr(kind, "__pydantic_validator__"):  # of rkd.config, or derived from one of those
        return config.build(kind, values)
    allowed = [f.name for f in fields(kind)]
    for name in values:
        if name not in allowed:
            raise unknown(f"{kind.__name__} setting", name, allowed)
    made = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    hints = _hints(kind)
    for name, value in made.items():
        made[name] = _coerced(name, value, hints[name])
    return kind(**made)


def coerce(made: Any) -> None:
    """Bring each field to its annotated type, so that 1 and 1.0 hash alike; ConfigError where that is impossible."""
    hints = _hints(type(made))
    for f in fields(made):
        object.__setattr__(made, f.name, _coerced(f.name, getattr(made, f.name), hints[f.name]))


def _coerced(name: str, value: Any, hint: Any) -> Any:
    options = typing.get_args(hint) if typing.get_origin(hint) in (UnionType, typing.Union) else (hint,)
    if value is None and type(None) in options:
        return None
    kinds = [o for o in options if o is not type(None)]
    if Any in kinds or len(kinds) != 1:
        return value
    kind = kinds[0]
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name} is {value!r}; it must be a list")
        return tuple(_coerced(name, v, typing.get_args(kind)[0]) for v in value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{name} is {value!r}; it must be of type {kind.__name__}")
    return value


def number_or_auto(name: str, value: object) -> int | str:
    """ "auto" or a whole number >= 1, which may come as text; ConfigError for anything else."""
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if number != "auto" and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
        raise ConfigError(f"{name} is {value!r}; it must be auto or a whole number >= 1")
    return number


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """Types of a dataclass's fields: chapters of hundreds of runs ask often."""
    return typing.get_type_hints(kind)
