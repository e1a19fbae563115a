"""Verdicts on the pages of the book: the box of a chapter, the table of all claims, the counts of the front page."""

import html
import os
from collections.abc import Sequence
from urllib.parse import urlencode

from IPython.display import HTML

from rkd import paths
from rkd.bench.gate import SECTION as GATES
from rkd.bench.gate import committed
from rkd.judge import KINDS, VERDICTS, Verdict, judge, load_claims
from rkd.judge.decide import NOT_RUN
from rkd.report.book import TOKEN
from rkd.report.verdict_text import (
    KIND_NAMES,
    chapter_label,
    chapter_order,
    computed,
    counted,
    facts,
    judged,
    location,
    measured,
    runs_missing,
    tally,
    why,
)

SHOWN = 6  # claims a chapter's box lists one by one; more are folded by what they are about
# verdict -> (class of its colours, sign in front of its words)
LOOKS = {
    "reproduced": ("good", "✓"),
    "reproduced, smaller effect": ("good", "◐"),
    "exceeded": ("info", "▲"),
    "not reproduced": ("bad", "✗"),
    "inconclusive": ("fair", "?"),
    NOT_RUN: ("none", "–"),
}
assert set(LOOKS) == set(VERDICTS)


def badge(verdict: str, count: int | None = None) -> str:
    """A verdict as a coloured badge with its words, and how often it occurs where that is given."""
    kind, sign = LOOKS[verdict]
    number = "" if count is None else f" <b>{count}</b>"
    return (
        f'<span class="rkd-badge rkd-verdict {kind}"><span aria-hidden="true">{sign}</span> '
        f"{html.escape(verdict)}{number}</span>"
    )


# --- the box at the top of a chapter -------------------------------------------------------------


def chapter_box(chapter: str, verdicts: Sequence[Verdict] | None = None) -> HTML:
    """Verdicts on the claims a chapter's lines answer; an empty string where there are none.

    Args:
        chapter: its name.
        verdicts: from `rkd.judge.judge`; None: judged now, from the records of the paper profile.
    """
    if verdicts is None:
        claims = load_claims(check=False)  # the lines of other chapters need not be built for this one's box
        families = {c.family for c in claims if chapter in c.chapters} - {""}
        wanted = [c for c in claims if chapter in c.chapters or c.family in families]
        verdicts = judge(claims=wanted) if wanted else ()
    ours = [v for v in verdicts if chapter in v.claim.chapters]
    if not ours:
        return HTML("")
    # The one line of a single claim has its badge already.
    badges = " ".join(badge(verdict, count) for verdict, count in tally(ours).items() if len(ours) > 1)
    head = (
        f'<p class="rkd-box-head"><strong>{"Verdicts" if len(ours) > 1 else "Verdict"}</strong> {badges} '
        f'<a href="{_page("claims", chapter=chapter)}">in the table of all claims</a></p>'
    )
    body = _one_by_one(ours) if len(ours) <= SHOWN else _folded(ours)
    label = f"Verdicts on the claims of {chapter_label(chapter)}"
    start = f'<section class="rkd-box" aria-label="{html.escape(label, quote=True)}">'
    return _shown(f"{start}{head}{_takes(ours, chapter)}{body}</section>")


def _takes(verdicts: Sequence[Verdict], chapter: str) -> str:
    """What it takes to judge the claims that are not judged, in a sentence."""
    left = [v for v in verdicts if v.verdict == NOT_RUN]
    if not left:
        return ""
    missing = runs_missing(left)
    if len(left) == len(verdicts):
        what = (
            "The claim of this chapter is"
            if len(left) == 1
            else f"The {len(left)} claims of this chapter are"
        )
        start = f"{what} declared and not yet judged. That takes {counted(missing, 'run')} in the published setting:"
    else:
        start = f"{counted(len(left), 'claim')} not yet judged: {counted(missing, 'run')} missing."
    return f'<p class="rkd-note">{start} <code>rkd sweep params/paper.yaml --chapters {chapter}</code></p>'


def _one_by_one(verdicts: Sequence[Verdict]) -> str:
    return f'<ul class="rkd-claims">{"".join(map(_line, verdicts))}</ul>'


def _line(verdict: Verdict) -> str:
    found = measured(verdict.last, verdict.claim.kind)
    return (
        f"<li>{badge(verdict.verdict)} {html.escape(verdict.claim.statement)}"
        + (f' <span class="rkd-note">{html.escape(found)}</span>' if found else "")
        + "</li>"
    )


def _folded(verdicts: Sequence[Verdict]) -> str:
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault(verdict.claim.about, []).append(verdict)
    parts = []
    for about, members in groups.items():
        badges = " ".join(badge(verdict, count) for verdict, count in tally(members).items())
        parts.append(
            f"<details><summary>{html.escape(about)} {badges}</summary>{_one_by_one(members)}</details>"
        )
    return f'<div class="rkd-groups">{"".join(parts)}</div>'


