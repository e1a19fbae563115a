"""Every recorded run, one row per configuration: a table, a dot plot that follows its filters, and training curves."""

import hashlib
import json
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import itables.options
import numpy as np
import pandas as pd
import seaborn as sns
from itables import to_html_datatable
from itables.javascript import generate_init_offline_itables_html
from itables.typing import JavascriptFunction
from matplotlib.figure import Figure
from scipy import stats

from rkd.experiments import settings
from rkd.experiments.chapters import Chapter, Line, chapter_names, get_chapter
from rkd.experiments.workspace import store_for
from rkd.judge import is_published_setting
from rkd.models import display_name
from rkd.records import Record
from rkd.report.figures import CARD, GRID, INK
from rkd.report.interactive.assets import attached
from rkd.report.interactive.curves import curves
from rkd.report.interactive.plot import Plot, fallback_image
from rkd.review import ReviewOptions
from rkd.training import RunConfig

COMMITTED = ("paper", "mini")  # profiles whose records are part of the project
EVIDENCE, SHORT, MACHINERY = "evidence", "short run", "machinery"
KINDS = {  # colour and marker (matplotlib's, plotly's) of each kind
    EVIDENCE: ("#0072b2", "o", "circle"),
    SHORT: ("#d55e00", "D", "diamond"),
    MACHINERY: ("#6b7580", "X", "x"),
}
DRAWN = 40  # rows of the dot plot, at most
CURVE_POINTS = 80  # of one curve here, where every recorded run is on one page

# On the first draw, since itables 2.9 does not pass on an initComplete; a moment later, when the table is whole.
_HAND_OVER = JavascriptFunction(
    "function () { const api = this.api(); const node = api.table().node(); if (node.rkdApi) return; "
    "node.rkdApi = api; "
    "setTimeout(() => node.dispatchEvent(new CustomEvent('rkd-table', { bubbles: true })), 0); }"
)


