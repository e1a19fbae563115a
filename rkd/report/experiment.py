"""What the notebook of a table or figure calls: runs and published figures as DataFrames, and ways to show them."""

import functools
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import HTML, display
from matplotlib.figure import Figure

from rkd.devices import pick_device
from rkd.experiments import frames
from rkd.experiments import settings as parameters
from rkd.experiments.chapters import SETS, Chapter, Line, chapter_in
from rkd.experiments.estimate import KNOWN_SIZES, recorded_work, run_macs
from rkd.experiments.recipes import Builder, load_recipe
from rkd.experiments.runner import Runner, required, unfinished
from rkd.experiments.selectors import is_published_setting
from rkd.experiments.settings import Settings
from rkd.experiments.workspace import runner_of, store_for, store_of
from rkd.judge import GRADES
from rkd.judge.contrast import contrast
from rkd.models import canonical, display_name
from rkd.published.others import other_runs
from rkd.records import Record, Store
from rkd.report.book import VARIATION
from rkd.report.diagrams import Drawing, show
from rkd.report.interactive.curves import curves
from rkd.report.interactive.markup import Html, join, tag, text
from rkd.report.tables import header_table, scroll_box
from rkd.report.verdict_text import plural
from rkd.report.verdicts import chapter_box
from rkd.training import RunConfig

DATA_SETS = {"embedded": "the embedded set", **SETS}
PUBLISHED_PAIR = ("resnet56", "resnet20")  # of Tables 3 to 6, Figure 6 and the run without cross-entropy
PROFILES = {"A": "paper", "C": "short"}  # grade of evidence -> the profile whose records have it


def open_experiment(name: str, namespace: Mapping[str, Any]) -> "Experiment":
    """Open a chapter with the parameters and rows found in a notebook's `globals()`; show its banner and verdicts.

    Everything is checked here: every run's config is built, so a contradiction stops the first cell with one
    sentence, before anything is trained.

    Raises:
        ConfigError: a parameter is unknown, misspelt or contradictory, or the rows are not valid rows.
    """
    experiment = Experiment(chapter_in(name, namespace), parameters.namespace_parameters(namespace))
    if not experiment.is_self_test:
        display(experiment.banner())
    if VARIATION not in os.environ:  # the verdicts judge the chapter as the paper profile has it
        verdicts = chapter_box(name)
        nothing = HTML(tag("p", "No claim is declared about the rows of this page.", class_="rkd-note"))
        display(verdicts if verdicts.data else nothing)
    look = {"font.size": 10, "axes.grid": True, "grid.color": "#dddddd", "text.parse_math": False}
    sns.set_theme(style="ticks", rc=look)
    return experiment


