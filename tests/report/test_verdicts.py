"""Verdicts as HTML and text: box, table and counts, with nothing run and with every verdict."""

import dataclasses
import os
import re
import time
from html.parser import HTMLParser

import pandas as pd
import pytest
from cells import execute
from evidence import PAPER, around, put, record

from rkd import paths
from rkd.cli import main
from rkd.experiments.chapters import chapter_names
from rkd.judge import KINDS, VERDICTS, evaluate, load_claims
from rkd.records import Store
from rkd.report import verdict_text as text
from rkd.report import verdicts as module
from rkd.report.book import TOKEN
from rkd.report.verdicts import LOOKS, chapter_box, claims_table, counts, verdict_badge

CLAIMS = load_claims(selectors=PAPER)
BY_ID = {claim.id: claim for claim in CLAIMS}


@pytest.fixture(scope="module")
def none_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("none")
    return evaluate(claims=CLAIMS, store=Store(folder / "records", folder / "work"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Records that bring every verdict about."""
    folder = tmp_path_factory.mktemp("mixed")
    store = Store(folder / "records", folder / "work")
    for names, shift in {"20-resnet56": 0, "32-resnet110": -1.5, "8x4-resnet32x4": 1.5}.items():
        paper, alone = f"table1-resnet{names}-paper", f"table1-resnet{names.split('-')[0]}-alone"
        put(store, f"table1/resnet{names}-reviewkd", around(BY_ID[paper].published + shift), optimism=0.25)
        put(store, f"table1/resnet{names}-student", around(BY_ID[alone].published), optimism=0.15)
    put(store, "table3/none", around(69.5, n=3), optimism=0.2)
    put(store, "no_cross_entropy/alone", around(1.0, sd=0.05))
    store.save(record(next(iter(PAPER.runs(["table3/rm"]).values())), 1.0, status="diverged"))
    found = evaluate(claims=CLAIMS, store=store)
    assert set(text.tally(found)) == set(VERDICTS)
    return found


@pytest.fixture
def in_book(monkeypatch):
    monkeypatch.setenv(TOKEN, "x")


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
        tree = Tree(verdict_badge(verdict, 3))
        assert f"{verdict} 3" in tree.text and tree.all("span")[1] == {"aria-hidden": "true"}
    assert len({sign for _, sign in LOOKS.values()}) == len(VERDICTS)


def test_counts_with_nothing_run_say_what_it_takes(none_run, in_book):
    tree = Tree(counts(none_run).data)
    missing = {run for claim in CLAIMS for run in PAPER.needed(claim.selectors)}
    assert f"0 of {len(CLAIMS)} claims are judged." in tree.text
    assert f"{len(missing)} are not recorded yet: rkd sweep params/paper.yaml" in tree.text
    assert not re.search(r"\bnan\b|None", tree.text) and len(tree.all("details")) == 1
    who = {name for c in CLAIMS for name in (c.who, *c.also_by)}
    assert sum(a.get("scope") == "row" for a in tree.all("th")) == len(KINDS) + 1 + len(who)
    assert all(said in tree.text for kind in KINDS.values() for said in (kind.words, kind.question, *who))


def test_counts_add_up(mixed, in_book):
    markup = counts(mixed).data
    tree, found = Tree(markup), text.tally(mixed)
    assert f"{len(CLAIMS) - found.pop('not run')} of {len(CLAIMS)} claims are judged." in tree.text
    assert all(f"{count} {verdict}" in tree.text for verdict, count in found.items())
    kinds, sources = (part.split("</tbody>")[0] for part in markup.split("<tbody>")[1:])
    by_kind = [sum(map(int, re.findall(r"<b>(\d+)</b>", row))) for row in kinds.split("</tr>")[:-1]]
    assert by_kind[-1] == sum(by_kind[:-1]) == len(CLAIMS)
    shared = sum(len(c.also_by) for c in CLAIMS)
    assert sum(map(int, re.findall(r"<b>(\d+)</b>", sources))) == len(CLAIMS) + shared
    links = {a["href"] for a in tree.all("a")}
    assert {"claims.html?kind=accuracy&verdict=reproduced", "claims.html?verdict=not+run"} <= links


def test_box_lists_six_and_folds_more(mixed, in_book):
    for chapter in chapter_names():
        ours = [v for v in mixed if chapter in v.claim.chapters]
        tree = Tree(chapter_box(chapter, mixed).data)
        assert len(tree.all("li")) == len(ours)
        assert len(tree.all("details")) == (len({v.claim.about for v in ours}) if len(ours) > 6 else 0)
        assert all(v.claim.statement in tree.text for v in ours)
        assert len(tree.all("summary")) <= 7 and not [a for a in tree.all("details") if "open" in a]
    assert chapter_box("recipes", mixed).data == "", "no claim is judged there"


@pytest.mark.parametrize("state", ["none_run", "mixed"])
def test_box_says_what_is_judged_and_what_it_takes(state, request, in_book):
    evaluations = request.getfixturevalue(state)
    tree = Tree(chapter_box("table1", evaluations).data)
    tally = text.tally([v for v in evaluations if "table1" in v.claim.chapters])
    assert all(f"{verdict} {count}" in tree.text for verdict, count in tally.items())
    assert f"not yet judged: {tally['not run']} of {sum(tally.values())}." in tree.text
    assert "rkd sweep params/paper.yaml --chapters table1" in tree.text
    assert tree.all("section")[0]["aria-label"] == "Verdicts on the claims of Table 1"
    assert "claims.html?chapter=table1" in [a["href"] for a in tree.all("a")]
    assert ("± 0.25" in tree.text) == (state == "mixed")


def test_box_judges_the_paper_profile_itself(monkeypatch, in_book):
    """Without verdicts: the committed records, with the whole families the chapter's claims belong to."""
    asked = []
    monkeypatch.setattr(module, "evaluate", lambda claims: asked.append(claims) or ())
    monkeypatch.setattr(
        "rkd.experiments.selectors.Selectors.ids", lambda *_: pytest.fail("a chapter is built")
    )
    assert chapter_box("table2").data == "" and chapter_box("recipes").data == ""
    ((found),) = asked
    families = {c.family for c in found} - {""}
    wanted = {c.id for c in CLAIMS if c.family in families or "table2" in c.chapters}
    assert wanted == {c.id for c in found} and len(wanted) < len(CLAIMS)


def test_table_holds_every_claim(mixed, in_book):
    tree = Tree(claims_table(mixed).data)
    rows = [a for a in tree.all("tr") if "id" in a]
    assert [(row["id"], row["data-verdict"]) for row in rows] == [(v.claim.id, v.verdict) for v in mixed]
    assert [row["data-chapter"].split("|") for row in rows] == [list(v.claim.chapters) for v in mixed]
    shown = re.sub(r"\{.*?\}", "", tree.text.partition("Verdict")[2])
    assert tree.text.count("Why") == len(rows) and not re.search(r"\bnan\b|\bNone\b|\binf\b", shown)
    links = [a["href"] for a in tree.all("a")]
    assert "performance.html#accuracy-gate" in links
    assert not [u for u in links if not re.fullmatch(r"\w+\.html(\?.*|#[\w-]+)?", u)]
    assert "bf16 against fp32: equal within 0.5 points" in tree.text
    chosen = {a["value"] for a in tree.all("option")}
    assert {
        "not run",
        "accuracy",
        "trend",
        "table3",
        "random_teacher",
        "this report",
        "ReviewKD paper",
    } <= chosen


def test_a_verdict_that_leaves_runs_out_links_the_gate(store, in_book):
    put(store, "table3/full", [71.8, 71.9, 72.0], arithmetic="fp16", teachers="fp16")
    put(store, "table3/full", [71.8], first=3)
    verdicts = evaluate(claims=[c for c in load_claims(check=False) if c.id == "table3-full"], store=store)
    row = claims_table(verdicts).data.partition("<details>")[2].partition("</details>")[0]
    assert "Computed in fp16 (3); left out, in another arithmetic: fp32 (1)." in row
    assert '<a href="performance.html#accuracy-gate">' in row
    assert "<dt>computed in</dt><dd>fp16 (3)</dd>" in row


def test_in_the_book_styles_and_script_are_the_sites_own_elsewhere_they_come_along(none_run, monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    ours = [v for v in none_run if "table3" in v.claim.chapters]
    alone = claims_table(ours).data
    assert "<style>" in alone and "rkdInteractive" in alone and 'href="table3.ipynb"' in alone
    assert "<style>" in chapter_box("table3", ours).data and "<style>" in counts(ours).data
    monkeypatch.setenv(TOKEN, "x")
    site = claims_table(ours).data
    assert "rkdInteractive" not in site and "<style>" not in site and " src=" not in site


def test_statements_are_escaped(none_run, in_book):
    spoiled = dataclasses.replace(none_run[0].claim, statement="a < b & <script>", about="<i>", printed="<b>")
    verdicts = [dataclasses.replace(none_run[0], claim=spoiled)]
    for markup in (claims_table(verdicts).data, chapter_box("table1", verdicts * 7).data):
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
    by_id = {v.claim.id: v for v in mixed}
    for claim, wanted in FACTS.items():
        facts = dict(text.facts(by_id[claim]))
        assert all(said in facts[name] for name, said in wanted.items()), claim
    value = by_id["table1-resnet20-resnet56-paper"]
    assert text.measured(value.last, "value") == "71.89 ± 0.25" and text.why(value.last).startswith(
        "Mean 71.89"
    )
    assert text.measured(by_id["table1-resnet32-resnet110-gain"].last, "effect") == "+1.25"
    assert "margin" not in dict(text.facts(by_id["table1-resnet20-resnet56-beats-student"]))
    assert not {"student that is judged", "the source's figures are of"} & set(
        dict(text.facts(by_id["table3-full"]))
    )


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
    assert re.search(rf"^all +{len(claims)} ", out, re.MULTILINE)
    assert main(["verdicts", "--kind", "trend", "--csv"]) == 0
    (tmp_path / "v.csv").write_text(capsys.readouterr().out)
    table = pd.read_csv(tmp_path / "v.csv")
    assert list(table["id"]) == [c.id for c in CLAIMS if c.kind == "trend"]
    assert set(table["verdict"]) <= set(VERDICTS)


@pytest.mark.parametrize(
    ("option", "given", "meant"),
    [("kind", "valu", "value"), ("verdict", "reproducd", "reproduced"), ("chapter", "tabel3", "table3")],
)
def test_command_refuses_unknown_names_in_one_sentence(option, given, meant, capsys):
    assert main(["verdicts", f"--{option}", given]) == 2
    err = capsys.readouterr().err
    assert f"unknown {option} {given!r} (did you mean {meant!r}?)" in err and err.count("\n") == 1


def test_pages_show_the_committed_verdicts(in_book):
    found = execute("claims", "from rkd.judge import evaluate")
    assert len(found["evaluations"]) == len(CLAIMS)
    assert Tree(counts(found["evaluations"]).data).text.count(f"of {len(CLAIMS)} claims are judged") == 1


def test_front_page_links_every_chapter():
    notebook = (paths.home() / "book" / "index.ipynb").read_text()
    pages = ("method", "verdicts", "claims", "audit", "explorer", "inside", "explore", "performance")
    assert (
        all(f"({name}.ipynb)" in notebook for name in (*pages, *chapter_names()))
        and "(running.md)" in notebook
    )


# --- in a browser ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(mixed, tmp_path_factory):
    """The table alone on a page, opened from the disk."""
    token = os.environ.pop(TOKEN, None)
    body = claims_table(mixed).data
    if token:
        os.environ[TOKEN] = token
    path = tmp_path_factory.mktemp("page") / "claims.html"
    path.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>t</title>'
        '<meta name="viewport" content="width=device-width">'
        f'<article class="bd-article"><div class="cell_output">{body}</div></article></html>'
    )
    return path.as_uri()


def wait(browser, script, *arguments):
    deadline = time.monotonic() + 20
    while not browser.execute_script(f"return {script}", *arguments):
        assert time.monotonic() < deadline, script
        time.sleep(0.05)


READY = "!!document.querySelector('.dt-search')"
ROWS = "[...document.querySelectorAll('tbody tr')].map(r => r.id)"


@pytest.mark.browser
@pytest.mark.slow
def test_filters_and_sorting_by_keyboard(page, browser, mixed):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.get(page)
    wait(browser, READY)
    wait(browser, f"{ROWS}.length === 25")
    for name, value, fits in (
        ("verdict", "not reproduced", lambda v: v.verdict == "not reproduced"),
        ("kind", "gain", lambda v: v.claim.kind == "effect"),
        ("chapter", "table2", lambda v: "table2" in v.claim.chapters),
        ("source", "KDrefine README", lambda v: "KDrefine README" in (v.claim.who, *v.claim.also_by)),
    ):
        choice = browser.find_element(By.NAME, name)
        said = choice.find_element(By.CSS_SELECTOR, f"option[value='{value}']").text
        choice.send_keys(said)
        wanted = [v.claim.id for v in mixed if fits(v)]
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
    rank = {v.claim.id: VERDICTS.index(v.verdict) for v in mixed}
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
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_table_fits_its_window(width, page, browser):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    try:
        browser.get(page)
        wait(browser, READY)
        browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width + 1
        cards = browser.execute_script("return getComputedStyle(document.querySelector('tbody tr')).display")
        assert cards == ("block" if width <= 640 else "table-row")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