@dataclass(frozen=True)
class Place:
    """Where a run stands in the report."""

    chapter: str
    row: str
    recipe: str


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in nothing but their seed.

    Attributes:
        key: short hash of the configuration.
        records: by seed.
        profile: under which they were recorded.
        places: rows of chapters that stand on them; empty for runs no chapter asks for.
        recipe: "" where nothing says.
        chapter: they were recorded for; "" where nothing says.
    """

    key: str
    records: tuple[Record, ...]
    profile: str
    places: tuple[Place, ...] = ()
    recipe: str = ""
    chapter: str = ""

    @property
    def config(self) -> RunConfig:
        """That of its first seed."""
        return self.records[0].config

    @property
    def pair(self) -> str:
        """Student ← teacher, or the network alone."""
        c = self.config
        student = display_name(c.network)
        return f"{student} ← {display_name(c.teacher.name)}" if c.teacher else f"{student} alone"

    @property
    def method(self) -> str:
        """What it was trained with, part by part."""
        return _method(self.config)

    @property
    def kind(self) -> str:
        """EVIDENCE: the published setting, as for verdicts; MACHINERY: smoke runs; SHORT: what is between."""
        if self.profile == "smoke":
            return MACHINERY
        settings = {(place.chapter, place.recipe) for place in self.places}
        if not settings:  # no row stands on it: the chapter it was recorded for, else those of ReviewKD
            settings = {(self.chapter if self.chapter in chapter_names() else "table1", "")}
        published = any(is_published_setting(self.config, *setting) for setting in settings)
        return EVIDENCE if published else SHORT

    @property
    def label(self) -> str:
        """A name of its own within an explorer: pair, row or method, profile, key."""
        return (
            f"{self.pair}: {self.places[0].row if self.places else self.method} ({self.profile}, {self.key})"
        )

    def accuracies(self, which: str = "last") -> list[float]:
        """Of the finished runs, in percent."""
        return [r.accuracy(which) for r in self.records if r.status == "finished"]

    @property
    def diverged(self) -> int:
        """Number of runs that ended in NaN."""
        return sum(r.status != "finished" for r in self.records)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Of the mean last-epoch accuracy, by Student's t; NaN below two runs."""
        values = self.accuracies()
        if len(values) < 2:
            return math.nan, math.nan
        half = stats.t.ppf((1 + level) / 2, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
        return float(np.mean(values) - half), float(np.mean(values) + half)


def configurations(
    records: Iterable[tuple[str, Record]], places: Mapping[str, Sequence[Place]]
) -> list[Configuration]:
    """Runs gathered into configurations: evidence first, then by profile, pair and method.

    Args:
        records: (profile, record); a run that occurs twice counts once.
        places: id of a run, or of a run in whatever arithmetic -> rows of chapters that stand on it.
    """
    found: dict[tuple[str, str], dict[str, Record]] = {}
    for profile, record in records:
        stem = Path(record.provenance.get("labels", {}).get("profile", profile)).stem
        found.setdefault((_key(record.config), stem), {}).setdefault(record.id, record)
    rows = [
        _configuration(key, profile, sorted(group.values(), key=lambda r: r.config.seed), places)
        for (key, profile), group in found.items()
    ]
    order = list(KINDS)
    return sorted(rows, key=lambda c: (order.index(c.kind), c.profile, c.pair, c.method, c.key))


def _configuration(
    key: str, profile: str, records: Sequence[Record], places: Mapping[str, Sequence[Place]]
) -> Configuration:
    asked = (name for record in records for name in (record.id, record.config.request.id))
    rows = tuple(dict.fromkeys(place for name in asked for place in places.get(name, ())))
    labels = records[0].provenance.get("labels", {})
    known = labels.get("recipe") or next((place.recipe for place in rows), "")
    return Configuration(key, tuple(records), profile, rows, known, labels.get("chapter", ""))


def _key(config: RunConfig) -> str:
    body = {name: value for name, value in config.to_dict().items() if name != "seed"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:8]


def places_of(profiles: Iterable[str]) -> dict[str, list[Place]]:
    """Run id -> rows of all chapters under these profiles."""
    found: dict[str, list[Place]] = {}
    for profile in profiles:
        for name in chapter_names():
            chapter, given = get_chapter(name), settings.resolve(name, {"profile": profile})
            for line in chapter.lines(given):
                recipe = line.recipe or given.recipe or chapter.recipe
                place = Place(name, f"{_short(chapter)}, {line.label}", recipe)
                for run in line.runs:
                    found.setdefault(run.id, []).append(place)
    return found


def _short(chapter: Chapter) -> str:
    """What stands before the colon of its title, else its name."""
    head, colon, _ = chapter.title.partition(":")
    return head if colon else chapter.name.replace("_", " ").capitalize()


# --- what a configuration is called -------------------------------------------------------------------------------


def _method(config: RunConfig) -> str:
    if config.method is None:
        return "labels only"
    if not isinstance(config.options, ReviewOptions):
        return config.method
    o = config.options
    parts = {"none": ["same level"], "mechanism": ["RM"], "residual": ["RM + RLF"]}[o.connector]
    parts += ["ABF"] * (o.connector == "residual" and o.attention) + ["HCL"] * (o.loss == "hcl")
    name = f"ReviewKD: {' + '.join(parts)}"
    return name if config.ce_weight else f"{name}, without cross-entropy"


def _options(config: RunConfig) -> dict[str, str]:
    """Options of ReviewKD that are in effect; an option without effect, or of another method, is an empty cell."""
    o = config.options
    if not isinstance(o, ReviewOptions):
        return dict.fromkeys(("level set", "loss weight", "attention", "residual"), "")
    unread = o.unread()
    levels = ", ".join(str(level) for level in o.hcl_levels)
    return {
        "level set": "h (L2)" if o.loss == "l2" else levels,
        "loss weight": f"{o.loss_weight:g}",
        "attention": "" if "attention" in unread else "yes" if o.attention else "no",
        "residual": "" if "residual" in unread else o.residual,
    }


def _row(c: Configuration) -> dict[str, object]:
    """One row of the table: words, and numbers as text, so that what is seen is what is searched."""
    values, best = c.accuracies(), c.accuracies("best")
    low, high = c.interval()
    config = c.config
    return {
        "pair": c.pair,
        "in the report": c.places[0].row if c.places else "",
        "n": len(values),
        "mean, %": f"{np.mean(values):.2f}" if values else "",
        "sd": f"{np.std(values, ddof=1):.2f}" if len(values) > 1 else "",
        "95 % interval": f"{low:.2f} to {high:.2f}" if len(values) > 1 else "",
        "best epoch, %": f"{np.mean(best):.2f}" if best else "",
        "diverged": c.diverged,
        "kind": c.kind,
        "profile": c.profile,
        "method": c.method,
        "recipe": c.recipe or "not noted",
        **_options(config),
        "teacher BN": config.teacher.batch_norm if config.teacher else "",
        "precision": c.records[0].arithmetic,
        "epochs": config.epochs,
        "training images": config.data.train_images or "all",
        "data": config.data.name,
        "also": "; ".join(place.row for place in c.places[1:]),
        "key": c.key,
    }


# --- the exhibit -------------------------------------------------------------------------------------------------

NUMBERS = ("n", "mean, %", "sd", "best epoch, %", "diverged", "loss weight", "epochs", "training images")
FILTERS = ("pair", "method", "recipe", "level set", "profile")


@dataclass(frozen=True, repr=False)
class Overview:
    """Table and dot plot of configurations, under one set of filters."""

    rows: Sequence[Configuration]

    def _repr_html_(self) -> str:
        if not self.rows:
            return '<p class="rkd-note">No run is recorded yet.</p>'
        spec = json.dumps(self.spec(), separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
        alt = self.alt()
        return (
            '<figure class="rkd-explorer"><div class="rkd-plot-controls"></div>'
            '<p class="rkd-note rkd-count" aria-live="polite"></p><div class="rkd-plot-area"></div>'
            f"{fallback_image(dot_plot(self._static()), alt)}"
            f'<script type="application/json">{spec}</script>'
            '<div class="rkd-explorer-table" role="region" aria-label="Table of configurations" tabindex="0">'
            f"{self.table()}</div></figure>{attached(plotly=True)}"
        )

    def __repr__(self) -> str:
        return f"<Overview of {len(self.rows)} configurations>"

    def spec(self) -> dict[str, object]:
        """What the script needs: filters, rows as they stand in the table, numbers of the plot."""
        table = [_row(c) for c in self.rows]
        rows = []
        for c, cells in zip(self.rows, table, strict=True):
            values = [round(v, 2) for v in c.accuracies()]
            low, high = (None if math.isnan(v) else round(v, 3) for v in c.interval())
            rows.append(
                {
                    **{name: str(cells[name]) for name in FILTERS},
                    "kind": c.kind,
                    "label": c.places[0].row if c.places else c.method,
                    "place": c.label,
                    "mean": round(float(np.mean(values)), 3) if values else None,
                    "low": low,
                    "high": high,
                    "runs": values,
                }
            )
        kinds = {kind: {"colour": style[0], "symbol": style[2]} for kind, style in KINDS.items()}
        return {
            "filters": FILTERS,
            "rows": rows,
            "kinds": kinds,
            "machinery": MACHINERY,
            "most": DRAWN,
            "alt": self.alt(),
        }

    def table(self) -> str:
        """The DataTable, which hands its interface over to interactive.js."""
        frame = pd.DataFrame([_row(c) for c in self.rows]).astype(str)
        for name in frame.columns:
            frame[name] = frame[name].map(escape)
        frame.insert(
            2,
            "curves",
            [
                f'<button type="button" class="rkd-button" data-curves="{escape(c.label, quote=True)}" '
                f'aria-label="show training curves of {escape(c.label, quote=True)}">show</button>'
                for c in self.rows
            ],
        )
        html = to_html_datatable(
            frame,
            connected=False,
            allow_html=True,
            maxBytes=0,
            showIndex=False,
            classes="compact nowrap",
            style="table-layout:auto;width:100%;margin:0;caption-side:bottom",
            columnDefs=[
                {"targets": [list(frame.columns).index(name) for name in NUMBERS], "className": "num"}
            ],
            pageLength=10,
            drawCallback=_HAND_OVER,
            display_logo_when_loading=False,
        )
        return generate_init_offline_itables_html(Path(itables.options.dt_bundle)) + html

    def alt(self) -> str:
        """The plot in words."""
        shown = self._static()
        said = "; ".join(f"{c.label} {np.mean(c.accuracies()):.2f} %" for c in shown[:12] if c.accuracies())
        more = f"; and {len(shown) - 12} more" if len(shown) > 12 else ""
        return f"Mean test accuracy of {len(shown)} configurations with 95 % intervals: {said}{more}."

    def _static(self) -> list[Configuration]:
        """Smoke runs only where there is nothing else."""
        real = [c for c in self.rows if c.kind != MACHINERY]
        return real or list(self.rows)


def dot_plot(rows: Sequence[Configuration]) -> Figure:
    """Static: mean and 95 % interval of each configuration, single runs faint."""
    sns.set_theme(style="ticks", rc={"font.size": 9, "axes.edgecolor": INK})
    shown = rows[:DRAWN]
    figure = Figure(figsize=(9.2, 1.2 + 0.27 * len(shown)), facecolor=CARD, layout="constrained")
    ax = figure.subplots()
    for y, c in enumerate(shown):
        colour, marker, _ = KINDS[c.kind]
        values = c.accuracies()
        ax.plot(values, [y] * len(values), "o", color=colour, alpha=0.3, markersize=4)
        if values:
            half = c.interval()[1] - np.mean(values)
            ax.errorbar(
                np.mean(values), y, xerr=None if math.isnan(half) else half, fmt=marker, color=colour, markersize=6,
                capsize=3, label=c.kind,
            )  # fmt: skip
    ax.set_yticks(
        range(len(shown)), [textwrap.shorten(c.label, 64, placeholder="…") for c in shown], fontsize=8
    )
    ax.set_ylim(len(shown) - 0.4, -0.6)
    more = f"; the first {DRAWN} of {len(rows)}" if len(rows) > DRAWN else ""
    ax.set_xlabel(f"test accuracy, last epoch, %: mean and 95 % interval{more}")
    ax.grid(axis="x", color=GRID)
    ax.set_axisbelow(True)
    entries = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    if entries:
        figure.legend(
            entries.values(), entries.keys(), loc="outside lower center", ncols=len(entries), frameon=False
        )
    sns.despine(ax=ax)
    return figure


class Explorer:
    """All recorded runs there are.

    Args:
        profile: whose store is read beside the committed ones.
        results: its folder of records; None: the profile's own.

    Raises:
        ConfigError: an unknown profile.
    """

    def __init__(self, profile: str, results: str | None = None) -> None:
        self.store = store_for(profile, results)
        stores = [*((name, store_for(name)) for name in COMMITTED), (profile, self.store)]
        self._stores = [(name, store) for name, store in stores if store.ids()]
        self.rows = configurations(self._records(), places_of({name for name, _ in self._stores}))

    def overview(self) -> Overview:
        """Table and dot plot."""
        return Overview(self.rows)

    def curves(self) -> Plot:
        """Training curves of a configuration, and of another beside it."""
        lines = [
            Line(c.key + c.profile, c.label, tuple(r.config for r in c.records), group=c.label)
            for c in self.rows
        ]
        records = {r.id: r for c in self.rows for r in c.records}
        return curves(
            lines, records, "Training curves", points=CURVE_POINTS, choose="Configuration", beside=True
        )

    def used(self) -> list[str]:
        """Ids of this profile's own records, which the page stands on."""
        return self.store.ids()

    def _records(self) -> Iterable[tuple[str, Record]]:
        for profile, store in self._stores:
            for run in store.ids():
                yield profile, store.load(run)
