"""What short runs show: gaps between the rows of a table, over the seeds that they share, beside published gaps."""

from collections.abc import Sequence
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure

from rkd.judge.contrast import Contrast, paired
from rkd.judge.decide import holm_p
from rkd.report.interactive.markup import join, tag
from rkd.report.tables import COLOURS


def by_seed(runs: pd.DataFrame) -> pd.DataFrame:
    """Return accuracies by seed (index) and row (columns) from one grade of `Experiment.evidence`, in the arithmetic
    that most runs have, which names the columns' axis: runs in other arithmetics do not compare with it one by one."""
    own = runs["arithmetic"].str.split().str[0]  # whatever the teacher's is
    arithmetic = own.value_counts().idxmax() if len(own) else ""
    found = runs[own == arithmetic].dropna(subset="accuracy").drop_duplicates(["name", "seed"])
    table = found.pivot(index="seed", columns="name", values="accuracy")[found["name"].unique()]
    return table.rename_axis(columns=arithmetic)


def gaps(runs: pd.DataFrame, key: str, published: pd.Series, level: float = 0.9) -> pd.DataFrame:
    """Return the mean gap of every distilled row to a reference row, each with its own interval.

    Runs, as in `by_seed`, are paired by seed, and their spread is that of all these rows (see
    `rkd.judge.contrast.paired`). `key` is that of the reference row; `published` are accuracies by name of a row.

    Returns:
        Index, named after the reference row: the rows that share a seed with it, in their order. Columns: gap, low,
        high (percentage points; the ends are missing if the spread is unknown), seeds, published (the published gap).
        Empty if the reference row has no run.
    """
    reference = next(iter(runs.loc[runs["key"] == key, "name"]), key)
    wanted = runs[(runs["role"] == "distilled") | (runs["key"] == key)]
    table, found = by_seed(wanted), {}
    for name in table.columns.drop(reference, errors="ignore"):
        if gap := _gap(table, name, reference):
            said = published.get(name, np.nan) - published.get(reference, np.nan)
            found[name] = float(gap.value), *map(float, gap.interval(level)), int(gap.n[0]), said
    columns = ["gap", "low", "high", "seeds", "published"]
    made = pd.DataFrame.from_dict(found, orient="index", columns=columns).rename_axis(f"minus {reference}")
    return made.replace([-np.inf, np.inf], np.nan)


def orders(runs: pd.DataFrame, published: pd.Series) -> pd.DataFrame:
    """Return which of every two distilled rows is better, where their published values differ; see `gaps`.

    Returns:
        A row per pair: worse, better (as published), published, gap (percentage points), p (of no gap, after Holm's
        correction for the number of pairs; missing if the spread is unknown).
    """
    table, rows = by_seed(runs[runs["role"] == "distilled"]), []
    for names in combinations(table.columns.intersection(published.dropna().index), 2):
        worse, better = sorted(names, key=published.get)
        gap = _gap(table, better, worse)
        if gap and published[worse] < published[better]:
            p = 2 * float(gap.p_beyond(0.0)) if np.isfinite(gap.standard_error) else np.nan
            rows.append((worse, better, published[better] - published[worse], float(gap.value), p))
    made = pd.DataFrame(rows, columns=["worse", "better", "published", "gap", "p"])
    return made.assign(p=holm_p(made["p"]) if made["p"].notna().all() else np.nan)


def _gap(table: pd.DataFrame, one: str, other: str) -> Contrast | None:
    """Return the gap between two rows over the seeds that both have; None if there are none."""
    common = table.reindex(columns=[one, other]).dropna().to_numpy(float)
    return paired(list(common.T), [1, -1], table.T.to_numpy(float)) if len(common) else None


def draw(found: Sequence[pd.DataFrame]) -> Figure:
    """Draw a panel for each of these tables of `gaps`, none of them empty: gaps with intervals, and published gaps."""
    longest_first = sorted(found, key=len, reverse=True)
    names = list(dict.fromkeys(name for table in longest_first for name in table.index))
    size = 9.2, 1.5 + 0.36 * len(names)
    share = {"sharey": True, "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(1, max(len(found), 1), figsize=size, **share)
    if not found:
        axes[0, 0].set_axis_off()
        axes[0, 0].text(0.5, 0.5, "no short run is on record", ha="center", va="center")
        return figure
    for ax, table in zip(axes[0], found, strict=True):
        places = [names.index(name) for name in table.index]
        ends = [table["gap"] - table["low"], table["high"] - table["gap"]]
        ax.axvline(0, color="#888888", linewidth=1)
        of_runs = {"fmt": "o", "color": COLOURS["C"], "label": "short runs, 90 % interval"}
        ax.errorbar(table["gap"], places, xerr=ends, **of_runs)
        ax.plot(table["published"], places, "D", color=COLOURS["published"], label="published")
        ax.set(
            title=table.index.name,
            xlabel="gap in accuracy, points",
            yticks=range(len(names)),
            yticklabels=names,
        )
    axes[0, 0].invert_yaxis()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def describe_orders(runs: pd.DataFrame, published: pd.Series) -> HTML:
    """Return a summary of `orders`, whose arguments it takes, and of the runs on record."""
    said, pairs = [], orders(runs, published)
    if pairs["p"].notna().any():
        shown, left = pairs[pairs["p"] < 0.05], pairs[pairs["p"] >= 0.05]
        ways = f"{(shown['gap'] > 0).sum()} in the published order, {(shown['gap'] < 0).sum()} in the opposite one"
        said.append(
            f"Of {len(pairs)} pairs of rows, these runs tell {len(shown) or 'none'} apart (p < 0.05 after Holm's "
            f"correction over all pairs){f': {ways}' * bool(len(shown))}."
        )
        if len(left):
            least, most = left["published"].min(), left["published"].max()
            said.append(
                f"The published gaps of the {'others' if len(shown) else 'pairs'} reach from {least:.2f} to {most:.2f} "
                f"points; here the largest is {left['gap'].abs().max():.2f}."
            )
    machines = runs.groupby(["device", "threads"])["train_seconds"].agg(["count", "sum"]).itertuples()
    on = (f"{m.count} on {m.Index[0]}, threads: {m.Index[1]}, {m.sum / 3600:.1f} hours" for m in machines)
    compared = f"; compared in {by_seed(runs).columns.name}" * bool(len(runs))
    record = f"Short runs on record: {'; '.join(on) or 'none'}{compared}."
    return HTML(join(tag("p", " ".join(said)) if said else "", tag("p", record)))
