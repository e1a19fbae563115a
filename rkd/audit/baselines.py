"""Quoted baselines: whose teachers they had, and three figures that changed on the way."""

from importlib import resources

import pandas as pd

from rkd import published
from rkd.experiments.chapters import same_network
from rkd.models import display_name

QUOTED = "quoted from prior work"
TEACHERS = ("resnet56", "resnet110", "resnet32x4", "wrn_40_2")
KEYS = ["teacher", "student", "method"]


def teachers() -> pd.DataFrame:
    """Each teacher's accuracy in percent: as the [Re] paper retrained it, and as READMEs that use the CRD checkpoints,
    with which the quoted baselines were measured, print it."""
    printed = published.load(method="teacher", metric="top1_acc_percent")
    rows = []
    for name in TEACHERS:
        same = printed[printed["teacher"].map(lambda who, name=name: same_network(who, name))]
        own = same[same["source"] == "re_paper"]["number"].unique()
        crd = same[same["source"].isin(("modreduce", "kdrefine"))]["number"].unique()
        rows.append(
            {
                "teacher": display_name(name),
                "retrained, ReviewKD's rows": float(own.item()),
                "CRD checkpoint, quoted rows": float(crd.item()),
                "difference": round(float(own.item() - crd.item()), 2),
            }
        )
    return pd.DataFrame(rows)


def crd_readme() -> pd.DataFrame:
    """The accuracies of CRD's README that are quoted otherwise: teacher, student, method, value in percent."""
    with resources.files(__package__).joinpath("crd_readme.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, comment="#")


def misquoted() -> pd.DataFrame:
    """Quoted accuracies beside those of CRD's README, in percent, and the difference in points."""
    both = _quoted().merge(crd_readme(), on=KEYS, validate="one_to_one")
    return pd.DataFrame(
        {
            "pair": both["student"] + " ← " + both["teacher"],
            "method": both["method"],
            "quoted": both["number"],
            "CRD README": both["value"],
            "difference": (both["number"] - both["value"]).round(2),
        }
    )


def margins() -> pd.DataFrame:
    """ReviewKD's lead over the best quoted method of each pair, in points: with the figures as quoted, and as CRD's
    README prints them; ReviewKD by the [Re] paper."""
    quoted = _quoted()
    mended = quoted.merge(crd_readme(), on=KEYS, how="left")
    quoted["mended"] = mended["value"].fillna(mended["number"])
    ours = published.load(
        source="re_paper", method="ReviewKD", variant="reproduction", metric="top1_acc_percent"
    )
    rows = []
    for row in ours[ours["table"].isin(("Table 1", "Table 2"))].itertuples():
        same = quoted[(quoted["teacher"] == row.teacher) & (quoted["student"] == row.student)]
        best = same.loc[same["mended"].idxmax()]
        rows.append(
            {
                "pair": f"{row.student} ← {row.teacher}",
                "best quoted method": best["method"],
                "lead as quoted": round(row.number - same["number"].max(), 2),
                "lead by CRD's README": round(row.number - best["mended"], 2),
            }
        )
    return pd.DataFrame(rows)


def _quoted() -> pd.DataFrame:
    table = published.load(source="re_paper", variant=QUOTED, metric="top1_acc_percent")
    return table[[*KEYS, "number"]].reset_index(drop=True)
