"""Execute the chapters with papermill, each in a process of its own, and build the HTML book. Runs that are recorded
are loaded, not trained again. With --name, chapters are executed with other parameters and stand beside the book's own
pages as a variation, until it is dropped."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkd.cli.common import add_profile, add_settings, given_settings
from rkd.errors import ConfigError

if TYPE_CHECKING:
    from rkd.report.book import Page

EPILOG = """examples:
  rkd book
  rkd book --profile mini --only table3 --data-root ~/cifar
  rkd book --profile paper --jobs 1 --timeout 24h
  rkd book --only figure6 --set 'loss_weights=[0.2, 0.4, 0.8]'
  rkd book --only table3 -p loss_weight 0.9 --name lambda-0.9     table3 once more, as a page of its own
  papermill book/table3.ipynb out.ipynb -p loss_weight 0.9        the same made with papermill ...
  rkd book --add out.ipynb --name lambda-0.9                      ... and taken into the book
  rkd book --drop lambda-0.9"""

_SCIENTIFIC = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")  # YAML 1.1 reads 1e-3 as text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    parser.add_argument("--only", metavar="A,B", help="chapters to execute; the others keep their last copy")
    parser.add_argument(
        "--jobs", type=int, default=None, metavar="N", help="chapters at once (default: 2, on a GPU 1)"
    )
    parser.add_argument(
        "--timeout",
        metavar="TIME",
        help="limit of one chapter: 90s, 30m, 24h, 7d (default: 30m for smoke, else 7d)",
    )
    parser.add_argument("--no-html", action="store_true", help="execute and stage, do not build the HTML")
    add_settings(parser)
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters",
        help="any parameter of the chapters, as papermill spells it: -p loss_weight 0.9; may be repeated",
    )  # fmt: skip
    variations = parser.add_argument_group("variations")
    variations.add_argument(
        "--name",
        metavar="NAME",
        help="add pages to the book: the chapters of --only (default: all that declare the given parameters) "
        "with these parameters, beside the book's own; the same name again replaces them",
    )
    which = variations.add_mutually_exclusive_group()
    which.add_argument(
        "--add",
        metavar="NOTEBOOK",
        type=Path,
        help="take a chapter that papermill executed as the variation --name",
    )
    which.add_argument("--drop", metavar="NAME", help="remove a variation, execute nothing")
    which.add_argument("--list-variations", action="store_true", help="list the profile's, execute nothing")


def call(options: argparse.Namespace) -> int:
    from rkd import paths
    from rkd.experiments.budget import parse_duration
    from rkd.experiments.settings import profile_path
    from rkd.report.book import Book, adopt_notebook, build_book, drop_variation, list_variations

    given = given_settings(options) | {name: _value(name, text) for name, text in options.parameters}
    _check(options, given)
    home, build, file = paths.home(), paths.build(), profile_path(options.profile)
    book = Book(options.profile, home / "book", home / "_config.yml", build, file, not options.no_html)
    if options.list_variations:
        _list(list_variations(book), options.profile)
        return 0
    if options.drop:
        result = drop_variation(book, options.drop)
    elif options.add:
        result = adopt_notebook(book, options.add, options.name)
    else:
        result = build_book(
            book,
            only=[name.strip() for name in options.only.split(",")] if options.only else (),
            jobs=options.jobs if options.jobs is not None else _default_jobs(options),
            timeout_s=parse_duration(options.timeout or ("30m" if options.profile == "smoke" else "7d")),
            parameters=given,
            environment={"RKD_HOME": str(home)},
            variation=options.name or "",
        )
    return 0 if result.ok else 1


def _check(options: argparse.Namespace, given: dict[str, Any]) -> None:
    """Raises ConfigError for options that contradict each other."""
    if options.name == "":
        raise ConfigError("--name is empty; give a variation a name, for example lambda-0.9")
    if options.add and not options.name:
        raise ConfigError(f"--add {options.add} needs --name, the variation's name")
    asked = {"--add": options.add, "--drop": options.drop, "--list-variations": options.list_variations}
    for option, value in asked.items():
        if value and (given or options.only):
            raise ConfigError(f"{option} executes nothing; leave --only and the parameters out")
        if value and options.name and option != "--add":
            raise ConfigError(f"{option} does not go with --name")


def _value(name: str, text: str) -> Any:
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"-p {name} {text!r}: the value is not valid YAML") from error
    return float(text) if isinstance(value, str) and _SCIENTIFIC.fullmatch(text) else value


def _list(pages: Sequence["Page"], profile: str) -> None:
    from rkd.report.book import spelt

    if not pages:
        print(
            f"profile {profile} has no variations; `rkd book --only table3 -p loss_weight 0.9 --name NAME` adds one"
        )
    width = max((len(page.variation) for page in pages), default=0)
    chapter = max((len(page.name) for page in pages), default=0)
    for page in pages:
        state = "failed" if page.status == "failed" else f"{page.finished[:16].replace('T', ' ')} UTC"
        source = f", from {page.adopted}" if page.adopted else ""
        told = ", ".join(spelt(page.parameters))
        print(f"{page.variation:<{width}}  {page.name:<{chapter}}  {state:<20}  {told}{source}")


def _default_jobs(options: argparse.Namespace) -> int:
    import torch

    return 1 if torch.cuda.is_available() and options.device != "cpu" else 2
