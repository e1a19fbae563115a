"""Every recorded run, one row per configuration: a table, a dot plot that follows it, and training curves."""

import hashlib
import json
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from scipy import stats

from rkd.experiments import settings
from rkd.experiments.chapters import Line, chapter_names, get_chapter
from rkd.experiments.workspace import store_for
from rkd.judge import is_published_setting
from rkd.models import display_name
from rkd.records import Record
from rkd.report.interactive.curves import curves
from rkd.report.interactive.datatable import datatable
from rkd.report.interactive.markup import Html, tag
from rkd.report.interactive.plot import GREY, Choice, Plot
from rkd.review import ReviewOptions
from rkd.training import RunConfig

COMMITTED = ("paper", "mini")  # profiles whose records are part of the project
EVIDENCE, SHORT, MACHINERY = "evidence", "short run", "machinery"
KINDS = {EVIDENCE: ("#0072b2", "circle"), SHORT: ("#d55e00", "diamond"), MACHINERY: (GREY, "x")}
DRAWN = 40  # rows of the dot plot, at most
FILTERS = ("pair", "method", "recipe", "level set", "profile")
NUMBERS = ("n", "mean, %", "sd", "best epoch, %", "diverged", "loss weight", "epochs", "training images")


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
        o = self.config.options
        if not isinstance(o, ReviewOptions):
            return self.config.method or "labels only"
        parts = {"none": ["same level"], "mechanism": ["RM"], "residual": ["RM + RLF"]}[o.connector]
        parts += ["ABF"] * (o.connector == "residual" and o.attention) + ["HCL"] * (o.loss == "hcl")
        return f"ReviewKD: {' + '.join(parts)}{'' if self.config.ce_weight else ', without cross-entropy'}"

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
    def row(self) -> str:
        """The first row of the report that stands on it, else its method."""
        return self.places[0].row if self.places else self.method

    @property
    def label(self) -> str:
        """A name of its own within an explorer: pair, row or method, profile, key."""
        return f"{self.pair}: {self.row} ({self.profile}, {self.key})"

    def accuracies(self, which: str = "last") -> list[float]:
        """Of the finished runs, in percent."""
        return [r.accuracy(which) for r in self.records if r.status == "finished"]

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Of the mean last-epoch accuracy, by Student's t; NaN below two runs."""
        values = self.accuracies()
        if len(values) < 2:
            return math.nan, math.nan
        half = stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values)
        return float(np.mean(values) - half), float(np.mean(values) + half)

    def cells(self) -> dict[str, str]:
        """Its row of the table. Options without effect, or of another method, are empty."""
        values, best, config, o = self.accuracies(), self.accuracies("best"), self.config, self.config.options
        review = isinstance(o, ReviewOptions)
        unread = o.unread() if review else ("attention", "residual")
        several = len(values) > 1
        low, high = self.interval()
        cells = {
            "pair": self.pair,
            "in the report": self.places[0].row if self.places else "",
            "n": len(values),
            "mean, %": f"{np.mean(values):.2f}" if values else "",
            "sd": f"{np.std(values, ddof=1):.2f}" if several else "",
            "95 % interval": f"{low:.2f} to {high:.2f}" if several else "",
            "best epoch, %": f"{np.mean(best):.2f}" if best else "",
            "diverged": sum(r.status != "finished" for r in self.records),
            "kind": self.kind,
            "profile": self.profile,
            "method": self.method,
            "recipe": self.recipe or "not noted",
            "level set": ("h (L2)" if o.loss == "l2" else ", ".join(map(str, o.hcl_levels)))
            if review
            else "",
            "loss weight": f"{o.loss_weight:g}" if review else "",
            "attention": "" if "attention" in unread else "yes" if o.attention else "no",
            "residual": "" if "residual" in unread else o.residual,
            "teacher BN": config.teacher.batch_norm if config.teacher else "",
            "precision": self.records[0].arithmetic,
            "epochs": config.epochs,
            "training images": config.data.train_images or "all",
            "data": config.data.name,
            "also": "; ".join(place.row for place in self.places[1:]),
            "key": self.key,
        }
        return {name: str(cell) for name, cell in cells.items()}


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
        labels = record.provenance.get("labels", {})
        body = {name: value for name, value in record.config.to_dict().items() if name != "seed"}
        key = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:8]
        stem = Path(labels.get("profile", profile)).stem
        found.setdefault((key, stem), {}).setdefault(record.id, record)
    made = []
    for (key, profile), group in found.items():
        asked = [name for r in group.values() for name in (r.id, r.config.request.id)]
        rows = tuple(dict.fromkeys(place for name in asked for place in places.get(name, ())))
        by_seed = tuple(sorted(group.values(), key=lambda r: r.config.seed))
        labels = by_seed[0].provenance.get("labels", {})
        recipe = labels.get("recipe") or next((place.recipe for place in rows), "")
        made.append(Configuration(key, by_seed, profile, rows, recipe, labels.get("chapter", "")))
    return sorted(made, key=lambda c: (list(KINDS).index(c.kind), c.profile, c.pair, c.method, c.key))


