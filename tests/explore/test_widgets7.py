"""The page under ipywidgets 7.7.1, which Colab has: a copy is put before the installed one, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

pytest_plugins = ["exploring"]
pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ipywidgets==7.7.1", "ipython_genutils==0.2.0")

SCRIPT = """
import time, warnings
import ipywidgets
assert ipywidgets.__version__ == "7.7.1", ipywidgets.__version__
assert not hasattr(ipywidgets, "Stack")
from rkd.explore import explore

# An argument this version does not know is only warned of.
warnings.filterwarnings("error", message=".*(unrecognized|unexpected).*")

app = explore(TINY | {"images": 600, "epochs": 20}, device="cpu")
before = app.figures, app._diagram.value
app.inputs["attention"].value = False
assert app.figures != before[0] and app._diagram.value != before[1]
app.inputs["attention"].value = True
app.inputs["hcl_weights"].value = "1"
assert "give one weight per size" in app.problem and app.train_button.disabled
app.inputs["hcl_weights"].value = "1, 0.5, 0.25, 0.125"
assert all(box.description_tooltip for box in app.inputs.values())
app.train_button.click()
deadline = time.monotonic() + 120
while not app.runner.poll().done:
    assert time.monotonic() < deadline, app.runner.poll()
    time.sleep(0.05)
app.stop_button.click()
app.wait(60)
assert "Stopped in epoch" in app._status.value, app._status.value
assert app._bar.value > 0
app.inputs["images"].value, app.inputs["epochs"].value = 100, 2
app.train_button.click()
app.wait(120)
assert "Done." in app._status.value, app._status.value
assert len(app.map_epoch.options) == 2 and app._maps.value.count("<img") == 7
app.name.value = "seven"
app.save_button.click()
assert "Saved as" in app._save_message.value
print("seven works")
"""


@pytest.fixture(scope="module")
def widgets7():
    """Folder of the old packages, fetched once."""
    folder = ROOT / "_build" / "widgets7"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.parent / ".widgets7.lock"):
        if not (folder / "ipywidgets-7.7.1.dist-info").is_dir() or not (folder / "ipython_genutils").is_dir():
            command = [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--target",
                str(folder),
            ]
            done = subprocess.run([*command, *PACKAGES], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip("ipywidgets 7.7.1 could not be fetched: no package index is in reach")
    return folder


def test_page_works_under_the_widgets_colab_has(widgets7, home, tiny):
    path = os.pathsep.join(filter(None, (str(widgets7), str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("TINY", repr(tiny))],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "PYTHONPATH": path},
        cwd=home,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "seven works" in done.stdout
    assert len(list((home / "results" / "explore").glob("*.json"))) == 2
