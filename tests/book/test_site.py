"""The built site in a real browser: every page loads, asks no other host, and holds no dead link.

Looks at the site named by RKD_SITE (its index.html or folder), else at _build/html, which is built with the
smoke profile if it is not there.
"""

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from filelock import FileLock

pytestmark = [pytest.mark.browser, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
RESULTS = ("table1", "table2", "table3", "figure6", "table4", "table5", "table6", "no_cross_entropy")
HARMLESS = "THEBE_JS_URL"  # sphinx-thebe declares it twice on every page; nothing uses it


@pytest.fixture(scope="session")
def site() -> Path:
    """Folder of the built site."""
    named = os.environ.get("RKD_SITE")
    if named:
        folder = Path(named) if Path(named).is_dir() else Path(named).parent
        assert (folder / "index.html").is_file(), f"RKD_SITE is {named}, where no index.html lies"
        return folder
    folder = ROOT / "_build" / "html"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(
        folder.parent / ".site-for-tests.lock"
    ):  # of several test processes one builds, the others wait
        if not (folder / "index.html").is_file():
            subprocess.run([sys.executable, "-m", "rkd", "book", "--profile", "smoke"], cwd=ROOT, check=True)
    return folder


@pytest.fixture(scope="session")
def address(site):
    """Address at which the site is served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            return None

    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Headless Chromium with its logs of requests and of the console."""
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="selenium is not installed (pip install -e .[test])"
    )
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip(
            "Chromium and chromedriver are needed to look at the site (Debian: chromium, chromium-driver)"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1280,1000",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


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


def test_book_has_all_its_pages(site):
    present = page_names(site)
    expected = {f"{name}.html" for name in ("index", "verdicts", "running", "method", *RESULTS)}
    assert expected <= set(present)


def test_every_page_loads_alone(site, address, browser):
    for name in page_names(site):
        visit(browser, address + name)
        foreign = [u for u in requests_of(browser) if not u.startswith((address, "data:", "blob:", "chrome"))]
        assert not foreign, f"{name} asks other hosts: {foreign}"
        errors = [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE"]
        assert not [e for e in errors if HARMLESS not in e], f"{name}: {errors}"
        broken = browser.execute_script(
            "return [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
        )
        assert not broken, f"{name} has broken images: {broken}"
        bare = browser.execute_script(
            "return [...document.querySelectorAll('main img')].filter(i => !i.alt).length"
        )
        assert bare == 0, f"{name} has {bare} images without alternative text"


def test_no_page_names_a_foreign_resource(site, address, browser):
    script = """
        const loads = 'script[src], link[rel=stylesheet], link[rel=preload], link[rel*=icon], [src]';
        return [...document.querySelectorAll(loads)].map(e => e.src || e.href);
    """
    for name in page_names(site):
        browser.get(address + name)
        foreign = [u for u in browser.execute_script(script) if not u.startswith((address, "data:"))]
        assert not foreign, f"{name}: {foreign}"


def test_no_link_is_dead(site, address, browser):
    anchors: dict[str, set[str]] = {}
    links: list[tuple[str, str]] = []
    for name in page_names(site):
        browser.get(address + name)
        ids = browser.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
        anchors[name] = set(ids)
        for href in browser.execute_script("return [...document.links].map(a => a.getAttribute('href'))"):
            links.append((name, urljoin(address + name, href)))
    dead = []
    for name, link in links:
        if not link.startswith(address):
            continue
        target, fragment = urldefrag(link)
        path = unquote(urlsplit(target).path).lstrip("/") or "index.html"
        if not (site / path).is_file() or (
            fragment and path in anchors and unquote(fragment) not in anchors[path]
        ):
            dead.append(f"{name}: {link}")
    assert not dead, dead


@pytest.mark.parametrize("name", RESULTS)
def test_chapter_shows_its_table_and_figure(name, address, browser):
    visit(browser, f"{address}{name}.html")
    article = "document.querySelector('article')"
    text = browser.execute_script(f"return {article}.innerText")
    assert "This chapter failed" not in text and "Not executed in this build" not in text
    rows = browser.execute_script(f"return {article}.querySelectorAll('.cell_output table tbody tr').length")
    figures = browser.execute_script(
        f"return {article}.querySelectorAll('.cell_output img, .cell_output svg').length"
    )
    assert rows >= 2 and figures >= 1
    assert "profile" in browser.execute_script("return document.querySelector('.rkd-executed').innerText")
    assert browser.execute_script(
        "return !!document.querySelector(\"a[href^='https://colab.research.google.com']\")"
    )


def test_method_shows_formulas_figures_and_shapes(address, browser):
    visit(browser, f"{address}method.html")
    count = "return document.querySelectorAll(arguments[0]).length"
    assert browser.execute_script(count, "article mjx-container") >= 10
    assert browser.execute_script(count, "article mjx-merror") == 0
    assert browser.execute_script(count, "article .cell_output img") == 3
    assert browser.execute_script(count, "article .cell_output tbody tr") >= 4


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_page_is_wider_than_the_window(site, address, browser, width):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    try:
        for name in page_names(site):
            visit(browser, address + name)
            wide = browser.execute_script("return document.documentElement.scrollWidth")
            assert wide <= width + 1, f"{name} is {wide} px wide in a window of {width} px"
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
