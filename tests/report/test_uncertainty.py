"""The page on uncertainty: its cells measure what loops of their own give."""

import csv
import math
import statistics
from collections import defaultdict

import matplotlib
import numpy as np
import pytest
from cells import execute, source
from evidence import around, put
from IPython.display import display
from scipy import stats

from rkd import paths
from rkd.experiments.selectors import Selectors
from rkd.experiments.settings import namespace_parameters
from rkd.records import Store

GIVEN = {"profile": "smoke", "alpha": 0.05, "power": 0.8, "repeats": 200}
ROWS = list(csv.DictReader((paths.home() / "results" / "others" / "public_runs.csv").open(encoding="utf-8")))


@pytest.fixture(scope="module")
def page():
    matplotlib.use("agg")
    return execute("uncertainty", display=display, **GIVEN)


def test_spread_is_pooled_by_a_naive_loop(page):
    groups = defaultdict(list)
    for row in ROWS:
        of = row["behind"], row["dataset"], row["student"]
        if of == ("knowledge_distillation", "cifar100", "resnet110_7x7"):
            groups[row["method"]].append(float(row["best"]))
    squares = sum(sum((a - statistics.mean(g)) ** 2 for a in g) for g in groups.values())
    free = sum(len(g) - 1 for g in groups.values())
    deep = page["deep"]
    assert deep["degrees of freedom"] == free == 11 and deep["runs"] == 17
    assert deep["spread"] == pytest.approx(math.sqrt(squares / free))
    # The 2.5 % and 97.5 % points of chi squared with 11 degrees of freedom.
    assert deep["95 % from"] == pytest.approx(math.sqrt(squares / 21.920), rel=1e-4)
    assert deep["to"] == pytest.approx(math.sqrt(squares / 3.8157), rel=1e-4)
    assert page["by_setting"]["runs"].sum() == page["by_method"]["runs"].sum() >= 75
    assert set(page["groups"]["told"]) == {"best", "last"}


def test_spreads_are_compared_by_a_two_sided_test(page):
    """Whichever network comes first, and though it scatters less."""
    code = source("uncertainty", "stats.f.cdf")
    names = {"resnet20_7x7": "resnet110_7x7", "resnet110_7x7": "resnet20_7x7"}
    turned = {**page, "groups": page["groups"].replace({"student": names})}
    exec(code, turned)
    assert turned["ratio"] == pytest.approx(1 / page["ratio"]) and turned["ratio"] < 1
    assert turned["p"] == pytest.approx(page["p"]) and 0 < page["p"] < 1


def test_own_records_join_by_their_last_epochs(tmp_path):
    stores = {name: Store(tmp_path / name, tmp_path) for name in ("paper", "short")}
    for line, accuracies in {"full": [60.0, 60.5, 61.0], "none": [59.0, 59.25, 59.75], "rm": [60.0]}.items():
        put(stores["short"], f"table3/{line}", accuracies, optimism=0.25, selectors=Selectors("short"))
    put(stores["paper"], "table3/full", around(71.8, 0.25, 5))
    page = execute("uncertainty", "namespace_parameters", **GIVEN)
    page["Store"] = lambda folder, work: stores[folder.name]
    page = execute("uncertainty", "others = ", "def pooled", "plt.subplots", **page)
    own = page["by_setting"].filter(like="this report, ", axis=0)
    assert own["runs"].tolist() == [5, 6] and own["groups"].tolist() == [1, 2]
    variances = [statistics.variance(a) for a in ([60.0, 60.5, 61.0], [59.0, 59.25, 59.75])]
    assert own["spread"].tolist() == pytest.approx([0.25, math.sqrt(statistics.mean(variances))], abs=1e-4)


def test_what_choosing_adds(page):
    whole = (row for row in ROWS if row["epochs"] == "240" and row["best"] and row["last"])
    gaps = [float(row["best"]) - float(row["last"]) for row in whole]
    both = page["both"].query("epochs == 240 and not whose.str.startswith('this report')")
    assert len(gaps) == 48 and sorted(both["gain"]) == pytest.approx(sorted(gaps))
    assert set(both["gain"]) <= set(page["gaps"])
    mixed = page["mixed"]
    equal, chosen, near, shifted = (mixed[name] for name in mixed.columns[2:])
    assert (equal < 12).all() and (chosen > equal).all() and (shifted < near)[near > 20].all()
    assert chosen[1] > 40, "five runs a side, the small network"


def test_runs_needed(page):
    found, spread = page["t_test"](0.25), 0.25
    counts, rng = page["COUNTS"], np.random.default_rng(0)
    i = int(np.abs(page["GAINS"] - 0.3).argmin())
    gain, n = page["GAINS"][i], int(found[i])
    for size, low, high in ((n, 0.78, 1.0), (int(counts[counts < n].max()), 0.0, 0.82)):
        a, b = spread * rng.standard_normal((2, 4000, size))
        share = (stats.ttest_ind(a + gain, b, axis=1, alternative="greater").pvalue < 0.05).mean()
        assert low < share < high
    needed, order = page["needed"], page["order"]
    assert needed(order, 0.25, 0.2) == math.inf, "below the threshold of P(A > B)"
    assert needed(order, 0.25, 2.0) <= needed(order, 0.25, 0.5) < 20 and needed(order, 0.5, 0.5) == math.inf


def test_published_gains_are_there_once(page):
    printed = page["printed"]
    assert not printed.duplicated().any() and (printed["gain"] > 0).all()
    assert printed["in"].nunique() == len(page["tally"]) and page["tally"]["gains"].sum() == len(printed)
    (attention,) = (g for g in printed.loc[printed["in"] == "[Re] Table 3", "gain"] if abs(g - 1.36) < 1e-9)
    assert attention


def test_the_page_can_be_run_again(page):
    """No cell leaves a value under the name of a parameter."""
    assert namespace_parameters(page, GIVEN.keys() - {"profile"}).keys() == GIVEN.keys()
