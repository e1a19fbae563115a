"""Verdicts as HTML and text: box, table and counts, with nothing run and with every verdict."""

import html
import json
import re
import subprocess
import sys
import time
from html.parser import HTMLParser

import pandas as pd
import pytest
from evidence import PAPER, around, put, record

from rkd import paths
from rkd.cli import main
from rkd.experiments.chapters import chapter_names
from rkd.judge import KINDS, VERDICTS, evaluate, load_claims
from rkd.records import Store
from rkd.report import verdict_text as text
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
    pair = "table1/resnet{}-reviewkd", "table1/resnet{}-student"
    shifts = {"20-resnet56": (0, 0), "32-resnet110": (-1.5, 0.0), "8x4-resnet32x4": (1.5, 0.0)}
    for names, (ours, alone) in shifts.items():
        student = (
            BY_ID[f"table1-resnet{names}-paper"].published,
            BY_ID[f"table1-resnet{names.split('-')[0]}-alone"].published,
        )
        put(store, pair[0].format(names), around(student[0] + ours), optimism=0.25)
        put(store, pair[1].format(names), around(student[1] + alone), optimism=0.15)
    put(store, "table3/none", around(69.5, n=3), optimism=0.2)
    put(store, "no_cross_entropy/alone", around(1.0, sd=0.05))
    runs = list(PAPER.runs(["table3/rm"]).values())
    store.save(record(runs[0], 1.0, status="diverged"))
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

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag, **equal):
        return [
            a for t, a in self.found if t == tag and all(a.get(k.rstrip("_")) == v for k, v in equal.items())
        ]

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.words))


# --- badges ---------------------------------------------------------------------------------------------------------


def test_badges_say_the_verdict_in_words_and_differ_in_sign():
    for verdict in VERDICTS:
        tree = Tree(verdict_badge(verdict))
        assert verdict in tree.text and tree.all("span", **{"aria-hidden": "true"})
    assert len({sign for _, sign in LOOKS.values()}) == len(VERDICTS)
    assert Tree(verdict_badge("not run", 3)).text.endswith("3")


# --- counts ---------------------------------------------------------------------------------------------------------


def test_counts_with_nothing_run_say_what_it_takes(none_run, in_book):
    tree = Tree(counts(none_run).data)
    missing = {run for claim in CLAIMS for run in PAPER.needed(claim.selectors)}
    assert f"0 of {len(CLAIMS)} claims are judged." in tree.text
    assert f"It takes {len(missing)} of them: rkd sweep params/paper.yaml" in tree.text
    assert "every epoch of the recipe, five seeds" in tree.text and not re.search(r"\bnan\b|None", tree.text)
    rows = tree.all("th", scope="row")
    who = {name for c in CLAIMS for name in (c.who, *c.also_by)}
    assert len(rows) == len(KINDS) + 1 + len(who) and len(tree.all("details")) == 1
    assert all(name in tree.text for name in who)
    for kind in KINDS.values():
        assert kind.words in tree.text and kind.question in tree.text


def test_counts_add_up(mixed, in_book):
    markup = counts(mixed).data
    tree = Tree(markup)
    found = text.tally(mixed)
    assert f"{len(CLAIMS) - found['not run']} of {len(CLAIMS)} claims are judged." in tree.text
    for verdict, count in found.items():
        if verdict != "not run":
            assert f"{count} {verdict}" in tree.text
    kinds, sources = (part.split("</tbody>")[0] for part in markup.split("<tbody>")[1:])
    body = kinds.split("</tr>")
    by_kind = [sum(int(n) for n in re.findall(r"<b>(\d+)</b>", row)) for row in body[:-1]]
    assert by_kind[-1] == sum(by_kind[:-1]) == len(CLAIMS)
    shared = sum(len(c.also_by) for c in CLAIMS)
    assert sum(int(n) for n in re.findall(r"<b>(\d+)</b>", sources)) == len(CLAIMS) + shared
    links = [a["href"] for a in tree.all("a")]
    assert "claims.html?kind=accuracy&verdict=reproduced" in links
    assert "claims.html?verdict=not+run" in links


