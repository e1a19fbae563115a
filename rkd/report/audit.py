"""Where the report's text, the released code, the report's code and its README disagree: the texts of findings.yaml, as
the blocks of the audit chapter, whose cells measure them."""

import functools
import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from importlib import resources
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import yaml
from IPython.display import HTML, display
from pydantic import StringConstraints

from rkd import paths
from rkd.config import Natural, build, frozen
from rkd.errors import ConfigError
from rkd.experiments import settings as parameters
from rkd.experiments.settings import Settings
from rkd.report.interactive.assets import in_book
from rkd.report.interactive.markup import tag
from rkd.report.tables import scrolling

GROUPS = {
    "printed": "Figures in print",
    "training": "Training recipe and data",
    "features": "The teacher and the compared features",
    "fusion": "ABF: fusing and passing on",
    "pyramid": "HCL: comparing pooled maps",
    "committed": "What the committed code cannot have produced",
    "reporting": "What is reported, and how",
    "baselines": "Quoted baselines",
}
MATTERS = {  # what each means, and the class of its badge
    "can change a conclusion": ("a statement of the report rests on it", "bad"),
    "could move numbers": ("accuracies may shift by more than the spread between seeds", "fair"),
    "changes what a number means": ("the number stands, but for something else than it is taken for", "info"),
    "hardly matters": ("less than the spread between seeds is to be expected", ""),
    "cosmetic": ("no number depends on it", ""),
    "consistent": ("checked, and found to hold", "good"),
}
SIDES = {  # headings of the two sides, where they are not text and code
    "printed": ("In one place", "In another"),
    "baselines": ("In the report", "At the source"),
}
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


@frozen
class Side:
    """How one side of a disagreement is trained with this package.

    Attributes:
        who: whose side it is.
        recipe: a recipe that is of this side...
        sets: ...because it sets these values (dotted names as in its file, ReviewKD's options without "review.", and
            "loss_weight", that of resnet20 <- resnet56); without a recipe: chapter parameters or ReviewKD options that
            are to be given.
        row: a chapter's line, "chapter/key".
    """

    who: Text
    recipe: str | None = None
    sets: dict[str, Any] = field(default_factory=dict)
    row: str | None = None


@frozen
class Finding:
    """One disagreement.

    Attributes:
        number: 1 to 34.
        group: a key of GROUPS.
        title: a few words.
        text_says, code_does: the two sides, in our words; for figures in print, one print and the other.
        matters: a key of MATTERS.
        how_much: expected or shown size, and what it touches.
        reproduce: how each side is trained; empty only where `nothing_to_train` says why.
        reading: our interpretation where it goes beyond what was read and run; empty: there is none.
        chapters: pages to look at.
    """

    number: int
    group: Literal[tuple(GROUPS)]
    title: Text
    text_says: Text
    code_does: Text
    matters: Literal[tuple(MATTERS)]
    how_much: Text
    chapters: tuple[str, ...]
    reproduce: tuple[Side, ...] = ()
    nothing_to_train: str = ""
    reading: str = ""

    def __post_init__(self) -> None:
        if bool(self.reproduce) == bool(self.nothing_to_train):
            raise ConfigError(
                f"finding {self.number} must say how its sides are trained, or why there is nothing to train"
            )


@functools.cache
def findings() -> dict[int, Finding]:
    """All of them by number, ascending.

    Raises:
        ConfigError: an entry of findings.yaml with an unknown or missing field or value.
    """
    text = resources.files(__package__).joinpath("findings.yaml").read_text(encoding="utf-8")
    made = (build(Finding, entry) for entry in yaml.safe_load(text))
    return {finding.number: finding for finding in sorted(made, key=lambda finding: finding.number)}


@frozen
class _Own:
    seed: Natural = 0


def open_audit(namespace: Mapping[str, Any]) -> Settings:
    """Check the parameters found in a notebook's namespace, its `globals()`, and show the list of all findings.

    Raises:
        ConfigError: an unknown, misspelt or contradictory parameter.
    """
    given = parameters.given_in(namespace, ("seed",))
    build(_Own, {"seed": given.pop("seed", 0)})
    settings = parameters.resolve("audit", given)
    display(HTML(overview()))
    return settings


