"""Verdicts on the pages of the book: the box of a chapter, the table and the map of all claims, the counts by grade."""

import itertools
from collections.abc import Iterable, Sequence
from urllib.parse import urlencode

from IPython.display import HTML

from rkd.bench.gate import SECTION as GATES
from rkd.experiments.chapters import chapter_names, get_chapter
from rkd.judge import GRADES, KINDS, VERDICTS, Assessment, Evaluation, assess, load_claims
from rkd.judge.decide import NOT_RUN, REPRODUCED
from rkd.report import verdict_text as text
from rkd.report.interactive.assets import attached, in_book
from rkd.report.interactive.datatable import datatable
from rkd.report.interactive.markup import Html, join, tag
from rkd.report.interactive.plot import Choice
from rkd.report.tables import header_table

SHOWN = 6  # claims that a chapter's box lists one by one; more are folded into groups by subject
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
ARITHMETIC = ("none", "=")  # a claim that follows from printed numbers alone was not measured
SWEEP = "rkd sweep params/paper.yaml"


def badge_style(verdict: str, grade: str) -> tuple[str, str]:
    """Return the class of colours and the sign of a verdict by evidence of a grade."""
    return ARITHMETIC if grade == "D" and verdict == REPRODUCED else LOOKS[verdict]


def verdict_badge(verdict: str, grade: str = "", count: int | None = None) -> Html:
    """Return a verdict as a coloured badge in the words of its grade, with grade and count if these are given."""
    kind, sign = badge_style(verdict, grade)
    words = [tag("span", sign, aria_hidden="true"), " ", verdict]
    if grade:
        letter = tag("abbr", grade, title=f"grade {grade}: {GRADES[grade].name}")
        words[2:] = GRADES[grade].wording(verdict), " ", letter
    if count is not None:
        words += " ", tag("b", count)
    return tag("span", *words, class_=f"rkd-badge rkd-verdict {kind}")


def _badges(assessment: Assessment) -> Html:
    """Return a badge for every grade that has evidence, the best first."""
    found = text.with_evidence(assessment)
    return _spaced([verdict_badge(e.verdict, e.grade) for e in found] or [verdict_badge(NOT_RUN)])


def _tally(assessments: Sequence[Assessment]) -> Html:
    """Return badges that count the verdicts by the best evidence, the best grade first."""
    return _spaced(
        verdict_badge(verdict, grade, count)
        for grade in (*GRADES, "")
        for verdict, count in text.tally(a for a in assessments if a.grade == grade).items()
    )


def _spaced(badges: Iterable[Html]) -> Html:
    return join(*(join(badge, " ") for badge in badges))


def _note(*said: object) -> Html:
    return tag("div", *said, class_="rkd-note")


# --- the box at the top of a chapter -------------------------------------------------------------


def chapter_box(chapter: str, assessments: Sequence[Assessment] | None = None) -> HTML:
    """Return what the evidence says about the claims that a chapter's lines answer, the best evidence first; empty if
    there are no such claims. They are assessed now if no assessments are given."""
    if assessments is None:
        claims = load_claims(check=False)  # the lines of other chapters need not be built for this one's box
        families = {c.family for c in claims if chapter in c.chapters} - {""}
        wanted = [c for c in claims if chapter in c.chapters or c.family in families]
        assessments = assess(wanted) if wanted else ()
    ours = [a for a in assessments if chapter in a.claim.chapters]
    if not ours:
        return HTML("")
    several = len(ours) > 1  # the one line of a single claim has its badge already
    head = tag(
        "p", tag("strong", "Verdicts" if several else "Verdict"), " ", _tally(ours) if several else "",
        tag("a", "in the table of all claims", href=page_url("claims", chapter=chapter)), class_="rkd-box-head",
    )  # fmt: skip
    takes, left = "", sum(a.found["A"].verdict == NOT_RUN for a in ours)
    if left:
        said = f"Not yet run in the published setting: {left} of {len(ours)} claims; "
        command = tag("code", f"{SWEEP} --chapters {chapter}")
        takes = tag("p", said, command, " trains what they need.", class_="rkd-note")
    body = _one_by_one(ours) if len(ours) <= SHOWN else _folded(ours)
    label = f"Verdicts on the claims of {chapter_label(chapter)}"
    return display_html(tag("section", head, takes, body, class_="rkd-box", aria_label=label))


