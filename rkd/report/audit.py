"""What the audit chapter calls: the disagreements as readable blocks, measured facts as tables and figures."""

import html
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pandas as pd
import yaml
from IPython.display import HTML, display

from rkd import paths
from rkd.audit import GROUPS, MATTERS, Finding, Side, findings, in_group
from rkd.audit.subject import Subject, subject
from rkd.errors import ConfigError
from rkd.experiments import settings as parameters
from rkd.experiments.chapters import get_chapter
from rkd.experiments.workspace import data_root
from rkd.report.book import TOKEN
from rkd.report.diagrams import Drawing
from rkd.report.tables import scrolling

CHAPTER = "audit"
BADGES = {
    "can change a conclusion": "bad",
    "could move numbers": "fair",
    "changes what a number means": "info",
    "hardly matters": "",
    "cosmetic": "",
    "consistent": "good",
}
SIDES = {  # headings of the two sides, where they are not text and code
    "printed": ("In one place", "In another"),
    "baselines": ("In the report", "At the source"),
}
PAGES = {  # titles in links, where they are not the chapter's own up to its colon
    "random_teacher": "Untrained teacher",
    "recipes": "Recipes",
    "no_cross_entropy": "Without cross-entropy",
    "method": "The method",
    "verdicts": "How to read a verdict",
    "claims": "Claims",
    "performance": "Performance",
    "running": "Running it",
}


def open_audit(namespace: Mapping[str, Any]) -> "AuditPage":
    """Open the chapter under the parameters found in a notebook's namespace, and show the list of all findings.

    Args:
        namespace: `globals()` of the notebook.

    Raises:
        ConfigError: an unknown, misspelt or contradictory parameter.
    """
    return AuditPage(parameters.given_in(namespace, ("seed",)))


class AuditPage:
    """The executed chapter.

    Args:
        given: explicit parameters.

    Attributes:
        seed: of random maps and simulations.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.seed = given.get("seed", 0)
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
            raise ConfigError(f"seed is {self.seed!r}; it must be a whole number >= 0")
        shared = {name: value for name, value in given.items() if name != "seed"}
        self.settings = parameters.resolve(CHAPTER, shared)
        display(HTML(overview(findings())))

    def findings(self, group: str) -> HTML:
        """The findings of one group."""
        return HTML("".join(map(block, in_group(group))))

    def subject(self) -> Subject:
        """The committed teacher, with CIFAR-100 if it lies under `data_root`, else with the embedded set."""
        return subject(data_root(self.settings), self.seed)

    def live(self, caption: str, result: object, digits: int | None = None) -> None:
        """Show measured facts.

        Args:
            caption: what they are.
            result: a DataFrame, a small dataclass, a text, or a drawing.
            digits: of numbers that are not whole; None: four significant ones.
        """
        if isinstance(result, Drawing):
            display(HTML(measured(caption)), result)
        else:
            display(HTML(facts(caption, result, digits)))


# --- findings ---------------------------------------------------------------------------------------------------


def overview(every: Iterable[Finding]) -> str:
    """One row per finding, under the heading of its group, each linked to its block; counts above."""
    every = list(every)
    counts = "".join(
        f"<li>{_badge(matters)} <strong>{sum(f.matters == matters for f in every)}</strong> "
        f'<span class="rkd-note">{html.escape(meaning)}</span></li>'
        for matters, meaning in MATTERS.items()
    )
    rows = []
    for group, title in GROUPS.items():
        rows.append(f'<tr class="rkd-group"><th colspan="3" scope="rowgroup">{html.escape(title)}</th></tr>')
        rows += [
            f'<tr><td class="num">{f.number}</td><th scope="row"><a href="#{anchor(f)}">{words(f.title)}</a></th>'
            f"<td>{_badge(f.matters)}</td></tr>"
            for f in sorted(every, key=lambda f: f.number)
            if f.group == group
        ]
    head = '<tr><th scope="col">No.</th><th scope="col">Finding</th><th scope="col">Does it matter?</th></tr>'
    return (
        f'<ul class="rkd-audit-counts">{counts}</ul>'
        f'<table class="rkd-table rkd-audit"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
    )


def anchor(finding: Finding) -> str:
    """The id of its block."""
    return f"finding-{finding.number}"


def block(finding: Finding) -> str:
    """One finding, both sides next to each other, then its size, how to train either side, and where to look."""
    one, other = SIDES.get(finding.group, ("In the text", "In the code"))
    number = f'<span class="rkd-finding-number">{finding.number}</span>'
    parts = [
        f'<h3 class="rkd-finding-title" id="{anchor(finding)}-title">'
        f"{number} {words(finding.title)} {_badge(finding.matters)}</h3>",
        f'<dl class="rkd-sides"><div><dt>{one}</dt><dd>{words(finding.text_says)}</dd></div>'
        f"<div><dt>{other}</dt><dd>{words(finding.code_does)}</dd></div></dl>",
        f"<p><strong>Does it matter?</strong> {words(finding.how_much)}</p>",
    ]
    if finding.reading:
        parts.append(f'<p class="rkd-reading"><strong>Our reading.</strong> {words(finding.reading)}</p>')
    if finding.reproduce:
        sides = "".join(f"<li>{html.escape(s.who)}: {_how(s)}</li>" for s in finding.reproduce)
        parts.append(f'<div class="rkd-train"><strong>To train it:</strong><ul>{sides}</ul></div>')
    else:
        parts.append(
            f'<p class="rkd-train"><strong>To train it:</strong> {words(finding.nothing_to_train)}</p>'
        )
    see = ", ".join(link(name) for name in finding.chapters)
    parts.append(f'<p class="rkd-see"><strong>See</strong> {see}; <a href="#the-list">the list</a></p>')
    return (
        f'<section class="rkd-finding" id="{anchor(finding)}" aria-labelledby="{anchor(finding)}-title">'
        f"{''.join(parts)}</section>"
    )


def words(text: str) -> str:
    """HTML of a text that may hold `code` and **stress**; "finding 9" becomes a link."""
    safe = html.escape(text.strip(), quote=False)
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
    safe = re.sub(r"\bfinding (\d+)\b", r'<a href="#finding-\1">finding \1</a>', safe)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", safe)


def link(page: str) -> str:
    """A link to another page: of the built book inside a build, else of the notebooks' folder."""
    if os.environ.get(TOKEN):
        target = f"{page}.html"
    else:
        target = f"{page}.ipynb" if (paths.home() / "book" / f"{page}.ipynb").is_file() else f"{page}.md"
    title = PAGES.get(page) or get_chapter(page).title.partition(":")[0]
    return f'<a href="{target}">{html.escape(title)}</a>'


