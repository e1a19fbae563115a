"""What is reported, and how: last batch, best epoch, three runs."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from rkd import paths, published
from rkd.audit.training import TRAIN_IMAGES
from rkd.records import Store, arithmetics

SEED_SD = 0.25  # points; what two runs that differ in their seed alone typically show on CIFAR-100


def last_batch(epochs: int = 200, mean: float = 1.0, sd: float = 1.2, seed: int = 0) -> pd.DataFrame:
    """Scatter of an epoch's logged loss, when the last batch's value is logged and when the epoch's mean is.

    Simulated: each of 50,000 losses is drawn from a gamma distribution of the given mean and standard deviation (those
    of a classifier part of the way), so that the true value never changes and all scatter is the meter's.

    Columns: logged, images behind the value, mean over epochs, standard deviation over epochs.
    """
    rng = np.random.default_rng(seed)
    shape, scale = (mean / sd) ** 2, sd**2 / mean
    last = TRAIN_IMAGES % 128 or 128
    ends = [rng.gamma(shape, scale, last).mean() for _ in range(epochs)]
    # Of a sum of gamma variables the law is known: no need to draw 50,000 of them each time.
    means = [rng.gamma(shape * TRAIN_IMAGES, scale) / TRAIN_IMAGES for _ in range(epochs)]
    rows = {"the last batch": (last, ends), "the epoch's mean": (TRAIN_IMAGES, means)}
    return pd.DataFrame(
        {
            "logged": what,
            "images": n,
            "mean": float(np.mean(v)),
            "standard deviation": float(np.std(v, ddof=1)),
        }
        for what, (n, v) in rows.items()
    )


def best_epoch(
    scatters: Sequence[float] = (0.05, 0.1, 0.15, 0.2),
    epochs: Sequence[int] = (10, 30, 60),
    runs: int = 4000,
    seed: int = 0,
) -> pd.DataFrame:
    """How far the best of several epochs lies above the last one, in points, when they differ by chance alone.

    Simulated: `epochs` test accuracies of a run that no longer improves, each off by an independent normal error of
    standard deviation `scatter` points; mean over `runs` of the largest minus the last. Neighbouring epochs of a real
    run are alike, so that 60 of them are worth fewer independent ones.

    Columns: scatter, then one per number of epochs.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for scatter in scatters:
        row = {"scatter between epochs": scatter}
        for n in epochs:
            accuracies = scatter * rng.standard_normal((runs, n))
            row[f"{n} epochs"] = float((accuracies.max(1) - accuracies[:, -1]).mean())
        rows.append(row)
    return pd.DataFrame(rows)


def recorded_optimism() -> pd.DataFrame:
    """Best minus last epoch's test accuracy in the committed records, per profile.

    Columns: records (the folder), epochs (of a run), runs, what they were computed in, mean and largest difference in
    points, and in how many runs the last epoch was the best.
    """
    rows = []
    # results/bench and the like hold files of another kind, and results/explore what readers try.
    folders = (path for path in (paths.home() / "results").iterdir() if path.is_dir())
    for folder in sorted(
        path for path in folders if path.name not in ("bench", "teachers", "maps", "explore")
    ):
        found = [r for r in Store(folder, paths.build() / "audit") if r.status == "finished"]
        for epochs in sorted({r.result["epochs"] for r in found}):
            same = [r for r in found if r.result["epochs"] == epochs]
            gaps = np.array([r.accuracy("best") - r.accuracy("last") for r in same])
            how = arithmetics(same)
            rows.append((folder.name, epochs, len(same), how, gaps.mean(), gaps.max(), (gaps == 0).sum()))
    gaps = ["best − last, mean", "largest", "last was best"]
    return pd.DataFrame(rows, columns=["records", "epochs", "runs", "computed in", *gaps])


def resolution(sd: float = SEED_SD, runs: Sequence[int] = (2, 3, 5, 10)) -> pd.DataFrame:
    """How well n runs of standard deviation `sd` know their mean, and the difference of two such means, in points.

    Columns: runs; half-widths of the 90 % intervals (Student's t) of a mean and of a difference of two means.
    """
    n = np.array(runs)
    one = stats.t.ppf(0.95, n - 1) * sd / n**0.5
    two = stats.t.ppf(0.95, 2 * n - 2) * sd * (2 / n) ** 0.5
    return pd.DataFrame({"runs": n, "a mean": one, "a difference": two})


def published_differences() -> pd.DataFrame:
    """Largest and smallest distance between two rows of each ablation table, in points."""
    rows = []
    for table in ("Table 4", "Table 5", "Table 6"):
        values = published.load(source="re_paper", table=table, metric="top1_acc_percent")["number"]
        distances = [round(abs(a - b), 2) for a, b in itertools.combinations(values, 2)]
        rows.append((table, len(values), max(distances), min(distances)))
    return pd.DataFrame(rows, columns=["table", "rows", "largest", "smallest"])