# --- the table of all claims ---------------------------------------------------------------------

COLUMNS = ("Verdict", "Claim", "Published", "Measured", "Chapter")


def claims_table(verdicts: Sequence[Verdict]) -> HTML:
    """One table of all verdicts, with filters and sorting that need no kernel and no network.

    Without JavaScript, and in print, it is the whole table in the order of the declaration.
    """
    head = "".join(
        f'<th scope="col" role="columnheader" aria-sort="none"><button type="button">{name}</button></th>'
        for name in COLUMNS
    )
    head += '<th scope="col" role="columnheader" class="why"><span>Why</span></th>'
    rows = "\n".join(map(_row, verdicts))
    table = (
        '<table class="rkd-table rkd-claims-table" role="table">'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead><tbody role="rowgroup">{rows}</tbody></table>'
    )
    return _shown(f'<div class="rkd-claims-view">{_filters(verdicts)}{table}</div>{_gates()}', script=True)


def _gates() -> str:
    """What decides whether runs in several arithmetics enter one verdict."""
    found = "".join(f"<li>{html.escape(gate.finding)}</li>" for gate in committed())
    listed = f"<ul>{found}</ul>" if found else "<p>None is on record.</p>"
    return (
        '<div class="rkd-note"><p>Runs in several arithmetics enter one verdict only where a paired comparison of '
        f'runs as long, on as many images of the same data, <a href="{_page("performance")}#{GATES}">shows these '
        f"arithmetics equal</a>. On record:</p>{listed}</div>"
    )


def _row(verdict: Verdict) -> str:
    claim = verdict.claim
    place = f"{KIND_NAMES[claim.kind]} · {location(verdict)}"
    statement = (
        f'<span class="rkd-statement">{html.escape(claim.statement)}</span>'
        f'<div class="rkd-note">{html.escape(place)}</div>'
    )
    found = measured(verdict.last, claim.kind)
    label = chapter_label(claim.chapter)
    cells = (
        (badge(verdict.verdict), VERDICTS.index(verdict.verdict)),
        (statement, claim.statement),
        (html.escape(claim.printed) or '<span class="rkd-note">no figure</span>', _number(claim.published)),
        (
            f'<span class="rkd-number">{html.escape(found)}</span>'
            if found
            else '<span class="rkd-note">–</span>',
            verdict.last.details.get("mean", verdict.last.estimate) if found else "",
        ),
        (f'<a href="{_page(claim.chapter)}">{html.escape(label)}</a>', chapter_order(claim.chapter)),
    )
    filled = "".join(
        f'<td role="cell" data-label="{name}" data-sort="{html.escape(str(key), quote=True)}">{cell}</td>'
        for name, (cell, key) in zip(COLUMNS, cells, strict=True)
    )
    marks = {
        "kind": KIND_NAMES[claim.kind],
        "verdict": verdict.verdict,
        "chapter": " ".join(claim.chapters),
        "source": ", ".join((claim.who, *claim.also_by)),
    }
    data = " ".join(f'data-{name}="{html.escape(text, quote=True)}"' for name, text in marks.items())
    return f'<tr role="row" id="{html.escape(claim.id, quote=True)}" {data}>{filled}{_why(verdict)}</tr>'


def _why(verdict: Verdict) -> str:
    """The cell with the reason, folded: in wide windows it stands below the others."""
    names = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd></div>"
        for name, text in facts(verdict)
    )
    return (
        f'<td role="cell" class="why"><details><summary>Why</summary><p>{html.escape(why(verdict.last))}</p>'
        f"{_pooled(verdict)}<dl>{names}</dl><p><code>{html.escape(verdict.claim.id)}</code></p></details></td>"
    )


def _pooled(verdict: Verdict) -> str:
    """Where arithmetics differ, the link to what decides about them."""
    if not (verdict.left_out or ", " in verdict.arithmetics):
        return ""
    link = f'<a href="{_page("performance")}#{GATES}">The accuracy gate</a>'
    return f"<p>{html.escape(computed(verdict))} {link} says which arithmetics are judged together.</p>"


def _sources(verdicts: Sequence[Verdict]) -> list[str]:
    """Everyone who says something, in the order of the declaration."""
    return list(dict.fromkeys(who for v in verdicts for who in (v.claim.who, *v.claim.also_by)))


def _number(published: float | tuple[float, ...] | None) -> str:
    first = published[0] if isinstance(published, tuple) else published
    return "" if first is None else str(first)


