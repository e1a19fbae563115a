"""Verdicts on the pages of the book: the box of a chapter, the table of all claims, the counts of the front page."""

from collections.abc import Iterable, Sequence
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
from rkd.report.verdict_text import computed, counted, facts, location, measured, runs_missing, tally, why

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
SWEEP = "rkd sweep params/paper.yaml"


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


def _table(heads: Iterable[str], rows: Iterable[Html], kind: str) -> Html:
    head = tag("tr", *(tag("th", name, scope="col") for name in heads))
    return tag("table", tag("thead", head), tag("tbody", *rows), class_=kind)


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
    takes, left = "", [e for e in ours if e.verdict == NOT_RUN]
    if left:
        runs = counted(runs_missing(left), "run")
        said = f"Declared and not yet judged: {len(left)} of {len(ours)}. That takes {runs} in the published setting: "
        takes = tag("p", said, tag("code", f"{SWEEP} --chapters {chapter}"), class_="rkd-note")
    body = _one_by_one(ours) if len(ours) <= SHOWN else _folded(ours)
    label = f"Verdicts on the claims of {chapter_label(chapter)}"
    return _shown(tag("section", head, takes, body, class_="rkd-box", aria_label=label))


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
    """One table of all claims, with filters and sorting that need no kernel and no network; and what decides whether
    runs in several arithmetics enter one verdict.

    Without JavaScript it is the whole table in the order of the declaration; its rows have the ids of the claims.
    """
    claims = [e.claim for e in evaluations]
    chapters = sorted({c for claim in claims for c in claim.chapters}, key=chapter_names().index)
    kinds = [kind.name for name, kind in KINDS.items() if any(c.kind == name for c in claims)]
    filters = (
        Choice("verdict", "Verdict", {"": "all"} | {v: f"{v} ({n})" for v, n in tally(evaluations).items()}),
        Choice("kind", "Kind", {"": "all"} | {name: name for name in kinds}),
        Choice("chapter", "Chapter", {"": "all"} | {c: chapter_label(c) for c in chapters}),
        Choice("source", "Who says it", {"": "all"} | {who: who for who in _by_source(evaluations)}),
    )
    table = _table(COLUMNS, map(_row, evaluations), "rkd-claims-table")
    gates = [gate.finding for gate in committed(Gate).values()] or ["none"]
    rule = _note(
        "Runs in several arithmetics enter one verdict only where a paired comparison of runs as long, on as many "
        "images of the same data, ", _gate("shows these arithmetics equal"), ". On record:",
        tag("ul", *(tag("li", finding) for finding in gates)),
    )  # fmt: skip
    return HTML(datatable(table, filters, label="Table of all claims") + rule)


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
    pooled: Html | str = ""
    if found.left_out or ", " in found.arithmetics:
        gate = _gate("The accuracy gate")
        pooled = tag("p", computed(found), " ", gate, " says which arithmetics are judged together.")
    reason = tag("p", why(found.last)), pooled, tag("dl", *names), tag("p", tag("code", found.claim.id))
    return tag("details", tag("summary", "Why"), *reason)


def _gate(words: str) -> Html:
    return tag("a", words, href=f"{_page('performance')}#{GATES}")


def _by_source(evaluations: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """Everyone who says something, in the order of the declaration; a claim of several stands under each."""
    found: dict[str, list[Evaluation]] = {}
    for e in evaluations:
        for who in (e.claim.who, *e.claim.also_by):
            found.setdefault(who, []).append(e)
    return found


# --- the counts of the front page ----------------------------------------------------------------


def counts(evaluations: Sequence[Evaluation]) -> HTML:
    """How many claims of each kind have which verdict, with a sentence on what that means or takes; below, folded, the
    same by who says it. A claim that several sources make counts once for each."""
    heads, kind = ("declared", "verdicts"), "rkd-table rkd-counts"
    kinds = []
    for name, about in KINDS.items():
        if members := [e for e in evaluations if e.claim.kind == name]:
            kinds.append(_count_row(join(about.words, _note(about.question)), members, kind=about.name))
    sources = [_count_row(who, members, source=who) for who, members in _by_source(evaluations).items()]
    table = _table(("claims about", *heads), [*kinds, _count_row("all", evaluations)], kind)
    by_source = _table(("claims of", *heads), sources, f"{kind} rkd-sources")
    folded = tag("details", tag("summary", "By who says it"), by_source) if len(sources) > 1 else ""
    return _shown(join(tag("p", *_sum(evaluations)), table, folded))


def _count_row(words: object, members: Sequence[Evaluation], **query: str) -> Html:
    badges = (
        join(tag("a", verdict_badge(verdict, n), href=_page("claims", **query, verdict=verdict)), " ")
        for verdict, n in tally(members).items()
    )
    return tag("tr", tag("th", words, scope="row"), tag("td", len(members)), tag("td", *badges))


def _sum(evaluations: Sequence[Evaluation]) -> Iterable[object]:
    done, missing = tally(evaluations), runs_missing(evaluations)
    judged = len(evaluations) - done.pop(NOT_RUN, 0)
    yield tag("strong", f"{judged} of {len(evaluations)} claims are judged.")
    if done:
        yield f" Of these, {'; '.join(f'{n} {verdict}' for verdict, n in done.items())}."
    if missing:
        yield (
            " A verdict needs runs in the published setting: the whole of the data set, every epoch of the recipe, "
            f"five seeds. {missing} are not recorded yet: "
        )
        yield join(tag("code", SWEEP), ". ", tag("a", "Performance", href=_page("performance")))
        yield " says how long those about ReviewKD take."


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
