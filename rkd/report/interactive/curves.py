"""Training curves of a table's lines: the mean of each line bold, its runs faint; what is missing is said."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from rkd.experiments.chapters import Line
from rkd.experiments.frames import same_runs
from rkd.records import Record
from rkd.report.interactive.plot import GREY, Choice, Control, Plot, Slider, Tick

# Okabe and Ito's colours without yellow, which is lost on white. Six colours and five dash patterns: a line is told
# from the 29 next ones even where colours are not.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#56b4e9", "#e69f00", "#cc79a7")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
CONTEXT = {"teacher": (GREY, "dot"), "student": (GREY, "dash")}
TOLD = 24  # lines in the alternative text, at most
SPANS = {"0": "all", "0.5": "second half", "0.75": "last quarter"}


@dataclass(frozen=True)
class Metric:
    """One per-epoch number of a record: its key there, its name, what it makes of the y axis."""

    key: str
    label: str
    axis: str
    scale: str = "linear"
    runs: bool = False  # shown run by run too

    def rounded(self, value: float) -> float | None:
        """Two decimals for percentages, four digits for the rest; None for what JSON cannot carry."""
        if not math.isfinite(value):
            return None
        return round(value, 2) if self.key.endswith("accuracy") else float(f"{value:.4g}")


_NAMED = (
    Metric("test_accuracy", "test accuracy", "test accuracy, %", runs=True),
    Metric("train_accuracy", "training accuracy", "accuracy on training batches, %", runs=True),
    Metric("holdout_accuracy", "held-out accuracy", "accuracy on the held-out split, %"),
    Metric("loss_ce", "loss: cross-entropy", "cross-entropy"),
    Metric("loss_review", "loss: review", "review loss, unweighted"),
    Metric("lr", "learning rate", "learning rate", "log"),
)

Found = Mapping[str, Sequence[Record]]  # key of a line -> its records


def curves(
    lines: Sequence[Line],
    records: Mapping[str, Record],
    title: str,
    choose: str = "Pair",
    beside: bool = False,
    step: int = 1,
) -> Plot:
    """The training curves of a chapter.

    Args:
        lines: of the chapter. Where they have groups, one group is shown at a time.
        records: run id -> record, of those that are there.
        title: above the picture.
        choose: what a group is called.
        beside: a second group can be chosen, to compare; colours then differ between groups too.
        step: of longer curves than 80 epochs, only every so many epochs are drawn, and the last.
    """
    found = {line.key: [records[run.id] for run in line.runs if run.id in records] for line in lines}
    drawn = [line for line in lines if found[line.key]]
    if not drawn:
        return _nothing(title)
    metrics = _metrics(found)
    last = max(r.result["epochs"] for line in drawn for r in found[line.key])
    axis = {"title": {"text": "epoch"}, "unifiedhovertitle": {"text": "epoch %{x}"}}
    if last <= 12:  # whole numbers on short axes; room around a lone epoch
        axis |= {"dtick": 1} | ({"range": [0.5, 1.5]} if last == 1 else {})
    layout = {"hovermode": "x unified", "xaxis": axis, "yaxis": {"title": {"text": metrics[0].axis}}}
    traces = (
        trace
        for line, style in zip(lines, _styles(lines, beside), strict=True)
        for metric in metrics
        for trace in _traces(line, found[line.key], metric, style, step)
    )
    return Plot(
        go.Figure(list(traces), layout),
        _in_words(title, drawn, found),
        controls=tuple(_controls(drawn, found, metrics, last, choose, beside)),
        title=title,
        note=_note(lines, found),
        panels="group",
    )


def _traces(
    line: Line, records: Sequence[Record], metric: Metric, style: Mapping[str, str], step: int
) -> Iterator[go.Scatter]:
    """One line's mean and its single runs; of a diverged run, a cross where it ended."""
    finished = [r for r in records if r.status == "finished" and metric.key in r.curves]
    diverged = [r for r in records if r.status != "finished" and r.curves.get(metric.key)]
    facets = {"metric": metric.key, "group": line.group}
    axis = {"title": {"text": metric.axis}, "type": metric.scale}
    same = {"legendgroup": line.key, "name": line.label, "line": {**style, "width": 1}}
    one = {
        "hoverinfo": "skip",
        "showlegend": False,
        "meta": {"facets": facets | {"runs": "single"}, "yaxis": axis},
    }
    for record in [*(finished if metric.runs and len(finished) > 1 else []), *diverged]:
        thin = {"color": style["color"], "width": 1}
        place = _points(record.curves[metric.key], metric, step)
        yield go.Scatter(**place, mode="lines", opacity=0.35, **{**same, **one, "line": thin})
    for record in diverged:
        values = record.curves[metric.key]
        end = {"x": [len(values)], "y": [metric.rounded(values[-1])], "mode": "markers"}
        yield go.Scatter(**end, marker={"symbol": "x", "size": 9, "color": style["color"]}, **{**same, **one})
    if finished:
        mean = np.mean([r.curves[metric.key] for r in finished], axis=0)
        bold = {**style, "width": 2.5, "shape": "hv" if metric.key == "lr" else "linear"}
        yield go.Scatter(
            **_points(mean.tolist(), metric, step),
            mode="lines+markers" if len(mean) <= 12 else "lines",
            hovertemplate="%{y}",
            meta={"facets": facets, "yaxis": axis},
            **{**same, "line": bold},
        )


