"""Training curves of a table's lines: the mean of each line bold, its runs faint; what is missing is said."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rkd.experiments.chapters import Line
from rkd.records import Record
from rkd.report.figures import CARD, GRID, INK
from rkd.report.interactive.plot import Choice, Control, Cursor, Entry, Plot, Toggles
from rkd.report.summary import same_runs

# Okabe and Ito's colours without yellow, which is lost on white. Six colours and five dash patterns: a line is told
# from the 29 next ones even where colours are not.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#56b4e9", "#e69f00", "#cc79a7")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
CONTEXT = {"teacher": ("#222222", "dot"), "student": ("#6b7580", "dash")}
POINTS = 240  # of one curve, at most
SINGLE = (
    "test_accuracy",
    "train_accuracy",
)  # shown run by run; where a page holds very many runs, the first alone
PANELS, TOLD = 6, 24  # groups in the static figure, lines in its alternative text, at most
SPANS = (("all", "all", 0.0), ("half", "second half", 0.5), ("quarter", "last quarter", 0.75))
_MATPLOTLIB = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-.", "longdash": (0, (8, 3))}


@dataclass(frozen=True)
class Metric:
    """One per-epoch number of a record: its key there, its name, its axis, decimals of what is drawn."""

    key: str
    label: str
    axis: str
    scale: str = "linear"

    def rounded(self, value: float) -> float | None:
        """Two decimals for percentages, four digits for the rest; None for what JSON cannot carry."""
        if not math.isfinite(value):
            return None
        return round(value, 2) if self.key.endswith("accuracy") else float(f"{value:.4g}")


_NAMED = (
    Metric("test_accuracy", "test accuracy", "test accuracy, %"),
    Metric("train_accuracy", "training accuracy", "accuracy on training batches, %"),
    Metric("holdout_accuracy", "held-out accuracy", "accuracy on the held-out split, %"),
    Metric("loss_ce", "loss: cross-entropy", "cross-entropy"),
    Metric("loss_review", "loss: review", "review loss, unweighted"),
    Metric("lr", "learning rate", "learning rate", "log"),
)


@dataclass(frozen=True)
class Style:
    """Colour and dash of one line."""

    colour: str
    dash: str


def curves(
    lines: Sequence[Line],
    records: Mapping[str, Record],
    title: str,
    points: int = POINTS,
    choose: str = "Pair",
    beside: bool = False,
) -> Plot:
    """The training curves of a chapter.

    Args:
        lines: of the chapter. Where they have groups, one group is shown at a time.
        records: run id -> record, of those that are there.
        title: above the picture.
        points: of one curve, at most; longer ones keep their ends and extremes.
        choose: what a group is called.
        beside: a second group can be chosen, to compare; colours then differ between groups too.
    """
    found = {line.key: [records[run.id] for run in line.runs if run.id in records] for line in lines}
    drawn = [line for line in lines if found[line.key]]
    if not drawn:
        return _nothing(title)
    styles = _styles(lines, beside)
    metrics = _metrics(found)
    figure = go.Figure(
        layout={
            "hovermode": "x unified",
            "xaxis": {"title": {"text": "epoch"}, **_epoch_axis(drawn, found)},
            "yaxis": {"title": {"text": metrics[0].axis}},
        }
    )
    for line in drawn:
        for metric in metrics:
            single = metric.key in (SINGLE[:1] if beside else SINGLE)
            style = styles[line.key]
            figure.add_traces(list(_traces(line, found[line.key], metric, style, points, single)))
    return Plot(
        figure,
        _fallback(drawn, found, styles),
        _in_words(title, drawn, found),
        height=430,
        controls=(*_groups(drawn, choose, beside), *_controls(drawn, found, metrics, styles)),
        title=title,
        note=_note(lines, found),
    )


def decimated(values: Sequence[float], limit: int = POINTS) -> tuple[list[int], list[float]]:
    """At most `limit` of the values with their positions: both ends, and of each stretch its extremes.

    >>> decimated([5, 1, 2, 9, 3, 3, 3, 4], limit=4)
    ([0, 1, 3, 7], [5, 1, 9, 4])
    """
    if len(values) <= limit:
        return list(range(len(values))), list(values)
    numbers = np.asarray(values, dtype=float)
    kept = {0, len(numbers) - 1}
    for stretch in np.array_split(np.arange(1, len(numbers) - 1), max(1, (limit - 2) // 2)):
        part = numbers[stretch]
        if np.isfinite(part).any():
            kept |= {int(stretch[np.nanargmin(part)]), int(stretch[np.nanargmax(part)])}
        elif len(stretch):
            kept.add(int(stretch[0]))  # a gap stays a gap
    positions = sorted(kept)
    return positions, [values[i] for i in positions]


# --- traces ------------------------------------------------------------------------------------------------------


def _traces(
    line: Line, records: Sequence[Record], metric: Metric, style: Style, points: int, single: bool
) -> Iterator[go.Scatter]:
    """One line's mean, its diverged runs and, with `single`, all others."""
    finished = [r for r in records if r.status == "finished" and metric.key in r.curves]
    diverged = [r for r in records if r.status != "finished" and r.curves.get(metric.key)]
    meta = {"metric": metric.key, "line": line.key, "group": line.group}
    for record in [*(finished if single and len(finished) > 1 else []), *diverged]:
        broken = record.status != "finished"
        values = record.curves[metric.key]
        place = _points(values, metric, points)
        cross = {"symbol": "x", "size": [*[0] * (len(place["y"]) - 1), 9], "color": style.colour}
        yield go.Scatter(
            **place,
            mode="lines+markers" if broken else "lines",
            line={"color": style.colour, "width": 1},
            marker=cross if broken else None,
            opacity=0.7 if broken else 0.35,
            hoverinfo="skip",
            name=escape(f"{line.label}, seed {record.config.seed}{', diverged' * broken}"),
            meta={**meta, "runs": "single"},
        )
    if finished:
        mean = _mean([r.curves[metric.key] for r in finished])
        few = len(mean) <= 12
        yield go.Scatter(
            **_points(mean, metric, points),
            mode="lines+markers" if few else "lines",
            line={
                "color": style.colour,
                "width": 2.5,
                "dash": style.dash,
                "shape": "hv" if metric.key == "lr" else "linear",
            },
            name=escape(line.label),
            hovertemplate="%{y}",
            meta={**meta, "readout": True},
        )


