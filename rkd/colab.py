"""Run a chapter on Google Colab: building the book puts a first cell into every notebook, which fetches the project and
runs this file; outside Colab it does nothing.

Colab's own packages stay as they are (upgrading torch or ipywidgets would force a restart), so a chapter's imports may
need nothing that Colab lacks.
"""

import os
import sys
from importlib.metadata import version
from pathlib import Path

CELL = """\
import sys

if "google.colab" in sys.modules:  # on Colab: fetch the project; elsewhere there is nothing to do
    clone = "git clone -q --depth 1 {repository} /content/rkd"
    !test -d /content/rkd || {{clone}} -b v{release} 2>/dev/null || {{clone}}
    %pip install -q --no-deps -e /content/rkd itables=={itables}
    %run /content/rkd/rkd/colab.py"""
DRIVE = Path("/content/drive/MyDrive")  # where Colab mounts the reader's Drive
KEPT = ("data", "checkpoints", "results/paper")  # what a mounted Drive keeps when the machine goes away


def first_cell(repository: str) -> dict:
    """Return the cell that makes a notebook run on Colab, in nbformat's form.

    Args:
        repository: the project's address, `repository.url` in `_config.yml`.
    """
    import rkd

    source = CELL.format(repository=repository, release=rkd.__version__, itables=version("itables"))
    metadata = {"tags": ["colab", "remove-cell"]}  # in the notebook, not on the page
    return {"cell_type": "code", "id": "colab", "metadata": metadata, "execution_count": None, "outputs": [],
            "source": source}  # fmt: skip


def prepare(home: Path | None = None, drive: Path = DRIVE) -> None:
    """Make a fetched checkout work in this kernel, and print its device and what is kept; a no-op outside Colab.

    Args:
        home: the checkout; None: the one that contains this file.
        drive: root of the mounted Drive. If it exists, images, checkpoints and records of the paper profile are kept in
            its folder `rkd`.
    """
    if "google.colab" not in sys.modules:
        return
    home = Path(__file__).resolve().parent.parent if home is None else home
    if str(home) not in sys.path:  # a kernel reads pip's link when it starts, and this one already runs
        sys.path.insert(0, str(home))
    os.environ["RKD_HOME"] = str(home)
    os.chdir(home / "book")
    print(_device(), _keep(home, drive), sep="\n")


def _device() -> str:
    import torch

    if not torch.cuda.is_available():
        return "No GPU, enough for profile smoke; for more: Runtime > Change runtime type > GPU, then this cell again."
    about = torch.cuda.get_device_properties(0)
    return f"GPU: {about.name}, {about.total_memory / 2**30:.0f} GiB, torch {torch.__version__}."


def _keep(home: Path, drive: Path) -> str:
    """Link the folders that the checkout does not bring along to the Drive; return a sentence on what is kept."""
    if not drive.is_dir():
        return (
            f"CIFAR will lie in {home / 'data'}. Nothing outlives this machine unless you mount your Drive (folder "
            "symbol on the left) and run this cell again."
        )
    linked = []
    for name in KEPT:
        here, there = home / name, drive / "rkd" / name
        if not here.exists():
            there.mkdir(parents=True, exist_ok=True)
            here.parent.mkdir(parents=True, exist_ok=True)
            here.symlink_to(there, target_is_directory=True)
        if here.is_symlink():
            linked.append(name)
    return f"Kept in {drive / 'rkd'}: {', '.join(linked) or 'nothing'}."


if __name__ == "__main__":
    prepare()
