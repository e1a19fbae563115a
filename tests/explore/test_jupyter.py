"""The live page in a real JupyterLab: a server, a kernel, a browser, and a project folder of its own."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from browser import chromium, wait

pytest_plugins = ["exploring"]
pytestmark = [pytest.mark.browser, pytest.mark.slow]
BOOK = Path(__file__).resolve().parents[2] / "book"
PAGE = "document.querySelector('.rkd-explore')"
SAYS = f"{PAGE} && {PAGE}.textContent"
BAR = f"parseFloat({PAGE}.querySelector('.progress-bar').style.width)"
PICTURES = f"[...{PAGE}.querySelectorAll('img')].map(i => i.src).join()"


class Lab:
    """A JupyterLab with a notebook open in a browser."""

    def __init__(self, browser) -> None:
        self.browser = browser

    def js(self, script: str, *arguments: object) -> object:
        return self.browser.execute_script(f"return {script}", *arguments)

    def until(self, script: str, *arguments: object, seconds: float = 120) -> None:
        wait(self.browser, script, *arguments, seconds=seconds)

    def button(self, label: str):
        found = f"[...{PAGE}.querySelectorAll('button')].find(b => b.innerText.includes(arguments[0]))"
        return self.js(found, label)


@pytest.fixture
def lab(home, tmp_path, tiny):
    """The notebook, opened with choices that train for minutes, so that it can be watched and stopped."""
    if find_spec("jupyterlab") is None:
        pytest.skip("jupyterlab is not installed (pip install -e .[test])")
    for page in BOOK.glob("*.ipynb"):  # the profile's budgets name them
        if page.stem != "explore":
            (home / "book" / page.name).symlink_to(page)
    notebook = json.loads((BOOK / "explore.ipynb").read_text(encoding="utf-8"))
    (cell,) = [c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", [])]
    cell["source"] = "".join(cell["source"]) + f"\nchoices = { {**tiny, 'epochs': 200}!r}"
    (home / "book" / "explore.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    settings = tmp_path / ".jupyter/lab/user-settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    news = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(news))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0",
        "--ServerApp.ip=127.0.0.1", "--IdentityProvider.token=secret", f"--ServerApp.root_dir={home}",
        "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    log = tmp_path / "lab.log"
    browser = chromium(tmp_path / "chromium", 1300, 1200)
    with open(log, "w", encoding="utf-8") as said:
        environment = {**os.environ, "HOME": str(tmp_path)}
        server = subprocess.Popen([sys.executable, "-m", *command], stdout=said, stderr=said, env=environment)
    try:
        deadline = time.monotonic() + 60
        while "is running at" not in log.read_text(encoding="utf-8"):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.2)
        browser.get(f"http://127.0.0.1:{port}/doc/tree/book/explore.ipynb?token=secret")
        yield Lab(browser)
    finally:
        browser.quit()
        server.terminate()
        server.wait(60)


def test_choose_train_watch_and_stop(lab, home):
    cells = "document.querySelectorAll('.jp-Notebook .jp-Cell').length > 3"
    lab.until(f"!!window.jupyterapp && {cells}")
    lab.until("!!document.querySelector('.jp-Notebook-ExecutionIndicator[data-status=idle]')")
    begun = "[...document.querySelectorAll('.jp-InputPrompt')].some(e => /\\[[\\d*]/.test(e.innerText))"
    for _ in range(5):  # a kernel may say that it idles before it listens
        lab.js("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
        with contextlib.suppress(AssertionError):
            lab.until(begun, seconds=10)
            break
    lab.until(f"{SAYS}.includes('multiply-adds per image')")
    for width in (390, 1300):
        size = {"width": width, "height": 1200, "deviceScaleFactor": 1, "mobile": False}
        lab.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        wide = (
            f"[...{PAGE}.querySelectorAll('*')].filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth"
            " && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX)).map(e => e.className)"
        )
        lab.until(f"{wide}.every(name => name == 'rkd-scroll')", seconds=10)

    # By keyboard: a choice changes what is shown at once, and training begins.
    box = lab.js(f"{PAGE}.querySelector('input[type=checkbox]')")
    for expected in ("", "!"):
        box.send_keys(" ")
        lab.until(f"{expected}({SAYS}).includes('\"attention\": false')", seconds=30)
    lab.button("Train").send_keys("\ue007")
    lab.until(f"/without distillation epoch [1-9].* images\\/s, .* left/.test({SAYS})")
    pictures, bar = lab.js(PICTURES), lab.js(BAR)
    lab.until(f"{BAR} > arguments[0] && {PICTURES} != arguments[1]", bar, pictures)

    # Stop: no record; the checkpoint is there.
    lab.button("Stop").click()
    lab.until(f"{SAYS}.includes('Stopped. ')", seconds=60)
    explored = home / "results" / "explore"
    assert not list(explored.glob("*.json")) and len(list(explored.rglob("checkpoint.pt"))) == 1
    disabled = f"[...{PAGE}.querySelectorAll('button:disabled')]"
    lab.until(f"{disabled}.map(b => b.innerText.trim()).join() == 'Stop'")

    assert lab.js(f"[...{PAGE}.querySelectorAll('img')].filter(i => !i.alt).length") == 0
    inputs = f"[...{PAGE}.querySelectorAll('input, select')].filter(e => e.offsetParent)"
    assert lab.js(f"{inputs}.filter(e => !e.labels || !e.labels.length).map(e => e.outerHTML)") == []
    errors = [e["message"] for e in lab.browser.get_log("browser") if e["level"] == "SEVERE"]
    assert not [e for e in errors if "rkd" in e or "widget" in e.lower()], errors
