"""All claims in one picture: a row for each table of a source, a mark for each claim."""

import itertools
from collections.abc import Sequence

from IPython.display import HTML

from rkd.judge import GRADES, VERDICTS, Assessment
from rkd.judge.decide import NOT_RUN
from rkd.report.interactive.markup import Html, tag
from rkd.report.verdict_text import plural, reason, with_evidence, wording
from rkd.report.verdicts import badge_style, chapter_label, display_html, page_url


def claims_map(assessments: Sequence[Assessment]) -> HTML:
    """Return a map with one mark per claim: colour and sign show the verdict by the best evidence, the shape its grade.

    A mark links to its claim in the table of all claims. It shows the claim, its verdict and the reason under the
    mouse, on keyboard focus or at the first touch. The map needs neither a script nor a network.
    """
    rows: dict[str, list[Assessment]] = {}
    sources = [a.claim.who for a in assessments]
    for a in sorted(assessments, key=lambda a: sources.index(a.claim.who)):
        rows.setdefault(_name(a), []).append(a)
    lines = itertools.starmap(_line, rows.items())
    skip = tag("a", "Past the map", href="#rkd-past-map", class_="rkd-skip")
    label = f"Map of {len(assessments)} claims"
    inside = skip, _legend(assessments), *lines, tag("span", id="rkd-past-map", tabindex="-1")
    return display_html(tag("section", *inside, class_="rkd-map", aria_label=label))


def _name(a: Assessment) -> str:
    """Return the name of a claim's row: a table of a paper, or a README as a whole."""
    claim = a.claim
    return f"{claim.who}, {chapter_label(claim.chapter)}" if claim.who.endswith("paper") else claim.who


def _line(name: str, members: Sequence[Assessment]) -> Html:
    label = tag("a", name, href=page_url(members[0].claim.chapter))
    marks = sorted(members, key=lambda a: (a.grade or "E", VERDICTS.index(a.verdict)))
    listed = tag("ul", *map(_mark, marks), aria_label=f"{name}: {plural(len(members), 'claim')}")
    return tag("div", tag("div", label, " ", tag("span", len(members))), listed)


def _mark(a: Assessment) -> Html:
    (kind, sign), words = badge_style(a.verdict, a.grade), f"map-{a.claim.id}"
    to, shape = f"{page_url('claims')}#{a.claim.id}", f"{kind} {a.grade or 'E'}"
    link = tag("a", sign, href=to, aria_labelledby=words, class_=shape)
    found = [f"{wording(e)}, grade {e.grade} ({GRADES[e.grade].name})" for e in with_evidence(a)] or [NOT_RUN]
    why = reason((a.best if a.grade else a.found["A"]).last)
    also = f" Also {', and '.join(found[1:])}." if found[1:] else ""
    text = tag("span", tag("b", a.claim.statement), f": {found[0]}. {why}{also}", id=words)
    return tag("li", link, text, tabindex="-1")


def _legend(assessments: Sequence[Assessment]) -> Html:
    def shape(grade: str, name: str) -> Html:
        count = sum(a.grade == grade for a in assessments)
        mark = tag("i", grade or "–", class_=f"none {grade or 'E'}", aria_hidden="true")
        return tag("li", mark, " ", f"{grade} {name}".strip(), " ", tag("b", count))

    shapes = (shape(grade, about.name) for grade, about in GRADES.items())
    words: dict[tuple[str, str], dict[str, None]] = {}  # only what occurs
    for a in sorted(assessments, key=lambda a: (VERDICTS.index(a.verdict), a.grade)):
        if a.grade:
            words.setdefault(badge_style(a.verdict, a.grade), {})[wording(a.best)] = None
    signs = (
        tag("li", tag("i", sign, class_=f"{kind} B", aria_hidden="true"), " ", " / ".join(told))
        for (kind, sign), told in words.items()
    )
    shaped = tag("div", "Shape: the best evidence", tag("ul", *shapes, shape("", "none yet")))
    signed = tag("div", "Colour and sign: what it says", tag("ul", *signs))
    return tag("div", shaped, signed, class_="rkd-legend")
