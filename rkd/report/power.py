"""What the page on reading verdicts calls: judged examples, how often the rules err, how often they decide."""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML
from matplotlib.figure import Figure
from scipy import stats

from rkd.errors import ConfigError
from rkd.experiments import settings as parameters
from rkd.judge import checks, simulate
from rkd.judge.rules import VERDICTS, RuleResult, value
from rkd.report.diagrams import Drawing, show
from rkd.report.figures import CARD, GRID, INK
from rkd.report.tables import table_of
from rkd.report.verdicts import verdict_badge

OWN = ("margin", "alpha", "sd", "repeats")
MIN_SEEDS = 5  # as declared in params/claims.csv
PUBLISHED = 71.79  # of the examples; any number would do
# Okabe-Ito, and a grey for what is left open. Neighbours in a stack differ in lightness as well.
COLOURS = {
    "reproduced": "#009E73",
    "reproduced, smaller effect": "#56B4E9",
    "exceeded": "#0072B2",
    "inconclusive": "#DCDFE3",
    "not reproduced": "#D55E00",
}


@dataclass(frozen=True)
class Panel:
    """How the verdicts of one rule are drawn: over which true differences, and the lines that mark its limits."""

    title: str
    axis: str
    span: Callable[[simulate.Setting], tuple[float, float]]
    limits: Callable[[simulate.Setting], Mapping[str, float]]
    points: int


PANELS = {
    "value": Panel(
        "Is it the published value?",
        "true mean minus published value, pp",
        lambda s: (-3 * s.margin, 3 * s.margin),
        lambda s: {"-margin": -s.margin, "margin": s.margin},
        61,
    ),
    "order": Panel(
        "Is A better than B?",
        "true mean of A minus that of B, pp",
        lambda s: (-2 * s.sd, 5 * s.sd),
        lambda s: {"equal": 0.0, f"P = {s.threshold:g}": s.at_threshold},
        29,
    ),
    "effect": Panel(
        "Is the gain the published one?",
        "true gain of A over B, pp",
        lambda s: (-s.margin, s.published_gain + 3 * s.margin),
        lambda s: {
            "none": 0.0,
            "gain - margin": s.published_gain - s.margin,
            "gain + margin": s.published_gain + s.margin,
        },
        61,
    ),
}


def open_power(namespace: Mapping[str, Any]) -> "PowerPage":
    """Open the page under the parameters found in a notebook's namespace.

    Args:
        namespace: `globals()` of the notebook: margin (pp), alpha, sd (pp, of one run), repeats (data sets per rate).

    Raises:
        ConfigError: an unknown, misspelt or impossible parameter.
    """
    parameters.given_in(namespace, OWN)
    parameters.load_profile(
        namespace.get("profile", "smoke")
    )  # nothing here depends on it, but it must exist
    missing = [name for name in OWN if name not in namespace]
    if missing:
        raise ConfigError(f"parameter {missing[0]!r} is not set")
    margin, alpha, sd, repeats = (namespace[name] for name in OWN)
    checks.count("repeats", repeats)
    return PowerPage(simulate.Setting(margin=margin, alpha=alpha, sd=sd), repeats)