def places_of(profiles: Iterable[str]) -> dict[str, list[Place]]:
    """Run id -> rows of all chapters under these profiles."""
    found: dict[str, list[Place]] = {}
    for profile in profiles:
        for name in chapter_names():
            chapter, given = get_chapter(name), settings.resolve(name, {"profile": profile})
            head, colon, _ = chapter.title.partition(":")
            called = head if colon else name.replace("_", " ").capitalize()
            for line in chapter.lines(given):
                recipe = line.recipe or given.recipe or chapter.recipe
                place = Place(name, f"{called}, {line.label}", recipe)
                for run in line.runs:
                    found.setdefault(run.id, []).append(place)
    return found


def overview(rows: Sequence[Configuration]) -> Html:
    """Table and dot plot of configurations, under one set of filters."""
    if not rows:
        return tag("p", "No run is recorded yet.", class_="rkd-note")
    table = [c.cells() for c in rows]
    heads = list(table[0])
    heads.insert(2, "curves")
    body = []
    for c, cells in zip(rows, table, strict=True):
        said = f"show training curves of {c.label}"
        button = tag(
            "button", "show", type="button", class_="rkd-button", data_curves=c.label, aria_label=said
        )
        filled = (
            tag("td", {**cells, "curves": button}[name], class_=name in NUMBERS and "num") for name in heads
        )
        marks = {f"data_{name.replace(' ', '_')}": cells[name] for name in FILTERS}
        kind = c.kind if c.kind == MACHINERY else f"{c.kind}|results"
        body.append(tag("tr", *filled, data_kind=kind, **marks))
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in heads)))
    results = {"results": "evidence and short runs"} if any(c.kind != MACHINERY for c in rows) else {}
    kinds = results | {"": "all, smoke runs too"} | {kind: kind for kind in KINDS}
    values = {name: sorted({cells[name] for cells in table} - {""}) for name in FILTERS}
    every = (Choice(n.replace(" ", "-"), n, {"": "all", **{v: v for v in values[n]}}) for n in FILTERS)
    return datatable(
        tag("table", head, tag("tbody", *body), class_="rkd-configurations compact nowrap"),
        (Choice("kind", "kind", kinds), *every),
        label="Table of configurations",
        buttons=("csv", "colvis", "searchBuilder"),
        page=10,
        columns=[{"targets": heads.index("curves"), "orderable": False}],
        above=dot_plot(rows).html(),
    )


def dot_plot(rows: Sequence[Configuration]) -> Plot:
    """Mean and 95 % interval of each configuration, single runs faint.

    Args:
        rows: in the order of `configurations`: smoke runs, last, are left out where there is anything else.
    """
    first = [c for c in rows if c.kind != MACHINERY] or list(rows)
    figure = go.Figure()
    for kind, (colour, symbol) in KINDS.items():
        members = {i: c for i, c in enumerate(rows) if c.kind == kind and c.accuracies()}
        if not members:
            continue
        dots = [(i, value) for i, c in members.items() for value in c.accuracies()]
        mean = {i: float(np.mean(c.accuracies())) for i, c in members.items()}
        bars = [np.nan_to_num(c.interval()[1] - mean[i]) for i, c in members.items()]
        told = (f"{c.label}\nmean {mean[i]:.2f} %, n = {len(c.accuracies())}" for i, c in members.items())
        same = {"legendgroup": kind, "name": kind, "mode": "markers"}
        same["visible"] = kind != MACHINERY or len(first) == len(rows)
        faint = {
            "marker": {"color": colour, "size": 6},
            "opacity": 0.35,
            "hoverinfo": "skip",
            "showlegend": False,
        }
        x, y = [value for _, value in dots], [i for i, _ in dots]
        figure.add_scatter(x=x, y=y, meta={"rows": y}, **faint, **same)
        figure.add_scatter(
            x=[round(value, 3) for value in mean.values()],
            y=list(mean),
            marker={"color": colour, "size": 10, "symbol": symbol},
            error_x={"array": bars, "color": colour, "thickness": 1.6, "width": 4},
            text=list(told),
            hovertemplate="%{text}<extra></extra>",
            meta={"rows": list(mean)},
            **same,
        )
    shown = min(len(first), DRAWN)
    names = [f"{textwrap.shorten(c.row, 44, placeholder='…')}\n{c.pair}" for c in rows]
    figure.update_layout(
        hovermode="closest",
        meta={"most": DRAWN},
        xaxis={"title": {"text": "test accuracy, last epoch, %: mean and 95 % interval"}},
        yaxis={
            "tickvals": list(range(len(rows))),
            "tickfont": {"size": 11},
            "ticktext": names,
            "fixedrange": True,
            "range": [shown - 0.4, -0.6],
        },
    )
    told = [f"{c.label} {np.mean(c.accuracies()):.2f} %" for c in first if c.accuracies()]
    more = f"; and {len(first) - 12} more" if len(first) > 12 else ""
    alt = f"Mean test accuracy of {len(first)} configurations with 95 % intervals: {'; '.join(told[:12])}{more}."
    return Plot(figure, alt, height=60 + 36 * shown)


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

    def overview(self) -> Html:
        """Table and dot plot."""
        return overview(self.rows)

    def curves(self) -> Plot:
        """Training curves of a configuration, and of another beside it."""
        lines = [
            Line(c.key + c.profile, c.label, tuple(r.config for r in c.records), group=c.label)
            for c in self.rows
        ]
        records = {r.id: r for c in self.rows for r in c.records}
        return curves(lines, records, "Training curves", choose="Configuration", beside=True, step=3)

    def _records(self) -> Iterator[tuple[str, Record]]:
        for profile, store in self._stores:
            for run in store.ids():
                yield profile, store.load(run)
