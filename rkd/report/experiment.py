"""What the notebook of a table or figure calls: runs and published figures as DataFrames, and how they are shown."""

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import HTML, display
from matplotlib.figure import Figure
from scipy import stats

from rkd.experiments import settings as parameters
from rkd.experiments.chapters import SETS, Chapter, Line, chapter_in
from rkd.experiments.frames import mean_sd, names_of, published_frame, runs_frame, same_runs
from rkd.experiments.recipes import Builder, load_recipe
from rkd.experiments.runner import Runner, pick_device
from rkd.experiments.workspace import runner_of, store_for, store_of
from rkd.judge import is_published_setting
from rkd.models import canonical, display_name
from rkd.records import Record, Store
from rkd.report.book import VARIATION
from rkd.report.diagrams import Drawing, show
from rkd.report.interactive.markup import Html, join, tag
from rkd.report.tables import scrolling
from rkd.report.verdicts import chapter_box
from rkd.training import RunConfig

DATA_SETS = {"embedded": "the embedded set", **SETS}
PUBLISHED_PAIR = ("resnet56", "resnet20")  # of Tables 3 to 6, Figure 6 and the run without cross-entropy
TENDENCY = "It can show a tendency; it neither confirms nor refutes a published value."


def open_experiment(name: str, namespace: Mapping[str, Any]) -> "Experiment":
    """Open a chapter under the parameters and rows found in a notebook's namespace, and show what the page is.

    Everything is checked here: every run's config is built, so a contradiction stops the first cell with one
    sentence, before anything is trained.

    Args:
        name: of the notebook.
        namespace: its `globals()`.

    Raises:
        ConfigError: an unknown, misspelt or contradictory parameter, or rows that are none.
    """
    experiment = Experiment(chapter_in(name, namespace), parameters.given_in(namespace))
    display(experiment.banner())
    if VARIATION not in os.environ:  # the verdicts judge the chapter as the paper profile has it
        verdicts = chapter_box(name)
        if verdicts.data:
            display(verdicts)
    sns.set_theme(style="ticks", rc={"font.size": 10, "axes.grid": True, "grid.color": "#dddddd"})
    return experiment