def _filters(verdicts: Sequence[Verdict]) -> str:
    """The controls; the script takes away `hidden`, so that none is shown that would do nothing."""
    claims = [v.claim for v in verdicts]
    chapters = sorted({c for claim in claims for c in claim.chapters}, key=chapter_order)
    kinds = [name for kind, name in KIND_NAMES.items() if any(c.kind == kind for c in claims)]
    choices = (
        ("verdict", "Verdict", [(v, f"{v} ({n})") for v, n in tally(verdicts).items()]),
        ("kind", "Kind", [(name, name) for name in kinds]),
        ("chapter", "Chapter", [(c, chapter_label(c)) for c in chapters]),
        ("source", "Who says it", [(who, who) for who in _sources(verdicts)]),
    )
    selects = "".join(
        f'<label>{label}<select name="{name}"><option value="">all</option>'
        + "".join(
            f'<option value="{html.escape(v, quote=True)}">{html.escape(words)}</option>'
            for v, words in options
        )
        + "</select></label>"
        for name, label, options in choices
    )
    return (
        '<form class="rkd-filters" role="search" aria-label="Filter the claims" hidden>'
        '<label class="wide">Words<input type="search" name="q" placeholder="resnet20 CRD" autocomplete="off"></label>'
        f"{selects}"
        '<button type="reset">Show all</button>'
        f'<p class="rkd-note" role="status" aria-live="polite">{counted(len(verdicts), "claim")}</p></form>'
    )


# --- the counts of the front page ----------------------------------------------------------------


def counts(verdicts: Sequence[Verdict]) -> HTML:
    """How many claims of each kind have which verdict, with a sentence on what that means or takes; below, folded, the
    same by who says it."""
    rows = []
    for kind, about in KINDS.items():
        members = [v for v in verdicts if v.claim.kind == kind]
        if members:
            words = f'{html.escape(about.words)}<div class="rkd-note">{html.escape(about.question)}</div>'
            rows.append(_count_row(words, members, kind=KIND_NAMES[kind]))
    rows.append(_count_row("all", verdicts))
    head = "".join(f'<th scope="col">{name}</th>' for name in ("claims about", "declared", "verdicts"))
    table = f'<table class="rkd-table rkd-counts"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return _shown(f"<p>{_sum(verdicts)}</p>{table}{_by_source(verdicts)}")


def _by_source(verdicts: Sequence[Verdict]) -> str:
    """A claim that several sources make counts once for each."""
    rows = []
    for who in _sources(verdicts):
        members = [v for v in verdicts if who in (v.claim.who, *v.claim.also_by)]
        rows.append(_count_row(html.escape(who), members, source=who))
    if len(rows) < 2:
        return ""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("claims of", "declared", "verdicts"))
    return (
        "<details><summary>By who says it</summary>"
        f'<table class="rkd-table rkd-counts rkd-sources"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></details>"
    )


def _count_row(words: str, members: Sequence[Verdict], **query: str) -> str:
    badges = " ".join(
        f'<a href="{_page("claims", **query, verdict=verdict)}">{badge(verdict, count)}</a>'
        for verdict, count in tally(members).items()
    )
    return f'<tr><th scope="row">{words}</th><td>{len(members)}</td><td>{badges}</td></tr>'


def _sum(verdicts: Sequence[Verdict]) -> str:
    done, missing = judged(verdicts), runs_missing(verdicts)
    setting = "the whole of the data set, every epoch of the recipe, five seeds"
    sweep = "<code>rkd sweep params/paper.yaml</code>"
    start = f"<strong>{done} of {len(verdicts)} claims are judged.</strong>"
    if not done:
        cost = f'<a href="{_page("performance")}">Performance</a> says how long those about ReviewKD take.'
        return (
            f"{start} A verdict needs runs in the published setting ({setting}), and no such run is recorded yet. "
            f"It takes {missing} of them: {sweep}. {cost}"
        )
    words = "; ".join(
        f"{count} {verdict}" for verdict, count in tally(verdicts).items() if verdict != NOT_RUN
    )
    rest = (
        f" {missing} more runs in the published setting would complete the evidence: {sweep}."
        if missing
        else ""
    )
    return f"{start} Of these, {words}.{rest}"


# --- links, styles and script --------------------------------------------------------------------


def _page(name: str, **query: str) -> str:
    """Address of another page: of the site in a build of the book, else of the notebook beside this one."""
    if not os.environ.get(TOKEN):
        return f"{name}.ipynb"
    return f"{name}.html" + (f"?{html.escape(urlencode(query), quote=True)}" if query else "")


def _shown(body: str, script: bool = False) -> HTML:
    """HTML that finds its styles in the book, and brings them along elsewhere (Jupyter, Colab)."""
    if os.environ.get(TOKEN):
        return HTML(body + ('<script src="_static/claims.js"></script>' if script else ""))
    styles = f"<style>{_asset('custom.css')}{_asset('claims.css')}</style>"
    return HTML(styles + body + (f"<script>{_asset('claims.js')}</script>" if script else ""))


def _asset(name: str) -> str:
    return (paths.home() / "book" / "_assets" / name).read_text(encoding="utf-8")
