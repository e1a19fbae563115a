"""Cells of the book's notebooks, executed by themselves."""

import subprocess
import sys

import nbformat

from rkd import paths


def cells(notebook):
    """The cells of a notebook of the book."""
    return nbformat.read(paths.home() / "book" / f"{notebook}.ipynb", as_version=4).cells


def source(notebook, word):
    """The first code cell that holds `word`."""
    return next(c.source for c in cells(notebook) if c.cell_type == "code" and word in c.source)


def code(notebook):
    """Its cells of code after the one of parameters."""
    return [c.source for c in cells(notebook) if c.cell_type == "code"][1:]


def execute(notebook, *words, **namespace):
    """Executes the first cells that hold these words, or all after the parameters, in order, on given names; returns
    the names after it."""
    namespace["__name__"] = "cells"
    for made in [source(notebook, word) for word in words] or code(notebook):
        exec(compile(made, notebook, "exec"), namespace)
    return namespace


def papermill(notebook, out, *given, **how):
    """A notebook of the book, or one by its path, executed as a user would."""
    path = paths.home() / "book" / f"{notebook}.ipynb"
    call = [sys.executable, "-m", "papermill", path, out, "--no-progress-bar", *given]
    return subprocess.run(list(map(str, call)), capture_output=True, text=True, timeout=300, **how)


def outputs(path):
    """HTML and text of all outputs of an executed notebook."""
    cells = nbformat.read(path, as_version=4).cells
    shown = [(one.get("data", {}), one) for cell in cells for one in cell.get("outputs", [])]
    return "\n".join(d.get("text/html") or d.get("text/markdown") or one.get("text", "") for d, one in shown)
