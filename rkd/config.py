"""Typed, frozen configuration: dataclasses checked by pydantic, with one clear sentence for what is not allowed.

>>> from typing import Literal
>>> @frozen
... class Example:
...     epochs: Count = 240
...     connector: Literal["residual", "none"] = "residual"
>>> Example(epochs=0)
Traceback (most recent call last):
    ...
rkd.errors.ConfigError: epochs is 0; it must be a whole number >= 1
"""

import functools
import inspect
import math
import re
import sys
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform, get_args

from pydantic import BeforeValidator, Field, StrictBool, TypeAdapter, ValidationError, ValidationInfo
from pydantic.dataclasses import dataclass as checked_dataclass
from pydantic.dataclasses import rebuild_dataclass

from rkd.errors import ConfigError, unknown

T = TypeVar("T")
LARGEST = sys.float_info.max
# Unwanted in text that is shown: a terminal obeys them, and the last ones reverse the reading direction.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
STRICT = "strict"  # validation context in which text is never taken for a number
SCIENTIFIC = r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"  # text in YAML 1.1, and so also when papermill injects it


def _number(
    kind: type[float], least: float, words: str, *, above: bool = False, below: float = math.inf
) -> BeforeValidator:
    """Return a validator that accepts 1 as 1.0 and 1.0 as 1, so that both give the same hash. Booleans are refused, and
    so is text, except scientific notation such as 1e-3 outside STRICT."""

    largest = 2**63 - 1 if kind is int else LARGEST

    def check(value: Any, info: ValidationInfo) -> float:
        if isinstance(value, str) and info.context != STRICT and re.fullmatch(SCIENTIFIC, value, re.ASCII):
            value = float(value)
        right = isinstance(value, int | float) and not isinstance(value, bool)
        if right and abs(value) > largest:  # infinity too
            raise ValueError(f"it must be {words}, and no more than {largest:.2g}")
        if not right or not least <= value < below or kind(value) != value or (above and value == least):
            raise ValueError(f"it must be {words}")
        return kind(value)

    return BeforeValidator(check)


Count = Annotated[int, _number(int, 1, "a whole number >= 1")]
Natural = Annotated[int, _number(int, 0, "a whole number >= 0")]
Weight = Annotated[float, _number(float, 0, "a finite number >= 0")]
Positive = Annotated[float, _number(float, 0, "a finite number > 0", above=True)]
Percent = Annotated[float, _number(float, 0, "a number between 0 and 100", below=math.nextafter(100, 101))]
Share = Annotated[float, _number(float, 0, "a number between 0 and 1", above=True, below=1.0)]
ErrorRate = Annotated[float, _number(float, 0, "a number between 0 and 0.5", above=True, below=0.5)]
Flag = StrictBool
Precision = Literal["auto", "fp32", "bf16", "fp16", "fp64"]  # see `rkd.training.arithmetic`
PRECISIONS = get_args(Precision)
# What "auto" can become, in order of preference where nothing else decides.
SETTLED = ("fp32", "fp16", "bf16")


def _count_or_auto(value: Any) -> Any:
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if number != "auto" and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
        raise ValueError("it must be auto or a whole number >= 1")
    return number


CountOrAuto = Annotated[int | str, BeforeValidator(_count_or_auto)]


