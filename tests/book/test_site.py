"""The built site in a real browser: every page loads, asks no other host, holds no dead link, and has no fault that
axe-core calls serious or critical, in both themes."""

import re
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from browser import wait, window
from pages import complaints, page_names, requests_of, visit

pytestmark = [pytest.mark.browser, pytest.mark.slow]
RESULTS = (
    "table1", "table2", "table3", "figure6", "table4", "table5", "table6",
    "no_cross_entropy", "random_teacher", "recipes",
)  # fmt: skip
PAGES = (
    "index", "claims", "verdicts", "uncertainty", "audit", "method", "explorer", "inside", "explore", "performance",
    "cluster", "running",
)  # fmt: skip
NAMED = """
    const loads = 'script[src], link[rel=stylesheet], link[rel=preload], link[rel*=icon], [src]';
    return [...document.querySelectorAll(loads)].map(e => e.src || e.href);
"""
PICTURES = """
    return [[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src),
            [...document.querySelectorAll('main img')].filter(i => !i.alt).length];
"""


def test_book_has_all_its_pages(site):
    present = page_names(site)
    expected = {f"{name}.html" for name in (*PAGES, *RESULTS)}
    assert expected <= set(present)


def test_every_page_loads_alone(site, address, browser):
    for name in page_names(site):
        visit(browser, address + name)
        asked = requests_of(browser) + browser.execute_script(NAMED)
        foreign = [u for u in asked if not u.startswith((address, "data:", "blob:", "chrome"))]
        assert not foreign, f"{name} asks other hosts, or names what is theirs: {foreign}"
        errors = complaints(browser)
        assert not errors, f"{name}: {errors}"
        broken, bare = browser.execute_script(PICTURES)
        assert not broken, f"{name} has broken images: {broken}"
        assert bare == 0, f"{name} has {bare} images without alternative text"


def test_no_link_is_dead(site, address, browser):
    anchors: dict[str, set[str]] = {}
    links: list[tuple[str, str]] = []
    for name in page_names(site):
        browser.get(address + name)
        ids = browser.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
        # Of a table in pages, the rows that are not shown are found by its script.
        anchors[name] = {*ids, *re.findall(r'<tr id="([^"]+)"', (site / name).read_text())}
        for href in browser.execute_script("return [...document.links].map(a => a.getAttribute('href'))"):
            links.append((name, urljoin(address + name, href)))
    dead = []
    for name, link in links:
        if not link.startswith(address):
            continue
        target, fragment = urldefrag(link)
        path = unquote(urlsplit(target).path).lstrip("/") or "index.html"
        gone = fragment and path in anchors and unquote(fragment) not in anchors[path]
        if gone or not (site / path).is_file():
            dead.append(f"{name}: {link}")
    assert not dead, dead


@pytest.mark.parametrize("name", RESULTS)
def test_chapter_shows_its_table_and_figure(name, address, browser):
    visit(browser, f"{address}{name}.html")
    text = browser.find_element("css selector", "article").text
    assert "This chapter failed" not in text and "Not executed in this build" not in text

    def found(selector):
        return browser.find_elements("css selector", selector)

    assert len(found("article .cell_output table tbody tr")) >= 2
    assert found("article .cell_output img, article .cell_output svg")
    assert "profile" in found(".rkd-executed")[0].get_property("innerText")
    assert found("a[href^='https://colab.research.google.com']")


def test_method_shows_formulas_figures_and_shapes(address, browser):
    visit(browser, f"{address}method.html")
    count = "return document.querySelectorAll(arguments[0]).length"
    assert browser.execute_script(count, "article mjx-container") >= 10
    assert browser.execute_script(count, "article mjx-merror") == 0
    assert browser.execute_script(count, "article .cell_output img") == 2
    assert browser.execute_script(count, ".rkd-page:not([hidden]) .rkd-level") == 5, "four and their heads"
    box = browser.find_element("css selector", ".rkd-page:not([hidden]) .rkd-student i").rect
    assert box["width"] / box["height"] == pytest.approx(1, abs=0.05)
    assert browser.execute_script(count, "article .cell_output tbody tr") >= 4


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_page_is_wider_than_the_window(site, address, browser, width):
    """With all open that is folded; in a narrow one the rows of claims are cards."""
    with window(browser, width):
        for name in page_names(site):
            visit(browser, address + name)
            browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
            wide = browser.execute_script("return document.documentElement.scrollWidth")
            assert wide <= width + 1, f"{name} is {wide} px wide in a window of {width} px"
        visit(browser, f"{address}claims.html")
        row = wait(browser, "document.querySelector('.rkd-claims-table tbody tr')")
        shown = browser.execute_script("return getComputedStyle(arguments[0]).display", row)
        assert shown == ("block" if width <= 640 else "table-row")


# --- accessibility --------------------------------------------------------------------------------


AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text(encoding="utf-8")
# What the theme itself brings, outside the article: rule -> selector of the part that is left out.
THEME = ("#pst-secondary-sidebar-checkbox", "#pst-primary-sidebar-checkbox")

CHECK = """
const [leaveOut, done] = [arguments[0], arguments[arguments.length - 1]];
axe.run({exclude: leaveOut.map(s => [s])}, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'],
         resultTypes: ['violations']})
  .then(found => done(found.violations
    .filter(v => ['serious', 'critical'].includes(v.impact))
    .map(v => [v.id, v.help, v.nodes.length,
      v.nodes.slice(0, 3).map(n => n.target.join(' ') + '  ' + n.html.slice(0, 160))])))
  .catch(error => done([['axe failed', String(error), 0, []]]));
"""


# Colours in passing from one theme to the other are nobody's to read: the page is looked at as it comes to rest.
SET_THEME = """
const style = document.createElement('style');
style.textContent = '*, *::before, *::after { transition: none !important; animation: none !important; }';
document.head.append(style);
document.documentElement.dataset.theme = arguments[0];
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("page", [*PAGES, "table1", "table3", "figure6", "random_teacher"])
def test_no_serious_fault(page, theme, address, browser):
    visit(browser, f"{address}{page}.html")
    browser.execute_script(SET_THEME, theme)
    browser.execute_script(AXE)
    browser.set_script_timeout(120)
    faults = browser.execute_async_script(CHECK, list(THEME))
    assert not faults, faults


def test_axe_sees_a_fault(address, browser):
    """An image without alternative text, put there on purpose."""
    visit(browser, f"{address}index.html")
    browser.execute_script("document.querySelector('article').appendChild(document.createElement('img'))")
    browser.execute_script(AXE)
    browser.set_script_timeout(120)
    assert any(rule == "image-alt" for rule, *_ in browser.execute_async_script(CHECK, list(THEME)))