def _points(values: Sequence[float], metric: Metric, limit: int) -> dict[str, object]:
    """Coordinates: epochs count from 1, and are listed only where some are left out."""
    positions, kept = decimated(values, limit)
    y = [metric.rounded(v) for v in kept]
    if len(positions) == len(values):
        return {"x0": 1, "dx": 1, "y": y}
    return {"x": [i + 1 for i in positions], "y": y}


def _mean(curves: Sequence[Sequence[float]]) -> list[float]:
    """Mean over runs, epoch by epoch; runs of one line are equally long."""
    return [float(v) for v in np.mean(np.asarray(curves, dtype=float), axis=0)]


def _epoch_axis(lines: Sequence[Line], found: Mapping[str, Sequence[Record]]) -> dict[str, object]:
    """Whole numbers on short axes; room around a lone epoch."""
    last = max(r.result["epochs"] for line in lines for r in found[line.key])
    if last > 12:
        return {}
    return {"dtick": 1, **({"range": [0.5, 1.5]} if last == 1 else {})}


# --- controls ----------------------------------------------------------------------------------------------------


def _groups(lines: Sequence[Line], choose: str, beside: bool) -> Iterator[Control]:
    groups = dict.fromkeys(line.group for line in lines)
    if len(groups) < 2:
        return
    entries = tuple(Entry(group, group) for group in groups)
    yield Choice("group", choose, entries)
    if beside:
        yield Choice("group", "beside it", (Entry("-", "nothing"), *entries))


def _controls(
    lines: Sequence[Line],
    found: Mapping[str, Sequence[Record]],
    metrics: Sequence[Metric],
    styles: Mapping[str, Style],
) -> tuple[Control, ...]:
    epochs = {line.key: max(r.result["epochs"] for r in found[line.key]) for line in lines}
    last = max(epochs.values())
    compared = [epochs[line.key] for line in lines if line.role != "teacher"]
    controls: list[Control] = []
    gated = len({line.group for line in lines}) > 1
    scales = {m.key: {"yaxis.title.text": m.axis, "yaxis.type": m.scale} for m in metrics}
    controls.append(Choice("metric", "Show", tuple(Entry(m.key, m.label, scales[m.key]) for m in metrics)))
    if last >= 8:
        spans = (Entry(key, label, {"meta.from": part} if part else {}) for key, label, part in SPANS)
        controls.append(Choice("span", "Epochs", tuple(spans)))
    if any(len(records) > 1 for records in found.values()):
        controls.append(Toggles("runs", "Single runs", (Entry("single", "single runs"),)))
    if last > 1:
        controls.append(Cursor("Values at epoch", 1, last, start=max(compared, default=last)))
    legend = (
        Entry(
            line.key,
            line.label,
            only={"group": (line.group,)} if gated else {},
            colour=styles[line.key].colour,
            dash=styles[line.key].dash,
        )
        for line in lines
    )
    return (*controls, Toggles("line", "Lines", tuple(legend)))


def _metrics(found: Mapping[str, Sequence[Record]]) -> list[Metric]:
    """Those some record has, in a fixed order; losses this file does not know come last."""
    there = {key for records in found.values() for r in records for key, values in r.curves.items() if values}
    known = [metric for metric in _NAMED if metric.key in there]
    others = sorted(there - {metric.key for metric in _NAMED})
    return known + [Metric(k, k.replace("loss_", "loss: "), k.replace("_", " ")) for k in others]


