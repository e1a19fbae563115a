"""Pages on paper: built pages with wide tables, pictures and code, printed by Chromium."""

import base64
import re

import pytest
from browser import window

from rkd.errors import ConfigError
from rkd.report.book.pdf import print_pages

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAPERS = {"A4": 21.0, "Letter": 21.59}  # width in cm
MARGIN = 1.4  # cm, of print.css
CSS_PIXELS = 96 / 2.54  # per cm


@pytest.fixture(params=["table3", "method"])
def printed(request, browser, site):
    """A browser that shows a page of the dark theme as on paper."""
    browser.get((site / f"{request.param}.html").as_uri())
    browser.execute_script("document.documentElement.dataset.theme = 'dark'")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    yield browser
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_nothing_is_wider_than_the_paper(printed):
    for paper in PAPERS.values():
        width = round((paper - 2 * MARGIN) * CSS_PIXELS)
        with window(printed, width):
            wide = printed.execute_script(
                "return [...document.querySelectorAll('article, article *')].filter(e => {"
                "  const box = e.getBoundingClientRect();"
                "  return box.width && (box.right > innerWidth + 1 || box.left < -1);"
                "}).filter(e => !e.closest('svg') || e.tagName === 'svg').map(e => e.outerHTML.slice(0, 80))"
            )
            assert not wide, wide
            assert printed.execute_script("return document.documentElement.scrollWidth") <= width
    numbers = "return [...document.querySelectorAll('.rkd-number')].map(e => e.getClientRects().length)"
    assert set(printed.execute_script(numbers)) <= {0, 1}  # no number is broken between lines


def test_only_the_text_is_printed_and_it_is_dark_on_white(printed):
    found = "[...document.querySelectorAll(arguments[0])]"
    shown = f"return {found}.filter(e => e.getClientRects().length).length"
    assert printed.execute_script(shown, "article table, article img") and printed.execute_script(shown, "h1")
    screen_only = ".bd-sidebar-primary, .bd-sidebar-secondary, .bd-header, .bd-header-article, footer, button"
    assert printed.execute_script(shown, screen_only) == 0
    assert printed.execute_script(shown, ".headerlink, .prev-next-area, .rkd-area, details.hide") == 0
    colours = printed.execute_script(
        "return [...document.querySelectorAll('article p, article h1, article td, .highlight span')]"
        "  .filter(e => e.getClientRects().length).map(e => getComputedStyle(e).color)"
    )
    assert colours and all(_luminance(colour) < 0.25 for colour in colours), colours
    assert _luminance(printed.execute_script("return getComputedStyle(document.body).backgroundColor")) == 1.0
    made = printed.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": False})
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", base64.b64decode(made["data"]))) <= 30


def test_command_prints_files(site, tmp_path, capsys):
    (made,) = print_pages(site, tmp_path / "pdf", ["table3"])
    assert made.read_bytes().startswith(b"%PDF") and capsys.readouterr().out.startswith("table3.pdf ")
    with pytest.raises(ConfigError, match=r"page y is not in .*; allowed: "):
        print_pages(site, tmp_path / "pdf", ["y"])
    with pytest.raises(ConfigError, match="no built book"):
        print_pages(tmp_path, tmp_path / "pdf")


def _luminance(colour: str) -> float:
    """Of a CSS colour, 0 to 1."""
    parts = [float(part) for part in re.findall(r"[\d.]+", colour)[:3]]
    parts = [part / (1.0 if colour.startswith("color(") else 255.0) for part in parts]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return round(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2], 4)
