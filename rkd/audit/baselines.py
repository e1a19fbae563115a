"""Quoted baselines: whose teachers they had, and three figures that changed on the way."""

from importlib import resources

import pandas as pd

from rkd import published
from rkd.experiments.chapters import same_network
from rkd.models import display_name

TEACHERS = ("resnet56", "resnet110", "resnet32x4", "wrn_40_2")
KEYS = ["teacher", "student", "method"]


def teachers() -> pd.DataFrame:
    """Each teacher's accuracy in percent: as the [Re] paper retrained it, and as READMEs that use the CRD checkpoints,
    with which the quoted baselines were measured, print it."""
    printed = published.load(method="teacher", metric="top1_acc_percent")
    rows = []
    for name in TEACHERS:
        same = printed[[same_network(who, name) for who in printed["teacher"]]]
        crd = same.loc[same["source"].isin(("modreduce", "kdrefine")), "number"].unique().item()
        own = same.loc[same["source"] == "re_paper", "number"].unique().item()
        rows.append((display_name(name), own, crd, round(own - crd, 2)))
    columns = ["teacher", "retrained, ReviewKD's rows", "CRD checkpoint, quoted rows", "difference"]
    return pd.DataFrame(rows, columns=columns)


def crd_readme() -> pd.DataFrame:
    """The accuracies of CRD's README that are quoted otherwise: teacher, student, method, value in percent."""
    with resources.files(__package__).joinpath("crd_readme.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, comment="#")


def misquoted() -> pd.DataFrame:
    """Quoted accuracies beside those of CRD's README, in percent, and the difference in points."""
    both = _quoted().merge(crd_readme(), on=KEYS, validate="one_to_one")
    both = both.rename(columns={"number": "quoted", "value": "CRD README"})
    both["pair"] = both["student"] + " ← " + both["teacher"]
    both["difference"] = (both["quoted"] - both["CRD README"]).round(2)
    return both[["pair", "method", "quoted", "CRD README", "difference"]]


def margins() -> pd.DataFrame:
    """ReviewKD's lead over the best quoted method of each pair, in points: with the figures as quoted, and as CRD's
    README prints them; ReviewKD by the [Re] paper."""
    quoted = _quoted().merge(crd_readme(), on=KEYS, how="left")
    quoted["mended"] = quoted["value"].fillna(quoted["number"])
    ours = published.load(
        source="re_paper", method="ReviewKD", variant="reproduction", metric="top1_acc_percent"
    )
    ours, pair = ours[ours["table"].isin(("Table 1", "Table 2"))], ["teacher", "student"]
    best = quoted.loc[quoted.groupby(pair)["mended"].idxmax()]
    best = best.merge(quoted.groupby(pair)["number"].max().rename("highest"), on=pair)
    both = ours.merge(best, on=pair, suffixes=("", "_best"))
    return pd.DataFrame(
        {
            "pair": both["student"] + " ← " + both["teacher"],
            "best quoted method": both["method_best"],
            "lead as quoted": (both["number"] - both["highest"]).round(2),
            "lead by CRD's README": (both["number"] - both["mended"]).round(2),
        }
    )


def _quoted() -> pd.DataFrame:
    table = published.load(source="re_paper", variant="quoted from prior work", metric="top1_acc_percent")
    return table[[*KEYS, "number"]]
