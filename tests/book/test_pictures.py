"""The built pages from the disk, without a network: what a reader moves, by mouse or keyboard, changes the picture."""

import time
from contextlib import contextmanager

import pytest
from pages import visit

pytestmark = [pytest.mark.browser, pytest.mark.slow]
# Of the theme, not ours: sphinx-thebe declares a constant twice; by file:// a browser lends no fonts of icons.
HARMLESS = ("THEBE_JS_URL", "fontawesome")
STATIC = ".rkd-plot-fallback, [class^=rkd-fallback-] img"


@pytest.fixture
def offline(browser, site):
    """Opens a page by file:// without a network; afterwards nothing of ours may have complained."""
    browser.execute_cdp_cmd("Network.enable", {})
    off = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", off)
    yield lambda name: visit(browser, (site / f"{name}.html").as_uri())
    browser.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {**off, "offline": False, "downloadThroughput": -1, "uploadThroughput": -1},
    )
    errors = [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE"]
    assert not [e for e in errors if not any(word in e for word in HARMLESS)]


def wait(browser, script, *arguments, what="the page"):
    """Until a script gives something true; returns it."""
    deadline = time.monotonic() + 30
    while not (found := browser.execute_script(script, *arguments)):
        assert time.monotonic() < deadline, f"{what} was not there within 30 s"
        time.sleep(0.1)
    return found


def drawing(element) -> str:
    """The drawing as the page holds it now: all its lines, texts, colours and what of it is hidden."""
    return element.get_attribute("innerHTML")


def settled(element) -> str:
    """The same, once it has stopped changing."""
    before = drawing(element)
    for _ in range(40):
        time.sleep(0.15)
        after = drawing(element)
        if after == before:
            return after
        before = after
    raise AssertionError("the picture does not come to rest")


@contextmanager
def changes(element):
    """What happens within changes how the element looks."""
    before = settled(element)
    yield
    deadline = time.monotonic() + 10
    while drawing(element) == before:
        assert time.monotonic() < deadline, "the picture stays as it was"
        time.sleep(0.1)


def first(browser, selector):
    found = wait(browser, "return document.querySelector(arguments[0])", selector, what=selector)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
    return found


def keys(element, *pressed):
    element.send_keys(*pressed)


DRAWN = ".rkd-plot .js-plotly-plot svg.main-svg"


@pytest.mark.parametrize("page", ["table1", "table3", "figure6", "recipes"])
def test_training_curves_answer(page, offline, browser):
    from selenium.webdriver import Keys
    from selenium.webdriver.support.ui import Select

    offline(page)
    first(browser, DRAWN)
    plot = first(browser, ".rkd-plot")
    fallback = browser.execute_script(
        "return arguments[0].querySelector('.rkd-plot-fallback').offsetHeight", plot
    )
    assert fallback == 0, "the static picture makes way for the live one"
    box = first(browser, ".rkd-plot input[type=checkbox]")
    with changes(plot):
        keys(box, Keys.SPACE)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", box)
    with changes(plot):
        box.click()
    metric = Select(first(browser, ".rkd-plot select"))
    assert len(metric.options) >= 2
    with changes(plot):
        metric.select_by_index(1)


def test_curves_cursor_moves_by_arrow_keys(offline, browser):
    from selenium.webdriver import Keys

    offline("table3")
    first(browser, DRAWN)
    plot = first(browser, ".rkd-plot")
    slider = first(browser, ".rkd-plot input[type=range]")
    with changes(plot):
        keys(slider, Keys.ARROW_LEFT)


def test_without_scripts_the_static_pictures_stand(browser, site):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        for page in ("table3", "explorer", "method", "inside"):
            browser.get((site / f"{page}.html").as_uri())
            from selenium.webdriver.common.by import By

            stand = browser.find_elements(By.CSS_SELECTOR, STATIC)
            assert stand, page
            assert all(image.is_displayed() for image in stand), page
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_explorer_filters_table_and_picture(offline, browser):
    from selenium.webdriver.support.ui import Select

    offline("explorer")
    explorer = first(browser, ".rkd-explorer")
    rows = "return arguments[0].querySelectorAll('table tbody tr').length"
    wait(browser, rows, explorer, what="rows of the explorer")
    before = browser.execute_script("return arguments[0].innerText", explorer)
    pairs = Select(first(browser, ".rkd-explorer select[data-filter=pair]"))
    picture = first(browser, ".rkd-explorer .js-plotly-plot")
    with changes(picture):
        pairs.select_by_visible_text("ResNet-8 alone")
    assert browser.execute_script("return arguments[0].innerText", explorer) != before


def test_attention_slider_moves_by_keyboard_and_mouse(offline, browser):
    from selenium.webdriver import ActionChains, Keys

    offline("inside")
    handle = first(browser, ".jupyter-widgets .noUi-handle")
    stack = browser.execute_script("return arguments[0].closest('.cell_output')", handle)
    with changes(stack):
        keys(handle, Keys.ARROW_LEFT)
    with changes(stack):
        ActionChains(browser).drag_and_drop_by_offset(handle, -120, 0).perform()


def test_review_path_follows_the_pair(offline, browser):
    from selenium.webdriver import Keys

    offline("method")
    path = first(browser, ".rkd-path")
    select = first(browser, ".rkd-path select")
    with changes(path):
        keys(select, Keys.ARROW_DOWN)
    levels = [g for g in path.find_elements("css selector", "g.rkd-level") if g.is_displayed()]
    assert len(levels) >= 4
    with changes(path):
        browser.execute_script("arguments[0].focus()", levels[1])
        browser.switch_to.active_element.send_keys(Keys.ENTER)


def test_claims_open_filter_and_sort(offline, browser):
    """The table starts as its chapters; each opens, and searching, choosing and sorting reach every claim."""
    from selenium.webdriver import Keys
    from selenium.webdriver.support.ui import Select

    offline("claims")
    rows = """return [...document.querySelectorAll('#all-claims tbody tr')]
        .filter(r => r.offsetHeight > 0).map(r => r.innerText)"""
    chapters = wait(browser, rows, what="the claims")
    declared = browser.execute_script("return document.querySelectorAll('#all-claims tbody tr[id]').length")
    assert 5 < len(chapters) < 30 and declared > 400
    fold = first(browser, "#all-claims .rkd-fold button")
    fold.send_keys(Keys.ENTER)
    assert fold.get_attribute("aria-expanded") == "true"
    opened = browser.execute_script(rows)
    assert len(chapters) < len(opened) < declared
    fold.send_keys(Keys.ENTER)
    assert browser.execute_script(rows) == chapters
    kind = Select(first(browser, "#all-claims select[name=kind]"))
    kind.select_by_index(1)
    of_kind = browser.execute_script(rows)
    assert len(chapters) < len(of_kind) < declared
    kind.select_by_index(0)
    search = first(browser, "#all-claims input[type=search], #all-claims input[type=text]")
    search.send_keys("untrained")
    found = browser.execute_script(rows)
    assert 0 < len(found) < 40 and any(
        "untrained" in row.lower() for row in found
    )  # it reads what is folded too
    for _ in "untrained":
        search.send_keys(Keys.BACKSPACE)
    assert browser.execute_script(rows) == chapters
    heads = browser.find_elements("css selector", "#all-claims [role=columnheader] button")
    heads[1].send_keys(Keys.ENTER)  # by claim
    ordered = browser.execute_script(rows)
    assert len(ordered) == declared and ordered != chapters
    live = browser.execute_script("return document.querySelector('#all-claims [role=status]').innerText")
    assert str(declared) in live


def test_pictures_follow_the_theme(offline, browser):
    offline("table3")
    first(browser, DRAWN)
    plot = first(browser, ".rkd-plot")
    with changes(plot):
        browser.execute_script(
            "const r = document.documentElement; r.dataset.theme = r.dataset.theme === 'dark' ? 'light' : 'dark'"
        )
