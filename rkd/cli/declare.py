"""Command-line options derived from a command's function: its signature defines what a shell user can give.

Parameters before `*` are arguments, those after it options; `**given` stands for every parameter of the chapters
(`rkd.experiments.settings.Settings`), any other `**name` for values by name alone. Types, defaults and choices come
from annotations, help from the docstring, else from that of `Settings`. typer and tyro make parsers from functions too,
but they report a wrong call in a box of ten lines, and do not distinguish a value that was given from a default, which
a profile's value must replace.
"""

import argparse
import contextlib
import functools
import inspect
import json
import os
import shlex
import textwrap
import types
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from rkd.config import docstring_entries, size
from rkd.errors import ConfigError, RkdError
from rkd.experiments.budget import parse_duration
from rkd.experiments.settings import Settings, given_twice, parse_assignment, parse_value
from rkd.trust import foreign_in, trust

Command = Callable[..., int]
_METAVARS = {int: "N", float: "X", Path: "PATH", str: "NAME"}
_ALSO = {"group": ["--gang"], "loss_weight": ["-b"], "ce_weight": ["-r"], "verbose": ["-v"]}


def comma_separated(text: str) -> tuple[str, ...]:
    """ "a, b" -> ("a", "b")."""
    return tuple(name.strip() for name in text.split(","))


def writable_path(text: str, folder: bool = False) -> Path:
    """Return the path of a file to write, or of a folder, which may be new; ConfigError if it cannot be written, before
    anything is computed for it."""
    path = Path(text)
    if path.exists() and path.is_dir() != folder:
        raise ConfigError(f"{text!r} is a {'file; name a folder' if folder else 'folder; name a file in it'}")
    within = path if path.is_dir() else path.absolute().parent
    if not within.is_dir():
        raise ConfigError(f"{str(within)!r}, where {path.name} is to be written, is no folder; make it first")
    if not os.access(within, os.W_OK):
        raise ConfigError(f"the folder {str(within)!r} cannot be written to")
    return path


# A type, the parser of its text, its placeholder in help texts and, optionally, what the option alone means.
Size = Annotated[int, size, "SIZE"]
Names = Annotated[tuple[str, ...], comma_separated, "A,B"]
Duration = Annotated[float, parse_duration, "TIME"]
File = Annotated[Path, writable_path, "FILE"]
Folder = Annotated[Path, functools.partial(writable_path, folder=True), "DIR"]
Lines = Annotated[list[str], str, "CHAPTER/LINE"]  # a list: may be repeated