class Experiment:
    """One executed chapter under explicitly `given` parameters.

    Attributes:
        settings: the parameters in force.
        lines: the rows of the table, each with its runs.
        unread: names of given parameters without effect here (a build of the book gives all chapters the same).
    """

    def __init__(self, chapter: Chapter, given: Mapping[str, Any]) -> None:
        self.chapter = chapter
        # papermill injects the profile's values as well
        standing = parameters.load_profile(given.get("profile", "smoke")) | {"profile": given.get("profile")}
        self.given = {n: v for n, v in given.items() if n not in standing or standing[n] != v}
        self.settings = parameters.resolve(chapter.name, given)
        self.profile = Path(self.settings.profile).stem
        self.recipe = self.settings.recipe or chapter.recipe
        self.store = store_of(self.settings)
        self.lines = self._lines(self.settings, self.store)
        read = {*parameters.WHERE}.union(*(line.read for line in self.lines))
        self.unread = [
            name for name in self.given if name in parameters.parameter_names() and name not in read
        ]
        self.records: dict[str, Record] = {}
        self._under: dict[str, tuple[list[Line], dict[str, Record]]] = {}

    @property
    def is_self_test(self) -> bool:
        """Whether the runs of this execution only show that everything works: those of the unchanged smoke profile."""
        return self.profile == "smoke" and self.given.keys() <= {*parameters.WHERE}

    @property
    def is_evidence(self) -> bool:
        """Whether every run has its recipe's length, on the whole of the data sets that the claims are about."""
        runs = ((run, recipe) for recipe, runs in self._by_recipe().items() for run in runs)
        return all(is_published_setting(run, self.chapter.name, recipe) for run, recipe in runs)

    def run(self, maps: bool = False) -> pd.DataFrame:
        """Load recorded runs, train missing ones (see `on_missing`), and return a frame as `runs_frame` does. With
        `maps`, a run that is recorded without them is trained again."""
        wanted = {run.id for line in self.lines for run in line.runs}
        before = {run for run in wanted if self.store.has(run)}
        for recipe, runs in self._by_recipe().items():
            labels = {"profile": self.settings.profile, "recipe": recipe, "chapter": self.chapter.name}
            self.records |= self.runner(labels=labels, maps=maps).run(runs, self.settings.on_missing)
        trained, absent = len(set(self.records) - before), len(wanted) - len(self.records)
        if self.is_self_test:
            print(f"Self-test of this copy: {self.describe()}.")
        said = f"{len(before)} recorded before, {trained} trained now, {absent} missing"
        print(f"{plural(len(wanted), 'run')}: {said}.")
        return self._frame()

    @functools.cached_property
    def shown(self) -> list[Line]:
        """The rows of the page: those of this execution or, in a self-test, those of the published setting, then others
        with recorded short runs, in groups where these include a distilled student."""
        if not self.is_self_test:
            return self.lines
        lines, (short, records) = self.under("paper")[0], self.under("short")
        known = {(line.group, line.label) for line in lines}
        more = [line for line in short if any(run.id in records for run in line.runs)]
        taught = {line.group for line in more if line.role == "distilled"}
        return [*lines, *(x for x in more if x.group in taught and (x.group, x.label) not in known)]

    def published(self) -> pd.DataFrame:
        """Return what the sources print for the rows; see `published_frame`."""
        return frames.published_frame(self.shown)

    def evidence(self) -> pd.DataFrame:
        """Return all recorded runs of the rows, including those that others measured, but not those of a self-test.

        Returns:
            As `runs_frame`, and: grade (A, B or C, see `rkd.judge.GRADES`), epoch ("last", or "best" if only that
            epoch's accuracy is told), source. A row with nothing on record has one entry, of grade "none".
        """
        names, ours = frames.names_of(self.shown), {}
        for grade, profile in PROFILES.items():
            found = frames.runs_frame(*self.under(profile), profile, names)
            found = found.assign(grade=grade, epoch="last", source=f"results/{profile}")
            ours[grade] = found[found["status"] != "missing"]
        others = frames.others_frame(self.under("paper")[0], other_runs(), self.chapter.name, names)
        found = pd.concat([ours["A"], others.assign(grade="B"), ours["C"]])
        rows = self.published()[["name", "label", "group", "key", "role"]].drop_duplicates("name")
        silent = rows[~rows["name"].isin(found["name"])].assign(grade="none", status="missing")
        found = pd.concat([found, silent], ignore_index=True).astype({"seed": "Int64"})
        return found.assign(threads=pd.to_numeric(found["threads"], errors="coerce").round().astype("Int64"))

    def under(self, profile: str) -> tuple[list[Line], dict[str, Record]]:
        """Return the rows as a profile alone, without the given parameters, makes them, and their records."""
        if profile not in self._under:
            self._under[profile] = self._recorded({"profile": profile}, store_for(profile))
        return self._under[profile]

    def lacking(self) -> str:
        """Return a sentence on what would decide the rows, and its cost: the runs of the published setting that are not
        recorded, at the rate of recorded ones. Empty if none is missing."""
        runs = [run for line in self.under("paper")[0] for run in line.runs]
        wanted, left = required(runs), unfinished(runs, store_for("paper"))
        if not left:
            return ""
        lacking = "none is" if len(left) == len(wanted) else f"{len(left)} are not"
        said = f"These rows need {len(wanted)} runs in the published setting; {lacking} on record"
        stores = map(store_for, PROFILES.values())
        known = ([record for record in store if record.config.data.name in KNOWN_SIZES] for store in stores)
        found = recorded_work(next(filter(None, known), ()), "data", modules=False)
        if found.empty:
            return f"{said}."
        kinds = found.assign(rate=found["alone"] / found["seconds"])
        rates = kinds.groupby(["device", "threads", "arithmetic"])["rate"].median()
        machine, threads, numbers = rates.idxmax()
        on = f"{machine} in {plural(threads, 'thread')}" if threads else machine
        needs = [(run, run_macs(run, KNOWN_SIZES[run.data.name], modules=False)) for run in left]
        macs = sum(need.training(run.total_epochs * need.images) for run, need in needs)
        hours = float(f"{macs / rates.max() / 3600:.2g}")
        rate = f"the rate of runs recorded on {on}, in {numbers}"
        return f"{said}. Training them would take one process about {hours:,.0f} hours at {rate}."

    def differences(self, level: float = 0.9) -> pd.DataFrame | None:
        """Return what the given parameters change: this execution against the profile's own parameters, row by row.

        Runs of one seed have the same batches and, if the networks are alike, the same initial weights: they are
        compared in pairs, by t, if both sides share two seeds or more; else the means of all runs are, after Welch.

        Returns:
            Index: the rows whose runs differ; columns: mean accuracy under the profile's own parameters and here (%),
            their difference and both ends of its interval (percentage points; missing below two runs a side), to two
            decimals, and the number of pairs or runs. None in a self-test or if there is no such row.
        """
        if self.is_self_test:
            return None
        where = {name: value for name, value in self.given.items() if name in parameters.WHERE}
        lines, records = self._recorded({**where, "profile": self.settings.profile}, self.store)
        base = dict(list(frames.runs_frame(lines, records, self.profile).groupby("name")))
        rows = {}
        for name, ours in self._frame().groupby("name", sort=False):
            theirs = base.get(name)
            if theirs is None or list(theirs["run"]) == list(ours["run"]):
                continue
            a, b = (side.set_index("seed")["accuracy"].dropna() for side in (ours, theirs))
            of, low, high = f"{len(a)} against {len(b)} runs", float("nan"), float("nan")
            if len(seeds := a.index.intersection(b.index)) > 1:
                of, a, b = f"{len(seeds)} pairs", a[seeds], b[seeds]
                low, high = contrast([(a - b).to_numpy()], [1.0]).interval(level)
            elif min(len(a), len(b)) > 1:
                low, high = contrast([a.to_numpy(), b.to_numpy()], [1.0, -1.0]).interval(level)
            rows[name] = b.mean(), a.mean(), a.mean() - b.mean(), float(low), float(high), of
        columns = ["profile's own", "here", "difference", "low", "high", "of"]
        found = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
        return found.round(2) if rows else None

    def show(self, table: pd.DataFrame) -> HTML:
        """Return a table with one row per line (its name as index), in the order of the chapter, with the headings of
        groups and, in small print, what a reader has to know about a row; below it, what the grades of evidence in it
        are and what would decide its rows. All text in it is escaped."""
        names, same = frames.names_of(self.shown), frames.same_runs(self.shown)
        short = {line.group for line in self.shown} - {line.group for line in self.under("paper")[0]}
        shown = table.fillna("").astype(str)
        shown = shown.replace("n = ", "n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}", regex=True)
        lines = [line for line in self.shown if names[line.group, line.label] in shown.index]
        rows = []
        for group, members in itertools.groupby(lines, lambda line: line.group):
            if group:
                outside = self.is_self_test and group in short
                note = (
                    tag("div", "not of the published table: short runs only", class_="rkd-note")
                    if outside
                    else ""
                )
                heading = tag("th", group, note, colspan=len(shown.columns) + 1, scope="rowgroup")
                rows.append(tag("tr", heading, class_="rkd-group"))
            for line in members:
                note = f"same runs as “{same[line.key]}”" if line.key in same else line.note
                small = tag("div", note, class_="rkd-note") if note else ""
                cells = (tag("td", text) for text in shown.loc[names[line.group, line.label]])
                rows.append(tag("tr", tag("th", line.label, small, scope="row"), *cells))
        made = header_table(("", *shown.columns), rows, "rkd-table rkd-results")
        return HTML(join(scroll_box(made), self._notes()))

    def grid(self, parts: Mapping[str, pd.Series]) -> HTML:
        """Return series of texts, indexed by label and group, as one table of labels against groups: the first series
        in each cell, later ones below in small print. Rows and columns keep the chapter's order. Notes as in `show`."""
        first, *below = (part.astype(str).map(text) for part in parts.values())
        for part in below:
            small = part.map(lambda said: tag("div", Html(said), class_="rkd-source"))
            first = first.add(small, fill_value="")
        labels = list(dict.fromkeys(line.label for line in self.shown))
        groups = list(dict.fromkeys(line.group for line in self.shown))
        made = first.unstack().reindex(index=labels, columns=groups)
        made = made.rename_axis(index=None, columns=None)
        made.index, made.columns = made.index.map(text), made.columns.map(text)
        table = made.to_html(escape=False, na_rep="", border=0, classes="rkd-table rkd-grid")
        note = tag("p", f"In each cell: {', below it '.join(parts)}.", class_="rkd-note")
        return HTML(join(scroll_box(Html(table)), note, self._notes()))

    def figure(self, figure: Figure, said: str = "") -> Drawing:
        """Return a figure with words for those who cannot see it: `said` or, without it, the evidence on record and
        what was measured here, in percent."""
        plt.close(figure)  # so that only the returned drawing shows it
        found = self.evidence()
        recorded = found[found["grade"] != "none"].groupby(["name", "grade"], sort=False)
        means = [f"{name}: {frames.on_record(rows)}" for (name, _), rows in recorded]
        if not self.is_self_test:
            here = self._frame().groupby("name", sort=False)
            means += [f"{name}, here: {frames.mean_sd(rows)}" for name, rows in here]
        said = said or f"Measured means in percent: {'; '.join(means) or 'none on record'}"
        return show(figure, f"{self.chapter.title}. {said}.")

    def curves(self, groups: int | None = None) -> object:
        """Return the accuracies and losses of every epoch as an interactive view; if `groups` is given, only of that
        many first groups of rows (for a chapter with very many rows)."""
        shown = list(dict.fromkeys(line.group for line in self.lines))[:groups]
        lines = [line for line in self.lines if line.group in shown]
        return curves(lines, self.records, f"Training curves, profile {self.profile}")

    def parameters(self) -> pd.DataFrame:
        """Return every parameter in force, and where its value comes from."""
        s, last = self.settings, self.lines[-1].runs[0]
        builder, of_row = Builder(s, self.recipe), {}

        def weights(run: RunConfig) -> dict[str, float | None]:
            return {"ce_weight": run.ce_weight, "loss_weight": getattr(run.options, "loss_weight", None)}

        if last.teacher is not None:
            plain = weights(builder.distilled(last.teacher.name, last.network, last.seed, last.method))
            of_row = {name: "row" for name, own in weights(last).items() if own != plain[name]}
        of_run = {
            "recipe": self.recipe, "epochs": last.epochs, "batch_size": last.batch_size, "lr": last.optimiser.lr,
            "decay_epochs": last.optimiser.decay_epochs, "normalisation": last.data.normalisation,
        }  # fmt: skip
        values = {name: getattr(s, name) for name in parameters.parameter_names()} | of_run | weights(last)
        origins = {"recipe": "chapter", **builder.origins, **s.origins, **of_row}
        shown = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items() if v is not None}
        rows = {name: (str(value), origins.get(name, "default")) for name, value in shown.items()}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "from"])

    def runner(self, **options: Any) -> Runner:
        """Return what trains and evaluates runs as the settings say; `options` are further options of `Runner`."""
        return runner_of(self.settings, self.store, **options)

    def banner(self) -> Html:
        """Return a box that says what the page's numbers are worth."""
        what = self.describe()
        kind, start = "mini", "A short run, not the published setting:"
        said = f" {what}. It can show a tendency; it neither confirms nor refutes a published value."
        if self.is_evidence:
            kind, start, said = "paper", "", f"The published setting: {what}. These numbers are evidence."
        elif self.profile == "smoke":
            kind, start = "smoke", "This copy proves the machinery, not the claim."
            said = (
                f" Every network of this execution was trained for {what}. Its accuracies say nothing about the "
                "published ones."
            )
        text = [tag("strong", start) if start else "", said]
        pair = (canonical(self.settings.teacher), canonical(self.settings.student))
        if self.chapter.one_pair and pair != PUBLISHED_PAIR:
            here, there = (f"{display_name(s)} ← {display_name(t)}" for t, s in (pair, PUBLISHED_PAIR))
            text.append(f" The pair is {here} in place of the published {there}.")
        if self.unread:
            text.append(f" Given without effect on this page: {', '.join(self.unread)}.")
        return tag("div", tag("p", *text), class_=f"rkd-callout {kind}")

    def describe(self, lines: Sequence[Line] | None = None) -> str:
        """Return the length and images of the runs here or, with their pair, of those of other lines."""
        shown = self.lines if lines is None else lines
        run = shown[-1].runs[0]
        images = f"{run.data.train_images:,} images" if run.data.train_images else "all training images"
        sets = dict.fromkeys(run.data.name for line in shown for run in line.runs)
        named = " and ".join(DATA_SETS.get(name, Path(name).name) for name in sets)
        pair = ""
        if self.chapter.one_pair and lines is not None and run.teacher is not None:
            pair = f"{display_name(run.network)} ← {display_name(run.teacher.name)}, "
        return f"{pair}{plural(run.epochs, 'epoch')} on {images} of {named}"

    def recipes(self) -> str:
        """Return the recipes of the rows in words, one per line."""
        return "\n".join(f"{name}: {load_recipe(name).description}" for name in self._by_recipe())

    def _by_recipe(self) -> dict[str, list[RunConfig]]:
        found: dict[str, list[RunConfig]] = {}
        for line in self.lines:
            found.setdefault(line.recipe, []).extend(line.runs)
        return found

    def _frame(self) -> pd.DataFrame:
        return frames.runs_frame(self.lines, self.records, self.profile)

    def _lines(self, settings: Settings, store: Store) -> list[Line]:
        """Return the lines, their runs as they are recorded or would be trained here: everything goes by their ids."""
        device = pick_device(self.settings.device)
        return [line.settled(store, device) for line in self.chapter.lines(settings)]

    def _recorded(self, given: Mapping[str, Any], store: Store) -> tuple[list[Line], dict[str, Record]]:
        lines = self._lines(parameters.resolve(self.chapter.name, given), store)
        ids = {run.id for line in lines for run in line.runs}
        return lines, store.read(ids)

    def _notes(self) -> Html:
        """Return notes on the grades of evidence, on what would decide the rows and, if what was measured here has
        several, on the arithmetics."""
        found = self.evidence()
        own = sum(str(source).endswith(frames.OWN) for source in found["source"])
        more = {
            "B": f" ({own} of {(found['grade'] == 'B').sum()} are behind the source's own figures)",
            "C": f" ({self.describe(self.under('short')[0])})",
        }
        there = {grade: of for grade, of in GRADES.items() if grade in found["grade"].values}
        notes = [f"{grade}, {of.name}: {of.what}{more.get(grade, '')}." for grade, of in there.items()]
        notes.append(self.lacking())
        names = sorted({record.arithmetic for record in self.records.values()})
        if len(names) > 1 and not self.is_self_test:
            several = f"Not all of these runs were computed in one arithmetic ({', '.join(names)})"
            notes.append(f"{several}: see the last table.")
        return join(*(tag("p", note, class_="rkd-note") for note in notes if note))
