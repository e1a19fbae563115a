"""Find the runs of "chapter/line" under a profile.

The run ids, and each run's setting, are cached in the build folder: building the configs takes torch and seconds.
"""

import functools
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkd import paths
from rkd.devices import pick_device
from rkd.errors import ConfigError, unknown
from rkd.experiments.settings import (
    COMPUTING,
    LAYERED,
    SUFFIXES,
    WEIGHTS,
    Settings,
    check_effect,
    given_twice,
    profile_path,
    resolve,
)
from rkd.experiments.workspace import cached_values, store_of
from rkd.files import digest

if TYPE_CHECKING:
    from rkd.experiments.chapters import Chapter, Line
    from rkd.training.config import RunConfig

# Id of a run as it is requested -> ids of the records that may answer it.
Ids = Mapping[str, tuple[str, ...]]
# A line's "runs" as ids, those "needed" (with its teachers' runs), those of the needed ones that have each setting, and
# the lines "beside" it.
Named = Mapping[str, Any]


def split(selector: str) -> tuple[str, str]:
    """Return chapter and line of a selector.

    >>> split("table3/rm_rlf")
    ('table3', 'rm_rlf')

    Raises:
        ConfigError: not of the form chapter/line.
    """
    chapter, _, key = selector.partition("/")
    if not chapter or not key:
        raise ConfigError(f"selector {selector!r} is not of the form chapter/line, for example table3/rm")
    return chapter, key


class Selectors:
    """The lines of all chapters under one profile; each result is cached.

    Every method raises ConfigError for an unknown chapter or line.

    Args:
        profile: "paper", or any other profile's name or path.
        given: parameters that win over the profile's, by name.
        settled: return the runs as recorded, or as the settings' device would train them, whether or not this machine
            has it (see `rkd.experiments.runner.settle`); otherwise runs may leave their arithmetic "auto".
    """

    def __init__(
        self, profile: str = "paper", given: Mapping[str, Any] | None = None, settled: bool = False
    ) -> None:
        self.profile, self._settled = profile, settled
        self._given = {**(given or {}), "profile": profile}
        if given and given.get("profile", profile) != profile:
            raise given_twice("profile", profile, given["profile"])
        if LAYERED in self._given:
            raise ConfigError(f"{LAYERED} is a profile's own, by chapter; give the parameters themselves")
        self._chapters: dict[tuple[str, ...], tuple[Settings, dict[str, Line]]] = {}
        self._ids: dict[str, dict[str, Named]] = {}

    def line(self, selector: str) -> "Line":
        """Return the line a selector names."""
        chapter, key = split(selector)
        return _in_chapter(self.chapter(chapter)[1], chapter, key)

    def line_of_paper(self, selector: str) -> "Line":
        """Return the line that has this name under the paper profile, with this profile's data and length: for that
        line's pair, on the data set in the name if this profile has it, else on this profile's first."""
        name, key = split(selector)
        chapter, start = _declared(name), ""
        if len(chapter.datasets) > 1:
            dataset, _, key = key.partition("-")
            sets = chapter.sets(resolve(name, self._given))
            start = f"{dataset if dataset in sets else sets[0]}-"
        pair = ("resnet56", "resnet20") if chapter.one_pair else key.split("-", 2)[1::-1]
        return _in_chapter(self.chapter(name, *pair)[1], name, start + key)

    def chapter(self, name: str, *pair: str) -> "tuple[Settings, dict[str, Line]]":
        """Return a chapter's settings, and its lines by key; `pair`, a teacher and a student, replaces the profile's
        pairs."""
        if (name, *pair) not in self._chapters:
            chapter, own = _declared(name), {}
            if pair:
                own = {"teacher": pair[0], "student": pair[1]} if chapter.one_pair else {"pairs": [pair]}
            settings = resolve(name, {**own, **self._given})
            lines = chapter.lines(settings)
            if self._settled:
                import torch

                # Records can be listed on a machine without the device.
                gpu = settings.device.startswith("cuda")
                device = torch.device("cuda") if gpu else pick_device(settings.device)
                lines = [line.settled(store_of(settings), device) for line in lines]
            self._chapters[name, *pair] = settings, {line.key: line for line in lines}
        return self._chapters[name, *pair]

    def plan(self, chapters: Iterable[str] | None = None) -> "tuple[Settings, list[RunConfig]]":
        """Return the settings of the first chapter (which say where records and data lie), and the runs of these
        chapters (None: of all), teachers first, each once."""
        from rkd.experiments.chapters import chapter_names
        from rkd.experiments.runner import required

        wanted = list(chapters or chapter_names())
        self.check(wanted)
        found = [self.chapter(name) for name in wanted]
        return found[0][0], required(r for _, lines in found for line in lines.values() for r in line.runs)

    def check(self, chapters: Iterable[str]) -> None:
        """Raise ConfigError for a given parameter that has no effect in any of these chapters."""
        if self._plain:
            return
        read = {
            setting for name in chapters for line in self.chapter(name)[1].values() for setting in line.read
        }
        check_effect(self._given, read, f"the runs of {', '.join(chapters)}")

    def runs(self, selectors: Iterable[str]) -> "dict[str, RunConfig]":
        """Return the runs of several lines by id, in the order of the lines."""
        return {run.id: run for selector in selectors for run in self.line(selector).runs}

    def needed(self, selectors: Iterable[str]) -> "dict[str, RunConfig]":
        """Return the runs of several lines by id, each line's preceded by the runs of its teachers."""
        from rkd.experiments.runner import required

        return {run.id: run for selector in selectors for run in required(self.line(selector).runs)}

    # --- ids alone ------------------------------------------------------------------------------------------

    def ids(self, selector: str, teachers: bool = False) -> Ids:
        """Return the runs of a line as ids, with those of its teachers if `teachers`."""
        return self._line(selector)["needed" if teachers else "runs"]

    def beside(self, selector: str) -> Collection[str]:
        """Return the lines of distilled students of the same pair, in the same chapter."""
        return self._line(selector)["beside"]

    def of_setting(self, selector: str, setting: str) -> Collection[str]:
        """Return which of a line's runs and its teachers' runs have a setting, a key of `SETTINGS`."""
        return self._line(selector)[setting]

    def has(self, selector: str) -> bool:
        """Whether the profile has this line."""
        chapter, key = split(selector)
        return key in self._lines(chapter)

    def every(self, chapter: str) -> Ids:
        """Return the runs of all lines of a chapter, teachers included, as ids."""
        return {run: forms for line in self._lines(chapter).values() for run, forms in line["needed"].items()}

    def _line(self, selector: str) -> Named:
        chapter, key = split(selector)
        return _in_chapter(self._lines(chapter), chapter, key)

    def _lines(self, chapter: str) -> dict[str, Named]:
        if chapter not in self._ids:
            may_keep = self._plain and not self._settled
            self._ids[chapter] = self._kept(chapter) if may_keep else self._named(chapter)
        return self._ids[chapter]

    def _kept(self, chapter: str) -> dict[str, Named]:
        """Return the cached lines if they were made from the very same sources, else make them now."""
        with cached_values(f"lines/{Path(self.profile).stem}/{chapter}") as found:
            if found.get("key") != self._sources:
                made = self._named(chapter)
                if self._reads_files(chapter):
                    return made
                found |= {"key": self._sources, "lines": made}
            return found["lines"]

    def _reads_files(self, chapter: str) -> bool:
        """Whether a chapter's ids depend on files that may change and are not part of the cache key: data sets, recipes
        named by path, and weights not named by their digest."""
        from rkd.experiments.recipes import load_recipe

        settings, lines = self.chapter(chapter)
        recipes = {line.recipe for line in lines.values()}
        recipes |= {load_recipe(name).teacher.recipe or "" for name in recipes}
        weights = filter(None, (getattr(settings, name) for name in WEIGHTS))
        return (
            any(run.data.sha256 for line in lines.values() for run in line.runs)
            or any(name.endswith(SUFFIXES) for name in recipes)
            or any("#sha256=" not in text for text in weights)
        )

    def _named(self, chapter: str) -> dict[str, Named]:
        def answers(runs: "Mapping[str, RunConfig]") -> Ids:
            return {id: tuple(run.settled_id(*names) for names in run.choices()) for id, run in runs.items()}

        named, lines = {}, self.chapter(chapter)[1]
        for key, line in lines.items():
            selector = f"{chapter}/{key}"
            needed, where = self.needed([selector]), (chapter, line.recipe)
            beside = [k for k, each in lines.items() if (each.group, each.role) == (line.group, "distilled")]
            named[key] = {
                "runs": answers(self.runs([selector])),
                "needed": answers(needed),
                "beside": [f"{chapter}/{each}" for each in beside],
            }
            for setting, is_of in SETTINGS.items():
                named[key][setting] = [run for run, config in needed.items() if is_of(config, *where)]
        return named

    @property
    def _plain(self) -> bool:
        """Whether no given parameter changes a run."""
        return set(self._given) <= COMPUTING

    @functools.cached_property
    def _sources(self) -> str:
        """Hash of everything that the ids depend on: package, notebooks, parameters, profile."""
        notebooks = sorted((paths.home() / "book").glob("*.ipynb"))
        return digest(*paths.source_paths(), *notebooks, profile_path(self.profile))