# --- box of a chapter -----------------------------------------------------------------------------------------------


def test_box_with_nothing_run_looks_intended(none_run, in_book):
    tree = Tree(chapter_box("table3", none_run).data)
    count = sum("table3" in c.chapters for c in CLAIMS)
    assert f"The {count} claims of this chapter are declared and not yet judged." in tree.text
    assert "rkd sweep params/paper.yaml --chapters table3" in tree.text
    assert tree.all("section")[0]["aria-label"] == "Verdicts on the claims of Table 3"
    assert "claims.html?chapter=table3" in [a["href"] for a in tree.all("a")]
    one = Tree(chapter_box("figure6", none_run).data).text
    assert "The claim of this chapter is declared and not yet judged." in one


def test_box_lists_six_and_folds_more(mixed, in_book):
    for chapter in chapter_names():
        ours = [v for v in mixed if chapter in v.claim.chapters]
        tree = Tree(chapter_box(chapter, mixed).data)
        assert len(tree.all("li")) == len(ours)
        folds = len({v.claim.about for v in ours}) if len(ours) > 6 else 0
        assert len(tree.all("details")) == folds
        for v in ours:
            assert v.claim.statement in tree.text
    assert chapter_box("recipes", mixed).data == "", "no claim is judged there"


@pytest.mark.parametrize("chapter", ["baselines", "kdrefine", "modreduce", "soft_targets_and_attention"])
def test_boxes_of_many_claims_are_a_few_folded_lines(chapter, none_run, in_book):
    tree = Tree(chapter_box(chapter, none_run).data)
    assert len(tree.all("li")) > 25 and 1 <= len(tree.all("summary")) <= 7
    assert not [a for a in tree.all("details") if "open" in a], "all closed"


def test_box_of_mixed_verdicts(mixed, in_book):
    tree = Tree(chapter_box("table1", mixed).data)
    ours = text.tally([v for v in mixed if "table1" in v.claim.chapters])
    for verdict, count in ours.items():
        assert f"{verdict} {count}" in tree.text
    assert f"{ours['not run']} claims not yet judged" in tree.text and "± 0.25" in tree.text


def test_box_judges_the_paper_profile_itself(monkeypatch, tmp_path, in_book):
    """Without verdicts: the committed records, with the whole families the chapter's claims belong to."""
    import rkd.report.verdicts as module

    asked = []
    monkeypatch.setattr(module, "evaluate", lambda claims: asked.append(claims) or ())
    monkeypatch.setattr(
        "rkd.experiments.selectors.Selectors.ids", lambda *_: pytest.fail("a chapter is built")
    )
    assert chapter_box("table2").data == ""
    families = {c.family for c in asked[0]} - {""}
    assert {c.id for c in CLAIMS if c.family in families or "table2" in c.chapters} == {
        c.id for c in asked[0]
    }
    assert len(asked[0]) < len(CLAIMS)
    assert "declared and not yet judged" not in chapter_box("recipes").data and len(asked) == 1


# --- the table of all claims ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["none_run", "mixed"])
def test_table_holds_every_claim(state, request, in_book):
    verdicts = request.getfixturevalue(state)
    tree = Tree(claims_table(verdicts).data)
    rows = [a for a in tree.all("tr") if "id" in a]
    assert [row["id"] for row in rows] == [v.claim.id for v in verdicts]
    for row, v in zip(rows, verdicts, strict=True):
        assert row["data-verdict"] == v.verdict and row["data-chapter"].split("|") == list(v.claim.chapters)
    assert tree.text.count("Why") == len(rows)
    assert not re.search(
        r"\bnan\b|\bNone\b|\binf\b", re.sub(r"\{.*?\}", "", tree.text.partition("Verdict")[2])
    )
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
    name = "table3-full"
    put(store, "table3/full", [71.8, 71.9, 72.0], arithmetic="fp16", teachers="fp16")
    put(store, "table3/full", [71.8], first=3)
    verdicts = evaluate(claims=[c for c in load_claims(check=False) if c.id == name], store=store)
    row = claims_table(verdicts).data.partition("<details>")[2].partition("</details>")[0]
    assert "Computed in fp16 (3); left out, in another arithmetic: fp32 (1)." in row
    assert '<a href="performance.html#accuracy-gate">' in row
    assert "<dt>computed in</dt><dd>fp16 (3)</dd>" in row


