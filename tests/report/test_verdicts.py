"""Verdicts as HTML and text: map, box, table and counts, on printed numbers alone and with evidence of every grade."""

import dataclasses
import re
from html import escape
from html.parser import HTMLParser

import pandas as pd
import pytest
from browser import wait, window
from cells import cells, execute
from evidence import PAPER, around, put, record
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from rkd import paths
from rkd.cli import main
from rkd.experiments.chapters import chapter_names
from rkd.experiments.selectors import Selectors
from rkd.judge import GRADES, VERDICTS, assess, load_claims
from rkd.judge.printed import statements
from rkd.records import Store
from rkd.report import verdict_text as text
from rkd.report import verdicts as module
from rkd.report.book import TOKEN
from rkd.report.verdicts import (
    LOOKS,
    badge_style,
    chapter_box,
    claims_map,
    claims_table,
    grade_counts,
    verdict_badge,
)

CLAIMS = load_claims(selectors=PAPER)
BY_ID = {claim.id: claim for claim in CLAIMS}


def stores(folder):
    return {grade: Store(folder / grade / "records", folder / grade / "work") for grade in "AC"}


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Nothing was run: printed numbers alone."""
    return assess(CLAIMS, stores=stores(tmp_path_factory.mktemp("none")), others=[])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Records that bring every verdict and every grade about."""
    both = stores(tmp_path_factory.mktemp("mixed"))
    store = both["A"]
    for names, shift in {"20-resnet56": 0, "32-resnet110": -1.5, "8x4-resnet32x4": 1.5}.items():
        paper, alone = f"table1-resnet{names}-paper", f"table1-resnet{names.split('-')[0]}-alone"
        put(store, f"table1/resnet{names}-reviewkd", around(BY_ID[paper].published + shift), optimism=0.25)
        put(store, f"table1/resnet{names}-student", around(BY_ID[alone].published), optimism=0.15)
    put(store, "table3/none", around(69.5, n=3), optimism=0.2)
    put(store, "no_cross_entropy/alone", around(1.0, sd=0.05))
    store.save(record(next(iter(PAPER.runs(["table3/rm"]).values())), 1.0, status="diverged"))
    for line, mean in {"full": 61.0, "add": 60.0}.items():
        put(both["C"], f"table6/{line}", around(mean, n=3), selectors=Selectors("short"))
    found = assess(CLAIMS, stores=both)
    assert {e.verdict for a in found for e in a.found.values()} == set(VERDICTS)
    assert {a.grade for a in found} == {*GRADES, ""}
    return found


class Tree(HTMLParser):
    """Elements in document order as (tag, attributes); every one closed, in order."""

    VOID = frozenset({"input", "br", "img"})

    def __init__(self, markup):
        super().__init__()
        self.found, self.open, self.words = [], [], []
        self.feed(markup)
        assert not self.open, f"never closed: {self.open}"
        self.text = re.sub(r"\s+", " ", "".join(self.words))

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def test_badges_say_the_verdict_in_words_and_differ_in_sign():
    for verdict in VERDICTS:
        tree = Tree(verdict_badge(verdict, count=3))
        assert f"{verdict} 3" in tree.text and tree.all("span")[1] == {"aria-hidden": "true"}
    assert len({sign for _, sign in LOOKS.values()}) == len(VERDICTS)
    assert badge_style("reproduced", "D") == ("none", "=")
    assert badge_style("not reproduced", "D") == badge_style("not reproduced", "A")
    assert "opposite direction C" in Tree(verdict_badge("not reproduced", "C")).text


def test_counts_say_what_each_grade_has(mixed, printed, in_book):
    for found in (mixed, printed):
        markup = grade_counts(found).data
        tree, nothing = Tree(markup), sum(not a.grade for a in found)
        assert f"{len(CLAIMS) - nothing} of {len(CLAIMS)} claims have evidence" in tree.text
        *rows, last = markup.partition("<tbody>")[2].split("</tr>")[:-1]
        assert f"<td>{nothing}</td>" in last and not re.search(r"\bnan\b|None", tree.text)
        for row, (grade, about) in zip(rows, GRADES.items(), strict=True):
            of_it = [a.found[grade] for a in found if a.found[grade].verdict != "not run"]
            assert f"<td>{len(of_it)}</td>" in row and escape(about.what) in row
            assert sum(map(int, re.findall(r"<b>(\d+)</b>", row))) == len(of_it)
    missing = {run for claim in CLAIMS for run in PAPER.needed(claim.selectors)}
    assert f"Grade A needs {len(missing):,} more runs" in tree.text
    assert "rkd sweep params/paper.yaml" in tree.text
    links = {a["href"] for a in Tree(grade_counts(mixed).data).all("a")}
    assert {"claims.html?verdict=D+reproduced", "claims.html?grade=not+run"} <= links


