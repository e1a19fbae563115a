"""Ids of runs kept in the build folder: those of the configs, thrown away with what decided them."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from evidence import put

from rkd import paths
from rkd.cli import main
from rkd.errors import ConfigError
from rkd.experiments.ended import ended
from rkd.experiments.selectors import Selectors
from rkd.judge import assess
from rkd.records import Store


@pytest.fixture
def build(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "build_folder", lambda: tmp_path)
    return tmp_path


def test_ids_are_those_of_the_configs_and_are_read_again(build, monkeypatch):
    made = Selectors("paper")
    ids = made.ids("table6/full")
    assert list(ids) == list(made.runs(["table6/full"]))
    assert list(made.ids("table6/full", teachers=True)) == list(made.needed(["table6/full"]))
    config = next(iter(made.runs(["table6/full"]).values()))
    assert config.settled("fp16", "bf16").id in next(iter(ids.values()))
    monkeypatch.setattr(Selectors, "chapter", lambda *_: pytest.fail("a chapter is built"))
    again = Selectors("paper").ids("table6/full")
    assert {run: tuple(each) for run, each in again.items()} == ids
    with pytest.raises(ConfigError, match="unknown line of table6 'ful'"):
        Selectors("paper").ids("table6/ful")


def test_what_other_sources_made_is_not_read(build):
    ids = Selectors("smoke").ids("table6/full")
    (file,) = build.rglob("table6.json")
    kept = json.loads(file.read_text())
    kept["lines"] = {"full": {"runs": {"wrong": []}}}
    file.write_text(json.dumps(kept))
    assert list(Selectors("smoke").ids("table6/full")) == ["wrong"]
    file.write_text(json.dumps({**kept, "key": "of other sources"}))
    assert Selectors("smoke").ids("table6/full") == ids


def test_several_may_ask_at_once(build):
    """As parallel chapters of a book do on a new copy."""
    with ThreadPoolExecutor(3) as pool:
        asked = list(pool.map(lambda _: list(Selectors("smoke").ids("table6/full")), range(3)))
    assert asked[0] and asked == 3 * [asked[0]] and len(list(build.rglob("table6.json"))) == 1


@pytest.mark.parametrize("name", ["teacher_checkpoint", "pretrained", "teacher_pretrained"])
def test_ids_that_weights_decide_are_kept_where_the_profile_names_their_content(name, build):
    file, profile = build / "x.pth", build / "own.yaml"
    file.write_bytes(b"weights")
    text = (paths.params() / "smoke.yaml").read_text()
    for weights, kept in ((str(file), 0), (f"x.pth#sha256={'0' * 64}", 1)):
        profile.write_text(f"{text}\n{name}: {weights!r}\n")
        assert Selectors(str(profile)).ids("table6/full")
        assert len(list(build.rglob("table6.json"))) == kept


@pytest.mark.parametrize("where", ["of the profile", "of its teachers"])
def test_ids_follow_a_recipe_that_is_named_by_its_path(where, build):
    own, profile = build / "own_recipe.yaml", build / "own.yaml"
    text = (paths.params() / "recipes" / "authors.yaml").read_text()
    recipe = own
    if where == "of its teachers":
        recipe = build / "taught.yaml"
        recipe.write_text(text.replace("teacher:\n", f"teacher:\n  recipe: {own}\n"))
    smoke = (paths.params() / "smoke.yaml").read_text()
    profile.write_text(smoke.replace("recipe: null ", f"recipe: {recipe} "))
    found = []
    for rate in ("0.1", "0.2"):
        own.write_text(text.replace("decay_rate: 0.1", f"decay_rate: {rate}"))
        found.append(list(Selectors(str(profile)).ids("table6/full")))
    assert found[0] != found[1]


def test_what_has_ended_is_read_once_and_again_when_it_has_changed(build, tmp_path, monkeypatch, capsys):
    store = Store(tmp_path / "records", tmp_path / "work")
    first, second = put(store, "table3/rm", [70.0, 71.0])
    read = Store.read
    monkeypatch.setattr(Store, "read", lambda self, runs: reads.append(runs) or read(self, runs))
    for change, accuracies, expected in (
        (lambda: None, [70.0, 71.0], [[first], [second]]),
        (lambda: None, [70.0, 71.0], []),
        (lambda: put(store, "table3/rm", [72.5]), [72.5, 71.0], [[first]]),
        (lambda: store.path(second).write_text("{}"), [72.5, None], [[second]]),
        (lambda: store.path(second).unlink(), [72.5], []),
    ):
        reads = []
        change()
        found = ended(store.records, [first, second, "0" * 12])
        assert [each and each.accuracy() for each in found.values()] == accuracies and reads == expected
    assert f"{second}.json is damaged" in capsys.readouterr().err


def test_claims_are_evaluated_without_torch(tmp_path, monkeypatch):
    for name in ("book", "params", "_config.yml", "results/others", "results/short"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(paths.home() / name)
    monkeypatch.setenv("RKD_HOME", str(tmp_path))
    assert any(each.grade == "C" for each in assess())  # and keeps what was read
    call = "import sys, rkd.cli.verdicts; from rkd.judge import assess; assert len(assess()) > 400; "
    call += "assert not {'torch', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", call], check=True)


def test_status_counts_without_torch(tmp_path, capsys):
    call = ["status", "--chapters", "table6", "--results", str(tmp_path)]
    main(call)  # and keeps the ids
    said = capsys.readouterr().out
    alone = f"import sys; from rkd.cli import main; main({call}); sys.exit('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True)
    assert found.returncode == 0 and found.stdout == said and "table6" in said and "missing" in said
