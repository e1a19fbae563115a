"""Chapters on Colab: the first cell of a built book's notebooks, and what it does, with a stand-in for Colab."""

import os
import re
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest
import torch
import yaml

import rkd
from rkd import colab
from rkd.experiments.notebooks import read_notebook

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
# Packages of the book that Colab lacks and the first cell does not install: nothing a chapter imports may need them.
ABSENT = ("papermill", "jupyter_book", "sphinx", "myst_nb", "jupyterlab")


def test_first_cell_names_this_release_and_repository():
    source = colab.first_cell(REPOSITORY)["source"]
    assert f"{REPOSITORY} /content/rkd" in source and f"-b v{rkd.__version__} " in source
    assert re.search(r'"(itables==\S+)"', (ROOT / "pyproject.toml").read_text())[1] in source
    assert not [path.name for path in NOTEBOOKS if "google.colab" in path.read_text()]  # a build puts it in


@pytest.fixture
def on_colab(tmp_path, monkeypatch):
    """A checkout in a kernel that takes itself for Colab's."""
    home = tmp_path / "rkd"
    (home / "book").mkdir(parents=True)
    (home / "results").mkdir()
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("RKD_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    yield home
    os.environ.pop("RKD_HOME", None)


def test_prepare_moves_into_the_book_and_tells_the_device(on_colab, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "google.colab")
        colab.prepare(tmp_path / "nowhere")
    assert Path.cwd() == tmp_path and capsys.readouterr().out == "", "elsewhere it does nothing"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    colab.prepare(on_colab, drive=tmp_path / "drive")
    assert Path.cwd() == on_colab / "book"
    assert os.environ["RKD_HOME"] == str(on_colab) == sys.path[0]
    out = capsys.readouterr().out
    assert "No GPU" in out and "Change runtime type" in out and "mount your Drive" in out

    about = types.SimpleNamespace(name="Tesla T4", total_memory=15 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: about)
    colab.prepare(on_colab, drive=tmp_path / "drive")
    assert "GPU: Tesla T4, 15 GiB, torch" in capsys.readouterr().out
    assert sys.path.count(str(on_colab)) == 1  # a second run of the cell changes nothing


def test_prepare_keeps_what_is_made_on_a_mounted_drive(on_colab, tmp_path, capsys):
    drive = tmp_path / "drive"
    drive.mkdir()
    (on_colab / "results" / "paper").mkdir()  # comes with the checkout: not for the Drive
    colab.prepare(on_colab, drive=drive)
    colab.prepare(on_colab, drive=drive)
    (on_colab / "data" / "images").write_text("x")
    assert (drive / "rkd" / "data" / "images").read_text() == "x"
    assert not (on_colab / "results" / "paper").is_symlink()
    assert f"Kept in {drive / 'rkd'}: data, checkpoints." in capsys.readouterr().out


def test_what_chapters_import_needs_nothing_colab_lacks():
    lines = {"import rkd.report.experiment"}  # what open_experiment loads
    for path in NOTEBOOKS:
        for cell in read_notebook(path)["cells"]:
            if cell["cell_type"] == "code":
                lines |= set(re.findall(r"^(?:from rkd|import rkd)[^\n(]*$", cell["source"], re.MULTILINE))
    assert len(lines) > 1
    absent = f"""
        import sys

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {ABSENT}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Absent())
    """
    call = [sys.executable, "-c", "\n".join([textwrap.dedent(absent), *sorted(lines)])]
    done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-1500:]


@pytest.mark.slow
def test_first_cell_fetches_the_project_and_prepares_it(tmp_path):
    """The cell itself, with this repository in the place of the one on the web, and without pip."""
    if not (ROOT / ".git").exists():
        pytest.skip("the cell clones with git; this is no repository")
    source = colab.first_cell(ROOT.as_uri())["source"].replace("/content/rkd", str(tmp_path / "rkd"))
    source, pips = re.subn(r"%pip install -q --no-deps -e .* itables.*", "pass", source)
    assert pips == 1
    program = f"""
        import sys, types
        sys.modules["google.colab"] = types.ModuleType("google.colab")
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        for _ in range(2):  # running the cell again does no harm
            shell.run_cell({source!r}).raise_error()
        import os, rkd
        print("HERE", os.getcwd(), os.environ["RKD_HOME"], rkd.__file__)
    """
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path / "ipython")}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, cwd=tmp_path, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-1500:]
    home = tmp_path / "rkd"
    assert f"HERE {home / 'book'} {home} {home / 'rkd' / '__init__.py'}" in done.stdout, done.stdout
    assert done.stdout.count("No GPU") == 2 and "fatal" not in done.stdout + done.stderr