def test_map_has_one_mark_a_claim(mixed, in_book):
    markup = claims_map(mixed).data
    tree = Tree(markup)
    kinds = {a.claim.id: f"{badge_style(a.verdict, a.grade)[0]} {a.grade or 'E'}" for a in mixed}
    marks = [a for a in tree.all("a") if "aria-labelledby" in a]
    assert {m["href"]: m["class"] for m in marks} == {f"claims.html#{id}": kind for id, kind in kinds.items()}
    said = {a["id"] for a in tree.all("span") if "id" in a}
    assert len(marks) == len(CLAIMS) and all(m["aria-labelledby"] in said for m in marks)
    rows = [a["aria-label"] for a in tree.all("ul") if "aria-label" in a]
    assert rows[0] == "ReviewKD paper, Table 1: 15 claims" and "KDrefine README: 109 claims" in rows
    assert "same direction, grade C (short runs)" in tree.text and "<script" not in markup


def test_box_lists_six_and_folds_more(mixed, in_book):
    for chapter in chapter_names():
        ours = [a for a in mixed if chapter in a.claim.chapters]
        tree = Tree(chapter_box(chapter, mixed).data)
        assert len(tree.all("li")) == len(ours)
        assert len(tree.all("details")) == (len({a.claim.about for a in ours}) if len(ours) > 6 else 0)
        assert all(a.claim.statement in tree.text for a in ours)
        assert len(tree.all("summary")) <= 7 and not [a for a in tree.all("details") if "open" in a]
    assert chapter_box("recipes", mixed).data == "", "no claim is judged there"
    table6 = Tree(chapter_box("table6", mixed).data).text
    assert "Verdicts ✓ same direction C 2 = follows D 1 – not run 2" in table6, "the best grade first"
    assert "✓ same direction C = follows D The full method beats adding maps" in table6, "and what others say"


def test_box_says_what_is_judged_and_what_it_takes(printed, mixed, in_book):
    for assessments in (printed, mixed):
        tree = Tree(chapter_box("table1", assessments).data)
        ours = [a for a in assessments if "table1" in a.claim.chapters]
        left = sum(a.found["A"].verdict == "not run" for a in ours)
        assert f"Not yet run in the published setting: {left} of {len(ours)} claims; " in tree.text
        assert "rkd sweep params/paper.yaml --chapters table1" in tree.text
        assert tree.all("section")[0]["aria-label"] == "Verdicts on the claims of Table 1"
        assert "claims.html?chapter=table1" in [a["href"] for a in tree.all("a")]
        assert ("± 0.25" in tree.text) == (assessments is mixed)


def test_box_judges_by_itself(monkeypatch, in_book):
    """Without verdicts: what is committed, with the whole families the chapter's claims belong to."""
    asked = []
    monkeypatch.setattr(module, "assess", lambda claims: asked.append(claims) or ())
    monkeypatch.setattr(Selectors, "ids", lambda *_: pytest.fail("a chapter is built"))
    assert chapter_box("table2").data == "" and chapter_box("recipes").data == ""
    ((found),) = asked
    families = {c.family for c in found} - {""}
    wanted = {c.id for c in CLAIMS if c.family in families or "table2" in c.chapters}
    assert wanted == {c.id for c in found} and len(wanted) < len(CLAIMS)