def test_in_the_book_styles_and_script_are_the_sites_own_elsewhere_they_come_along(none_run, monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    alone = claims_table(none_run).data
    assert "<style>" in alone and "rkdInteractive" in alone and 'href="table3.ipynb"' in alone
    assert "<style>" in chapter_box("table3", none_run).data and "<style>" in counts(none_run).data
    monkeypatch.setenv(TOKEN, "x")
    site = claims_table(none_run).data
    assert "rkdInteractive" not in site and "<style>" not in site and " src=" not in site


def test_statements_are_escaped(none_run, in_book):
    import dataclasses

    spoiled = dataclasses.replace(none_run[0].claim, statement="a < b & <script>", about="<i>", printed="<b>")
    verdicts = [dataclasses.replace(none_run[0], claim=spoiled)]
    for markup in (claims_table(verdicts).data, chapter_box("table1", verdicts * 7).data):
        assert "a &lt; b &amp; &lt;script&gt;" in markup and "<i>" not in markup


# --- words ----------------------------------------------------------------------------------------------------------


def test_facts_of_a_value(mixed):
    (v,) = [v for v in mixed if v.claim.id == "table1-resnet20-resnet56-paper"]
    facts = dict(text.facts(v))
    assert (
        facts["ours minus published"] == "0.00 points"
        and facts["runs"] == "5"
        and facts["margin"] == "0.5 points"
    )
    assert facts["90 % interval"] == "-0.24 to 0.24 points"
    assert facts["95 % prediction interval"].endswith("the published figure is inside")
    assert (
        facts["by the best epoch"].endswith("72.14 ± 0.25")
        and facts["optimism of the best epoch"] == "+0.25 points"
    )
    assert (
        facts["missing"] == "1 run, teachers included"
        and facts["lines"] == "table1/resnet20-resnet56-reviewkd"
    )
    assert text.measured(v.last, "value") == "71.89 ± 0.25" and text.why(v.last).startswith("Mean 71.89")


def test_facts_of_an_order_an_effect_and_a_claim_with_few_runs(mixed):
    by_id = {v.claim.id: v for v in mixed}
    order = dict(text.facts(by_id["table1-resnet20-resnet56-beats-student"]))
    assert order["P(A > B)"] == "1.00" and order["runs"] == "5 against 5" and "after Holm's" in order["p"]
    assert order["corrected within"] == "table1-students" and "margin" not in order
    effect = dict(text.facts(by_id["table1-resnet32-resnet110-gain"]))
    assert (
        effect["share of the published gain"] == "45 %"
        and text.measured(by_id["table1-resnet32-resnet110-gain"].last, "effect") == "+1.25"
    )
    few = dict(text.facts(by_id["table3-none"]))
    assert few["would be decided by"].startswith("about 2 more runs")
    diverged = dict(text.facts(by_id["table3-rm"]))
    assert diverged["diverged"].startswith("1 run: ") and by_id["table3-rm"].verdict == "not run"
    quoted = dict(text.facts(by_id["table1-wrn_40_1-wrn_40_2-beats-pkt"]))
    assert "likely slip" in quoted["on the source"]


def test_facts_of_a_source_that_reports_the_best_of_three_at_its_best_epoch(none_run):
    (v,) = [v for v in none_run if v.claim.id == "modreduce-resnet20-resnet56-modreduce"]
    facts = dict(text.facts(v))
    assert facts["student that is judged"] == "best of the three"
    assert facts["the source's figures are of"] == "the best epoch on the test set"
    (other,) = [v for v in none_run if v.claim.id == "table3-full"]
    assert not {"student that is judged", "the source's figures are of"} & set(dict(text.facts(other)))


def test_where_a_claim_stands(none_run):
    places = {v.claim.id: text.location(v.claim) for v in none_run}
    assert places["table1-resnet20-resnet56-paper"].startswith(
        "ReviewKD paper, by Table 1 of the [Re] paper: ResNet20"
    )
    assert (
        places["table3-rm-beats-none"]
        == "[Re] paper, Table 3: ResNet20 ← ResNet56: ReviewKD, RM − none (same-level L2)"
    )
    assert places["baselines-resnet20-resnet56-crd"].startswith(
        "[Re] paper, Table 1, also in KDrefine README: ResNet20"
    )
    assert places["random_teacher-rm-trained-beats-untrained"].startswith(
        "question of this report, on Table 3"
    )


# --- the command ----------------------------------------------------------------------------------------------------


def rkd(capsys, *arguments):
    status = main(list(arguments))
    out = capsys.readouterr()
    return status, out.out, out.err


def test_command_lists_counts_and_claims(capsys):
    status, out, _ = rkd(capsys, "verdicts", "--chapter", "table6", "--why")
    claims = [c for c in CLAIMS if "table6" in c.chapters]
    assert status == 0 and all(c.statement in out for c in claims)
    assert re.search(rf"^all +{len(claims)} ", out, re.MULTILINE)
    status, out, _ = rkd(capsys, "verdicts", "--kind", "trend")
    assert status == 0 and out.count("\n") == sum(c.kind == "trend" for c in CLAIMS) + 5


def test_command_as_csv(capsys, tmp_path):
    status, out, _ = rkd(capsys, "verdicts", "--csv")
    (tmp_path / "v.csv").write_text(out)
    table = pd.read_csv(tmp_path / "v.csv")
    assert status == 0 and list(table["id"]) == [c.id for c in CLAIMS]
    assert set(table["verdict"]) <= set(VERDICTS)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--kind", "valu"], "unknown kind 'valu' (did you mean 'value'?)"),
        (["--verdict", "reproducd"], "unknown verdict 'reproducd' (did you mean 'reproduced'?)"),
        (["--chapter", "tabel3"], "unknown chapter 'tabel3' (did you mean 'table3'?)"),
        (["--profile", "papr"], "unknown profile 'papr' (did you mean 'paper'?)"),
    ],
)
def test_command_refuses_unknown_names_in_one_sentence(arguments, sentence, capsys):
    status, _, err = rkd(capsys, "verdicts", *arguments)
    assert status == 2 and sentence in err and err.count("\n") == 1


# --- the pages ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("page", ["claims", "index"])
def test_pages_execute_without_training(page, tmp_path):
    out = tmp_path / "out.ipynb"
    call = [
        *(sys.executable, "-m", "papermill", str(paths.home() / "book" / f"{page}.ipynb"), str(out)),
        *("--no-progress-bar", "-p", "profile", "smoke"),
    ]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    shown = "".join(
        "".join(output["data"].get("text/html", ""))
        for cell in json.loads(out.read_text())["cells"]
        for output in cell.get("outputs", [])
        if "data" in output
    )
    assert f"of {len(CLAIMS)} claims are judged" in html.unescape(shown)


def test_front_page_links_every_chapter():
    notebook = (paths.home() / "book" / "index.ipynb").read_text()
    for name in (
        "method",
        "verdicts",
        "claims",
        "audit",
        "explorer",
        "inside",
        "explore",
        "performance",
        *chapter_names(),
    ):
        assert f"({name}.ipynb)" in notebook
    assert "(running.md)" in notebook


# --- in a browser ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(mixed, tmp_path_factory):
    """The table alone on a page, opened from the disk."""
    import os

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