class Experiment:
    """One executed chapter.

    Args:
        chapter: what its notebook declares.
        given: explicit parameters.

    Attributes:
        settings: the parameters in force.
        lines: the rows of the table, each with its runs (see `rkd.experiments.chapters.Line`).
        store: of the records.
        profile: name of the profile.
    """

    def __init__(self, chapter: Chapter, given: Mapping[str, Any]) -> None:
        self.chapter = chapter
        # papermill injects the profile's values as well
        profile = parameters.load_profile(given.get("profile", "smoke"))
        self.given = {n: v for n, v in given.items() if n != "profile" and profile.get(n) != v}
        self.settings = parameters.resolve(chapter.name, given)
        self.profile = Path(self.settings.profile).stem
        self.recipe = self.settings.recipe or chapter.recipe
        self.store = store_of(self.settings)
        self.lines = self._settled(chapter.lines(self.settings), self.store)
        self.records: dict[str, Record] = {}
        self._stand_on: dict[str, str] = {}  # profile -> what its recorded runs are

    @property
    def is_evidence(self) -> bool:
        """Whether every run is of its recipe's length, on the whole of the data sets the claim is about."""
        return all(
            is_published_setting(run, self.chapter.name, recipe)
            for recipe, lines in self._by_recipe().items()
            for line in lines
            for run in line.runs
        )

    def run(self) -> pd.DataFrame:
        """Load what is recorded, train what is missing (see `on_missing`); a frame as `runs_frame` gives it."""
        wanted = {run.id for line in self.lines for run in line.runs}
        before = {run for run in wanted if self.store.has(run)}
        for recipe, lines in self._by_recipe().items():
            labels = {"profile": self.settings.profile, "recipe": recipe, "chapter": self.chapter.name}
            runs = [run for line in lines for run in line.runs]
            self.records |= self.runner(labels).run(runs, self.settings.on_missing)
        trained, absent = len(set(self.records) - before), len(wanted) - len(self.records)
        print(
            f"{len(wanted)} runs: {len(before)} were recorded, {trained} were trained now, {absent} are missing."
        )
        return self._frame()

    def published(self, profile: str | None = None) -> pd.DataFrame:
        """What the sources print of the rows here, or as a profile alone has them; see `published_frame`."""
        return published_frame(self.lines if profile is None else self.under(profile)[0])

    def recorded(self, profiles: Iterable[str] = ("paper", "short", "mini")) -> pd.DataFrame:
        """Committed runs of the same rows under other profiles, as `runs_frame` gives them; the paper profile's with
        what is missing, others only where there are some. Without this execution's own profile, unless parameters were
        given."""
        frames = []
        for profile in profiles:
            if profile == self.profile and not self.given:
                continue
            lines, records = self.under(profile)
            if records or profile == "paper":
                frames.append(runs_frame(lines, records, profile))
                self._stand_on[profile] = self.in_words(lines)
        return pd.concat(frames) if frames else runs_frame(self.lines, {}, self.profile).iloc[:0]

    def under(self, profile: str) -> tuple[list[Line], dict[str, Record]]:
        """The rows as a profile alone has them, and what is recorded of them."""
        recipe = {"recipe": self.settings.recipe} if self.settings.recipe else {}
        return self._recorded({"profile": profile, **recipe}, store_for(profile))

    def differences(self, level: float = 0.95) -> pd.DataFrame:
        """What the given parameters change: this execution against the profile's own parameters, row by row.

        Returns:
            Index: the rows whose runs are others; columns: mean accuracy under the profile's own parameters and here
            (%), their difference and both ends of its interval after Welch (percentage points; missing below two runs a
            side).
        """
        where = {name: value for name, value in self.given.items() if name in parameters.WHERE}
        lines, records = self._recorded({**where, "profile": self.settings.profile}, self.store)
        base = dict(list(runs_frame(lines, records, self.profile).groupby("name")))
        rows = {}
        for name, ours in self._frame().groupby("name", sort=False):
            theirs = base.get(name)
            if theirs is None or list(theirs["run"]) == list(ours["run"]):
                continue
            a, b = ours["accuracy"].dropna(), theirs["accuracy"].dropna()
            low = high = float("nan")
            if min(len(a), len(b)) > 1 and max(a.std(), b.std()) > 0:
                low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(level)
            rows[name] = b.mean(), a.mean(), a.mean() - b.mean(), low, high
        columns = ["profile's own", "here", "difference", "low", "high"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns)

    def show(self, table: pd.DataFrame) -> HTML:
        """A table with one row per line (its name as index), in the order of the chapter: with the headings of groups,
        and what a reader has to know of a row in small print. All text in it is escaped."""
        names, same = names_of(self.lines), same_runs(self.lines)
        shown = table.fillna("").astype(str)
        lines = [line for line in self.lines if names[line.key] in shown.index]
        rows = []
        for group, members in itertools.groupby(lines, lambda line: line.group):
            if group:
                heading = tag("th", group, colspan=len(shown.columns) + 1, scope="rowgroup")
                rows.append(tag("tr", heading, class_="rkd-group"))
            for line in members:
                note = f"same runs as “{same[line.key]}”" if line.key in same else line.note
                small = tag("div", note, class_="rkd-note") if note else ""
                cells = (
                    tag("td", text.replace("n = ", "n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"))
                    for text in shown.loc[names[line.key]]
                )
                rows.append(tag("tr", tag("th", line.label, small, scope="row"), *cells))
        head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in ("", *shown.columns))))
        made = tag("table", head, tag("tbody", *rows), class_="rkd-table rkd-results")
        return HTML(scrolling(made) + self._notes())

    def grid(self, parts: Mapping[str, pd.Series]) -> HTML:
        """Series of texts indexed by label and group, as one table of labels against groups: the first in each cell,
        those after it below, in small print. Rows and columns are in the order of the chapter, those of here that the
        paper profile does not have first."""
        lines = [*self.lines, *self.under("paper")[0]]
        first, *below = (part.astype(str).map(escape) for part in parts.values())
        for part in below:
            first = first.add(part.map('<div class="rkd-source">{}</div>'.format), fill_value="")
        labels, groups = (dict.fromkeys(getattr(line, name) for line in lines) for name in ("label", "group"))
        made = first.unstack().reindex(index=list(labels), columns=list(groups))
        made = made.rename_axis(index=None, columns=None)
        made.index, made.columns = made.index.map(escape), made.columns.map(escape)
        table = made.to_html(escape=False, na_rep="", border=0, classes="rkd-table rkd-grid")
        note = f"In each cell: {', below it '.join(map(escape, parts))}."
        return HTML(f'{scrolling(table)}<p class="rkd-note">{note}</p>{self._notes()}')

    def figure(self, figure: Figure, said: str = "") -> Drawing:
        """A figure with words for those who do not see it: the measured means, or what `said` says."""
        plt.close(figure)  # shown once, by what is returned
        runs = self._frame().groupby("name", sort=False)
        means = "; ".join(f"{name}: {mean_sd(rows)}" for name, rows in runs)
        return show(figure, f"{self.chapter.title}. {said or f'Measured means in percent: {means}'}.")

    def curves(self, groups: int | None = None) -> object:
        """Accuracies and losses of every epoch, to be explored; of the first `groups` groups of rows only, where given
        (a chapter of very many rows)."""
        from rkd.report.interactive.curves import curves

        shown = list(dict.fromkeys(line.group for line in self.lines))[:groups]
        lines = [line for line in self.lines if line.group in shown]
        return curves(lines, self.records, f"Training curves, profile {self.profile}")

    def parameters(self) -> pd.DataFrame:
        """Every parameter in force, and where its value comes from."""
        s, last = self.settings, self.lines[-1].runs[0]
        builder, of_row = Builder(s, self.recipe), {}

        def weights(run: RunConfig) -> dict[str, float | None]:
            return {"ce_weight": run.ce_weight, "loss_weight": getattr(run.options, "loss_weight", None)}

        if last.teacher is not None:
            plain = weights(builder.distilled(last.teacher.name, last.network, last.seed, last.method))
            of_row = {name: "row" for name, own in weights(last).items() if own != plain[name]}
        of_run = {
            "recipe": self.recipe,
            "epochs": last.epochs,
            "batch_size": last.batch_size,
            "lr": last.optimiser.lr,
            "decay_epochs": last.optimiser.decay_epochs,
            "normalisation": last.data.normalisation,
        }
        values = {name: getattr(s, name) for name in parameters.names()} | of_run | weights(last)
        origins = {"recipe": "chapter", **builder.origins, **s.origins, **of_row}
        rows = {
            name: (str(list(value) if isinstance(value, tuple) else value), origins.get(name, "default"))
            for name, value in values.items()
            if value is not None
        }
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "from"])

    def runner(self, labels: Mapping[str, str] | None = None) -> Runner:
        """What trains and evaluates runs as the settings say."""
        return runner_of(self.settings, self.store, labels=dict(labels or {}))

    def banner(self) -> Html:
        """What the page's numbers are worth."""
        what = self.in_words()
        kind, *text = "mini", tag("strong", "A short run, not the published setting:"), f" {what}. {TENDENCY}"
        if self.is_evidence:
            kind, *text = "paper", f"The published setting: {what}. These numbers are evidence."
        elif self.profile == "smoke":
            start = tag("strong", "This copy proves the machinery, not the claim.")
            said = (
                f" Every network was trained for {what}. The accuracies say nothing about the published ones."
            )
            kind, *text = "smoke", start, said
        pair = (canonical(self.settings.teacher), canonical(self.settings.student))
        if self.chapter.one_pair and pair != PUBLISHED_PAIR:
            here, there = (f"{display_name(s)} ← {display_name(t)}" for t, s in (pair, PUBLISHED_PAIR))
            text.append(f" The pair is {here} in place of the published {there}.")
        return tag("div", tag("p", *text), class_=f"rkd-callout {kind}")

    def in_words(self, lines: Sequence[Line] | None = None) -> str:
        """Length and images of the runs here, or of other lines, then with their pair."""
        shown = self.lines if lines is None else lines
        run = shown[-1].runs[0]
        images = f"{run.data.train_images:,} images" if run.data.train_images else "all training images"
        sets = dict.fromkeys(run.data.name for line in shown for run in line.runs)
        named = " and ".join(DATA_SETS.get(name, name) for name in sets)
        pair = ""
        if self.chapter.one_pair and lines is not None and run.teacher is not None:
            pair = f"{display_name(run.network)} ← {display_name(run.teacher.name)}, "
        return f"{pair}{run.epochs} epoch{'s' if run.epochs != 1 else ''} on {images} of {named}"

    def recipes(self) -> str:
        """The recipes of the rows in words, one a line."""
        return "\n".join(f"{name}: {load_recipe(name).description}" for name in self._by_recipe())

    def _by_recipe(self) -> dict[str, list[Line]]:
        found: dict[str, list[Line]] = {}
        for line in self.lines:
            found.setdefault(line.recipe or self.recipe, []).append(line)
        return found

    def _frame(self) -> pd.DataFrame:
        return runs_frame(self.lines, self.records, self.profile)

    def _settled(self, lines: Sequence[Line], store: Store) -> list[Line]:
        """With their runs as they are recorded, or would be trained here: everything goes by their ids."""
        return [line.settled(store, pick_device(self.settings.device)) for line in lines]

    def _recorded(self, given: Mapping[str, Any], store: Store) -> tuple[list[Line], dict[str, Record]]:
        lines = self._settled(self.chapter.lines(parameters.resolve(self.chapter.name, given)), store)
        ids = {run.id for line in lines for run in line.runs}
        return lines, {run: store.load(run) for run in ids if store.has(run)}

    def _notes(self) -> Html:
        """What recorded columns stand on, and the arithmetics, where what was measured here is not all of one."""
        others = {profile: what for profile, what in self._stand_on.items() if profile != "paper"}
        notes = [f"{profile.capitalize()} profile: {what}. {TENDENCY}" for profile, what in others.items()]
        found = sorted({record.arithmetic for record in self.records.values()})
        if len(found) > 1:
            names = ", ".join(found)
            notes.append(
                f"Not all of these runs were computed in one arithmetic ({names}): see the last table."
            )
        return join(*(tag("p", note, class_="rkd-note") for note in notes))