def _one_by_one(assessments: Sequence[Assessment]) -> Html:
    lines = []
    for a in sorted(assessments, key=lambda a: a.grade or "E"):
        found = text.estimate_text(a.best.last, a.claim, a.best.grade)
        figure = tag("span", found, class_="rkd-note") if found else ""
        lines.append(tag("li", _badges(a), a.claim.statement, " ", figure))
    return tag("ul", *lines, class_="rkd-claims")


def _folded(assessments: Sequence[Assessment]) -> Html:
    groups: dict[str, list[Assessment]] = {}
    for a in assessments:
        groups.setdefault(a.claim.about, []).append(a)
    heads = {about: tag("summary", about, " ", _tally(members)) for about, members in groups.items()}
    parts = (tag("details", heads[about], _one_by_one(members)) for about, members in groups.items())
    return tag("div", *parts, class_="rkd-groups")


# --- the table of all claims ---------------------------------------------------------------------

COLUMNS = ("Verdict", "Claim", "Published", "Found", "Chapter")


def claims_table(assessments: Sequence[Assessment]) -> HTML:
    """Return one table of all claims, with filters and sorting that need no kernel and no network, and a note on the
    arithmetic of a verdict's runs.

    Without JavaScript it is the whole table, claims with evidence first; its rows have the ids of the claims.
    """
    claims = [a.claim for a in assessments]
    chapters = sorted({c for claim in claims for c in claim.chapters}, key=chapter_names().index)
    kinds = [kind.name for name, kind in KINDS.items() if any(c.kind == name for c in claims)]
    who = dict.fromkeys(who for claim in claims for who in (claim.who, *claim.also_by))
    grades, verdicts = {}, {}
    for name, grade in GRADES.items():
        members = text.of_grade(assessments, name)
        grades[name] = f"{name}: {grade.name} ({len(members)})"
        verdicts |= {
            f"{name} {v}": f"{name}: {grade.wording(v)} ({n})" for v, n in text.tally(members).items()
        }
    nothing = f"no evidence yet ({sum(not a.grade for a in assessments)})"
    filters = (
        Choice("grade", "Evidence", {"": "all"} | grades | {NOT_RUN: nothing}),
        Choice("verdict", "Verdict", {"": "all"} | verdicts),
        Choice("kind", "Kind", {"": "all"} | {name: name for name in kinds}),
        Choice("chapter", "Chapter", {"": "all"} | {c: chapter_label(c) for c in chapters}),
        Choice("source", "Who says it", {"": "all"} | {name: name for name in who}),
    )
    decided = sorted(assessments, key=lambda a: (a.grade or "E", VERDICTS.index(a.verdict)))
    table = header_table(COLUMNS, map(_row, decided), "rkd-claims-table")
    gate = tag("a", "the accuracy gate", href=f"{page_url('performance')}#{GATES}")
    rule = _note(
        "A verdict stands on runs of one arithmetic: the one in which the most seeds have finished on all sides of the "
        "claim. What is recorded in another alone is left out, and named. What a quicker one costs, ", gate,
        " measures.",
    )  # fmt: skip
    return HTML(datatable(table, filters, label="Table of all claims") + rule)