_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def size(text: str) -> int:
    """Return the bytes of "15MB", "900kB", "1GiB" or "2000000" (kB, MB, GB: powers of 1000; KiB, MiB, GiB: of 1024).

    Raises:
        ConfigError: the text has another form, or means less than 1 kB.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower(), re.ASCII)
    unit = _UNITS.get(match[2] or "b") if match else None
    found = int(float(match[1]) * unit) if unit else 0
    if found < 1000:  # smaller parts would be more numerous than useful
        raise ConfigError(
            f"{text!r} is not a size of at least 1kB; write a number and B, kB, MB, GB, KiB, MiB or GiB, "
            "for example 15MB"
        )
    return found


Bytes = Annotated[
    int, BeforeValidator(lambda value: size(value) if isinstance(value, str) else value), Field(ge=0)
]


@dataclass_transform(frozen_default=True)
def frozen(cls: type[T]) -> type[T]:
    """Class decorator: make a frozen dataclass whose values are checked, and converted to their types, on construction.

    Lists become tuples, and mappings the dataclasses that fields are annotated with. Construction raises ConfigError
    for an unknown name, a value that does not fit its type, or what `__post_init__` raises.
    """
    made = checked_dataclass(frozen=True, config={"arbitrary_types_allowed": True, "extra": "forbid"})(cls)
    return _telling(made)


def rebuild(cls: type) -> None:
    """Complete a class made by `frozen` whose annotations name a later one; call it once that is defined."""
    rebuild_dataclass(cls, force=True, _parent_namespace_depth=2)
    _telling(cls)


def _telling(cls: type[T]) -> type[T]:
    """Give a class an `__init__` that raises ConfigError; pydantic installs its own whenever it builds the class."""
    make = cls.__init__

    @functools.wraps(make)
    def init(self: Any, *args: Any, **values: Any) -> None:
        try:
            make(self, *args, **values)
        except ValidationError as error:
            raise _sentence(error, type(self)) from None

    cls.__init__ = init
    return cls


def from_values(kind: type[T], values: Mapping[str, Any], context: str | None = None) -> T:
    """Return a `kind` built from plain values, also nested, as JSON, YAML and notebook parameters hold them.

    Args:
        kind: a class made by `frozen`, or any dataclass.
        context: STRICT: text is never taken for a number, at any depth.

    Raises:
        ConfigError: as on construction.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{kind.__name__} is {abbreviated(values)}; it must map names to values")
    for name in values:
        if name not in (allowed := [f.name for f in fields(kind)]):
            raise unknown(f"{kind.__name__} setting", name, allowed)
    try:
        return _adapter(kind).validate_python(dict(values), context=context)
    except ValidationError as error:
        raise _sentence(error, kind) from None


def validate(kind: Any, name: str, value: Any, context: str | None = None) -> Any:
    """Return one value converted to a `kind` such as Count, as `from_values` does; a ConfigError calls it `name`."""
    try:
        return _adapter(kind).validate_python(value, context=context)
    except ValidationError as error:
        raise _sentence(error, kind, name) from None


@functools.cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)


def _sentence(error: ValidationError, kind: type, name: str | None = None) -> ConfigError:
    """Return a validation's first error as one sentence that names the value and what is allowed."""
    found = error.errors(include_url=False)[0]
    what, context, place = found["type"], found.get("ctx", {}), found["loc"]
    if isinstance(cause := context.get("error"), ConfigError):
        return cause
    name = name or next((str(part) for part in reversed(place) if isinstance(part, str)), kind.__name__)
    if what == "literal_error":
        allowed = context["expected"].replace(" or ", ", ").split(", ")
        return unknown(name, found["input"], [part.strip("' ") for part in allowed])
    if what in ("unexpected_keyword_argument", "extra_forbidden"):
        for part in place[:-1]:  # find the dataclass that was given the name
            hint = typing.get_type_hints(kind).get(part)
            kind = next((k for k in (hint, *get_args(hint)) if is_dataclass(k)), kind)
        return unknown(f"{kind.__name__} setting", name, [f.name for f in fields(kind)])
    if what in ("missing", "missing_argument"):
        return ConfigError(f"{kind.__name__} needs {name}")
    return ConfigError(
        f"{name} is {abbreviated(found['input'])}; {_WORDS.get(what) or cause or found['msg']}"
    )


def abbreviated(value: object) -> str:
    """Return a value's `repr` for use in a sentence, cut off after 200 characters."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


_WORDS = {
    "tuple_type": "it must be a list",
    "bool_type": "it must be True or False",
    "too_short": "it must be a list with at least one entry",
    "string_type": "it must be text",
    "int_type": "it must be a whole number",
    "float_type": "it must be a number",
    "dict_type": "it must map names to values",
    "mapping_type": "it must map names to values",
}


def docstring_entries(source: type | str, section: str = "Attributes") -> dict[str, str]:
    """Return what names mean: the entries of one section of a docstring, or of those of a class and its bases."""
    docs = (
        [source]
        if isinstance(source, str)
        else [inspect.cleandoc(b.__doc__ or "") for b in source.__mro__[::-1]]
    )
    found: dict[str, str] = {}
    for doc in docs:
        entries = f"\n{doc}\n\n".partition(f"\n{section}:\n")[2].partition("\n\n")[0]
        for names, text in re.findall(r"^    (\w[\w, ]*): (.*(?:\n {5,}.*)*)", entries, re.MULTILINE):
            found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found
