"""An executed notebook as the book shows it."""

from collections.abc import Sequence

from rkd.colab import first_cell


def clean(notebook: dict, footer: str, repository: str = "") -> dict:
    """An executed notebook as the book shows it: parameters folded, streams merged, able to run on Colab.

    Args:
        notebook: nbformat 4 as a dict; not changed.
        footer: Markdown of a last cell; none if empty.
        repository: address of the project, for Colab; none if empty.
    """
    cells = []
    for cell in notebook["cells"]:
        metadata = {
            key: value for key, value in cell["metadata"].items() if key not in ("papermill", "execution")
        }
        tags = list(metadata.get("tags", []))
        if {"parameters", "injected-parameters"} & set(tags):
            tags.append("hide-input")
        if "colab" in tags:  # of a notebook downloaded from a built book
            continue
        if tags:
            metadata["tags"] = list(dict.fromkeys(tags))
        cell = {**cell, "metadata": metadata}
        if cell["cell_type"] == "code":
            cell["outputs"] = merge_streams(cell["outputs"])
        cells.append(cell)
    if repository:
        place = next((i for i, cell in enumerate(cells) if cell["cell_type"] == "code"), 0)
        cells.insert(place, first_cell(repository))
    if footer:
        cells.append({"cell_type": "markdown", "id": "provenance", "metadata": {}, "source": footer})
    metadata = {key: value for key, value in notebook["metadata"].items() if key not in ("papermill", "rkd")}
    return {**notebook, "metadata": metadata, "cells": cells}


def merge_streams(outputs: Sequence[dict]) -> list[dict]:
    """Joins neighbouring outputs of one stream, and of an overwritten line keeps what stood last.

    >>> parts = ("1%", "\\r2%\\n", "done")
    >>> merge_streams([{"output_type": "stream", "name": "stdout", "text": part} for part in parts])
    [{'output_type': 'stream', 'name': 'stdout', 'text': '2%\\ndone'}]
    """
    merged: list[dict] = []
    for output in outputs:
        if output["output_type"] == "stream":
            output = {**output, "text": "".join(output["text"])}
            if merged and merged[-1]["output_type"] == "stream" and merged[-1]["name"] == output["name"]:
                output["text"] = merged.pop()["text"] + output["text"]
        merged.append(output)
    for output in merged:
        if output["output_type"] == "stream":
            lines = output["text"].split("\n")
            output["text"] = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
    return merged