def _styles(lines: Sequence[Line], apart: bool) -> dict[str, Style]:
    """Colours by place within the group, so that a role looks the same in every group; or `apart` from line to line."""
    styles: dict[str, Style] = {}
    count: dict[str, int] = {}
    for line in lines:
        if line.role in CONTEXT:
            styles[line.key] = Style(*CONTEXT[line.role])
            continue
        group = "" if apart else line.group
        i = count.get(group, 0)
        count[group] = i + 1
        styles[line.key] = Style(COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)])
    return styles


# --- words -------------------------------------------------------------------------------------------------------


def _note(lines: Sequence[Line], found: Mapping[str, Sequence[Record]]) -> str:
    """What the lines are, and which runs are not among them."""
    said = ["Bold: mean over the finished runs of a line; thin: single runs."]
    missing, diverged = [], []
    for line in lines:
        label = f"{line.group}: {line.label}" if line.group else line.label
        there = {record.id for record in found[line.key]}
        absent = [str(run.seed) for run in line.runs if run.id not in there]
        if absent:
            missing.append(f"{label} (seed {', '.join(absent)})")
        diverged += [
            f"{label}, seed {r.config.seed}, after epoch {len(r.curves.get('test_accuracy', []))}"
            for r in found[line.key]
            if r.status != "finished"
        ]
    if missing:
        said.append(f"Missing: {'; '.join(missing)}.")
    if diverged:
        said.append(f"Diverged, and in no mean: {'; '.join(diverged)}.")
    for group in dict.fromkeys(line.group for line in lines):  # after injecting, two lines may coincide
        members = [line for line in lines if line.group == group]
        labels = {line.key: line.label for line in members}
        said += [f"“{labels[key]}” has the runs of “{first}”." for key, first in same_runs(members).items()]
    return " ".join(said)


def _in_words(title: str, lines: Sequence[Line], found: Mapping[str, Sequence[Record]]) -> str:
    ends = []
    for line in lines:
        values = [r.accuracy("last") for r in found[line.key] if r.status == "finished"]
        label = f"{line.group}: {line.label}" if line.group else line.label
        ends.append(f"{label} {np.mean(values):.2f} %" if values else f"{label} diverged")
    more = f"; and {len(ends) - TOLD} more" if len(ends) > TOLD else ""
    return (
        f"{title}. Test accuracy against epochs, one line each; at the end: {'; '.join(ends[:TOLD])}{more}."
    )


def _nothing(title: str) -> Plot:
    words = "No run is recorded yet"
    layout = {
        "annotations": [
            {"text": words, "showarrow": False, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}
        ]
    }
    figure = Figure(figsize=(9.2, 1.2), facecolor=CARD)
    figure.text(0.5, 0.5, words, ha="center", va="center", color=INK)
    layout |= {"xaxis": {"visible": False}, "yaxis": {"visible": False}}
    return Plot(go.Figure(layout=layout), figure, f"{title}. {words}.", height=120, title=title)


# --- fallback ----------------------------------------------------------------------------------------------------


def _fallback(
    lines: Sequence[Line], found: Mapping[str, Sequence[Record]], styles: Mapping[str, Style]
) -> Figure:
    """Static: test accuracy, one panel per group (the first ones); beside a lone panel, cross-entropy."""
    groups = list(dict.fromkeys(line.group for line in lines))[:PANELS]
    panels = [(group, _NAMED[0]) for group in groups]
    if len(groups) == 1:
        panels.append((groups[0], _NAMED[3]))
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(9.2, 0.6 + 3.0 * rows), facecolor=CARD, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, (group, metric) in zip(axes, panels, strict=False):
        for line in (line for line in lines if line.group == group):
            _static_line(ax, line, found[line.key], metric, styles[line.key])
        ax.set_xlabel("epoch")
        ax.set_ylabel(metric.axis)
        ax.set_title(group, fontsize=10)
        ax.grid(color=GRID)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    handles: dict[tuple, object] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    columns = 3 if any(len(label) > 24 for label in handles) else 4
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=columns, frameon=False, fontsize=8
    )
    return figure


def _static_line(ax: Axes, line: Line, records: Sequence[Record], metric: Metric, style: Style) -> None:
    finished = [r.curves[metric.key] for r in records if r.status == "finished" and metric.key in r.curves]
    for record in records:
        values = record.curves.get(metric.key, [])
        if len(finished) > 1 or record.status != "finished":
            ax.plot(range(1, len(values) + 1), values, color=style.colour, alpha=0.3, linewidth=0.8)
        if record.status != "finished" and values:
            ax.plot(len(values), values[-1], "x", color=style.colour)
    if finished:
        mean = _mean(finished)
        ax.plot(
            range(1, len(mean) + 1),
            mean,
            color=style.colour,
            linestyle=_MATPLOTLIB[style.dash],
            linewidth=1.8,
            marker="o" if len(mean) <= 12 else None,
            markersize=3.5,
            label=line.label,
        )
