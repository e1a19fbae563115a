"""Verdicts on the pages of the book: the box of a chapter, the table of all claims, the counts of the front page."""

from collections.abc import Sequence
from urllib.parse import urlencode

from IPython.display import HTML

from rkd.bench.gate import SECTION as GATES
from rkd.bench.gate import Gate
from rkd.bench.result import committed
from rkd.experiments.chapters import chapter_names, get_chapter
from rkd.judge import KINDS, VERDICTS, Evaluation, evaluate, load_claims
from rkd.judge.decide import NOT_RUN
from rkd.report.interactive.assets import attached, in_book
from rkd.report.interactive.datatable import datatable
from rkd.report.interactive.markup import Html, join, number, quiet, tag
from rkd.report.interactive.plot import Choice
from rkd.report.verdict_text import (
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


def verdict_badge(verdict: str, count: int | None = None) -> Html:
    """A verdict as a coloured badge with its words, and how often it occurs where that is given."""
    kind, sign = LOOKS[verdict]
    often = "" if count is None else join(" ", tag("b", count))
    return tag(
        "span", tag("span", sign, aria_hidden="true"), " ", verdict, often, class_=f"rkd-badge rkd-verdict {kind}"
    )  # fmt: skip


def _badges(evaluations: Sequence[Evaluation]) -> Html:
    return join(*(join(verdict_badge(*each), " ") for each in tally(evaluations).items()))


def _note(*said: object) -> Html:
    return tag("div", *said, class_="rkd-note")


# --- the box at the top of a chapter -------------------------------------------------------------


def chapter_box(chapter: str, evaluations: Sequence[Evaluation] | None = None) -> HTML:
    """Verdicts on the claims a chapter's lines answer; an empty string where there are none.

    Args:
        chapter: its name.
        evaluations: of claims; None: made now, from the records of the paper profile.
    """
    if evaluations is None:
        claims = load_claims(check=False)  # the lines of other chapters need not be built for this one's box
        families = {c.family for c in claims if chapter in c.chapters} - {""}
        wanted = [c for c in claims if chapter in c.chapters or c.family in families]
        evaluations = evaluate(claims=wanted) if wanted else ()
    ours = [e for e in evaluations if chapter in e.claim.chapters]
    if not ours:
        return HTML("")
    several = len(ours) > 1  # the one line of a single claim has its badge already
    head = tag(
        "p", tag("strong", "Verdicts" if several else "Verdict"), " ", _badges(ours) if several else "",
        tag("a", "in the table of all claims", href=_page("claims", chapter=chapter)), class_="rkd-box-head",
    )  # fmt: skip
    body = _one_by_one(ours) if len(ours) <= SHOWN else _folded(ours)
    label = f"Verdicts on the claims of {chapter_label(chapter)}"
    return _shown(tag("section", head, _takes(ours, chapter), body, class_="rkd-box", aria_label=label))


def _takes(evaluations: Sequence[Evaluation], chapter: str) -> Html:
    """What it takes to judge the claims that are not judged, in a sentence."""
    left = [e for e in evaluations if e.verdict == NOT_RUN]
    if not left:
        return Html("")
    missing = counted(runs_missing(left), "run")
    if len(left) == len(evaluations):
        one = len(left) == 1
        what = "The claim of this chapter is" if one else f"The {len(left)} claims of this chapter are"
        start = f"{what} declared and not yet judged. That takes {missing} in the published setting:"
    else:
        start = f"{counted(len(left), 'claim')} not yet judged: {missing} missing."
    sweep = tag("code", f"rkd sweep params/paper.yaml --chapters {chapter}")
    return tag("p", start, " ", sweep, class_="rkd-note")


def _one_by_one(evaluations: Sequence[Evaluation]) -> Html:
    lines = []
    for e in evaluations:
        found = measured(e.last, e.claim.kind)
        shown = tag("span", found, class_="rkd-note") if found else ""
        lines.append(tag("li", verdict_badge(e.verdict), " ", e.claim.statement, " ", shown))
    return tag("ul", *lines, class_="rkd-claims")


def _folded(evaluations: Sequence[Evaluation]) -> Html:
    groups: dict[str, list[Evaluation]] = {}
    for e in evaluations:
        groups.setdefault(e.claim.about, []).append(e)
    parts = (
        tag("details", tag("summary", about, " ", _badges(members)), _one_by_one(members))
        for about, members in groups.items()
    )
    return tag("div", *parts, class_="rkd-groups")


# --- the table of all claims ---------------------------------------------------------------------

COLUMNS = ("Verdict", "Claim", "Published", "Measured", "Chapter")


def claims_table(evaluations: Sequence[Evaluation]) -> HTML:
    """One table of all claims, with filters and sorting that need no kernel and no network.

    Without JavaScript it is the whole table in the order of the declaration; its rows have the ids of the claims.
    """
    claims = [e.claim for e in evaluations]
    chapters = sorted({c for claim in claims for c in claim.chapters}, key=chapter_names().index)
    kinds = [kind.name for name, kind in KINDS.items() if any(c.kind == name for c in claims)]
    filters = (
        ("verdict", "Verdict", {v: f"{v} ({n})" for v, n in tally(evaluations).items()}),
        ("kind", "Kind", {name: name for name in kinds}),
        ("chapter", "Chapter", {c: chapter_label(c) for c in chapters}),
        ("source", "Who says it", {who: who for who in _sources(evaluations)}),
    )
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in COLUMNS)))
    table = tag("table", head, tag("tbody", *map(_row, evaluations)), class_="rkd-claims-table")
    choices = [Choice(name, label, {"": "all", **options}) for name, label, options in filters]
    return HTML(datatable(table, choices, label="Table of all claims") + _gates())


