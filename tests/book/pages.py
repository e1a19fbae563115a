"""Opening pages of the built site."""

import json
import time
from pathlib import Path


def page_names(site: Path) -> list[str]:
    """All pages but the lists Sphinx adds."""
    return sorted(p.name for p in site.glob("*.html") if p.name not in ("genindex.html", "search.html"))


def visit(browser, address: str) -> None:
    """Opens a page and waits for its formulas and widgets."""
    for log in ("performance", "browser"):
        browser.get_log(log)  # empties it
    browser.get(address)
    deadline = time.monotonic() + 20
    settled = """
        const math = document.querySelectorAll('.math').length;
        const kind = "script[type='application/vnd.jupyter.widget-view+json']";
        const widgets = document.querySelectorAll(kind).length;
        return document.readyState === 'complete'
            && (!math || document.querySelectorAll('mjx-container').length >= math)
            && (!widgets || document.querySelectorAll('.jupyter-widgets').length >= widgets);
    """
    while not browser.execute_script(settled):
        assert time.monotonic() < deadline, f"{address}: formulas or widgets were not drawn within 20 s"
        time.sleep(0.1)


def requests_of(browser) -> list[str]:
    """Addresses asked for since the page was opened."""
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def complaints(browser) -> list[str]:
    """Errors in the console since it was last asked, but for a constant that sphinx-thebe declares twice on every page,
    and nothing uses."""
    errors = (entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE")
    return [error for error in errors if "THEBE_JS_URL" not in error]