def test_table_holds_every_claim(mixed, in_book):
    markup = claims_table(mixed).data
    tree = Tree(markup)
    rows = [a for a in tree.all("tr") if "id" in a]
    grades = {a.claim.id: "".join(g for g, e in a.found.items() if e.verdict != "not run") for a in mixed}
    marked = {row["id"]: "".join(sorted(row["data-grade"].split("|"))) for row in rows}
    assert marked == {id: found or "not run" for id, found in grades.items()}
    chapters = {a.claim.id: list(a.claim.chapters) for a in mixed}
    assert {row["id"]: row["data-chapter"].split("|") for row in rows} == chapters
    best = [next(a.grade or "E" for a in mixed if a.claim.id == row["id"]) for row in rows]
    assert best == sorted(best) and len(set(best)) == 5, "what has evidence first"
    shown = re.sub(r"\{.*?\}", "", tree.text.partition("Verdict")[2])
    assert tree.text.count("Why") == len(rows) and not re.search(r"\bnan\b|\bNone\b|\binf\b", shown)
    links = [a["href"] for a in tree.all("a")]
    assert "performance.html#accuracy-gate" in links
    assert not [u for u in links if not re.fullmatch(r"\w+\.html(\?.*|#[\w-]+)?", u)]
    assert "A verdict stands on runs of one arithmetic" in tree.text and "shown equal" not in tree.text
    chosen = {a["value"] for a in tree.all("option")}
    wanted = {"B", "not run", "B reproduced", "accuracy", "trend", "table3", "this report", "[Re] paper"}
    assert wanted <= chosen
    start = markup.index('<tr id="self-cifar100-resnet20-st-gain"')
    row = Tree(markup[start:].partition("</tr>")[0] + "</tr>")
    for said in (
        "not run ANo run in the published setting", "supported BThe source's own runs, by their best epochs",
        "all that is told: a gain of 2.25",
        "difference of means: 2.25 points · 90 % interval: 1.94 to 2.56 points", "runs: 3 against 3",
        "not run C", "follows D69.9 − 67.6 = 2.30.",
    ):  # fmt: skip
        assert said in row.text, said


def test_a_verdict_names_the_runs_it_leaves_out(tmp_path, in_book):
    both = stores(tmp_path)
    put(both["A"], "table3/full", [71.8, 71.9, 72.0], arithmetic="fp16", teachers="fp16")
    put(both["A"], "table3/full", [71.8], first=3)
    row = claims_table(assess([BY_ID["table3-full"]], stores=both)).data.partition("<details>")[2]
    assert "computed in: fp16 (3) · left out, in another arithmetic: fp32 (1)" in row