def _points(values: Sequence[float], metric: Metric, step: int) -> dict[str, object]:
    """Coordinates: epochs count from 1, and are listed only where some are left out."""
    if step == 1 or len(values) <= 80:
        return {"x0": 1, "dx": 1, "y": [metric.rounded(v) for v in values]}
    kept = sorted({*range(0, len(values), step), len(values) - 1})
    return {"x": [i + 1 for i in kept], "y": [metric.rounded(values[i]) for i in kept]}


def _controls(
    lines: Sequence[Line], found: Found, metrics: Sequence[Metric], last: int, choose: str, beside: bool
) -> Iterator[Control]:
    groups = {line.group: line.group for line in lines}
    if len(groups) > 1:
        yield Choice("group", choose, groups)
        if beside:
            yield Choice("group", "beside it", {"-": "nothing", **groups})
    yield Choice("metric", "Show", {m.key: m.label for m in metrics})
    if last >= 8:
        yield Choice("from", "Epochs", SPANS)
    if any(len(records) > 1 for records in found.values()):
        yield Tick("runs", "single runs", "single")
    if last > 1:
        yield Slider("at", "Values at epoch", 1, last, last)


def _metrics(found: Found) -> list[Metric]:
    """Those some record has, in a fixed order; losses this file does not know come last."""
    there = {key for records in found.values() for r in records for key, values in r.curves.items() if values}
    others = sorted(there - {metric.key for metric in _NAMED})
    more = [Metric(k, k.replace("loss_", "loss: "), k.replace("_", " ")) for k in others]
    return [metric for metric in _NAMED if metric.key in there] + more


def _styles(lines: Sequence[Line], apart: bool) -> Iterator[dict[str, str]]:
    """Colours by place within the group, so that a role looks the same in every group; or `apart` from line to line."""
    count: dict[str, int] = {}
    for line in lines:
        group = "" if apart else line.group
        i = count.get(group, 0)
        colour, dash = CONTEXT.get(line.role, (COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]))
        count[group] = i + (line.role not in CONTEXT)
        yield {"color": colour, "dash": dash}


def _called(line: Line) -> str:
    return f"{line.group}: {line.label}" if line.group else line.label


def _note(lines: Sequence[Line], found: Found) -> str:
    """What the lines are, and which runs are not among them."""
    said = [
        "Bold: mean over the finished runs of a line; thin: single runs. A click on a name, or Enter, hides its line; "
        "a double click, or Shift and Enter, all others."
    ]
    missing, diverged = [], []
    for line in lines:
        there = {record.id for record in found[line.key]}
        absent = [str(run.seed) for run in line.runs if run.id not in there]
        missing += [f"{_called(line)} (seed {', '.join(absent)})"] if absent else []
        diverged += [
            f"{_called(line)}, seed {r.config.seed}, after epoch {len(r.curves.get('test_accuracy', []))}"
            for r in found[line.key]
            if r.status != "finished"
        ]
    said += [f"Missing: {'; '.join(missing)}."] if missing else []
    said += [f"Diverged, and in no mean: {'; '.join(diverged)}."] if diverged else []
    for group in dict.fromkeys(line.group for line in lines):  # after injecting, two lines may coincide
        members = {line.key: line for line in lines if line.group == group}
        same = same_runs(list(members.values()))
        said += [f"“{members[key].label}” has the runs of “{first}”." for key, first in same.items()]
    return " ".join(said)


def _in_words(title: str, lines: Sequence[Line], found: Found) -> str:
    ends = []
    for line in lines:
        values = [r.accuracy("last") for r in found[line.key] if r.status == "finished"]
        ends.append(f"{_called(line)} {np.mean(values):.2f} %" if values else f"{_called(line)} diverged")
    more = f"; and {len(ends) - TOLD} more" if len(ends) > TOLD else ""
    return (
        f"{title}. Test accuracy against epochs, one line each; at the end: {'; '.join(ends[:TOLD])}{more}."
    )


def _nothing(title: str) -> Plot:
    words = "No run is recorded yet."
    layout = {"xaxis": {"visible": False}, "yaxis": {"visible": False}}
    return Plot(go.Figure(layout=layout), f"{title}. {words}", title=title, note=words, height=60)