def _row(a: Assessment) -> Html:
    claim, last, kind = a.claim, a.best.last, KINDS[a.claim.kind].name
    value = text.estimate_text(last, claim, a.best.grade)
    order = last.details.get("mean", last.estimate) if value else ""
    published = claim.published[0] if isinstance(claim.published, tuple) else claim.published
    chapter = tag("a", chapter_label(claim.chapter), href=page_url(claim.chapter))
    statement = join(claim.statement, _note(f"{kind} · {text.location(claim)}"), _why(a))
    cells = (
        (_badges(a), f"{a.grade or 'E'}{VERDICTS.index(a.verdict)}"),
        (statement, claim.statement),
        (claim.printed or tag("span", "no figure", class_="rkd-n"), "" if published is None else published),
        (tag("span", value, class_="rkd-number") if value else "–", order),
        (chapter, chapter_names().index(claim.chapter)),
    )
    filled = (tag("td", c, data_label=n, data_order=key) for n, (c, key) in zip(COLUMNS, cells, strict=True))
    found = text.with_evidence(a)
    marks = {
        "data_grade": "|".join(e.grade for e in found) or NOT_RUN,
        "data_verdict": "|".join(f"{e.grade} {e.verdict}" for e in found),
        "data_kind": kind,
        "data_chapter": "|".join(claim.chapters),
        "data_source": "|".join((claim.who, *claim.also_by)),
    }
    return tag("tr", *filled, id=claim.id, **marks)


def _why(a: Assessment) -> Html:
    """Return, folded, what every grade says and why, then what was declared."""
    grades = (tag("div", tag("dt", verdict_badge(e.verdict, e.grade)), _reason(e)) for e in a.found.values())
    names = (tag("div", tag("dt", name), tag("dd", words)) for name, words in text.declared_facts(a.claim))
    said = tag("dl", *grades), tag("dl", *names), tag("p", tag("code", a.claim.id))
    return tag("details", tag("summary", "Why"), *said)


def _reason(found: Evaluation) -> Html:
    figures = " · ".join(f"{name}: {words}" for name, words in text.evidence_facts(found))
    return tag("dd", text.reason(found.last), _note(figures) if figures else "")


# --- the map of all claims ------------------------------------------------------------------------


def claims_map(assessments: Sequence[Assessment]) -> HTML:
    """Return a map with one mark per claim: colour and sign show the verdict by the best evidence, the shape its grade.

    A mark links to its claim in the table of all claims. It shows the claim, its verdict and the reason under the
    mouse, on keyboard focus or at the first touch. The map needs neither a script nor a network.
    """
    rows: dict[str, list[Assessment]] = {}
    sources = [a.claim.who for a in assessments]
    for a in sorted(assessments, key=lambda a: sources.index(a.claim.who)):
        rows.setdefault(_map_row(a), []).append(a)
    lines = itertools.starmap(_map_line, rows.items())
    skip = tag("a", "Past the map", href="#rkd-past-map", class_="rkd-skip")
    label = f"Map of {len(assessments)} claims"
    inside = skip, _legend(assessments), *lines, tag("span", id="rkd-past-map", tabindex="-1")
    return display_html(tag("section", *inside, class_="rkd-map", aria_label=label))


def _map_row(a: Assessment) -> str:
    """Return the name of a claim's row: a table of a paper, or a README as a whole."""
    claim = a.claim
    return f"{claim.who}, {chapter_label(claim.chapter)}" if claim.who.endswith("paper") else claim.who


def _map_line(name: str, members: Sequence[Assessment]) -> Html:
    label = tag("a", name, href=page_url(members[0].claim.chapter))
    marks = sorted(members, key=lambda a: (a.grade or "E", VERDICTS.index(a.verdict)))
    listed = tag("ul", *map(_mark, marks), aria_label=f"{name}: {text.plural(len(members), 'claim')}")
    return tag("div", tag("div", label, " ", tag("span", len(members))), listed)


def _mark(a: Assessment) -> Html:
    (kind, sign), words = badge_style(a.verdict, a.grade), f"map-{a.claim.id}"
    to, shape = f"{page_url('claims')}#{a.claim.id}", f"{kind} {a.grade or 'E'}"
    link = tag("a", sign, href=to, aria_labelledby=words, class_=shape)
    found = [f"{e.wording}, grade {e.grade} ({GRADES[e.grade].name})" for e in text.with_evidence(a)] or [
        NOT_RUN
    ]
    why = text.reason((a.best if a.grade else a.found["A"]).last)
    also = f" Also {', and '.join(found[1:])}." if found[1:] else ""
    said = tag("span", tag("b", a.claim.statement), f": {found[0]}. {why}{also}", id=words)
    return tag("li", link, said, tabindex="-1")