def _declared(chapter: str) -> "Chapter":
    from rkd.experiments.chapters import get_chapter  # imports torch

    return get_chapter(chapter)


def _in_chapter(lines: Mapping[str, Any], chapter: str, key: str) -> Any:
    if key not in lines:
        raise unknown(f"line of {chapter}", key, lines)
    return lines[key]


# --- the setting of a run ---------------------------------------------------------------------------------


def is_published_setting(config: "RunConfig", chapter: str, recipe: str = "") -> bool:
    """Whether a run and its teacher's run have the published setting of a chapter's lines: at least as long as `recipe`
    says ("": the chapter's), on the whole of one of the chapter's data sets, not from pretrained weights.

    Raises:
        ConfigError: unknown chapter or recipe.
    """
    teacher = config.teacher.run if config.teacher else None
    whole = is_whole(config, chapter, recipe) and config.pretrained is None
    if not whole or config.epochs < _asked(chapter, recipe)[0]:
        return False
    return teacher is None or is_published_setting(teacher, chapter, recipe)


def is_whole(config: "RunConfig", chapter: str, recipe: str = "") -> bool:
    """Whether a run, however long, is on the whole of one of a chapter's data sets."""
    data = config.data
    whole = data.train_images is None and data.test_images is None and not data.holdout
    return whole and data.name in _asked(chapter, recipe)[1]


SETTINGS = {"published": is_published_setting, "whole": is_whole}


@functools.cache
def _asked(chapter: str, recipe: str) -> tuple[int, tuple[str, ...]]:
    from rkd.experiments.recipes import load_recipe

    found = _declared(chapter)
    return load_recipe(recipe or found.recipe).epochs, found.datasets
