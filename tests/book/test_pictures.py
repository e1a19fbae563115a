"""The built pages from the disk, without a network: what a reader moves, by mouse or keyboard, changes the picture."""

import json
import time
from contextlib import contextmanager

import pytest
from browser import wait
from pages import complaints, visit
from selenium.webdriver import ActionChains, Keys

pytestmark = [pytest.mark.browser, pytest.mark.slow]
STATIC = ".rkd-still, .rkd-page:not([hidden]), .rkd-datatable"


@pytest.fixture
def offline(browser, site):
    """Opens a page by file:// without a network; afterwards nothing of ours may have complained."""
    browser.execute_cdp_cmd("Network.enable", {})
    off = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", off)
    yield lambda name: visit(browser, (site / f"{name}.html").as_uri())
    on = {**off, "offline": False, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", on)
    # By file:// a browser lends no fonts of icons.
    assert not [error for error in complaints(browser) if "fontawesome" not in error]


@contextmanager
def changes(element):
    """What happens within changes how the element, once at rest, looks: lines, texts, colours, what is hidden."""
    before = ""
    while before != (before := element.get_attribute("innerHTML")):
        time.sleep(0.15)
    yield
    deadline = time.monotonic() + 10
    while element.get_attribute("innerHTML") == before:
        assert time.monotonic() < deadline, "the picture stays as it was"
        time.sleep(0.1)


def first(browser, selector):
    found = wait(browser, f"document.querySelector({json.dumps(selector)})")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", found)
    return found


DRAWN = ".rkd-area.js-plotly-plot svg.main-svg"


def test_training_curves_answer(offline, browser):
    offline("table3")
    folded = first(browser, "details:has(.rkd-figure[data-kind=plot])")
    browser.execute_script("arguments[0].open = true", folded)
    first(browser, DRAWN)
    plot = first(browser, ".rkd-figure[data-kind=plot]")
    still = browser.execute_script("return arguments[0].querySelector('.rkd-still').offsetHeight", plot)
    assert still == 0, "the static picture makes way for the live one"
    with changes(plot):
        first(browser, ".legend .traces[role=checkbox] .legendtoggle").click()
    with changes(plot):
        first(browser, "select[name=metric]").send_keys(Keys.ARROW_DOWN)


def test_without_scripts_the_static_pictures_stand(browser, site):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        for page in ("explorer", "method", "inside"):
            browser.get((site / f"{page}.html").as_uri())
            stand = browser.find_elements("css selector", STATIC)
            assert stand, page
            assert all(image.is_displayed() for image in stand), page
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_explorer_filters_table_and_picture(offline, browser):
    offline("explorer")
    table = first(browser, ".rkd-datatable .dt-info")
    picture = first(browser, DRAWN)
    pair = first(browser, ".rkd-figure select[name=pair]")
    with changes(picture), changes(table):
        pair.send_keys("ResNet-8 alone")
    button = first(browser, "[data-curves]")
    chosen = "return document.querySelector('select[name=group]').value"
    before = browser.execute_script(chosen)
    button.click()
    assert browser.execute_script(chosen) == button.get_attribute("data-curves") != before


def test_attention_slider_moves_by_keyboard_and_mouse(offline, browser):
    offline("inside")
    pager = first(browser, ".rkd-figure[data-kind=pager].drawn")
    slider = first(browser, ".rkd-figure[data-kind=pager] input[type=range]")
    with changes(pager):
        slider.send_keys(Keys.ARROW_LEFT)
    with changes(pager):
        right = slider.size["width"] // 2 - 3
        ActionChains(browser).move_to_element_with_offset(slider, right, 0).click().perform()
