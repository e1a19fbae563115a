"""Training curves of a table's lines: the mean of each line bold, its runs faint; missing runs are named."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from rkd.experiments.chapters import Line
from rkd.experiments.frames import mean_sd, runs_frame, same_runs
from rkd.records import Record
from rkd.report.interactive.plot import GREY, Choice, Plot, checkbox, slider

# Okabe and Ito's colours without yellow, which is lost on white. Six colours and five dash patterns: a line differs
# from the next 29 in at least one of them, and from the next four in its dash pattern, whatever colours are seen.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#56b4e9", "#e69f00", "#cc79a7")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
CONTEXT = {"teacher": (GREY, "dot"), "student": (GREY, "dash")}
TOLD = 24  # lines in the alternative text, at most
SPANS = {"0": "all", "0.5": "second half", "0.75": "last quarter"}
NAMED = {  # curve of a record -> its name
    "test_accuracy": "test accuracy, %",
    "train_accuracy": "accuracy on training batches, %",
    "holdout_accuracy": "accuracy on the held-out split, %",
    "loss_ce": "loss: cross-entropy",
    "loss_review": "loss: review, unweighted",
    "lr": "learning rate",
}


def curves(
    lines: Sequence[Line],
    records: Mapping[str, Record],
    title: str,
    choose: str = "Pair",
    beside: bool = False,
    step: int = 1,
    panels: str = "group",
) -> Plot:
    """Plot the training curves of a chapter's lines. If the lines form groups, one group is shown at a time.

    Args:
        beside: a second group can be chosen, to compare; colours then differ between groups too.
        step: of curves longer than 80 epochs, only every `step`-th epoch is drawn, the last one included.
        panels: the static picture has one panel per "group" or "metric".
    """
    found = {line.key: [records[run.id] for run in line.runs if run.id in records] for line in lines}
    drawn = [line for line in lines if found[line.key]]
    if not drawn:
        words, hidden = "No run is recorded yet.", {"visible": False}
        empty = go.Figure(layout={"xaxis": hidden, "yaxis": hidden})
        return Plot(empty, f"{title}. {words}", title=title, note=words, height=60)
    there = {k: len(v) for line in drawn for r in found[line.key] for k, v in r.curves.items() if v}
    metrics = {k: name for k, name in NAMED.items() if k in there}
    metrics |= {k: k.replace("loss_", "loss: ").replace("_", " ") for k in sorted(there.keys() - metrics)}
    last = max(len(r.curves["test_accuracy"]) for line in drawn for r in found[line.key])
    axis = {"title": {"text": "epoch"}, "unifiedhovertitle": {"text": "epoch %{x}"}}
    if last <= 12:  # whole numbers on short axes; room around a lone epoch
        axis |= {"dtick": 1} | ({"range": [0.5, 1.5]} if last == 1 else {})
    styled = list(zip(lines, _styles(lines, beside), strict=True))
    traces: list[go.Scatter] = []
    for (line, style), (metric, name) in itertools.product(styled, metrics.items()):
        traces += _traces(line, found[line.key], metric, name, style, step)
    runs = runs_frame(lines, records, "")
    groups = {line.group: line.group for line in drawn}
    controls = [Choice("group", choose, groups)] if len(groups) > 1 else []
    controls += [Choice("group", "beside it", {"-": "nothing", **groups})] if controls and beside else []
    controls += [Choice("metric", "Show", {name: name for name in metrics.values()})]
    controls += [Choice("from", "Epochs", SPANS)] if last >= 8 else []
    if any(len(found[line.key]) > 1 for line in drawn):
        controls.append(checkbox("runs", "single runs", "single"))
    controls += [slider("at", "Values at epoch", 1, last, last)] if last > 1 else []
    figure = go.Figure(traces, {"hovermode": "x unified", "xaxis": axis})
    words, note = _in_words(title, runs), _note(lines, runs)
    return Plot(figure, words, tuple(controls), title, note, panels=panels)


def _traces(
    line: Line, records: Sequence[Record], metric: str, name: str, style: Mapping[str, str], step: int
) -> Iterator[go.Scatter]:
    """Yield one line's mean and its single runs; for a diverged run, also a cross where it ended."""
    finished = [r for r in records if r.status == "finished" and metric in r.curves]
    diverged = [r for r in records if r.status != "finished" and r.curves.get(metric)]
    several = finished if metric.endswith("accuracy") and len(finished) > 1 else []
    facets = {"metric": name, "group": line.group}
    axis = {"title": {"text": name}, "type": "log" if metric == "lr" else "linear"}
    same = {"legendgroup": line.key, "name": line.label}
    thin = {"color": style["color"], "width": 1}
    faint = {**same, "meta": {"facets": facets | {"runs": "single"}, "yaxis": axis}}
    faint |= {"hoverinfo": "skip", "showlegend": False}
    for r in [*several, *diverged]:
        yield go.Scatter(**_points(r.curves[metric], step), mode="lines", opacity=0.35, line=thin, **faint)
    for r in diverged:
        end = {"x": [len(r.curves[metric])], "y": _points(r.curves[metric][-1:], 1)["y"], "mode": "markers"}
        yield go.Scatter(**end, marker={"symbol": "x", "size": 9, "color": style["color"]}, **faint)
    if finished:
        mean = np.mean([r.curves[metric] for r in finished], axis=0)
        drawn = {**_points(mean, step), "mode": "lines+markers" if len(mean) <= 12 else "lines", **same}
        bold = {**style, "width": 2.5, "shape": "hv" if metric == "lr" else "linear"}
        yield go.Scatter(**drawn, line=bold, hovertemplate="%{y}", meta={"facets": facets, "yaxis": axis})


