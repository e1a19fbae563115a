"""What a chapter's notebook calls: one object, one method per section."""

import functools
import html
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from IPython.display import HTML, display

from rkd import paths, published
from rkd.errors import RkdError
from rkd.experiments import settings as parameters
from rkd.experiments.chapters import Chapter, Line, chapter_in
from rkd.experiments.recipes import load_recipe
from rkd.experiments.runner import Runner, pick_device
from rkd.experiments.settle import settle_lines
from rkd.experiments.workspace import data_root, store_for, store_of
from rkd.judge import is_published_setting
from rkd.models import canonical, display_name
from rkd.records import Record, Store
from rkd.report import figures, tables
from rkd.report.book import VARIATION
from rkd.report.diagrams import show
from rkd.report.differences import difference_table
from rkd.report.grid import Side, gain_plot, gains_in_words, grid_table, side_of
from rkd.report.summary import Measured, measure, measure_values
from rkd.report.verdicts import chapter_box
from rkd.training import Engine

DATA_SETS = {"embedded": "the embedded set", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
_WHERE = {
    "data_root",
    "results",
    "device",
    "threads",
    "compile",
    "engine",
    "on_missing",
}  # parameters that change no run
PUBLISHED_PAIR = ("resnet56", "resnet20")  # of Tables 3 to 6, Figure 6 and the run without cross-entropy


def open_page(chapter: str, namespace: Mapping[str, Any]) -> "Page":
    """Open a chapter under the parameters found in a notebook's namespace, and show what the page is.

    Everything is checked here: every run's config is built, so a contradiction stops the first cell with one
    sentence, before anything is trained.

    Args:
        chapter: the chapter's name.
        namespace: `globals()` of the notebook.

    Raises:
        ConfigError: an unknown, misspelt or contradictory parameter.
    """
    return Page(chapter_in(chapter, namespace), parameters.given_in(namespace))


class Page:
    """One executed chapter.

    Args:
        chapter: what its notebook declares.
        given: explicit parameters.
    """

    def __init__(self, chapter: Chapter, given: Mapping[str, Any]) -> None:
        self.chapter = chapter
        self.given = _beyond_profile(given)
        self.settings = parameters.resolve(chapter.name, given)
        self.recipe = self.settings.recipe or self.chapter.recipe
        self.store = store_of(self.settings)
        self.lines: list[Line] = self._settled(self.chapter.lines(self.settings), self.store)
        self.measured: dict[str, Measured] = {}
        display(HTML(self._banner()))
        if VARIATION not in os.environ:  # the verdicts judge the chapter as the paper profile has it
            verdicts = chapter_box(chapter.name)
            if verdicts.data:
                display(verdicts)

    def run(self) -> HTML:
        """Load what is recorded, train what is missing (see `on_missing`)."""
        s = self.settings
        configs = [config for line in self.lines for config in line.runs]
        wanted = {config.id for config in configs}
        before = {run for run in wanted if self.store.has(run)}
        records: dict[str, Record] = {}
        for recipe in dict.fromkeys(line.recipe or self.recipe for line in self.lines):
            runner = Runner(
                self.store,
                data_root(s),
                s.device,
                labels={"profile": s.profile, "recipe": recipe, "chapter": self.chapter.name},
                engine=Engine.named(s.engine, s.compile, s.threads),
            )
            of_recipe = [line for line in self.lines if (line.recipe or self.recipe) == recipe]
            records |= runner.run([config for line in of_recipe for config in line.runs], s.on_missing)
        self.measured = {line.key: measure(line, records) for line in self.lines}
        trained, absent = len(set(records) - before), len(wanted) - len(records)
        text = f"{len(wanted)} runs: {len(before)} were recorded, {trained} were trained now, {absent} are missing."
        return HTML(f'<p class="rkd-note">{text}</p>')

    def table(self, folded: bool = False) -> HTML:
        """Published against measured, one row per line; `folded` away under a heading where lines are many."""
        columns = self._recorded()
        table = tables.result_table(self.lines, self._done(), columns, self._here())
        if folded:
            return HTML(tables.folded("Every line, with its notes", table) + self._about_recorded(columns))
        return HTML(table + self._about_recorded(columns) + self._differences())

    def figure(self) -> object:
        """The chapter's static figure."""
        measured, evidence = self._done(), self._is_evidence()
        if any(line.x is not None for line in self.lines):
            drawn = figures.weight_plot(self.lines, measured, self._here())
        else:
            drawn = figures.dot_plot(self.lines, measured, self._here(), together=evidence)
        said = "; ".join(
            f"{line.label}: {m.mean():.2f} % over {len(m.last)}"
            for line, m in zip(self.lines, measured.values(), strict=True)
            if m.last
        )
        return show(drawn, f"{self.chapter.title}. Measured means: {said or 'nothing measured'}.")

    def grid(self, which: str = "last", means: Mapping[str, str] | None = None) -> HTML:
        """Methods against pairs, measured above published; see `rkd.report.grid.grid_table`."""
        return HTML(grid_table(*self._sides(), which, means) + self._differences())

    def gains(self, which: str = "last") -> object:
        """Gains over the student alone, one row per method, at the "last" or "best" epoch."""
        here, paper = self._sides()
        drawn = gain_plot(here, paper, self._here(), which, together=self._is_evidence())
        return show(
            drawn, f"{self.chapter.title}. Measured mean gains in points: {gains_in_words(here, which)}."
        )

    def curves(self, groups: int | None = None) -> object:
        """Accuracies and losses of every epoch, to be explored; of the first `groups` groups of lines only, where given
        (a chapter of very many lines)."""
        from rkd.report.interactive.curves import curves

        records = {record.id: record for m in self._done().values() for record in m.records}
        shown = list(dict.fromkeys(line.group for line in self.lines))[:groups]
        lines = [line for line in self.lines if line.group in shown]
        return curves(lines, records, f"Training curves, {self._here()}")

    def quoted_baselines(self) -> HTML:
        """Accuracies of other methods that the [Re] paper quotes beside its own."""
        return HTML(
            tables.baseline_table(
                published.load(source="re_paper", table=self.chapter.title.partition(":")[0])
            )
        )

    def probe(self) -> HTML:
        """Accuracy of a linear layer refitted on each student's frozen features, mean over seeds."""
        s = self.settings
        runner = Runner(self.store, data_root(s), s.device, engine=Engine(threads=s.threads))
        rows = []
        for line in self.lines:
            here = [runner.probe(run) for run in line.runs if runner.weights_file(run.id, "last")]
            rows.append((line.label, measure_values(here), self._done()[line.key]))
        return HTML(tables.probe_table(rows))

    def injected(self) -> HTML:
        """The parameters that were given, and everything in force."""
        run = self.lines[-1].runs[0]
        in_the_runs = {
            "recipe": self.recipe,
            "epochs": run.epochs,
            "batch_size": run.batch_size,
            "lr": run.optimiser.lr,
            "decay_epochs": run.optimiser.decay_epochs,
            "normalisation": run.data.normalisation,
        }
        effective = {name: getattr(self.settings, name) for name in parameters.names()} | in_the_runs
        names = dict.fromkeys(line.recipe or self.recipe for line in self.lines)
        if len(names) > 1:
            effective["recipe"] = ", ".join(names)
        table = tables.parameter_table(self.given, {k: v for k, v in effective.items() if v is not None})
        words = "; ".join(
            f"<code>{html.escape(name)}</code>: {html.escape(load_recipe(name).description)}"
            for name in names
        )
        return HTML(f"<p>Recipe {words}.</p>{table}")

    def provenance(self) -> HTML:
        """Record, device and time of each number."""
        return HTML(tables.provenance_table(self.lines, self._done(), _shown(self.store.records)))

    def _done(self) -> dict[str, Measured]:
        if not self.measured:
            raise RkdError("call page.run() before this cell")
        return self.measured

    def _sides(self) -> tuple[Side, Side]:
        """This execution, and the paper profile with what is recorded of it."""
        return side_of(self.lines, self._done()), side_of(*self._paper)

    @functools.cached_property
    def _paper(self) -> tuple[list[Line], dict[str, Measured]]:
        """Lines of the paper profile, and what is recorded of them."""
        return self._lines_of("paper")

    def _lines_of(self, profile: str) -> tuple[list[Line], dict[str, Measured]]:
        store = store_for(profile)
        lines = self.chapter.lines(parameters.resolve(self.chapter.name, self._values_of(profile)))
        lines = self._settled(lines, store)
        recorded = {
            line.key: measure(line, {run.id: store.load(run.id) for run in line.runs if store.has(run.id)})
            for line in lines
        }
        return lines, recorded

    def _settled(self, lines: list[Line], store: Store) -> list[Line]:
        """With their runs as they are recorded, or would be trained here: everything below goes by their ids."""
        return settle_lines(lines, store, pick_device(self.settings.device))

    def _is_evidence(self) -> bool:
        """Whether every run is of its recipe's length, on the whole of the data sets the claim is about."""
        return all(
            is_published_setting(run, self.chapter.name, line.recipe or self.recipe)
            for line in self.lines
            for run in line.runs
        )

    def _here(self) -> str:
        return f"profile {Path(self.settings.profile).stem}"

    def _recorded(self) -> dict[str, dict[str, Measured]]:
        """Committed values of the same lines, beside this execution's: of the paper profile in any case, of the mini
        profile where there are some."""
        columns = {}
        for profile in ("paper", "mini"):
            if self.settings.profile == profile and not self.given:
                continue
            _, column = self._paper if profile == "paper" else self._lines_of(profile)
            if profile == "paper" or any(m.last for m in column.values()):
                columns[f"recorded: {profile} profile"] = column
        return columns

    def _differences(self) -> str:
        """Against the profile's own parameters, where others were given and those runs are recorded."""
        changed = {name for name in self.given if name not in _WHERE}
        if not changed:
            return ""
        same_place = {name: self.given[name] for name in self.given if name in _WHERE}
        lines = self.chapter.lines(
            parameters.resolve(self.chapter.name, {"profile": self.settings.profile, **same_place})
        )
        lines = self._settled(lines, self.store)
        base = {
            line.key: measure(
                line, {run.id: self.store.load(run.id) for run in line.runs if self.store.has(run.id)}
            )
            for line in lines
        }
        if not any(m.records for m in base.values()):
            return (
                '<p class="rkd-note">The runs of the profile\'s own parameters are not recorded here; once they are, a '
                "table of differences stands in this place.</p>"
            )
        named = ", ".join(
            f"<code>{name} = {html.escape(str(self.given[name]))}</code>" for name in sorted(changed)
        )
        heading = f"<p><strong>What {named} changes</strong></p>"
        name = os.environ.get(VARIATION, "this execution")
        return heading + difference_table(
            lines=self.lines, measured=self._done(), base_lines=lines, base=base, here=name
        )

    def _values_of(self, profile: str) -> dict[str, str]:
        return {"profile": profile, **({"recipe": self.settings.recipe} if self.settings.recipe else {})}

    def _about_recorded(self, columns: Mapping[str, object]) -> str:
        """What the mini profile's column stands on."""
        if not any("mini" in heading for heading in columns):
            return ""
        s = parameters.resolve(self.chapter.name, self._values_of("mini"))
        lines = self.chapter.lines(s)
        run = lines[-1].runs[0]
        pair = f"{display_name(s.student)} ← {display_name(s.teacher)}, " if self.chapter.one_pair else ""
        images = f"{run.data.train_images:,} images" if run.data.train_images else "all training images"
        return (
            f'<p class="rkd-note">Mini profile: {pair}{run.epochs} epochs on {images} of '
            f"{DATA_SETS.get(run.data.name, run.data.name)}. It can show a tendency; it neither confirms nor refutes a "
            "published value.</p>"
        )

    def _banner(self) -> str:
        run = self.lines[-1].runs[0]
        length = f"{run.epochs} epoch{'s' if run.epochs != 1 else ''}"
        images = f"{run.data.train_images:,} images" if run.data.train_images else "all training images"
        sets = dict.fromkeys(run.data.name for line in self.lines for run in line.runs)
        what = f"{length} on {images} of {' and '.join(DATA_SETS.get(name, name) for name in sets)}"
        if self._is_evidence():
            kind, text = "paper", f"The published setting: {what}. These numbers are evidence."
        elif Path(self.settings.profile).stem == "smoke":
            kind = "smoke"
            text = (
                f"<strong>This copy proves the machinery, not the claim.</strong> Every network was "
                f"trained for {what}. The accuracies say nothing about the published ones."
            )
        else:
            kind = "mini"
            text = (
                f"<strong>A short run, not the published setting:</strong> {what}. It can show a "
                "tendency; it neither confirms nor refutes a published value."
            )
        return f'<div class="rkd-callout {kind}"><p>{text}{self._pair_in_place()}</p></div>'

    def _pair_in_place(self) -> str:
        """Says so when an ablation runs on another pair than the published one."""
        s = self.settings
        pair = (canonical(s.teacher), canonical(s.student))
        if not self.chapter.one_pair or pair == PUBLISHED_PAIR:
            return ""
        names = [
            f"{display_name(student)} ← {display_name(teacher)}"
            for teacher, student in (pair, PUBLISHED_PAIR)
        ]
        return f" The pair is {names[0]} in place of the published {names[1]}."


def _beyond_profile(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given on top of the profile's file, whose values papermill injects as well."""
    profile = parameters.load_profile(given.get("profile", "smoke"))
    return {name: value for name, value in given.items() if name != "profile" and profile.get(name) != value}


def _shown(folder: Path) -> str:
    home = paths.home()
    return str(folder.relative_to(home)) if folder.is_relative_to(home) else str(folder)


__all__ = ["Page", "open_page"]
