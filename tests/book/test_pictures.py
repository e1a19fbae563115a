"""The built pages from the disk, without a network: what a reader moves, by mouse or keyboard, changes the picture."""

import base64
import hashlib
import time
from contextlib import contextmanager

import pytest
from pages import visit

pytestmark = [pytest.mark.browser, pytest.mark.slow]
HARMLESS = ("THEBE_JS_URL",)  # sphinx-thebe declares it twice on every page; nothing uses it


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


def pixels(element) -> str:
    """What an element looks like now."""
    return hashlib.sha256(base64.b64decode(element.screenshot_as_base64)).hexdigest()


def settled(element) -> str:
    """The same, once it has stopped changing."""
    before = pixels(element)
    for _ in range(40):
        time.sleep(0.15)
        after = pixels(element)
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
    while pixels(element) == before:
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
    fallback = browser.execute_script("return arguments[0].querySelector('.rkd-fallback').offsetHeight", plot)
    assert fallback == 0, "the static picture makes way for the live one"
    box = first(browser, ".rkd-plot input[type=checkbox]")
    with changes(plot):
        keys(box, Keys.SPACE)
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

            stand = browser.find_elements(By.CSS_SELECTOR, ".rkd-fallback")
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
    select = next(
        s for s in map(Select, explorer.find_elements("css selector", "select")) if len(s.options) >= 3
    )
    picture = first(browser, ".rkd-explorer .js-plotly-plot")
    with changes(picture):
        select.select_by_index(2)
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
    level = first(browser, ".rkd-path [tabindex='0'], .rkd-path button")
    with changes(path):
        keys(level, Keys.ENTER)


def test_claims_filter_sort_and_explain(offline, browser):
    from selenium.webdriver import Keys
    from selenium.webdriver.support.ui import Select

    offline("claims")
    shown = """return [...document.querySelectorAll('article [role=row], article tbody tr')]
        .filter(r => r.offsetHeight > 0).map(r => r.innerText).join('|')"""
    everything = wait(browser, shown, what="the claims")
    kind = Select(first(browser, "article select"))
    kind.select_by_index(1)
    some = browser.execute_script(shown)
    assert 0 < len(some) < len(everything)
    kind.select_by_index(0)
    search = first(browser, "article input[type=search], article input[type=text]")
    search.send_keys("untrained")
    found = browser.execute_script(shown)
    assert 0 < len(found) < len(everything) and "untrained" in found.lower()
    for _ in "untrained":
        search.send_keys(Keys.BACKSPACE)
    assert browser.execute_script(shown) == everything
    heads = browser.find_elements("css selector", "article th button, article [role=columnheader] button")
    heads[0].send_keys(Keys.ENTER)
    if browser.execute_script(shown) == everything:  # it was sorted by this column
        heads[0].send_keys(Keys.ENTER)
    assert browser.execute_script(shown) != everything
    live = browser.execute_script("return document.querySelector('article [aria-live]').innerText")
    assert any(character.isdigit() for character in live)


def test_pictures_follow_the_theme(offline, browser):
    offline("table3")
    first(browser, DRAWN)
    plot = first(browser, ".rkd-plot")
    with changes(plot):
        browser.execute_script(
            "const r = document.documentElement; r.dataset.theme = r.dataset.theme === 'dark' ? 'light' : 'dark'"
        )