def _gates() -> Html:
    """What decides whether runs in several arithmetics enter one verdict."""
    found = [tag("li", gate.finding) for gate in committed(Gate).values()]
    rule = tag(
        "p",
        "Runs in several arithmetics enter one verdict only where a paired comparison of runs as long, on as many "
        "images of the same data, ",
        tag("a", "shows these arithmetics equal", href=f"{_page('performance')}#{GATES}"),
        ". On record:",
    )
    return _note(rule, tag("ul", *found) if found else tag("p", "None is on record."))


def _row(found: Evaluation) -> Html:
    claim, last, kind = found.claim, found.last, KINDS[found.claim.kind].name
    value = measured(last, claim.kind)
    published = claim.published[0] if isinstance(claim.published, tuple) else claim.published
    chapter = tag("a", chapter_label(claim.chapter), href=_page(claim.chapter))
    statement = join(claim.statement, _note(f"{kind} · {location(claim)}"), _why(found))
    cells = (
        (verdict_badge(found.verdict), VERDICTS.index(found.verdict)),
        (statement, claim.statement),
        (claim.printed or quiet("no figure"), "" if published is None else published),
        (number(value) if value else "–", last.details.get("mean", last.estimate) if value else ""),
        (chapter, chapter_names().index(claim.chapter)),
    )
    filled = (tag("td", c, data_label=n, data_order=key) for n, (c, key) in zip(COLUMNS, cells, strict=True))
    marks = {"data_verdict": found.verdict, "data_kind": kind, "data_chapter": "|".join(claim.chapters)}
    return tag("tr", *filled, id=claim.id, data_source="|".join((claim.who, *claim.also_by)), **marks)


def _why(found: Evaluation) -> Html:
    """The reason, folded. Where arithmetics differ, with the link to what decides about them."""
    names = (tag("div", tag("dt", name), tag("dd", said)) for name, said in facts(found))
    gate = tag("a", "The accuracy gate", href=f"{_page('performance')}#{GATES}")
    several = found.left_out or ", " in found.arithmetics
    pooled = tag("p", computed(found), " ", gate, " says which arithmetics are judged together.")
    claim = tag("p", tag("code", found.claim.id))
    reason = tag("p", why(found.last)), pooled if several else "", tag("dl", *names), claim
    return tag("details", tag("summary", "Why"), *reason)