class PowerPage:
    """The executed page.

    Args:
        setting: of the simulations.
        repeats: simulated data sets per rate, and per point of a picture.
    """

    def __init__(self, setting: simulate.Setting, repeats: int) -> None:
        self.setting, self.repeats = setting, repeats
        self._rates: pd.DataFrame | None = None

    def examples(self) -> list[tuple[str, RuleResult]]:
        """Made-up runs, judged: (what they are, the judgement)."""
        s = self.setting
        made = (
            ("five runs, near", 0.1, 5),
            ("five runs, far below", -2.0, 5),
            ("five runs, far above", 2.0, 5),
            ("five runs, towards the margin", -0.65, 5),
            ("ten runs, as far", -0.65, 10),
            ("three runs, near", 0.1, 3),
        )
        return [
            (
                words,
                value(
                    PUBLISHED + where * s.margin + s.sd * _pattern(n),
                    PUBLISHED,
                    published_n=3,
                    margin=s.margin,
                    alpha=s.alpha,
                    min_seeds=MIN_SEEDS,
                ),
            )
            for words, where, n in made
        ]

    def intervals(self) -> Drawing:
        """The examples' intervals against the margin."""
        return intervals(self.examples(), self.setting.margin)

    def reasons(self) -> HTML:
        """The examples' verdicts with the sentence each comes with."""
        rows = [
            f'<tr><th scope="row">{html.escape(words)}<div>{verdict_badge(judged.verdict)}</div></th>'
            f'<td class="text">{html.escape(judged.sentence)}</td></tr>'
            for words, judged in self.examples()
        ]
        return HTML(table_of(["made-up runs", "why"], rows, "rkd-reasons"))

    def widths(self) -> HTML:
        """How well a mean is known, and what that leaves of the margin."""
        frame = widths(self.setting)
        rows = [
            f'<tr><th scope="row">{cells[0]}</th>{"".join(f"<td>{html.escape(cell)}</td>" for cell in cells[1:])}</tr>'
            for cells in frame.itertuples(index=False)
        ]
        return HTML(table_of(list(frame.columns), rows, "rkd-results"))

    def figure(self, rule: str) -> Drawing:
        """Probability of each verdict against the truth, for 3, 5 and 10 runs.

        Args:
            rule: "value", "order" or "effect".
        """
        if rule not in PANELS:
            raise ConfigError(f"unknown rule {rule!r}; allowed: {', '.join(PANELS)}")
        panel, s = PANELS[rule], self.setting
        low, high = panel.span(s)
        frame = simulate.characteristics(rule, np.linspace(low, high, panel.points), s, repeats=self.repeats)
        return characteristics(frame, panel, s)

    def errors(self) -> HTML:
        """Simulated rates of wrong verdicts, beside the rate a rule states."""
        rates = self._simulated()
        stated = f"truth; stated: at most {100 * self.setting.alpha:g} %"
        known = (
            f'<p class="rkd-note">From {self.repeats:,} data sets a rate of {100 * self.setting.alpha:g} % is known to '
            f"± {100 * rates['error'].iloc[0]:.1f} points (one standard error); "
            "a rate four of them too high would be marked as exceeded.</p>"
        )
        return HTML(_rates(simulate.side_by_side(rates[rates["stated"].notna()]), stated) + known)

    def powers(self) -> HTML:
        """Simulated rates of verdicts that are right, and of what goes wrong without Holm's correction."""
        rates = self._simulated()
        return HTML(_rates(simulate.side_by_side(rates[rates["stated"].isna()]), "truth"))

    def _simulated(self) -> pd.DataFrame:
        if self._rates is None:
            self._rates = simulate.error_rates(self.setting, repeats=self.repeats)
        return self._rates


def widths(s: simulate.Setting, runs: Sequence[int] = (3, 5, 10, 20)) -> pd.DataFrame:
    """Half-width of a mean's interval by number of runs, and how near it must be to lie in the margin as a whole."""
    rows = []
    for n in runs:
        half = float(stats.t.ppf(1 - s.alpha, n - 1)) * s.sd / n**0.5
        near = f"{s.margin - half:.2f} pp" if half < s.margin else "never"
        rows.append(
            {"runs": n, "half-width of the interval": f"{half:.2f} pp", "means must agree within": near}
        )
    return pd.DataFrame(rows)


def intervals(examples: Sequence[tuple[str, RuleResult]], margin: float) -> Drawing:
    """One row per example: its interval, the margin as a band, the verdict in words and colour."""
    sns.set_theme(style="ticks", rc={"font.size": 12, "axes.edgecolor": INK})
    figure = Figure(figsize=(6.4, 0.62 * len(examples) + 1.5), facecolor=CARD, layout="constrained")
    ax = figure.subplots()
    ax.axvspan(-margin, margin, color=COLOURS["reproduced"], alpha=0.12, linewidth=0)
    ax.axvline(0, color=GRID, linewidth=1.5)
    for y, (words, judged) in enumerate(examples):
        colour = COLOURS[judged.verdict] if judged.verdict != "inconclusive" else "#6B7580"
        ax.plot(judged.interval, (y, y), color=colour, linewidth=3, solid_capstyle="butt")
        ax.plot(judged.estimate, y, "o", color=colour, markersize=8)
        label = f"{words}: {judged.verdict}"
        ax.text(
            0.5, y - 0.22, label, transform=ax.get_yaxis_transform(), ha="center", va="bottom", fontsize=12
        )
    widest = max(abs(end) for _, judged in examples for end in judged.interval)
    ax.set_xlim(-1.1 * widest, 1.1 * widest)
    ax.set_ylim(len(examples) - 0.5, -0.9)
    ax.set_yticks([])
    ax.set_xlabel(f"mean minus published value, pp (band: the margin, ±{margin:g})")
    sns.despine(ax=ax, left=True)
    said = "; ".join(f"{words}: {judged.verdict}" for words, judged in examples)
    return show(figure, f"Intervals of made-up runs against a margin of ±{margin:g} pp. {said}.", width=600)


