"""The audit: findings are complete, what they name exists, and cells measure what formulas of their own give."""

import copy
import math
import re
from collections import Counter
from dataclasses import asdict
from itertools import pairwise

import pytest
import torch
import yaml
from cells import cells, code, execute
from IPython.display import display

from rkd.config import from_values
from rkd.data import preset
from rkd.experiments import settings as parameters
from rkd.experiments.chapters import get_chapter
from rkd.experiments.recipes import Builder, load_recipe
from rkd.experiments.settings import resolve
from rkd.review import ReviewOptions, hcl

CELLS = cells("audit")
PROSE = "\n".join(c.source for c in CELLS if c.cell_type == "markdown")
FINDINGS = {
    int(n): text
    for n, text in re.findall(r"\(finding-(\d+)\)=\n(.*?)(?=\n\(finding-|\n## |\Z)", PROSE, re.DOTALL)
}
MATTERS = dict(re.findall(r"- \*\*([\w ]+)\*\* \((\d+) of them\)", PROSE))


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """Names after all cells of the notebook, executed once; an empty folder holds no CIFAR-100."""
    return execute("audit", display=display, seed=0, data_root=str(tmp_path_factory.mktemp("data")))


def test_each_disagreement_is_there_once_and_beside_what_measures_it():
    assert sorted(FINDINGS) == list(range(1, 35))
    kinds = ["finding" if "(finding-" in c.source else c.cell_type for c in CELLS]
    assert ("finding", "finding") not in pairwise(kinds)
    assert all(len(source.splitlines()) <= 40 for source in code("audit"))


def test_the_list_is_that_of_the_blocks():
    listed = re.findall(r"^\| (\d+) \| \[(.*?)\]\(#finding-(\d+)\) \| (.*?) \|$", PROSE, re.MULTILINE)
    assert [int(n) for n, *_ in listed] == list(FINDINGS), "in the order of the page"
    found = Counter()
    for number, title, target, matters in listed:
        block = FINDINGS[int(number)]
        assert target == number and block.startswith(f"### {number}. {title}\n")
        (said,) = re.findall(r"^\*\*([\w ]+)\.\*\* ", block, re.MULTILINE)
        assert said.lower() == matters and ("To train it" in block) != ("Nothing to train: " in block)
        assert re.search(r"^\| In (the text|one place|the report) \| (In|At) ", block, re.MULTILINE)
        found[said] += 1
    assert {name: str(count) for name, count in found.items()} == MATTERS
    assert {*map(int, re.findall(r"\(#finding-(\d+)\)", PROSE))} == {*FINDINGS}


def as_tuple(value):
    return tuple(value) if isinstance(value, list) else value


@pytest.mark.parametrize("number", sorted(FINDINGS))
def test_what_findings_say_of_recipes_rows_and_parameters_holds(number):
    block = " ".join(FINDINGS[number].split())
    rows = re.findall(r"row `([^`]+)` of \[[^\]]+\]\((\w+)\.ipynb\)", block)
    recipes = re.findall(r"recipe `(\w+)`, where `([^`]+)`", block)
    given = re.findall(r"`-y '([^']*)'`", block)
    assert bool(rows or recipes or given) == ("To train it" in block)
    for key, chapter in rows:
        lines = get_chapter(chapter).lines(resolve(chapter, {"profile": "paper"}))
        assert key in [line.key for line in lines]
    for name, said in recipes:
        recipe = asdict(load_recipe(name))
        builder = Builder(resolve("table3", {"profile": "paper", "recipe": name}))
        known = {**recipe, **recipe["methods"]["reviewkd"]}
        known["loss_weight"] = builder.loss_weight("resnet56", "resnet20")
        for place, value in yaml.safe_load(f"{{{said}}}").items():
            part, _, of_part = place.partition(".")
            assert as_tuple(known[part][of_part] if of_part else known[part]) == as_tuple(value), said
    for text in given:
        values = yaml.safe_load(text)
        from_values(ReviewOptions, values.pop("options", {}))
        resolve("table3", {"profile": "paper", **values})


def test_the_notebook_can_be_executed_from_its_top_again(live):
    """No cell leaves a value under the name of a parameter."""
    assert parameters.namespace_parameters(live, ("seed",)) == {"data_root": live["data_root"], "seed": 0}


def test_figures_in_print(live):
    assert live["tally"]["statements"].sum() == 276 and len(live["wrong"]) == 5
    assert live["of_runs"]["follows"].sum() == len(live["of_runs"]) == 24
    assert len(live["both"]) == 22
    assert sorted(live["differ"]["number paper"]) == [69.58, 73.71]
    weights = live["weights"].set_index("pair")
    assert weights.loc["ResNet-20 ← ResNet-56"].tolist() == [0.7, 0.7, 0.6, 0.6]
    assert (weights.drop("ResNet-20 ← ResNet-56").nunique(axis=1) == 1).all()
    assert live["worth"]["points"].tolist() == [0.08, 0.34, 1.36, 0.28, 1.59, 0.51]
    assert live["gaps"]["difference"].tolist()[0] == -0.51 and (live["gaps"]["difference"] > 0).sum() == 5
    assert live["named"] == 0 and sorted(live["costs"]["hours"]) == ["3.7", "4-5", "5-6", ">3.5"]
    misspelt, right = live["spelling"].iloc[:, 1]
    assert "did you mean 'resnet8x4'" in misspelt and right == "resnet8x4"