def _sources(evaluations: Sequence[Evaluation]) -> list[str]:
    """Everyone who says something, in the order of the declaration."""
    return list(dict.fromkeys(who for e in evaluations for who in (e.claim.who, *e.claim.also_by)))


# --- the counts of the front page ----------------------------------------------------------------


def counts(evaluations: Sequence[Evaluation]) -> HTML:
    """How many claims of each kind have which verdict, with a sentence on what that means or takes; below, folded, the
    same by who says it. A claim that several sources make counts once for each."""
    kinds, sources = [], []
    for name, kind in KINDS.items():
        if members := [e for e in evaluations if e.claim.kind == name]:
            kinds.append(_count_row(join(kind.words, _note(kind.question)), members, kind=kind.name))
    for who in _sources(evaluations):
        members = [e for e in evaluations if who in (e.claim.who, *e.claim.also_by)]
        sources.append(_count_row(who, members, source=who))
    by_who = _count_table("claims of", sources, "rkd-sources")
    by_source = tag("details", tag("summary", "By who says it"), by_who)
    table = _count_table("claims about", [*kinds, _count_row("all", evaluations)])
    return _shown(join(tag("p", _sum(evaluations)), table, by_source if len(sources) > 1 else ""))


def _count_table(what: str, rows: Sequence[Html], more: str = "") -> Html:
    head = tag("tr", *(tag("th", name, scope="col") for name in (what, "declared", "verdicts")))
    return tag("table", tag("thead", head), tag("tbody", *rows), class_=f"rkd-table rkd-counts {more}")


def _count_row(words: object, members: Sequence[Evaluation], **query: str) -> Html:
    badges = (
        join(tag("a", verdict_badge(verdict, n), href=_page("claims", **query, verdict=verdict)), " ")
        for verdict, n in tally(members).items()
    )
    return tag("tr", tag("th", words, scope="row"), tag("td", len(members)), tag("td", *badges))


def _sum(evaluations: Sequence[Evaluation]) -> Html:
    done, missing = judged(evaluations), runs_missing(evaluations)
    sweep = tag("code", "rkd sweep params/paper.yaml")
    start = tag("strong", f"{done} of {len(evaluations)} claims are judged.")
    if not done:
        needs = "A verdict needs runs in the published setting (the whole of the data set, every epoch of the recipe, "
        needs += f"five seeds), and no such run is recorded yet. It takes {missing} of them: "
        cost = tag("a", "Performance", href=_page("performance"))
        return join(start, " ", needs, sweep, ". ", cost, " says how long those about ReviewKD take.")
    words = "; ".join(f"{n} {verdict}" for verdict, n in tally(evaluations).items() if verdict != NOT_RUN)
    more = f" {missing} more runs in the published setting would complete the evidence: "
    return join(start, f" Of these, {words}.", *((more, sweep, ".") if missing else ()))


# --- names, links and styles ---------------------------------------------------------------------


def chapter_label(name: str) -> str:
    """A chapter's short name: "Table 3", "no cross entropy"."""
    title = get_chapter(name).title
    return title.partition(":")[0] if title.startswith(("Table", "Figure")) else name.replace("_", " ")


def _page(name: str, **query: str) -> str:
    """Address of another page: of the site in a build of the book, else of the notebook beside this one."""
    if not in_book():
        return f"{name}.ipynb"
    return f"{name}.html" + (f"?{urlencode(query)}" if query else "")


def _shown(body: Html) -> HTML:
    """HTML that finds its styles in the book, and brings them along elsewhere (Jupyter, Colab)."""
    return HTML(attached(script=False) + body)
