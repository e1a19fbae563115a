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
import warnings
import ipywidgets
assert ipywidgets.__version__ == "7.7.1", ipywidgets.__version__
from rkd.explore import explore

# An argument this version does not know is only warned of.
warnings.filterwarnings("error", message=".*(unrecognized|unexpected).*")
page = explore(TINY, device="cpu")
page.options["hcl_weights"].value = "[1]"
assert "give one weight per size" in page.problem.value and page.train_button.disabled
page.options["hcl_weights"].value = "[1, 0.5, 0.25, 0.125]"
assert all(box.description_tooltip for box in page.shared.values())
page.train_button.click()
page.watcher.join(200)
assert "Done." in page.status.value, page.status.value
assert len(page.map_epoch.options) == 2 and "<img" in page.maps.value
page.name.value = "seven"
page.save_button.click()
assert "seven" in page.saved.value
"""


@pytest.fixture(scope="module")
def widgets7():
    """Folder of the old packages, fetched once."""
    folder = ROOT / "_build" / "widgets7"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.parent / ".widgets7.lock"):
        if not (folder / "ipywidgets-7.7.1.dist-info").is_dir():
            command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
            if subprocess.run([*command, *PACKAGES], capture_output=True, check=False).returncode:
                pytest.skip("ipywidgets 7.7.1 could not be fetched: no package index is in reach")
    return folder


def test_page_works_under_the_widgets_colab_has(widgets7, home, tiny):
    path = os.pathsep.join(filter(None, (str(widgets7), str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("TINY", repr(tiny))],
        capture_output=True, text=True, timeout=400, env={**os.environ, "PYTHONPATH": path}, cwd=home, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((home / "results" / "explore").glob("*.json"))) == 3