def test_training_recipe(live):
    assert live["updates"](240, 128) == 240 * 391 and live["updates"](20, 64) == 20 * 782
    assert live["images"]["steps per epoch"].tolist() == [469, 391]
    rates = live["rates"].set_index("student")
    slow = rates[rates["recipe authors"] != rates["recipe text"]]
    assert list(slow.index) == ["ShuffleNetV1", "ShuffleNetV2"] and (slow["recipe authors"] == 0.02).all()
    assert live["lengths"].iloc[:, 1:].to_numpy().tolist() == [[150, 30, 30, 30], [151, 30, 30, 29]]
    assert live["ramp"]["mean of all epochs"].tolist() == pytest.approx([1, (240 - 20 + 9.5) / 240, 1])
    assert live["begun"]["shared dictionary"].tolist() == pytest.approx([0.1, 0.001, 0.00001])
    assert live["begun"]["frozen config"].tolist() == [0.1] * 3 and "seed" in live["refused"]["said"][0]
    own, used = preset("cifar100"), preset("cifar10_reviewkd")
    pixels = own.mean[0] + own.std[0] * torch.tensor([-1.0, 1.0], dtype=torch.float64)
    z = (pixels - used.mean[0]) / used.std[0]
    wanted = [z.mean().item(), z.std(correction=0).item()]
    assert live["foreign"].iloc[0, 1:].tolist() == pytest.approx(wanted)


def test_teacher_in_training_mode(live):
    network, batches = live["network"], live["batches"]
    assert not live["known"] and not network.training
    held = copy.deepcopy(network).train()
    with torch.no_grad():
        means = torch.stack([network.conv1(x).mean((0, 2, 3)) for x in batches]).mean(0)
        held(batches[0])
    first = live["norms"](network)[0]
    assert torch.allclose(first.running_mean, means, atol=1e-4), "statistics are those of the images"
    shifts = [
        ((a.running_mean - b.running_mean).square() / b.running_var).mean().sqrt().item()
        for a, b in zip(live["norms"](held), live["norms"](network), strict=True)
    ]
    moved = live["moved"]
    assert moved["fed as trained"][1] == pytest.approx(max(shifts), rel=1e-3)
    assert moved["this package"].eq(0).all()
    assert moved["fed other statistics"].iloc[-1] > 2 * moved["fed as trained"].iloc[-1]
    modes = live["modes"].set_index("map")
    assert list(modes.index) == ["stage 1", "stage 2", "stage 3", "pooled", "logits"]
    assert modes.gt(1).all(axis=None) and modes.lt(50).all(axis=None)
    same = live["ways"]["same class, %"]
    assert same[0] == 100 and (same[1:] < 100).all() and "accuracy, %" not in live["ways"]


def test_compared_features(live):
    assert live["negative"].iloc[:, 2].eq(0).all() and live["negative"].iloc[:, 1].between(5, 95).all()
    readings = live["readings"]
    assert readings["comparisons"].tolist() == [15, 5]
    # Unit-variance maps: a separate term is near 2, a sum of n maps near n + 1.
    expected = [15 * 2, sum(n + 1 for n in range(1, 6))]
    assert readings["loss at the first step"].tolist() == pytest.approx(expected, rel=0.05)
    five, four = live["terms"].iloc[:, 1], live["terms"].iloc[:, 2]
    assert live["terms"]["level"].tolist() == ["stem", "stage 1", "stage 2", "stage 3", "pooled"]
    assert five.gt(0).all() and math.isnan(four[0]) and four[1:].gt(0).all()
    assert live["reached"].iloc[:, 1:].to_numpy().tolist() == [
        [10_304, 0, 0, True], [10_304, 10_304, 35, False], [24_592, 0, 0, True], [24_592, 24_592, 105, False],
    ]  # fmt: skip
    assert live["perfect"].iloc[0, 1:].eq(0).all() and live["perfect"].iloc[1, 1:].between(1, 3).all()