def characteristics(frame: pd.DataFrame, panel: Panel, s: simulate.Setting) -> Drawing:
    """Probabilities of the verdicts, stacked, over the true difference: one panel per number of runs.

    Args:
        frame: from `simulate.characteristics`.
    """
    sns.set_theme(style="ticks", rc={"font.size": 12, "axes.edgecolor": INK, "axes.labelsize": 12})
    sizes = sorted(frame["n"].unique())
    figure = Figure(figsize=(6.4, 1.75 * len(sizes) + 1.6), facecolor=CARD, layout="constrained")
    axes = np.atleast_1d(figure.subplots(len(sizes), 1, sharex=True))
    used = [verdict for verdict in COLOURS if frame[verdict].max() > 0]
    for ax, n in zip(axes, sizes, strict=True):
        rows = frame[frame["n"] == n]
        areas = ax.stackplot(
            rows["difference"], *(100 * rows[verdict] for verdict in used), labels=used,
            colors=[COLOURS[verdict] for verdict in used], edgecolor="white", linewidth=1.2,
        )  # fmt: skip
        for x in panel.limits(s).values():
            ax.axvline(x, color=INK, linestyle="--", linewidth=1.2)
        ax.set(xlim=(rows["difference"].min(), rows["difference"].max()), ylim=(0, 100), yticks=(0, 50, 100))
        ax.set_ylabel(f"{n} runs, %")
        ax.grid(axis="y", color=GRID)
    top = axes[0].secondary_xaxis("top")
    top.set_xticks(list(panel.limits(s).values()), list(panel.limits(s)))
    top.tick_params(length=0, labelsize=11)
    for label in top.get_xticklabels():
        label.set_horizontalalignment("right")
    label.set_horizontalalignment("left")  # the last; two that are near keep apart
    axes[-1].set_xlabel(panel.axis)
    figure.suptitle(panel.title, fontsize=13)
    figure.legend(handles=areas, loc="outside lower center", ncols=2, frameon=False, fontsize=11)
    return show(figure, _said(frame, panel, s), width=600)


def _said(frame: pd.DataFrame, panel: Panel, s: simulate.Setting) -> str:
    """The picture in words: the likeliest verdict in the middle and at the limits."""
    parts = []
    for n, rows in frame.groupby("n"):
        at = {"at the left edge": rows.iloc[0], "at the right edge": rows.iloc[-1]}
        for name, x in panel.limits(s).items():
            at[f"at {name}"] = rows.iloc[(rows["difference"] - x).abs().argmin()]
        likeliest = {where: max(VERDICTS, key=lambda v, row=row: row[v]) for where, row in at.items()}
        parts.append(
            f"{n} runs: "
            + ", ".join(f"{v} {100 * at[where][v]:.0f} % {where}" for where, v in likeliest.items())
        )
    return f"{panel.title} Probability of each verdict against the {panel.axis}. {'; '.join(parts)}."


def _pattern(n: int) -> np.ndarray:
    """n evenly spaced numbers with mean 0 and sample standard deviation 1."""
    steps = np.arange(n) - (n - 1) / 2
    return steps / steps.std(ddof=1)


def _rates(wide: pd.DataFrame, head: str) -> str:
    """The table of `simulate.side_by_side`: a rule above its rows, the counted verdict below the truth."""
    numbers = [column for column in wide if column.startswith("n = ")]
    heads = [head, *numbers]
    rows = []
    for rule, cases in wide.groupby("rule", sort=False):
        heading = f'<th colspan="{len(heads)}" scope="rowgroup">{html.escape(rule)}</th>'
        rows.append(f'<tr class="rkd-group">{heading}</tr>')
        for case in cases.to_dict("records"):
            note = f'<div class="rkd-note">called {html.escape(case["verdict"])}</div>'
            cells = "".join(f"<td>{html.escape(case[column])}</td>" for column in numbers)
            rows.append(f'<tr><th scope="row">{html.escape(case["truth"])}{note}</th>{cells}</tr>')
    return table_of(heads, rows, "rkd-results")
