"""The findings are complete, and what they say can be trained and looked at is there."""

import re
from dataclasses import asdict

import pytest

pytest.importorskip("scipy", reason="scipy is not installed (pip install -e .[book])")

from rkd import paths
from rkd.audit import GROUPS, MATTERS, Finding, Side, demo, findings, in_group
from rkd.config import build
from rkd.errors import ConfigError
from rkd.experiments import settings as parameters
from rkd.experiments.chapters import get_chapter
from rkd.experiments.recipes import Builder, load_recipe
from rkd.experiments.settings import resolve
from rkd.review import ReviewOptions

SIDES = [(f.number, side) for f in findings() for side in f.reproduce]
ABSENT = object()


def test_each_disagreement_is_there_once():
    assert [f.number for f in findings()] == list(range(1, 35))
    assert sorted(f.number for group in GROUPS for f in in_group(group)) == list(range(1, 35))


def test_no_text_is_empty():
    for f in findings():
        for text in (f.title, f.text_says, f.code_does, f.how_much):
            assert len(text) > 5, f.number
        assert f.chapters and f.demos, f.number
        assert f.matters in MATTERS


def test_every_kind_of_weight_occurs():
    assert {f.matters for f in findings()} == set(MATTERS)


def value_in(recipe: dict, name: str):
    """A recipe's value under the name findings use: dotted as in the file, or one of ReviewKD's options."""
    at = recipe
    for part in name.split("."):
        at = at.get(part, ABSENT) if isinstance(at, dict) else ABSENT
    return at if at is not ABSENT else recipe["review"].get(name, ABSENT)


@pytest.mark.parametrize(("number", "side"), [s for s in SIDES if s[1].recipe])
def test_recipes_hold_what_findings_say_they_set(number, side):
    recipe = asdict(load_recipe(side.recipe))
    assert side.sets, number
    for name, said in side.sets.items():
        if name == "loss_weight":
            builder = Builder(resolve("table3", {"profile": "paper", "recipe": side.recipe}))
            assert builder.loss_weight("resnet56", "resnet20") == said
        else:
            assert value_in(recipe, name) == said, (number, name)


@pytest.mark.parametrize(("number", "side"), [s for s in SIDES if s[1].sets and not s[1].recipe])
def test_parameters_and_options_that_findings_name_exist(number, side):
    known = set(parameters.names())
    given = {name: value for name, value in side.sets.items() if name in known}
    options = {name: value for name, value in side.sets.items() if name not in known}
    made = build(ReviewOptions, options)  # raises for a name or a value that does not exist
    assert all(getattr(made, name) == value for name, value in options.items())
    settings = resolve("table3", {"profile": "paper", **given})
    for name, value in given.items():
        assert getattr(settings, name) == (tuple(value) if isinstance(value, list) else value), number


@pytest.mark.parametrize(("number", "side"), [s for s in SIDES if s[1].row])
def test_rows_that_findings_name_exist(number, side):
    chapter, _, key = side.row.partition("/")
    keys = [line.key for line in get_chapter(chapter).lines(resolve(chapter, {"profile": "paper"}))]
    assert key in keys, (number, keys)


def test_each_side_is_named_and_says_how():
    for number, side in SIDES:
        assert side.who and bool(side.row) != bool(side.sets), number


def test_every_page_linked_exists():
    book = paths.home() / "book"
    for f in findings():
        for page in f.chapters:
            assert any((book / f"{page}{ending}").is_file() for ending in (".ipynb", ".md")), (f.number, page)


def test_every_demonstration_exists_and_is_on_the_page():
    notebook = (paths.home() / "book" / "audit.ipynb").read_text(encoding="utf-8")
    for f in findings():
        for name in f.demos:
            assert callable(demo(name))
            assert f"{name}(" in notebook, (f.number, name)


def test_the_page_calls_every_group():
    notebook = (paths.home() / "book" / "audit.ipynb").read_text(encoding="utf-8")
    shown = re.findall(r'page\.findings\(\\"(\w+)\\"\)', notebook)
    assert shown == list(GROUPS)


def made(**values):
    given = {
        "number": 1, "group": "printed", "title": "t", "text_says": "a", "code_does": "b", "matters": "cosmetic",
        "how_much": "c", "nothing_to_train": "d",
    }  # fmt: skip
    return Finding(**{**given, **values})


def test_a_finding_refuses_what_is_not_allowed():
    assert made().number == 1
    with pytest.raises(ConfigError, match=r"unknown group 'print'.*did you mean 'printed'"):
        made(group="print")
    with pytest.raises(ConfigError, match="unknown matters 'somewhat'"):
        made(matters="somewhat")
    with pytest.raises(ConfigError, match="how_much is ' '"):
        made(how_much=" ")
    with pytest.raises(ConfigError, match="must say how its sides are trained"):
        made(nothing_to_train="")
    with pytest.raises(ConfigError, match="must say how its sides are trained"):
        made(reproduce=(Side("code", recipe="authors"),))
    with pytest.raises(ConfigError, match="unknown group 'print'"):
        in_group("print")
    with pytest.raises(ConfigError, match="no demonstration 'pyramid"):
        demo("pyramid.nothing")
    with pytest.raises(ConfigError, match="no demonstration 'nowhere"):
        demo("nowhere.at_all")
