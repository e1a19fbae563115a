"""What the chapter about attention and pyramid calls: one run of the full method, and the maps kept of it."""

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML, display

from rkd import paths
from rkd.errors import ConfigError, RkdError
from rkd.experiments import settings as parameters
from rkd.experiments.chapters import Line, get_chapter
from rkd.experiments.frames import runs_frame
from rkd.experiments.recipes import load_recipe
from rkd.experiments.runner import pick_device
from rkd.experiments.settings import Settings
from rkd.experiments.settle import settle_lines
from rkd.experiments.snapshots import Snapshots, SnapshotTaker, load_snapshots
from rkd.experiments.workspace import data_root, runner_of, store_for, store_of
from rkd.judge import is_published_setting
from rkd.models import display_name
from rkd.records import Record, Store
from rkd.report import tables
from rkd.report.experiment import DATA_SETS, PROVENANCE
from rkd.report.interactive import attention, pyramid
from rkd.training import RunConfig

CHAPTER, OF_CHAPTER, OF_LINE = "inside", "table3", "full"  # the run is one of Table 3's
RECORDED = ("paper", "mini")  # profiles whose committed maps are shown beside this execution's
NO_ATTENTION = "This run fuses its maps without attention: there are no attention maps to show."


def open_inside(namespace: Mapping[str, Any]) -> "InsidePage":
    """Open the chapter under the parameters found in a notebook's namespace; everything is checked here.

    Args:
        namespace: `globals()` of the notebook.

    Raises:
        ConfigError: an unknown, misspelt or contradictory parameter.
    """
    return InsidePage(parameters.given_in(namespace, ("image",)))


@dataclass(frozen=True)
class Shown:
    """One run whose maps are shown.

    Attributes:
        said: what it is, in a sentence or two.
        title: the same in a few words, for alternative texts.
        line: of Table 3, with this run alone.
        store: where its record lies.
        record: None while it is missing.
        snapshots: None where no maps are kept.
    """

    said: str
    title: str
    line: Line
    store: Store
    record: Record | None
    snapshots: Snapshots | None

    @property
    def run(self) -> RunConfig:
        """Its config."""
        return self.line.runs[0]

    @property
    def fault(self) -> str:
        """Why there is nothing to draw; empty where there is."""
        if self.record is None:
            return f"Run {self.run.id} is not recorded; with on_missing: train it is trained."
        if self.record.status != "finished":
            return f"Run {self.run.id} ended as {self.record.status!r}: its maps show nothing."
        return "" if self.snapshots else f"Of run {self.run.id} no maps were kept."