def add_command(subparsers: Any, name: str, command: Command, summary: str) -> argparse.ArgumentParser:
    """Add a parser whose options are the function's parameters, and return it; the docstring says what the command does
    and what each parameter means, and gives examples."""
    doc, parameters = inspect.cleandoc(command.__doc__ or ""), inspect.signature(command).parameters
    text, _, examples = doc.partition("\n\nExamples:\n")
    shown = textwrap.indent(inspect.cleandoc(examples), "  ")
    first = [
        p.name.upper() if p.default is p.empty else f"[{p.name.upper()}]"
        for p in parameters.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    parser = subparsers.add_parser(
        name, help=summary, description=text.partition("\n\nArgs:\n")[0], epilog=f"examples:\n{shown}",
        usage=" ".join(["%(prog)s", *first, "[OPTIONS]"]), formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    told = docstring_entries(Settings)
    for parameter in parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            _add_values(parser, parameters, told)
        else:
            _add(parser, parameter, (told | docstring_entries(doc, "Args"))[parameter.name])
    parser.add_argument(
        "--trust",
        type=comma_separated,
        action="extend",
        metavar="A,B",
        default=argparse.SUPPRESS,
        help=told["trust"],
    )
    parser.set_defaults(call=command)
    return parser


def call(options: argparse.Namespace) -> int:
    """Call the command with the options given, leaving the others to its defaults; return its exit status."""
    first, values = parsed_values(options)
    return options.call(*first, **values)


class _Once(argparse.Action):
    """An action that takes a value, and rejects a second one that differs."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, value: Any, option: Any = None) -> None:
        before = getattr(namespace, self.dest, value)
        if before is not value and before != value:
            raise given_twice(str(option), before, value)
        setattr(namespace, self.dest, value)


def parsed_values(options: argparse.Namespace) -> tuple[list[Any], dict[str, Any]]:
    """Return what a parsed call passes to its function: positional values, and others by name. Function names among
    the values are trusted.

    Raises:
        ConfigError: a --set that is not NAME=VALUE, a value that is not YAML, a name given twice with different values,
            or the name of one of the command's own options, unless option and value are text.
    """
    values = {name: found for name, found in vars(options).items() if name not in ("call", "command")}
    named, typed = values.pop("set", []), values.pop("typed", [])
    parameters = inspect.signature(options.call).parameters.values()
    own = {p.name: _kinds(p.annotation)[0] for p in parameters if p.kind is not p.VAR_KEYWORD}
    by_name = [*map(parse_assignment, named)]
    by_name += [(name, parse_value(text, f"-p {name} {text!r}")) for name, text in typed]
    for name, found in by_name:
        if name in own and (own[name] is not str or not isinstance(found, str)):
            raise ConfigError(
                f"{name} is an option of the command's own, no parameter: --{name.replace('_', '-')}"
            )
        if name in values and values[name] != found:
            raise given_twice(name, values[name], found)
        values[name] = found
    trust(foreign_in(values))
    if "given" not in {p.name for p in parameters}:
        trust(values.pop("trust", ()))
    first = [values.pop(p.name) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name in values]
    return first, values


def command_line(command: Command, values: dict[str, Any]) -> str:
    """Return the shell command that calls a command with these parameter values (its `locals()` at the start)."""
    words = ["rkd", command.__name__]
    for parameter in inspect.signature(command).parameters.values():
        given = values[parameter.name]
        if parameter.kind is parameter.VAR_KEYWORD:
            words += [word for name, v in given.items() for word in ("--set", f"{name}={_in_yaml(v)}")]
        elif parameter.kind is not parameter.KEYWORD_ONLY:
            words.append(str(given))
        elif given != parameter.default:
            words.append(f"--{parameter.name.replace('_', '-')}")
            if given is not True:
                words.append(",".join(given) if isinstance(given, tuple) else f"{given}")
    return shlex.join(words)


def _in_yaml(found: Any) -> str:
    """Return a value as YAML on one line; text is quoted if it would otherwise mean something else."""
    if isinstance(found, str):
        with contextlib.suppress(ConfigError):
            if parse_value(found) == found:
                return found
    return json.dumps(found, ensure_ascii=False)


def _told(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """Wrap a converter so that its own error message is shown: argparse replaces the message of a ValueError."""

    @functools.wraps(convert)
    def read(text: str) -> Any:
        try:
            return convert(text)
        except ConfigError as error:
            raise RkdError(str(error)) from error

    return read


def _kinds(annotation: Any) -> list[Any]:
    """Return the types that a parameter may have, except None."""
    united = get_origin(annotation) in (Union, types.UnionType)
    return [kind for kind in (get_args(annotation) if united else [annotation]) if kind is not type(None)]


def _add(parser: argparse.ArgumentParser, parameter: inspect.Parameter, text: str) -> None:
    """Add one parameter of a command; an option not given stays unset, so that the function's default applies."""
    if isinstance(parameter.default, str) and "default" not in text:
        text = f"{text.rstrip('.')} (default {parameter.default})"
    kind = _kinds(parameter.annotation)[0]
    how = {"help": text.replace("%", "%%"), "default": argparse.SUPPRESS}
    base, convert, metavar, *alone = get_args(kind) if get_origin(kind) is Annotated else (kind, kind, "")
    if kind is bool:
        how |= {"action": "store_true"}
    elif get_origin(kind) is Literal:
        how |= {"choices": get_args(kind)}
    else:
        how |= {"type": _told(convert), "metavar": metavar or _METAVARS[base]}
        how |= {"nargs": "?", "const": alone[0]} if alone else {}
        how |= {"action": "append" if get_origin(base) is list else _Once}
    needed = parameter.default is parameter.empty
    if parameter.kind is parameter.KEYWORD_ONLY:
        spelt = [f"--{parameter.name.replace('_', '-')}", *_ALSO.get(parameter.name, [])]
        parser.add_argument(*spelt, dest=parameter.name, required=needed, **how)
    else:
        may_lack = {} if needed else {"nargs": "?", "default": parameter.default}
        name = parameter.name.upper()  # as in the usage line
        parser.add_argument(parameter.name, help=how["help"], type=how["type"], metavar=name, **may_lack)


def _add_values(
    parser: argparse.ArgumentParser, own: Mapping[str, inspect.Parameter], told: Mapping[str, str]
) -> None:
    """Add values by name alone and, for `**given`, each parameter of the chapters that is no option of the command."""
    group = parser.add_argument_group("values in YAML, the profile's where not given")
    for field in fields(Settings) if "given" in own else ():
        if field.name in own or field.name in ("chapter", "profile", "trust", "origins"):
            continue
        bases = {get_args(k)[0] if get_origin(k) is Annotated else k for k in _kinds(field.type)}
        flag = {"nargs": "?", "const": True} if bases == {bool} else {}
        group.add_argument(
            f"--{field.name.replace('_', '-')}", *_ALSO.get(field.name, []), dest=field.name, metavar="VALUE",
            type=str if bases == {str} else _told(parse_value), default=argparse.SUPPRESS, action=_Once, **flag,
            help=told[field.name].replace("%", "%%"),
        )  # fmt: skip
    group.add_argument(
        "-s", "--set", action="append", default=[], metavar="NAME=VALUE",
        help="any value by name; may be repeated",
    )  # fmt: skip
    group.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="typed",
        help="the same, as papermill spells it",
    )  # fmt: skip