def test_fusion(live):
    mid, output, direct, plain = live["passed_on"].itertuples(index=False)
    assert [row.parameters for row in (mid, output, direct, plain)] == [114_278, 124_902, 146_182, 113_504]
    assert mid.attention == 3 * (2 * 64 * 2 + 2) == mid.parameters - plain.parameters
    # The residual's 1x1 convolutions and BN: 64, 64 and 32 channels to 64.
    assert output[4] == sum(c * 64 + 2 * 64 for c in (64, 64, 32)) == output.parameters - mid.parameters
    assert mid[5] == "64 × 1², 64 × 8², 64 × 16²" and direct[5] == "64 × 1², 64 × 8², 32 × 16²"
    assert live["widths"]["width, rule"].tolist() == [64, 64, 256, 128, 64, 512, 512, 512]
    published = [114_278, 114_278, 1_808_774, 453_830, 216_006, 4_607_366, 2_984_646, 4_195_718]
    assert live["widths"]["parameters, rule"].tolist() == published
    assert live["idle"]["parameters"].tolist() == [114_536, 114_278]
    largest, spread = live["starts"]["largest weight"], live["starts"]["sd of the attention"]
    assert largest.tolist() == pytest.approx([(1 / 128) ** 0.5, (3 / 128) ** 0.5], rel=0.02)
    assert spread[1] > 1.3 * spread[0]


def test_pyramid(live):
    rules = {(row[0], row[1]): row[2] for row in live["pooled"].itertuples(index=False)}
    listed = ["h, 4, 2, 1", "1, 0.5, 0.25, 0.125"], ["4, 1", "1, 0.5"], ["h, 4, 2, 1", "1, 1, 1, 1"]
    assert [rules[tuple(values)] for values in listed] == pytest.approx([0.6, 1 / 3, 0.5])
    assert len(rules) == 7 and live["pooled"]["authors' rule"].eq(1).all()
    zero, below = live["failures"].itertuples(index=False)
    assert zero[:2] == ("h, h/2, h/4", "1, 0, 0") and below[:2] == ("h, h-1, h-2, h-3", "1, 0, -1, -2")
    assert "NaN" in zero[2] and "output_size" in below[2] and zero[3] == below[3] == "1"
    shares = live["constant"]["[Re] code: all weights"].tolist()
    assert shares == pytest.approx([1, 1, 1, 1, 1.375 / 1.875, 0.6])
    options = ReviewOptions(**live["recipe_of"]("reproduction"))
    for h in (1, 2, 4, 8, 16):
        a, b = torch.randn(2, 3, 5, h, h, generator=torch.Generator().manual_seed(h), dtype=torch.float64)
        naive = live["committed_hcl"](a, b, options.hcl_levels, options.hcl_weights)
        assert hcl(a, b, options).item() == pytest.approx(naive.item(), rel=1e-12)
    ours, theirs = live["two_maps"]
    average, largest = (row[1:] for row in live["squares"].itertuples(index=False))
    assert average[3] == pytest.approx((ours.mean() - theirs.mean()).item() ** 2, rel=1e-4)
    assert largest[3] == pytest.approx((ours.max() - theirs.max()).item() ** 2, rel=1e-4)
    assert largest[3] > 10 * average[3], "as finding 8 says"
    for a, b, c, d, whole in (average, largest):
        assert whole == pytest.approx((8 * a + 4 * b + 2 * c + d) / 15, rel=1e-5)
    *others, last = live["gradients"]["largest gradient"]
    assert last == "none" and "none" not in others


def test_committed_code(live):
    for row in live["mismatch"].itertuples(index=False):
        assert f"to have {row[1]} channels, but got {row[2]} channels" in row[3]
    assert live["ten"] == "Target 57 is out of bounds."
    shared, new = live["chained"].iloc[:, 1], live["chained"].iloc[:, 2]
    assert shared.is_monotonic_decreasing and shared.is_unique and new.eq(shared[0]).all()


def test_reporting(live):
    three = live["resolution"].set_index("runs").loc[3].tolist()
    assert three == pytest.approx([2.919986 * 0.25 / 3**0.5, 2.131847 * 0.25 * (2 / 3) ** 0.5], rel=1e-6)
    assert live["distances"]["largest"].max() == pytest.approx(0.33)
    chosen = live["chosen"].set_index("epochs")
    assert chosen.loc[240, "runs"] == 48 and chosen.loc[240, "mean"] == pytest.approx(0.2931, abs=1e-4)
    assert "0.06 to 0.62 points, 0.29 on average, in 48" in " ".join(FINDINGS[31].split())
    assert chosen.loc[240, ["smallest", "largest"]].tolist() == pytest.approx([0.06, 0.62])
    assert live["logged"]["images"].tolist() == [80, 50_000]
    expected = [1.2 / 80**0.5, 1.2 / 50_000**0.5]
    assert live["logged"]["standard deviation"].tolist() == pytest.approx(expected, rel=0.2)


def test_baselines(live):
    assert live["teachers"]["difference"].tolist() == [0.70, 0.07, -0.28, 1.05]
    assert sorted(live["misquoted"]["difference"]) == [-1.12, -1.00, 0.09]
    leads = live["leads"]
    assert len(leads) == 8 and (leads["lead as quoted"] == leads["lead by CRD's README"]).all()
    assert leads["lead as quoted"].min() == 0.23 and leads["lead as quoted"].max() == 1.39