class InsidePage:
    """The executed chapter.

    Args:
        given: explicit parameters.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        given = dict(given)
        self.image = given.pop("image", 0)
        taker = SnapshotTaker()
        if (
            not isinstance(self.image, int)
            or isinstance(self.image, bool)
            or self.image not in range(taker.images)
        ):
            raise ConfigError(
                f"image is {self.image!r}; it must be a whole number from 0 to {taker.images - 1}"
            )
        self.given, self.taker = given, taker
        self.settings, line = _full_line(given)
        self.recipe = self.settings.recipe or get_chapter(OF_CHAPTER).recipe
        self.store = store_of(self.settings)
        self.line = self._settled(line, self.store)
        self.shown: list[Shown] = []
        display(HTML(self._banner()))

    def run(self) -> HTML:
        """Load the run and its maps, or train it (see `on_missing`)."""
        s, config = self.settings, self.line.runs[0]
        had_record, had_maps = self.store.has(config.id), self.store.maps(config.id).exists()
        labels = {"profile": s.profile, "recipe": self.recipe, "chapter": CHAPTER}
        runner = runner_of(s, self.store, labels=labels)
        records = runner.run([config], s.on_missing, snapshots=self.taker)
        here = self._shown(self.settings, self.line, self.store, "This execution", records.get(config.id))
        others = [other for profile in RECORDED if (other := self._recorded(profile, config.id))]
        self.shown = [*others, here] if _is_smoke(s) else [here, *others]
        if had_record and (had_maps or here.snapshots is None):
            text = "was recorded, and is loaded"
        elif had_record:
            text = "was recorded without its maps, and was trained again for them"
        else:
            text = "is missing" if here.record is None else "was trained now"
        said = f"<code>{config.id}</code>, {html.escape(here.title)}, {text}."
        more = [f"<code>{other.run.id}</code>, {html.escape(other.title)}, is on file." for other in others]
        return HTML(f'<p class="rkd-note">Run {" Run ".join([said, *more])}</p>')

    def attention(self) -> None:
        """Attention maps of each run shown, with a slider through the epochs."""
        for _, snapshots in self._drawable("attention"):
            display(attention.attention_stack(snapshots))

    def attention_means(self) -> None:
        """Mean weights against epochs, as figure and table, and what they say."""
        for shown, snapshots in self._drawable("attention"):
            display(
                HTML(f"<p>{html.escape(attention.attention_sentence(snapshots))}</p>"),
                attention.means_plot(snapshots, shown.title),
                attention.means_table(snapshots),
            )

    def pyramid(self) -> None:
        """One channel of student and teacher and their difference, with a slider through the levels."""
        for shown, snapshots in self._drawable():
            image = min(self.image, len(snapshots.images) - 1)
            display(pyramid.pyramid_stack(snapshots, shown.run.options, image))

    def pyramid_errors(self) -> None:
        """Mean squared errors and weights at all sizes of all levels, and what they say."""
        for shown, snapshots in self._drawable():
            display(
                HTML(f"<p>{html.escape(pyramid.pyramid_sentence(snapshots, shown.run.options))}</p>"),
                pyramid.pyramid_table(snapshots, shown.run.options),
            )

    def injected(self) -> HTML:
        """The parameters that were given, and everything in force."""
        run = self.line.runs[0]
        in_the_run = {
            "recipe": self.recipe,
            "seeds": (run.seed,),
            "epochs": run.epochs,
            "batch_size": run.batch_size,
            "lr": run.optimiser.lr,
            "decay_epochs": run.optimiser.decay_epochs,
            "normalisation": run.data.normalisation,
            "image": self.image,
        }
        effective = {name: getattr(self.settings, name) for name in parameters.names()} | in_the_run
        rows = {n: (str(v), self.settings.origin(n)) for n, v in effective.items() if v is not None}
        table = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "from"])
        words = html.escape(load_recipe(self.recipe).description)
        said = f"<p>Recipe <code>{html.escape(self.recipe)}</code>: {words}.</p>"
        return HTML(said + tables.frame(table, index=True).data)

    def provenance(self) -> HTML:
        """Record, device and time of each run."""
        parts = []
        for shown in self._done():
            records = {} if shown.record is None else {shown.run.id: shown.record}
            parts.append(_label(shown))
            runs = runs_frame([shown.line], records, self.settings.profile).set_index("run")
            parts.append(tables.frame(runs[PROVENANCE], index=True).data)
            if shown.snapshots:
                path = _home_name(shown.store.maps(shown.run.id))
                parts.append(f'<p class="rkd-note">Its maps: <code>{html.escape(path)}</code>.</p>')
        return HTML("".join(parts))

    def _drawable(self, what: str = "") -> Iterator[tuple[Shown, Snapshots]]:
        """Runs with maps, one by one, each after its label; what cannot be drawn is said in its place."""
        for shown in self._done():
            display(HTML(_label(shown)))
            fault = shown.fault
            if not fault and what == "attention" and not attention.attention_levels(shown.snapshots):
                fault = NO_ATTENTION
            if fault:
                display(HTML(f'<p class="rkd-note">{html.escape(fault)}</p>'))
            else:
                yield shown, shown.snapshots

    def _done(self) -> list[Shown]:
        if not self.shown:
            raise RkdError("call page.run() before this cell")
        return self.shown

    def _recorded(self, profile: str, here: str) -> Shown | None:
        """The committed run of a profile; None without maps, or if it is this execution's."""
        values = {"profile": profile, **({"recipe": self.settings.recipe} if self.settings.recipe else {})}
        settings, line = _full_line(values)
        store = store_for(profile)
        line = self._settled(line, store)
        run = line.runs[0].id
        if run == here or not store.has(run) or not store.maps(run).exists():
            return None
        return self._shown(settings, line, store, "On file", store.load(run))

    def _settled(self, line: Line, store: Store) -> Line:
        (found,) = settle_lines([line], store, pick_device(self.settings.device))
        return found

    def _shown(self, settings: Settings, line: Line, store: Store, how: str, record: Record | None) -> Shown:
        run = line.runs[0]
        profile = Path(settings.profile).stem
        pair = f"{display_name(run.network)} ← {display_name(run.teacher.name)}"
        title = f"profile {profile}: {pair}, {_length(run)}"
        said = f"<strong>{how}, {html.escape(title)}.</strong>"
        if _is_smoke(settings):
            said += " Trained so little, it shows the machinery only."
        elif not is_published_setting(run, OF_CHAPTER):
            said += " A short run: a tendency, no evidence."
        return Shown(said, title, line, store, record, load_snapshots(store, run.id, data_root(settings)))

    def _banner(self) -> str:
        run = self.line.runs[0]
        if _is_smoke(self.settings):
            kind = "smoke"
            text = (
                "<strong>The run of this copy proves the machinery only.</strong> Its networks were trained for "
                f"{_length(run)}: what their attention looks like says nothing about the method."
            )
        elif is_published_setting(run, OF_CHAPTER):
            kind, text = "paper", f"A run of the published setting: {_length(run)}."
        else:
            kind = "mini"
            text = f"<strong>A short run, not the published setting:</strong> {_length(run)}."
        return f'<div class="rkd-callout {kind}"><p>{text}</p></div>'


def _full_line(given: Mapping[str, Any]) -> tuple[Settings, Line]:
    """Settings, and Table 3's row of the full method under its first seed."""
    settings = parameters.resolve(CHAPTER, given)
    settings = replace(settings, seeds=settings.seeds[:1])
    lines = get_chapter(OF_CHAPTER).lines(settings)
    return settings, next(line for line in lines if line.key == OF_LINE)


def _is_smoke(settings: Settings) -> bool:
    return Path(settings.profile).stem == "smoke"


def _length(run: RunConfig) -> str:
    images = f"{run.data.train_images:,} images" if run.data.train_images else "all training images"
    epochs = f"{run.epochs} epoch{'s' if run.epochs != 1 else ''}"
    return f"{epochs} on {images} of {DATA_SETS.get(run.data.name, run.data.name)}"


def _label(shown: Shown) -> str:
    return f"<p>{shown.said}</p>"


def _home_name(path: Path) -> str:
    home = paths.home()
    return str(path.relative_to(home)) if path.is_relative_to(home) else str(path)