def _points(values: Sequence[float], step: int) -> dict[str, object]:
    """Return coordinates: epochs count from 1; values have four digits, None for what JSON cannot hold."""
    step = step if len(values) > 80 else 1
    first = (len(values) - 1) % step
    y = [float(f"{v:.4g}") if math.isfinite(v) else None for v in values[first::step]]
    return {"x0": first + 1, "dx": step, "y": y}


def _styles(lines: Sequence[Line], apart: bool) -> Iterator[dict[str, str]]:
    """Yield styles by place in the group, so that a role looks the same in all groups, or, if `apart`, in all lines."""
    count: dict[str, int] = {}
    for line in lines:
        i = count.setdefault("" if apart else line.group, 0)
        colour, dash = CONTEXT.get(line.role, (COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]))
        count["" if apart else line.group] += line.role not in CONTEXT
        yield {"color": colour, "dash": dash}


def _note(lines: Sequence[Line], runs: pd.DataFrame) -> str:
    """Say what the lines are, and which runs are not among them."""
    said = ["Bold: mean over the finished runs of a line; thin: single runs."]
    said.append(
        "A click on a name, or Enter, hides its line; a double click, or Shift and Enter, all others."
    )
    for status, words in (("missing", "Missing"), ("diverged", "Diverged, and in no mean")):
        found = runs[runs["status"] == status].groupby("name", sort=False)["seed"].agg(list)
        if len(found):
            each = (f"{name} (seed {', '.join(map(str, seeds))})" for name, seeds in found.items())
            said.append(f"{words}: {'; '.join(each)}.")
    for group in dict.fromkeys(line.group for line in lines):  # injected values may make two lines one
        labels = {line.key: line.label for line in lines if line.group == group}
        same = same_runs([line for line in lines if line.group == group])
        said += [f"“{labels[key]}” has the runs of “{first}”." for key, first in same.items()]
    return " ".join(said)


def _in_words(title: str, runs: pd.DataFrame) -> str:
    groups = runs[runs["status"] != "missing"].groupby("name", sort=False)
    ends = [f"{name} {mean_sd(rows)}" for name, rows in groups]
    ends[TOLD:] = [f"and {len(ends) - TOLD} more"] * (len(ends) > TOLD)
    return f"{title}. Test accuracy against epochs, one line each; at the end, in percent: {'; '.join(ends)}."
