"""`rkd book`: execute chapters, build the site, add and drop variations."""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkd import paths
from rkd.cli.cluster import ray_asked
from rkd.cli.declare import Duration, Names
from rkd.cluster.session import Resources, join_cluster
from rkd.devices import pick_device
from rkd.errors import ConfigError, unknown
from rkd.experiments.notebooks import declared_parameters
from rkd.experiments.settings import load_profile, parameter_names, profile_path, resolve
from rkd.trust import foreign_in

if TYPE_CHECKING:
    from rkd.report.book import Book, Page


def book(
    *,
    only: Names = (),
    fresh: bool = False,
    jobs: int | None = None,
    timeout: Duration | None = None,
    no_html: bool = False,
    name: str | None = None,
    add: Path | None = None,
    drop: str | None = None,
    list_variations: bool = False,
    engine: str | None = None,
    address: str | None = None,
    each: str = "",
    profile: str = "smoke",
    **given: Any,
) -> int:
    """Execute the chapters with papermill, each in a process of its own, and build the HTML book. A chapter is left as
    it is while its notebook, the parameters, the package, params/, results/, Python and torch are what they were; runs
    that are recorded are loaded, not trained again. With --name, chapters are executed with other parameters and stand
    beside the book's own pages as a variation, until it is dropped.

    Args:
        only: chapters to execute, changed or not; the others keep their last copy
        fresh: execute what has not changed too
        jobs: chapters at once (default: 2, on a GPU 1)
        timeout: limit of one chapter: 90s, 30m, 24h, 7d (default: 30m for smoke, else 7d)
        no_html: execute and stage, do not build the HTML
        name: add pages to the book: the chapters of --only (default: all that declare the given parameters) with these
            parameters, beside the book's own; the same name again replaces them
        add: take a chapter that papermill executed, a notebook, as the variation --name
        drop: remove a variation, execute nothing
        list_variations: list the profile's, execute nothing
        engine: ray: the nodes of a Ray cluster execute the chapters, and share the project's folders; the site is built
            here; local: this machine does all (default). Or how steps are launched: auto, eager, graph
        address: with --engine ray: the cluster, auto (that of this machine) or host:port (default: one is started here)
        each: with --engine ray: what a chapter takes (default gpu=1 where there are GPUs, cpu=1, memory=2GB)

    Examples:
        rkd book
        rkd book --profile mini --only table3 --data-root ~/cifar
        rkd book --only figure6 --loss-weights '[0.2, 0.4, 0.8]'
        rkd book --only table3 -p loss_weight 0.9 --name lambda-0.9     table3 once more, as a page of its own
        papermill book/table3.ipynb out.ipynb -p loss_weight 0.9        the same made with papermill ...
        rkd book --add out.ipynb --name lambda-0.9                      ... and taken into the book
        rkd book --drop lambda-0.9
    """
    from rkd.report.book import Book, adopt_notebook, build_book, drop_variation

    on_ray = ray_asked(engine, given, {"--address": address, "--each": each}, {"--jobs": jobs})
    if name == "":
        raise ConfigError("--name is empty; give a variation a name, for example lambda-0.9")
    if add and not name:
        raise ConfigError(f"--add {add} needs --name, the variation's name")
    others = {"--add": add, "--drop": drop, "--list-variations": list_variations}
    chosen = [option for option, value in others.items() if value]
    if chosen and (given or only):
        raise ConfigError(f"{chosen[0]} executes nothing; leave --only and the parameters out")
    if len(chosen) > 1 or (chosen and name and not add):
        raise ConfigError(f"{chosen[0]} does not go with --name, --add, --drop or --list-variations")
    home = paths.home()
    made = Book(
        profile, home / "book", home / "_config.yml", paths.build_folder(), profile_path(profile), not no_html,
        reads=(*paths.source_paths(), home / "results"),
    )  # fmt: skip
    if list_variations:
        _list(made.variations(), profile)
        return 0
    if drop:
        return 0 if drop_variation(made, drop).ok else 1
    if add:
        return 0 if adopt_notebook(made, add, name).ok else 1
    _check(made, only, given, name)
    if foreign_in([load_profile(profile), given]):  # chapters get them all, and which were typed here
        given["trust"] = sorted(foreign_in(given))
    device = str(given.get("device") or "auto")
    with join_cluster(address, Resources.read(each), device) if on_ray else nullcontext() as cluster:
        result = build_book(
            made,
            only=only,
            jobs=jobs,
            timeout_s=timeout or (1800 if profile == "smoke" else 7 * 24 * 3600),
            parameters=given,
            environment={"RKD_HOME": str(home), paths.STANDS_IN: str(paths.user_folder())},
            variation=name or "",
            fresh=fresh,
            cluster=cluster,
        )
    return 0 if result.ok else 1


def _check(made: "Book", only: Sequence[str], given: Mapping[str, Any], variation: str | None) -> None:
    """Raise ConfigError for a parameter that no chapter to be executed declares, or a value it cannot be executed with,
    before any chapter is executed and before a variation is stored."""
    from rkd.experiments.chapters import chapter_names, get_chapter

    try:
        json.dumps(given, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"parameters are numbers, text, lists and mappings of these: {error}") from error
    for name in only:
        if name not in made.names:
            raise unknown("chapter", name, made.names)
    declared = {name: declared_parameters(made.notebook(name)) for name in only or made.names}
    known = {parameter for own in declared.values() for parameter in own}
    for parameter in () if variation else given:  # every chapter of a variation declares all
        if parameter not in known:
            raise unknown("parameter", parameter, known)
    pick_device(given.get("device") or "auto")
    values = {name: value for name, value in given.items() if name in parameter_names()}
    rows = chapter_names()
    for name in declared if values else ():
        settings = resolve(name, {**values, "profile": made.profile})
        if variation and name in rows and {*given} <= {*declared[name]}:
            get_chapter(name).lines(settings)


def _list(pages: Sequence["Page"], profile: str) -> None:
    import pandas as pd

    if not pages:
        print(
            f"profile {profile} has no variations; `rkd book --only table3 -p loss_weight 0.9 --name NAME` adds one"
        )
        return
    rows = []
    for page in pages:
        state = "failed" if page.status == "failed" else f"{page.finished[:16].replace('T', ' ')} UTC"
        source = [f"from {page.adopted}"] if page.adopted else []
        rows.append((page.variation, page.name, state, ", ".join([*page.given(), *source])))
    print(pd.DataFrame(rows).to_string(header=False, index=False))