def test_in_the_book_styles_and_script_are_the_sites_own_elsewhere_they_come_along(printed, monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    ours = [a for a in printed if "table3" in a.claim.chapters]
    alone = claims_table(ours).data
    assert "<style>" in alone and "rkdInteractive" in alone and 'href="table3.ipynb"' in alone
    for made in (chapter_box("table3", ours), grade_counts(ours), claims_map(ours)):
        assert "<style>" in made.data
    monkeypatch.setenv(TOKEN, "x")
    site = claims_table(ours).data
    assert "rkdInteractive" not in site and "<style>" not in site and " src=" not in site


def test_statements_are_escaped(printed, in_book):
    spoiled = dataclasses.replace(printed[0].claim, statement="a < b & <script>", about="<i>", printed="<b>")
    found = [dataclasses.replace(printed[0], claim=spoiled)]
    for markup in (claims_table(found).data, chapter_box("table1", found * 7).data, claims_map(found).data):
        assert "a &lt; b &amp; &lt;script&gt;" in markup and "<i>" not in markup


FACTS = {  # claim -> what is said of it, in part
    "table1-resnet20-resnet56-paper": {
        "ours minus published": "0.00 points", "runs": "5", "margin": "0.5 points",
        "90 % interval": "-0.24 to 0.24 points", "95 % prediction interval": "the published figure is inside",
        "by the best epoch": "72.14 ± 0.25", "optimism of the best epoch": "+0.25 points",
        "missing": "1 run, teachers included", "lines": "table1/resnet20-resnet56-reviewkd",
    },
    "table1-resnet20-resnet56-beats-student": {
        "P(A > B)": "1.00", "runs": "5 against 5", "p": "after Holm's", "corrected within": "table1-students",
    },
    "table1-resnet32-resnet110-gain": {"share of the published gain": "45 %"},
    "table3-none": {"would be decided by": "about 2 more runs"},
    "table3-rm": {"diverged": "1 run: "},
    "table1-wrn_40_1-wrn_40_2-beats-pkt": {"on the source": "likely slip"},
    "modreduce-resnet20-resnet56-modreduce": {
        "student that is judged": "best of the three", "the source's figures are of": "the best epoch on the test set",
    },
}  # fmt: skip


def test_facts(mixed):
    by_id = {a.claim.id: a for a in mixed}

    def facts(id, grade="A"):
        return dict(text.evidence_facts(by_id[id].found[grade]) + text.declared_facts(BY_ID[id]))

    for claim, wanted in FACTS.items():
        found = facts(claim)
        assert all(said in found[name] for name, said in wanted.items()), claim
    value, gain = by_id["table1-resnet20-resnet56-paper"].best, by_id["table1-resnet32-resnet110-gain"].best
    assert text.estimate_text(value.last, value.claim, "A") == "71.89 ± 0.25"
    assert text.reason(value.last).startswith("Mean 71.89")
    assert text.estimate_text(gain.last, gain.claim, "A") == "+1.25"
    assert "margin" not in facts("table1-resnet20-resnet56-beats-student")
    assert not {"student that is judged", "the source's figures are of"} & set(facts("table3-full"))
    short, printed = (facts("table6-full-beats-add", grade) for grade in "CD")
    assert short["difference of means"] == "1.00 points" and printed["difference of means"] == "0.28 points"
    assert "P(A > B) needed" not in short


@pytest.mark.parametrize(
    ("claim", "place"),
    [
        ("table1-resnet20-resnet56-paper", "ReviewKD paper, by Table 1 of the [Re] paper: ResNet20"),
        ("table3-rm-beats-none", "[Re] paper, Table 3: ResNet20 ← ResNet56: ReviewKD, RM − none"),
        ("baselines-resnet20-resnet56-crd", "[Re] paper, Table 1, also in KDrefine README: ResNet20"),
        ("random_teacher-rm-trained-beats-untrained", "question of this report, on Table 3"),
    ],
)
def test_where_a_claim_stands(claim, place):
    assert text.location(BY_ID[claim]).startswith(place)


def test_command_lists_counts_and_claims(capsys, tmp_path):
    assert main(["verdicts", "--chapter", "table6", "--why"]) == 0
    out, claims = capsys.readouterr().out, [c for c in CLAIMS if "table6" in c.chapters]
    assert all(c.statement in out for c in claims)
    assert re.search(rf"^all claims +{len(claims)}$", out, re.MULTILINE)
    assert main(["verdicts", "--kind", "trend", "--csv"]) == 0
    (tmp_path / "v.csv").write_text(capsys.readouterr().out)
    table = pd.read_csv(tmp_path / "v.csv").set_index("id")
    assert list(table.index) == [c.id for c in CLAIMS if c.kind == "trend"]
    logits = table.loc["self-average-logits"]
    assert (logits["grade"], logits["verdict_B"], logits["verdict_D"]) == ("B", "supported", "follows")
    assert logits["low_B"] < logits["estimate_B"] < logits["high_B"] and logits["n_B"] == "3 3 3 3 3 3 3 3"


def test_command_shows_what_one_grade_says_by_itself(capsys):
    assert main(["verdicts", "--grade", "D", "--verdict", "does not follow"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("[D]"))
    assert "ST + AT beats the baseline (printed: +1.5 points)" in line
    assert main(["verdicts", "--grade", "B"]) == 0
    out = capsys.readouterr().out
    assert "[D]" not in out and "not run" not in out
    assert re.search(r"^B others' runs +32  12 supported", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("option", "given", "meant"),
    [("kind", "valu", "value"), ("verdict", "reproducd", "reproduced"), ("chapter", "tabel3", "table3")],
)
def test_command_refuses_unknown_names_in_one_sentence(option, given, meant, capsys):
    assert main(["verdicts", f"--{option}", given]) == 2
    err = capsys.readouterr().err
    assert f"unknown {option} {given!r} (did you mean {meant!r}?)" in err and err.count("\n") == 1


def test_front_page_computes_its_findings(in_book):
    found = execute("index", "claims_map", "def of_gains", display=lambda shown: None)
    (shown,) = (c.source for c in cells("index") if c.source.startswith("Markdown("))
    said = eval(shown, found).data
    every = statements()
    for words in (
        f"{sum(s.follows for s in every)} of {len(every)} printed statements follow from other printed numbers",
        "Of 19 printed gains, the runs behind them leave 6 supported, 13 inconclusive",
        "2.25 (90 % interval 1.94 to 2.56, 3 against 3 runs), supported", "73.61 ([Re] README", "and 73.71 ([Re] paper",
        "prints for ST + AT, +1.5, is 1.250 by the cells it averages",
        "(uncertainty.html)", "0.29 points", "0.06 to 0.62), in 48 public logs",
    ):  # fmt: skip
        assert words in said


def test_front_page_links_every_chapter():
    notebook = (paths.home() / "book" / "index.ipynb").read_text()
    pages = "method", "verdicts", "uncertainty", "claims", "audit", "explorer", "inside", "explore"
    assert all(f"({name}.ipynb)" in notebook for name in (*pages, "performance", *chapter_names()))
    assert "(running.md)" in notebook


# --- in a browser ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(mixed, tmp_path_factory):
    """Where the table alone, and the map alone, are a page, opened from the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(TOKEN, raising=False)
        bodies = {"claims": claims_table(mixed).data, "map": claims_map(mixed).data}
    bodies["map"] = bodies["map"].replace("claims.ipynb", "claims.html")
    folder = tmp_path_factory.mktemp("page")
    for name, body in bodies.items():
        meta = '<meta charset="utf-8"><title>t</title><meta name="viewport" content="width=device-width">'
        body = f'<article class="bd-article"><div class="cell_output">{body}</div></article>'
        (folder / f"{name}.html").write_text(f'<!doctype html><html lang="en">{meta}{body}</html>')
    return (folder / "claims.html").as_uri()


READY = "!!document.querySelector('.dt-search')"
ROWS = "[...document.querySelectorAll('tbody tr')].map(r => r.id)"


@pytest.mark.browser
@pytest.mark.slow
def test_filters_and_sorting_by_keyboard(page, browser, mixed):
    browser.get(page)
    wait(browser, READY)
    wait(browser, f"{ROWS}.length === 25")
    by_evidence = sorted(mixed, key=lambda v: (v.grade or "none", VERDICTS.index(v.verdict)))
    for name, value, fits in (
        ("grade", "A", lambda v: v.found["A"].verdict != "not run"),
        ("verdict", "A not reproduced", lambda v: v.found["A"].verdict == "not reproduced"),
        ("kind", "gain", lambda v: v.claim.kind == "effect"),
        ("chapter", "table2", lambda v: "table2" in v.claim.chapters),
        ("source", "KDrefine README", lambda v: "KDrefine README" in (v.claim.who, *v.claim.also_by)),
    ):
        choice = browser.find_element(By.NAME, name)
        said = choice.find_element(By.CSS_SELECTOR, f"option[value='{value}']").text
        choice.send_keys(said)
        wanted = [v.claim.id for v in by_evidence if fits(v)]
        wait(browser, f"{ROWS}.join() === arguments[0].join()", wanted[:25])
        assert f"of {len(wanted)}" in browser.find_element(By.CSS_SELECTOR, ".dt-info").text
        choice.send_keys(Keys.HOME)
    search = browser.find_element(By.CSS_SELECTOR, ".dt-search input")
    search.send_keys("RESNET20 table1 beats-crd")
    wait(browser, f"{ROWS}.join() === 'table1-resnet20-resnet56-beats-crd'")
    search.clear()
    search.send_keys(Keys.BACKSPACE)
    head = browser.find_element(By.CSS_SELECTOR, "thead th")
    head.find_element(By.CSS_SELECTOR, "[role=button]").send_keys(Keys.ENTER)  # by verdict
    wait(browser, "document.querySelector('thead th').getAttribute('aria-sort') === 'ascending'")
    rank = {v.claim.id: (v.grade or "E", VERDICTS.index(v.verdict)) for v in mixed}
    ascending = [rank[i] for i in browser.execute_script(f"return {ROWS}")]
    assert ascending == sorted(rank.values())[:25]


@pytest.mark.browser
@pytest.mark.slow
def test_an_address_opens_its_claim(page, browser):
    browser.get(f"{page}#random_teacher-rm-trained-beats-untrained")  # on a later page of the table
    wait(browser, READY)
    wait(browser, "!!document.querySelector('#random_teacher-rm-trained-beats-untrained details[open]')")


@pytest.mark.browser
@pytest.mark.slow
def test_a_first_touch_names_a_mark_and_a_second_follows_it(page, browser):
    mark = "document.querySelector('.rkd-map li > a')"

    def touch():
        x, y = browser.execute_script(f"const b = {mark}.getBoundingClientRect(); return [b.x + 9, b.y + 9]")
        for kind, points in (("touchStart", [{"x": x, "y": y}]), ("touchEnd", [])):
            browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    with window(browser, 390, 800):
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
        browser.get(page.replace("claims.html", "map.html"))
        touch()
        wait(browser, f"getComputedStyle({mark}.nextElementSibling).display === 'block'")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 391
        assert browser.current_url.endswith("map.html")
        touch()
        wait(browser, "location.hash.startsWith('#table1-')")
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
