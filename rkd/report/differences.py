"""What given parameters change: this execution against the profile's own parameters, line by line."""

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

from rkd.experiments.chapters import Line
from rkd.report.summary import Measured
from rkd.report.tables import badge, differ, numbers, table_of

LEVEL = 0.95


def difference(ours: Measured, base: Measured) -> tuple[float, float, float] | None:
    """Mean difference at the last epoch in percentage points, with both ends of its interval after Welch (NaN below
    two runs on a side); None when a side has no run."""
    from rkd.judge.contrast import contrast

    if not ours.last or not base.last:
        return None
    gap = contrast([np.array(ours.last), np.array(base.last)], [1.0, -1.0])
    low, high = (float(end) for end in gap.interval(LEVEL))
    if not (math.isfinite(low) and math.isfinite(high)):
        low = high = math.nan
    return float(gap.value), low, high


def difference_table(
    lines: Sequence[Line],
    measured: Mapping[str, Measured],
    base_lines: Sequence[Line],
    base: Mapping[str, Measured],
    here: str,
) -> str:
    """One row per line of this execution.

    Args:
        lines, measured: of this execution.
        base_lines, base: of the profile's own parameters.
        here: heading of this execution's column.
    """
    counterpart = {line.key: line for line in base_lines}
    rows = []
    for line in lines:
        other = counterpart.get(line.key)
        m = measured[line.key]
        if other is None:
            cells = [badge("no such line", "none"), numbers(m, "last"), ""]
        else:
            same = [run.id for run in other.runs] == [run.id for run in line.runs]
            b = base[line.key]
            named = differ([b, m])
            cells = [
                numbers(b, "last", named),
                '<span class="rkd-note">the same runs</span>' if same else numbers(m, "last", named),
                "" if same else _gap(difference(m, b)),
            ]
        label = f"{line.group}: {line.label}" if line.group else line.label
        rows.append(
            f'<tr><th scope="row">{html.escape(label)}</th>{"".join(f"<td>{c}</td>" for c in cells)}</tr>'
        )
    heads = ["", "profile's own parameters", here, "difference, pp (95 %)"]
    return table_of(heads, rows, "rkd-results rkd-differences")


def _gap(found: tuple[float, float, float] | None) -> str:
    if found is None:
        return badge("missing", "missing")
    gap, low, high = found
    if math.isnan(low):
        return f'<span class="rkd-number">{gap:+.2f}</span> <span class="rkd-n">one run a side: no interval</span>'
    return f'<span class="rkd-number">{gap:+.2f}</span> <span class="rkd-n">{low:+.2f} to {high:+.2f}</span>'