def _legend(assessments: Sequence[Assessment]) -> Html:
    def shape(grade: str, name: str) -> Html:
        count = sum(a.grade == grade for a in assessments)
        mark = tag("i", grade or "–", class_=f"none {grade or 'E'}", aria_hidden="true")
        return tag("li", mark, " ", f"{grade} {name}".strip(), " ", tag("b", count))

    shapes = (shape(grade, about.name) for grade, about in GRADES.items())
    words: dict[tuple[str, str], dict[str, None]] = {}  # only what occurs
    for a in sorted(assessments, key=lambda a: (VERDICTS.index(a.verdict), a.grade)):
        if a.grade:
            words.setdefault(badge_style(a.verdict, a.grade), {})[a.best.wording] = None
    signs = (
        tag("li", tag("i", sign, class_=f"{kind} B", aria_hidden="true"), " ", " / ".join(told))
        for (kind, sign), told in words.items()
    )
    shaped = tag("div", "Shape: the best evidence", tag("ul", *shapes, shape("", "none yet")))
    signed = tag("div", "Colour and sign: what it says", tag("ul", *signs))
    return tag("div", shaped, signed, class_="rkd-legend")


# --- the counts by grade -------------------------------------------------------------------------


def grade_counts(assessments: Sequence[Assessment]) -> HTML:
    """Return a table of how many claims each grade has evidence on and what it says, and what grade A still needs."""

    def row(words: object, count: int, badges: Iterable[tuple[Html, dict[str, str]]]) -> Html:
        links = (tag("a", badge, href=page_url("claims", **query)) for badge, query in badges)
        return tag("tr", tag("th", words, scope="row"), tag("td", count), tag("td", _spaced(links)))

    rows = []
    for name, grade in GRADES.items():
        members = text.of_grade(assessments, name)
        found = text.tally(members).items()
        badges = [(verdict_badge(v, name, n), {"verdict": f"{name} {v}"}) for v, n in found]
        words = join(tag("b", name), f" {grade.name}", _note(grade.what))
        rows.append(row(words, len(members), badges))
    if nothing := sum(not a.grade for a in assessments):
        badge = verdict_badge(NOT_RUN, count=nothing)
        rows.append(row("no evidence yet", nothing, [(badge, {"grade": NOT_RUN})]))
    table = header_table(
        ("grade of evidence", "claims", "what it says of them"), rows, "rkd-table rkd-counts"
    )
    some = f"{len(assessments) - nothing} of {len(assessments)} claims"
    said = [f"{some} have evidence, some of several grades. "]
    if missing := text.runs_missing(assessments):
        runs = f"Grade A needs {missing:,} more runs, each on the whole data set and over every epoch: "
        how_long = tag("a", "Performance", href=page_url("performance"))
        said += [runs, tag("code", SWEEP), ". ", how_long, " says how long the runs about ReviewKD take."]
    return display_html(join(table, tag("p", *said)))


# --- names, links and styles ---------------------------------------------------------------------


def chapter_label(name: str) -> str:
    """Return a chapter's short name: "Table 3", "no cross entropy"."""
    title = get_chapter(name).title
    return title.partition(":")[0] if title.startswith(("Table", "Figure")) else name.replace("_", " ")


def page_url(name: str, **query: str) -> str:
    """Return the address of another page: on the site in a build of the book, else of the notebook beside this one."""
    if not in_book():
        return f"{name}.ipynb"
    return f"{name}.html" + (f"?{urlencode(query)}" if query else "")


def display_html(body: Html) -> HTML:
    """Return HTML that finds its styles in the book and brings them along elsewhere (Jupyter, Colab)."""
    return HTML(attached(script=False) + body)