def overview() -> str:
    """One row per finding, under the heading of its group, each linked to its block; counts above."""
    every = findings().values()
    counts = "".join(
        f"<li>{_badge(matters)} <strong>{sum(f.matters == matters for f in every)}</strong> "
        f'<span class="rkd-note">{meaning}</span></li>'
        for matters, (meaning, _) in MATTERS.items()
    )
    rows = "".join(
        f'<tr class="rkd-group"><th colspan="3" scope="rowgroup">{title}</th></tr>'
        + "".join(
            f'<tr><td class="num">{f.number}</td>'
            f'<th scope="row"><a href="#finding-{f.number}">{_words(f.title)}</a></th><td>{_badge(f.matters)}</td></tr>'
            for f in every
            if f.group == group
        )
        for group, title in GROUPS.items()
    )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("No.", "Finding", "Does it matter?"))
    return (
        f'<ul class="rkd-audit-counts">{counts}</ul>'
        f'<table class="rkd-table rkd-audit"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    )


def finding(*numbers: int) -> HTML:
    """Findings by number: both sides next to each other, their size, how to train either side, and where to look."""
    return HTML("".join(_block(findings()[number]) for number in numbers))


def _block(f: Finding) -> str:
    one, other = SIDES.get(f.group, ("In the text", "In the code"))
    how = "".join(f"<li>{html.escape(side.who)}: {_how(side)}</li>" for side in f.reproduce)
    train = f"<ul>{how}</ul>" if how else _words(f.nothing_to_train)
    reading = f'<p class="rkd-reading"><strong>Our reading.</strong> {_words(f.reading)}</p>'
    see = ", ".join(map(_link, f.chapters))
    return (
        f'<section class="rkd-finding" id="finding-{f.number}" aria-labelledby="finding-{f.number}-title">'
        f'<h3 class="rkd-finding-title" id="finding-{f.number}-title">'
        f'<span class="rkd-finding-number">{f.number}</span> '
        f"{_words(f.title)} {_badge(f.matters)}</h3>"
        f'<dl class="rkd-sides"><div><dt>{one}</dt><dd>{_words(f.text_says)}</dd></div>'
        f"<div><dt>{other}</dt><dd>{_words(f.code_does)}</dd></div></dl>"
        f"<p><strong>Does it matter?</strong> {_words(f.how_much)}</p>{reading if f.reading else ''}"
        f'<div class="rkd-train"><strong>To train it:</strong> {train}</div>'
        f'<p class="rkd-see"><strong>See</strong> {see}; <a href="#the-list">the list</a></p></section>'
    )


def _how(side: Side) -> str:
    """How a side is trained, in HTML: a chapter's row, a recipe and what it sets, or what papermill is given."""
    if side.row:
        chapter, _, key = side.row.partition("/")
        return f"row <code>{key}</code> of {_link(chapter)}"
    if side.recipe:
        said = ", ".join(f"{name}: {_yaml(value)}" for name, value in side.sets.items())
        return f"recipe <code>{side.recipe}</code>, where <code>{html.escape(said)}</code>"
    own = {name: value for name, value in side.sets.items() if name in parameters.names()}
    options = {name: value for name, value in side.sets.items() if name not in own}
    return f"<code>-y '{html.escape(_yaml(own | ({'options': options} if options else {})))}'</code>"


def _yaml(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return text.removesuffix("...\n").strip()


def _words(text: str) -> str:
    """HTML of a text that may hold `code` and **stress**; "finding 9" becomes a link."""
    safe = html.escape(text, quote=False)
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
    safe = re.sub(r"\bfinding (\d+)\b", r'<a href="#finding-\1">finding \1</a>', safe)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", safe)


def _link(page: str) -> str:
    """A link to another page, of the built book inside a build, else of the notebooks' folder; its heading up to a
    colon is what it is called."""
    (file,) = (paths.home() / "book").glob(f"{page}.[im][pd]*")
    title = re.search(r'# ([^:"\\\n]+)', file.read_text(encoding="utf-8"))[1]
    return f'<a href="{f"{page}.html" if in_book() else file.name}">{html.escape(title)}</a>'


def _badge(matters: str) -> str:
    return f'<span class="rkd-badge {MATTERS[matters][1]}">{matters}</span>'


def facts(caption: str, table: pd.DataFrame, digits: int | None = None) -> HTML:
    """Measured facts: a captioned table, one row each.

    Args:
        caption: may hold `code`.
        table: shown without its index.
        digits: of numbers that are not whole; None: four significant ones.
    """

    def said(value: object) -> str:
        if isinstance(value, float):
            short = np.format_float_positional(value, 4, fractional=False, trim="-")
            shown = "–" if np.isnan(value) else short if digits is None else f"{value:.{digits}f}"
        else:
            shown = f"{value:,}" if isinstance(value, int | np.integer) else str(value)
        return shown.replace("-", "−") if isinstance(value, float | int | np.integer) else shown

    kinds = ["text" if isinstance(value, str) else "num" for value in table.iloc[0]]

    def row(cell: str, values: Iterable[str]) -> str:
        return tag("tr", *(tag(cell, v, class_=kind) for v, kind in zip(values, kinds, strict=True)))

    body = (row("td", map(said, values)) for values in table.itertuples(index=False))
    made = tag("table", tag("thead", row("th", table)), tag("tbody", *body), class_="rkd-facts")
    return HTML(f'<p class="rkd-measured">{_words(caption)}</p>{scrolling(made)}')
