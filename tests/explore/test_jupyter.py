"""The live page in a real JupyterLab: a server, a kernel, a browser, and a project folder of its own."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError

import pytest
from browser import chromium

pytest_plugins = ["exploring"]
pytestmark = [pytest.mark.browser, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
PAGE = "document.querySelector('.rkd-explore')"
NEWS = "@jupyterlab/apputils-extension/notification.jupyterlab-settings"


class Lab:
    """A JupyterLab with a notebook open in a browser."""

    def __init__(self, browser, address: str) -> None:
        self.browser, self.address = browser, address

    def js(self, script: str, *arguments: object) -> object:
        return self.browser.execute_script(script, *arguments)

    def until(self, script: str, what: str, seconds: float = 120) -> object:
        deadline = time.monotonic() + seconds
        while not (found := self.js(f"return {script}")):
            assert time.monotonic() < deadline, (
                f"not within {seconds} s: {what}; the page says {self.text()!r}"
            )
            time.sleep(0.1)
        return found

    def text(self) -> str:
        return self.js(f"return {PAGE} ? {PAGE}.innerText : document.body.innerText")

    def press(self, label: str) -> None:
        self.js(
            f"[...{PAGE}.querySelectorAll('button')].find(b => b.innerText.includes(arguments[0])).click()",
            label,
        )

    def images(self) -> list[str]:
        return self.js(f"return [...{PAGE}.querySelectorAll('img')].map(i => i.src)")

    def bar(self) -> float:
        """Width of the filled part of the progress bar, in percent."""
        return float(self.js(f"return {PAGE}.querySelector('.progress-bar').style.width").rstrip("%"))


@pytest.fixture
def lab(home, tmp_path):
    """The notebook, opened with choices that train for minutes, so that it can be watched and stopped."""
    if find_spec("jupyterlab") is None:
        pytest.skip("jupyterlab is not installed (pip install -e .[test])")
    browser = chromium(tmp_path / "chromium", 1300, 1200)
    server = None
    try:
        (home / "book").mkdir()
        notebook = json.loads((ROOT / "book" / "explore.ipynb").read_text(encoding="utf-8"))
        (cell,) = [c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", [])]
        values = {
            "teacher": "resnet14",
            "images": 600,
            "test_images": 100,
            "epochs": 200,
            "teacher_epochs": 1,
        }
        cell["source"] = ["".join(cell["source"]), f"\nchoices = {values!r}"]
        (home / "book" / "explore.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
        server, address = serve(home, tmp_path)
        browser.get(f"{address}/doc/tree/book/explore.ipynb?token={server.token}")
        yield Lab(browser, address)
    finally:
        browser.quit()
        if server is not None:
            server.terminate()
            server.wait(60)


def serve(home: Path, tmp_path: Path):
    """A server on a free port of this machine; its process, with the token, and its address."""
    settings = tmp_path / "lab" / "settings"
    (settings / NEWS).parent.mkdir(parents=True)
    (settings / NEWS).write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    folders = {
        "JUPYTERLAB_SETTINGS_DIR": settings, "JUPYTERLAB_WORKSPACES_DIR": tmp_path / "lab" / "workspaces",
        "JUPYTER_CONFIG_DIR": tmp_path / "lab" / "config", "JUPYTER_RUNTIME_DIR": tmp_path / "lab" / "runtime",
        "JUPYTER_DATA_DIR": tmp_path / "lab" / "data", "IPYTHONDIR": tmp_path / "lab" / "ipython",
    }  # fmt: skip
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    with open(tmp_path / "lab.log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
             "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1", f"--IdentityProvider.token={token}",
             f"--ServerApp.root_dir={home}", "--LabApp.expose_app_in_browser=True"],
            stdout=log, stderr=subprocess.STDOUT, cwd=home,
            env={**os.environ, **{name: str(folder) for name, folder in folders.items()}},
        )  # fmt: skip
    server.token = token
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    open_url = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    while True:
        try:
            open_url(f"{address}/api/status?token={token}", timeout=5).close()
            return server, address
        except (URLError, OSError):
            if time.monotonic() > deadline or server.poll() is not None:
                server.kill()
                log = (tmp_path / "lab.log").read_text(encoding="utf-8")
                raise AssertionError(f"JupyterLab did not start: {log[-2000:]}") from None
            time.sleep(0.2)


def test_choose_train_watch_and_stop(lab, home):
    lab.until(
        "!!window.jupyterapp && document.querySelectorAll('.jp-Notebook .jp-Cell').length > 4", "the notebook"
    )
    lab.until("!!document.querySelector('.jp-Notebook-ExecutionIndicator[data-status=idle]')", "a kernel")
    lab.js("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    lab.until(f"!!{PAGE} && {PAGE}.innerText.includes('multiply-adds per image')", "the page")

    # A choice changes the figures at once.
    table = f"[...{PAGE}.querySelectorAll('table')][0].innerText"
    with_attention = lab.js(f"return {table}")
    lab.js(f"{PAGE}.querySelector('input[type=checkbox]').click()")
    lab.until(f"{table} != {json.dumps(with_attention)}", "other figures without attention", 20)
    assert "ABF" not in lab.js(f"return {PAGE}.querySelector('svg').textContent")
    lab.js(f"{PAGE}.querySelector('input[type=checkbox]').click()")
    lab.until(f"{table} == {json.dumps(with_attention)}", "the first figures again", 20)

    # Train: the curves are drawn anew, the bar moves.
    lab.press("Train")
    lab.until(f"{PAGE}.innerText.includes('Run 1 of 3')", "the first run")
    lab.until(f"/epoch [2-9]\\d* of 200/.test({PAGE}.innerText)", "the second epoch")
    first, began = lab.images(), lab.bar()
    assert len(first) == 3, "accuracy, cross-entropy, review loss"
    lab.until(f"[...{PAGE}.querySelectorAll('img')][0].src != {json.dumps(first[0])}", "another curve", 60)
    lab.until(f"parseFloat({PAGE}.querySelector('.progress-bar').style.width) > {began}", "a longer bar", 60)
    lab.until(f"/images\\/s, .* left/.test({PAGE}.innerText)", "speed and time left", 20)

    # Meanwhile the kernel serves other cells.
    lab.js(
        """
        const panel = window.jupyterapp.shell.currentWidget;
        const kernel = panel.sessionContext.session.kernel;
        window.answer = null;
        const future = kernel.requestExecute({code: "print(6 * 7)"});
        future.onIOPub = m => { if (m.header.msg_type == 'stream') window.answer = m.content.text; };
        """
    )
    lab.until("window.answer && window.answer.trim() == '42'", "an answer while training", 10)
    assert "Run 1 of 3" in lab.text()

    # Stop: no record, nowhere; the checkpoint is there.
    lab.press("Stop")
    lab.until(f"{PAGE}.innerText.includes('Stopped in epoch')", "the end", 60)
    assert not (home / "results").exists()
    explored = home / "_build" / "explore"
    assert not list(explored.rglob("*.json")) and len(list(explored.rglob("checkpoint.pt"))) == 1
    enabled = "return [...%s.querySelectorAll('button')].find(b => b.innerText.includes('%s')).disabled"
    assert lab.js(enabled % (PAGE, "Train")) is False and lab.js(enabled % (PAGE, "Stop")) is True

    bare = lab.js(f"return [...{PAGE}.querySelectorAll('img')].filter(i => !i.alt).length")
    assert bare == 0
    nameless = lab.js(
        f"return [...{PAGE}.querySelectorAll('input, select')].filter(e => !(e.labels && e.labels.length))"
        ".filter(e => e.offsetParent).map(e => e.outerHTML)"
    )
    assert nameless == [], "every visible control has a label"
    errors = [e["message"] for e in lab.browser.get_log("browser") if e["level"] == "SEVERE"]
    assert not [e for e in errors if "rkd" in e or "widget" in e.lower()], errors


@pytest.mark.parametrize("width", [1300, 520])
def test_page_fits_its_cell(lab, width):
    lab.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 1200, "deviceScaleFactor": 1, "mobile": False},
    )
    lab.until(
        "!!window.jupyterapp && document.querySelectorAll('.jp-Notebook .jp-Cell').length > 4", "the notebook"
    )
    lab.until("!!document.querySelector('.jp-Notebook-ExecutionIndicator[data-status=idle]')", "a kernel")
    lab.js("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    lab.until(f"!!{PAGE} && {PAGE}.innerText.includes('multiply-adds per image')", "the page")
    wide = lab.js(
        f"const room = {PAGE}.clientWidth;"
        f"return [...{PAGE}.querySelectorAll('*')].filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth"
        " && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX)).map(e => e.className)"
    )
    assert wide == [], "nothing has to be scrolled sideways"