def _how(side: Side) -> str:
    """How a side is trained, in HTML: a recipe and what it sets, parameters to give, or a chapter's row."""
    if side.row:
        chapter, _, key = side.row.partition("/")
        return f"row <code>{html.escape(key)}</code> of {link(chapter)}"
    if side.recipe:
        what = ", ".join(f"{name}: {_yaml(value)}" for name, value in side.sets.items())
        return f"recipe <code>{side.recipe}</code>, where <code>{html.escape(what)}</code>"
    return f"<code>{html.escape(given(side.sets))}</code>"


def given(values: Mapping[str, Any]) -> str:
    """The papermill arguments that set chapter parameters, or options of ReviewKD that are none.

    >>> given({"teacher_batch_norm": "running"}), given({"hcl_pooling": "max"})
    ('-p teacher_batch_norm running', "-y '{options: {hcl_pooling: max}}'")
    """
    known = set(parameters.names())
    own = {name: value for name, value in values.items() if name in known}
    options = {name: value for name, value in values.items() if name not in known}
    if len(own) == 1 and not options and not isinstance(next(iter(own.values())), list | dict):
        ((name, value),) = own.items()
        return f"-p {name} {value}"
    return f"-y '{_yaml({**own, **({'options': options} if options else {})})}'"


def _yaml(value: object) -> str:
    return (
        yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
        .removesuffix("...\n")
        .strip()
    )


def _badge(matters: str) -> str:
    return f'<span class="rkd-badge {BADGES[matters]}">{html.escape(matters)}</span>'


# --- measured facts ---------------------------------------------------------------------------------------------


def facts(caption: str, result: object, digits: int | None = None) -> str:
    """A captioned table of a DataFrame (one row each) or a dataclass (one field each); a text becomes a quotation."""
    said = measured(caption)
    if isinstance(result, str):
        return f'{said}<blockquote class="rkd-said"><code>{html.escape(result)}</code></blockquote>'
    if is_dataclass(result):
        pairs = [(f.name.replace("_", " "), getattr(result, f.name)) for f in fields(result)]
        rows = [[name, _cell(value, digits)] for name, value in pairs]
        return f"{said}{_table([], rows, {0})}"
    frame: pd.DataFrame = result
    text = {i for i, name in enumerate(frame.columns) if frame[name].map(lambda v: isinstance(v, str)).all()}
    rows = [[_cell(value, digits) for value in row] for row in frame.itertuples(index=False)]
    return f"{said}{_table(list(frame.columns), rows, text)}"


def measured(caption: str) -> str:
    """The caption of measured facts."""
    return f'<p class="rkd-measured">{words(caption)}</p>'


def _table(head: list[str], rows: list[list[str]], text: set[int]) -> str:
    def cells(values: Iterable[str], tag: str) -> str:
        kind = ['class="text"' if i in text else 'class="num"' for i in range(len(rows[0]))]
        return "".join(f"<{tag} {k}>{html.escape(v)}</{tag}>" for k, v in zip(kind, values, strict=True))

    top = f"<thead><tr>{cells(head, 'th')}</tr></thead>" if head else ""
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return scrolling(f'<table class="rkd-facts">{top}<tbody>{body}</tbody></table>')


def _cell(value: object, digits: int | None) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, float) and math.isnan(value):
        return "–"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if digits is None:
        shown = np.format_float_positional(value, precision=4, fractional=False, trim="-")
    else:
        shown = f"{value:.{digits}f}"
    return shown.replace("-", "−")
