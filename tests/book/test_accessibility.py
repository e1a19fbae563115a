"""axe-core on the built pages, in both themes: no fault it calls serious or critical."""

from pathlib import Path

import pytest
from pages import visit

pytestmark = [pytest.mark.browser, pytest.mark.slow]
AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text(encoding="utf-8")
PAGES = (
    "index", "claims", "verdicts", "uncertainty", "audit", "method", "table1", "table3", "figure6", "random_teacher",
    "explorer", "inside", "explore", "performance", "cluster", "running",
)  # fmt: skip

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
@pytest.mark.parametrize("page", PAGES)
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
