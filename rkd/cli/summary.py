"""Summarise records: one line per configuration (all but the seed equal), with n, mean and sample standard deviation of
the test accuracy at the last and at the best epoch."""

import argparse
import math
from pathlib import Path

from rkd.cli.common import add_profile

EPILOG = """examples:
  rkd summary --profile mini
  rkd summary --profile paper --last 3 --csv summary.csv     the three runs of each configuration that ended last
  rkd summary --results my_results

Exit status: 0 there are records, 1 there are none, 2 wrong call."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--last", type=int, metavar="N", help="only the N runs of each configuration that ended last"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all columns to a CSV file")
    parser.add_argument("--results", metavar="DIR", help="folder of records (default: the profile's own)")
    add_profile(parser)


def call(options: argparse.Namespace) -> int:
    from rkd.experiments.settings import load_profile
    from rkd.experiments.workspace import store_for
    from rkd.files import replacing
    from rkd.records.csv_summary import as_csv, summarise

    load_profile(options.profile)  # an unknown one is told of
    store = store_for(options.profile, options.results)
    summary = summarise(store, options.last)
    if summary.empty:
        print(f"no runs are recorded in {store.records}")
        return 1
    print(_table(summary))
    runs = summary["n"].sum() + summary["diverged"].sum()
    print(f"{runs} runs of {len(summary)} configurations in {store.records}")
    if options.csv:
        with replacing(options.csv) as temporary:
            temporary.write_text(as_csv(summary), encoding="utf-8")
    return 0


def _table(summary) -> str:
    """The columns that fit on a screen."""
    rows = [("configuration", "run", "computed in", "n", "last", "sd", "best", "sd", "")]
    for s in summary.itertuples():
        run = s.student + (f" <- {s.teacher}, {s.method}" if s.method else "")
        numbers = (_number(v) for v in (s.last_mean, s.last_sd, s.best_mean, s.best_sd))
        diverged = f"{s.diverged} diverged " if s.diverged else ""
        rows.append((s.configuration, run, s.arithmetic, str(s.n), *numbers, diverged + s.differs))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in (0, 1, 2, 8) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"
