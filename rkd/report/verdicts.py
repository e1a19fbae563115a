"""Verdicts on the pages of the book: the box of a chapter, the table of all claims, the counts of the front page."""

import html
from collections.abc import Sequence
from urllib.parse import urlencode

from IPython.display import HTML

from rkd.bench.gate import SECTION as GATES
from rkd.bench.gate import committed
from rkd.judge import KINDS, VERDICTS, Verdict, judge, load_claims
from rkd.judge.decide import NOT_RUN
from rkd.report.interactive.assets import attached, in_book
from rkd.report.interactive.datatable import datatable
from rkd.report.interactive.markup import Html, join, number, tag
from rkd.report.interactive.plot import Choice
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

    Without JavaScript it is the whole table in the order of the declaration; its rows have the ids of the claims.
    """
    claims = [v.claim for v in verdicts]
    chapters = sorted({c for claim in claims for c in claim.chapters}, key=chapter_order)
    kinds = [name for kind, name in KIND_NAMES.items() if any(c.kind == kind for c in claims)]
    filters = (
        ("verdict", "Verdict", {v: f"{v} ({n})" for v, n in tally(verdicts).items()}),
        ("kind", "Kind", {name: name for name in kinds}),
        ("chapter", "Chapter", {c: chapter_label(c) for c in chapters}),
        ("source", "Who says it", {who: who for who in _sources(verdicts)}),
    )
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in COLUMNS)))
    table = tag("table", head, tag("tbody", *map(_row, verdicts)), class_="rkd-claims-table")
    choices = [Choice(name, label, {"": "all", **options}) for name, label, options in filters]
    return HTML(datatable(table, choices, label="Table of all claims") + _gates())


def _gates() -> str:
    """What decides whether runs in several arithmetics enter one verdict."""
    found = "".join(f"<li>{html.escape(gate.finding)}</li>" for gate in committed())
    listed = f"<ul>{found}</ul>" if found else "<p>None is on record.</p>"
    return (
        '<div class="rkd-note"><p>Runs in several arithmetics enter one verdict only where a paired comparison of '
        f'runs as long, on as many images of the same data, <a href="{_page("performance")}#{GATES}">shows these '
        f"arithmetics equal</a>. On record:</p>{listed}</div>"
    )


def _row(verdict: Verdict) -> Html:
    claim, last = verdict.claim, verdict.last
    place = tag("div", f"{KIND_NAMES[claim.kind]} · {location(verdict)}", class_="rkd-note")
    found = measured(last, claim.kind)
    chapter = tag("a", chapter_label(claim.chapter), href=_page(claim.chapter))
    cells = (
        (Html(badge(verdict.verdict)), VERDICTS.index(verdict.verdict)),
        (join(claim.statement, place, _why(verdict)), claim.statement),
        (claim.printed or tag("span", "no figure", class_="rkd-note"), _number(claim.published)),
        (number(found) if found else "–", last.details.get("mean", last.estimate) if found else ""),
        (chapter, chapter_order(claim.chapter)),
    )
    filled = (tag("td", c, data_label=n, data_order=key) for n, (c, key) in zip(COLUMNS, cells, strict=True))
    source = "|".join((claim.who, *claim.also_by))
    marks = {"data_verdict": verdict.verdict, "data_kind": KIND_NAMES[claim.kind], "data_source": source}
    return tag("tr", *filled, id=claim.id, data_chapter="|".join(claim.chapters), **marks)


def _why(verdict: Verdict) -> Html:
    """The reason, folded. Where arithmetics differ, with the link to what decides about them."""
    names = (tag("div", tag("dt", name), tag("dd", said)) for name, said in facts(verdict))
    gate = tag("a", "The accuracy gate", href=f"{_page('performance')}#{GATES}")
    several = verdict.left_out or ", " in verdict.arithmetics
    pooled = (
        tag("p", computed(verdict), " ", gate, " says which arithmetics are judged together.")
        if several
        else ""
    )
    claim = tag("p", tag("code", verdict.claim.id))
    return tag(
        "details", tag("summary", "Why"), tag("p", why(verdict.last)), pooled, tag("dl", *names), claim
    )


def _sources(verdicts: Sequence[Verdict]) -> list[str]:
    """Everyone who says something, in the order of the declaration."""
    return list(dict.fromkeys(who for v in verdicts for who in (v.claim.who, *v.claim.also_by)))


def _number(published: float | tuple[float, ...] | None) -> str:
    first = published[0] if isinstance(published, tuple) else published
    return "" if first is None else str(first)


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
        tag("a", Html(badge(verdict, count)), href=_page("claims", **query, verdict=verdict))
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


# --- links and styles ----------------------------------------------------------------------------


def _page(name: str, **query: str) -> str:
    """Address of another page: of the site in a build of the book, else of the notebook beside this one."""
    if not in_book():
        return f"{name}.ipynb"
    return f"{name}.html" + (f"?{urlencode(query)}" if query else "")


def _shown(body: str) -> HTML:
    """HTML that finds its styles in the book, and brings them along elsewhere (Jupyter, Colab)."""
    return HTML(attached(script=False) + body)
