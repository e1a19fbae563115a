"""All recorded runs, one row per configuration, and a table with a plot that follows its filters."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from scipy import stats

from rkd.experiments.chapters import chapter_names, get_chapter
from rkd.experiments.selectors import Selectors, is_published_setting
from rkd.experiments.workspace import store_for
from rkd.models import display_name
from rkd.records import Record
from rkd.records.csv_summary import summarise
from rkd.report.interactive.datatable import datatable
from rkd.report.interactive.markup import Html, tag
from rkd.report.interactive.plot import GREY, Choice, Plot
from rkd.report.tables import header_table
from rkd.review import ReviewOptions

HIDDEN = ("label", "row", "records", "accuracies", "half")  # columns that the table does not show
COMMITTED = ("paper", "short", "mini")  # profiles whose records are part of the project
EVIDENCE, SHORT, MACHINERY = "evidence", "shortened run", "machinery"
KINDS = {EVIDENCE: ("#0072b2", "circle"), SHORT: ("#d55e00", "diamond"), MACHINERY: (GREY, "x")}
FILTERS = ("pair", "method", "recipe", "level set", "profile")
NUMBERS = ("n", "mean, %", "sd", "best epoch, %", "diverged", "loss weight", "epochs", "training images")


class Place(NamedTuple):
    """Where the report uses a run."""

    chapter: str
    row: str
    recipe: str


def recorded_configurations(profile: str, results: str | None = None) -> pd.DataFrame:
    """Return all recorded runs as `configurations`: those of a profile, or of another folder of its records, besides
    the committed ones.

    Raises:
        ConfigError: an unknown profile.
    """
    named = [*((name, store_for(name)) for name in COMMITTED), (profile, store_for(profile, results))]
    stores = [(name, store) for name, store in named if store.ids()]
    records = ((name, record) for name, store in stores for record in store)
    return configurations(records, _places({name for name, _ in stores}))


def configurations(
    records: Iterable[tuple[str, Record]], places: Mapping[str, Sequence[Place]]
) -> pd.DataFrame:
    """Group runs that differ in nothing but their seed into configurations: evidence first, then by profile, pair and
    method.

    Args:
        records: (profile, record); a run that occurs twice counts once.
        places: id of a run, or of its request, which leaves the arithmetic open -> rows of chapters that use it.

    Returns:
        The columns of the table, as text, and those of HIDDEN: label (a unique name), row (the first row of the report
        that uses it, else its method), records (by seed), accuracies (of its finished runs at the last epoch, %), half
        (half the width of their mean's 95 % interval, by Student's t; 0 below two runs).
    """
    by_profile: dict[str, dict[str, Record]] = {}
    for profile, record in records:
        stem = Path(record.provenance.get("labels", {}).get("profile", profile)).stem
        by_profile.setdefault(stem, {}).setdefault(record.id, record)
    rows = [
        _configuration(profile, summary, [found[run] for run in summary.runs.split()], places)
        for profile, found in by_profile.items()
        for summary in summarise(found.values()).itertuples()
    ]
    order = "profile", "pair", "method", "key"
    rows.sort(key=lambda row: (list(KINDS).index(row["kind"]), *(row[name] for name in order)))
    return pd.DataFrame(rows)


def _configuration(
    profile: str, found: Any, records: list[Record], places: Mapping[str, Sequence[Place]]
) -> dict[str, object]:
    """Return a row; options without effect, or of another method, are empty."""
    records.sort(key=lambda record: record.config.seed)
    config, labels = records[0].config, records[0].provenance.get("labels", {})
    asked = [name for record in records for name in (record.id, record.config.request.id)]
    standing = list(dict.fromkeys(place for name in asked for place in places.get(name, ())))
    # If no row uses it: the chapter it was recorded for, else that of ReviewKD.
    chapter = labels.get("chapter") if labels.get("chapter") in chapter_names() else "table1"
    named = {(place.chapter, place.recipe) for place in standing} or {(chapter, "")}
    published = any(is_published_setting(config, *each) for each in named)
    n, mean = found.n, found.last_mean
    half = float(stats.t.ppf(0.975, n - 1) * found.last_sd / n**0.5) if n > 1 else 0.0
    student, method, review = display_name(config.network), config.method or "labels only", {}
    if isinstance(o := config.options, ReviewOptions):
        parts = {"none": ["same level"], "mechanism": ["RM"], "residual": ["RM + RLF"]}[o.connector]
        parts += ["ABF"] * (o.connector == "residual" and o.attention) + ["HCL"] * (o.loss == "hcl")
        method = f"ReviewKD: {' + '.join(parts)}{'' if config.ce_weight else ', without cross-entropy'}"
        review["level set"] = "h (L2)" if o.loss == "l2" else ", ".join(map(str, o.hcl_levels))
        review["loss weight"] = f"{o.loss_weight:g}"
        review["attention"] = "" if "attention" in o.unread() else "yes" if o.attention else "no"
        review["residual"] = "" if "residual" in o.unread() else o.residual
    cells = {
        "pair": f"{student} ← {display_name(config.teacher.name)}" if config.teacher else f"{student} alone",
        "in the report": standing[0].row if standing else "",
        "n": n,
        "mean, %": f"{mean:.2f}" if n else "",
        "sd": f"{found.last_sd:.2f}" if n > 1 else "",
        "95 % interval": f"{mean - half:.2f} to {mean + half:.2f}" if n > 1 else "",
        "best epoch, %": f"{found.best_mean:.2f}" if n else "",
        "diverged": found.diverged,
        "kind": MACHINERY if profile == "smoke" else EVIDENCE if published else SHORT,
        "profile": profile,
        "method": method,
        "recipe": labels.get("recipe") or (standing[0].recipe if standing else "") or "not noted",
        **{name: review.get(name, "") for name in ("level set", "loss weight", "attention", "residual")},
        "teacher BN": config.teacher.batch_norm if config.teacher else "",
        "precision": found.arithmetic,
        "epochs": config.epochs,
        "training images": config.data.train_images or "all",
        "data": config.data.name,
        "also": "; ".join(place.row for place in standing[1:]),
        "key": found.configuration,
    }
    cells = {name: str(cell) for name, cell in cells.items()}
    row = cells["in the report"] or method
    label = f"{cells['pair']}: {row} ({profile}, {found.configuration})"
    values = [record.accuracy() for record in records if record.status == "finished"]
    return {**cells, **dict(zip(HIDDEN, (label, row, records, values, half), strict=True))}


def overview(rows: pd.DataFrame, plot: Callable[[pd.DataFrame], Plot]) -> Html:
    """Return a table of configurations, filtered together with a plot, whose `meta["rows"]` are positions in `rows`."""
    if rows.empty:
        return tag("p", "No run is recorded yet.", class_="rkd-note")
    names = rows.columns.drop(list(HIDDEN))
    heads = [*names[:2], tag("th", "curves", scope="col", data_orderable="false"), *names[2:]]
    body = []
    for c in rows.to_dict("records"):
        told = {"data_curves": c["label"], "aria_label": f"show training curves of {c['label']}"}
        filled = [tag("td", c[name], class_=name in NUMBERS and "num") for name in names]
        filled.insert(2, tag("td", tag("button", "show", type="button", class_="rkd-button", **told)))
        marks = {f"data_{name.replace(' ', '_')}": c[name] for name in FILTERS}
        kinds = c["kind"] if c["kind"] == MACHINERY else f"{c['kind']}|results"
        body.append(tag("tr", *filled, data_kind=kinds, **marks))
    kinds = {"results": "evidence and short runs"} if (rows["kind"] != MACHINERY).any() else {}
    filters = [Choice("kind", "kind", kinds | {"": "all, smoke runs too"} | {kind: kind for kind in KINDS})]
    for name in FILTERS:
        values = {value: value for value in sorted({*rows[name]} - {""})}
        filters.append(Choice(name.replace(" ", "-"), name, {"": "all", **values}))
    table = header_table(heads, body, "rkd-configurations compact")
    more = {"buttons": ("csv", "colvis", "searchBuilder"), "page": 10, "above": plot(rows).html()}
    return datatable(table, filters, label="Table of configurations", **more)


def _places(profiles: Iterable[str]) -> dict[str, list[Place]]:
    """Return, by run id, the rows of all chapters under these profiles that use it."""
    found: dict[str, list[Place]] = {}
    for asked, name in itertools.product(map(Selectors, profiles), chapter_names()):
        head, colon, _ = get_chapter(name).title.partition(":")
        called = head if colon else name.replace("_", " ").capitalize()
        for line in asked.chapter(name)[1].values():
            place = Place(name, f"{called}, {line.label}", line.recipe)
            for run in line.runs:
                found.setdefault(run.id, []).append(place)
    return found
