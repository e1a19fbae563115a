"""Parameters: layers, checks, what each chapter makes of them, and what notebooks declare, which is not executed."""

import itertools
import json

import pytest
import yaml

from rkd import models, paths
from rkd.errors import ConfigError, RkdError
from rkd.experiments import chapters
from rkd.experiments.chapters import Chapter, chapter_in, chapter_names, get_chapter
from rkd.experiments.recipes import Builder, load_recipe, recipe_names
from rkd.experiments.runner import describe_schedules
from rkd.experiments.settings import load_profile, namespace_parameters, resolve


def lines(chapter, **given):
    return get_chapter(chapter).lines(resolve(chapter, given))


def by_key(chapter, **given):
    return {line.key: line for line in lines(chapter, **given)}


def build(**given):
    return Builder(resolve("run", given))


def run_of(method="reviewkd", **given):
    """A run of ResNet-8 taught by ResNet-14."""
    return build(**given).distilled("resnet14", "resnet8", 0, method)


def test_layers_later_wins():
    assert resolve("table3", {}).profile == "smoke" and resolve("table3", {}).dataset == "embedded"
    assert resolve("table1", {}).epochs == 1 and resolve("table3", {}).epochs != 1
    assert resolve("table1", {"epochs": 7}).epochs == 7
    assert resolve("table3", {"profile": "paper"}).epochs is None, "each recipe has its own"
    assert resolve("table3", {"budget": {"table3": {"epochs": 9}}}).epochs == 9
    budget = {"default": {"epochs": 9}, "table3": {"epochs": None}}
    assert resolve("table3", {"budget": budget}).epochs is None
    assert resolve("table3", {"epochs": None}).epochs is None, "a null that somebody wrote is a value"
    assert resolve("table3", {"seeds": None}).seeds == (0, 1, 2), "or the default, where there is one"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"los_weight": 1}, "unknown parameter 'los_weight' .did you mean 'loss_weight'"),
        ({"loss_weight": -0.5}, "loss_weight is -0.5; it must be a finite number >= 0"),
        ({"threads": "many"}, "threads is 'many'; it must be auto or a whole number >= 1"),
        ({"attention": "no"}, "attention is 'no'; it must be True or False"),
        ({"pairs": ["resnet56"]}, "each pair must be"),
        ({"hcl_levels": ["h", 2, 1]}, "3 sizes.*4 values"),
        ({"teacher": "resnet57"}, "resnet5"),
        ({"recipe": "author"}, "did you mean 'authors'"),
        ({"dataset": "imagenet"}, "imagenet"),
        ({"options": {"hcl_poolling": "max"}}, "did you mean 'hcl_pooling'"),
        ({"seeds": [0, 1, 0]}, "seeds is .*each entry may stand there once, and 0 stands there twice"),
        ({"hcl_levels": ["h", 1, 1], "hcl_weights": [1, 1, 1]}, "and 1 stands there twice"),
        ({"device": "tpu"}, "unknown device 'tpu'; allowed: auto, cpu, cuda, cuda:N$"),
        ({"device": "mps"}, "device 'mps' has no float64"),
        ({"device": ""}, "unknown device ''"),
        ({"device": "cuda:99"}, "has no"),
        ({"chapter": "table1", "pairs": [["resnet56", "resnet20"], ["ResNet56", "resnet20"]]}, "one pair twice"),
        ({"chapter": "figure6", "loss_weights": [0.12345678, 0.12345679]}, "two values that are both shown"),
    ],
)  # fmt: skip
def test_bad_and_contradictory_parameters_get_one_sentence_before_any_run(given, message):
    with pytest.raises(ConfigError, match=message) as error:
        lines(**{"chapter": "table3", **given})
    assert "\n" not in str(error.value)


def test_misspelt_injected_names_are_found():
    namespace = {"epochs": 3, "page": object(), "In": [], "_i": "x", "colour": "red", "seeds": None}
    assert namespace_parameters(namespace) == {"epochs": 3}
    for more, said in (
        ({"los_weight": 0.9}, "unknown parameter 'los_weight'; did you mean 'loss_weight'"),
        ({"parameters": {"epoch": 3}}, "unknown parameter 'epoch' .did you mean 'epochs'"),
        ({"parameters": 3}, "parameters is 3; it must map names"),
        ({"parameters": {"epochs": 4}}, "epochs is given twice, as 3 and as 4"),
    ):
        with pytest.raises(ConfigError, match=said):
            namespace_parameters(namespace | more)


def test_what_papermill_injects_is_a_parameter_or_the_notebooks_own():
    cells = ["", "%matplotlib inline", "epochs: int = None\nown = 2"]
    cells.append("# Parameters\nepochs = None\nown = 3\n")
    page = {"In": cells, "epochs": None, "own": 3, "mine": 1}
    assert namespace_parameters(page) == {"epochs": None}, "a null that was given is no default of the cell"
    with pytest.raises(ConfigError, match="unknown parameter 'zzz'"):
        namespace_parameters({**page, "In": [*cells[:3], "# Parameters\nzzz = 1\n"], "zzz": 1})
    namespace_parameters({**page, "In": [*cells, "mine = 1"]})  # a variable of the reader's


def test_what_the_parameters_hold_replaces_the_profiles_values():
    profile = {"profile": "mini", "precision": "auto", "parameters": {"precision": "fp32"}}
    assert namespace_parameters(profile)["precision"] == "fp32", "papermill injects the profile's values too"


def test_the_learning_rate_is_the_students_and_the_rest_the_teachers_too():
    def told(run):
        return run.epochs, run.batch_size, run.optimiser.lr

    common = {"recipe": "authors", "epochs": 3, "batch_size": 8, "lr": 0.05}
    given = run_of(**common)
    assert (told(given), told(given.teacher.run)) == ((3, 8, 0.05), (3, 8, 0.1))
    own = run_of(**common, teacher_epochs=4, teacher_batch_size=16, teacher_lr=0.2)
    assert (told(own), told(own.teacher.run)) == ((3, 8, 0.05), (4, 16, 0.2))
    (line,) = describe_schedules([own, own.teacher.run])
    assert line.startswith("teacher ResNet-14: 4 epochs in batches of 16, lr 0.2 (falls at ")
    assert "; student ResNet-8: 3 epochs in batches of 8, lr 0.05 (falls at " in line


def test_a_line_knows_what_its_runs_were_made_of():
    made = by_key("figure6", loss_weight=0.9, options={"loss": "l2"})
    read = {name: line.read for name, line in made.items()}
    assert "teacher_lr" in read["teacher"] and "lr" in read["student"] and "lr" not in read["teacher"]
    assert not {"teacher_epochs", "loss_weight"} & read["student"]
    assert "options" in read["0.5"] and "loss_weight" not in read["0.5"], "each row has a weight of its own"
    fused = by_key("table3", hcl_levels=["h"], hcl_weights=[1])
    assert "hcl_levels" in fused["full"].read
    assert "hcl_levels" not in fused["rm"].read, "which has another loss"


def test_names_of_functions_in_a_notebook_are_trusted_unless_the_profile_holds_them(tmp_path, monkeypatch):
    profile = tmp_path / "p.yaml"
    profile.write_text("student: its:net\nbudget: {default: {teacher: its:other}}")
    injected = {**load_profile(str(profile)), "profile": str(profile)}
    for more, trusted in (
        ({}, set()),
        ({"teacher": "my:net"}, {"my:net"}),
        ({"student": "my:net", "pairs": [["my:teacher", "resnet8"]]}, {"my:net", "my:teacher"}),
        ({"teacher": "my:net", "trust": []}, set()),  # of the command line, which knows what was typed
        ({"teacher": "my:net", "trust": "its:net, my:net"}, {"its:net", "my:net"}),
    ):
        monkeypatch.setattr("rkd.trust._TRUSTED", found := set())
        resolve("table3", namespace_parameters({**injected, **more}))
        assert found == trusted
        if "its:net" not in found:
            with pytest.raises(ConfigError, match="'its:net', named by profile p, is code from elsewhere"):
                models.build("its:net")
    with pytest.raises(ConfigError, match="trust names 'resnet8'; it must name functions"):
        resolve("table3", {"trust": ["resnet8"]})


@pytest.mark.parametrize(
    ("words", "trusted"),
    [
        ("python /bin/papermill in.ipynb out.ipynb -f its.yaml", set()),
        ("python /bin/papermill in.ipynb out.ipynb -f its.yaml -p teacher its:nets", set()),
        ("python /bin/papermill in.ipynb out.ipynb -f its.yaml -p teacher my:net", {"my:net"}),
        ("python -m papermill in.ipynb out.ipynb -y {teacher:my:net}", set()),
        ("papermill in.ipynb out.ipynb -y teacher=[my:net]", {"my:net"}),
        ("python -m ipykernel_launcher", {"my:net", "its:net"}),  # papermill's functions, a notebook's cells
    ],
)
def test_names_in_a_file_that_papermill_reads_are_not_trusted(words, trusted, monkeypatch):
    page = {"In": ["# Parameters\nteacher = 'my:net'"], "teacher": "my:net", "student": "its:net"}
    monkeypatch.setattr("rkd.trust._TRUSTED", found := set())
    monkeypatch.setattr("rkd.experiments.settings._command_above", words.split)
    namespace_parameters(page)
    assert found == trusted
    if "its:net" not in trusted:
        with pytest.raises(ConfigError, match=r"trust names \['its:net'\] in a file"):
            namespace_parameters({**page, "trust": ["its:net"]})


# content of a profile, and what is said of it; or the values it has
PROFILES = [
    (b"", "is not a mapping"),
    (b"- a", "is not a mapping"),
    (b"{", "is not valid YAML: "),
    (b"profile: sm\xf6ke", "it is not UTF-8 text"),
    (b"x: [1\ny: 2", "is not valid YAML, line 2: "),
    (b"#" * 1_000_001, "has 1,000,001 bytes; a file of parameters has at most 1,000,000"),
    (b"options: " + b"[" * 40 + b"]" * 40, "nested deeper than 32 levels"),
    (b"options: " + b"[" * 5000, "is not valid YAML: exceeded maximum nesting depth"),
    (b"options: &a [*a]", "nested deeper than 32 levels"),
    (b"a: &a [" + b"1," * 200 + b"]\nb: &b [" + b"*a," * 200 + b"]", "more than 20,000 values"),
    (b"x: !!python/object/apply:os.system [exit]", "could not determine a constructor"),
    (b"seeds: 2020-13-45", "month must be in 1..12"),
    (b"epochs: 1" + b"0" * 5000, "is not valid YAML"),
    (b"epochs: 1\nepochs: 2", "line 2: 'epochs' is given twice"),
    (b"budget: {table3: {epochs: 1, epochs: 2}}", "'epochs' is given twice"),
    (b"1: 2", "the key 1 is no text"),
    (b"? [a]\n: 1", "the key of several values is no text"),
    (b"<<: {epochs: 1}", "the key << is no text"),
    (b"epoch: 3", "did you mean 'epochs'"),
    (b"budget: 5", "the budget of p.yaml is 5; it must map names to values"),
    (b"budget: []", r"the budget of p.yaml is \[\]; it must map"),
    (b"budget: {table3: 7}", "table3 in the budget of p.yaml is 7; it must map"),
    (b"budget: {tabel3: {epochs: 1}}", "unknown chapter in the budget of p.yaml: 'tabel3' .did you mean 'table3'"),
    (b"budget: {table3: {epocs: 1}}", "parameter of table3 in the budget of p.yaml: 'epocs' .did you mean 'epochs'"),
    (b"budget: {table3: {profile: paper}}", "unknown parameter of table3 .* 'profile'"),
    (b"budget: {table4: {epochs: few}}", "p.yaml: epochs is 'few'; it must be a whole number >= 1"),
    (b"profile: [smoke]", "p.yaml: profile is .*; it must be text"),
    (b"epochs: 10000000000000000000", "epochs is 1.*; it must be a whole number >= 1, and no more than 9.2"),
    (b"trust: [os:_exit]", "p.yaml gives trust, which no file can"),
    (b"\xef\xbb\xbfepochs: 3", {"epochs": 3}),
    (b"lr: 1e-3\nloss_weights: [1E2, 2]\noptions: {kd: {x: -.5e+1}}",
     {"lr": 0.001, "loss_weights": [100, 2], "options": {"kd": {"x": -5}}}),
    (b"budget: {default: null}\nteacher: null", {"budget": {"default": None}, "teacher": None}),
    (b"epochs: &a 1\nteacher_epochs: *a", {"epochs": 1, "teacher_epochs": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("content", "said"), PROFILES)
def test_profiles_are_read_or_refused_in_one_sentence(content, said, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_bytes(content)
    if isinstance(said, dict):
        assert load_profile(str(path)) == said and resolve("table3", {"profile": str(path)})
        return
    with pytest.raises(ConfigError, match=said) as caught:
        resolve("table3", {"profile": str(path)})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["x" * 5000, "\0", "params", "no/where.yaml", ["smoke"]])
def test_what_is_no_profile_is_an_unknown_one(name):
    with pytest.raises(ConfigError, match=r"unknown profile|profile is .* it must be text"):
        resolve("table3", {"profile": name})


def test_files_of_impossible_names_are_not_there():
    for given in ({"teacher_checkpoint": "x" * 5000}, {"dataset": f"{'x' * 5000}.npz"}, {"recipe": "\0"}):
        with pytest.raises(RkdError, match=r"is not a file|neither in the working directory|unknown recipe"):
            run_of(**given)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optimizer": {}}, "did you mean 'optimiser'"),
        ({"optimiser": {"momentumm": 0.9}}, "did you mean 'momentum'"),
        ({"optimiser": {"lr": "fast"}}, "lr is 'fast'"),
        ({"teacher": {"wieghts": "last"}}, "did you mean 'weights'"),
        ({"teacher": {"weights": "first"}}, "unknown weights 'first'"),
        ({"teacher": {"recipe": "mdistiller"}}, "has teachers of recipe mdistiller, but that has those of recipe crd"),
        ({"methods": {"reviewkd": {"hcl_poling": "max"}}}, "did you mean 'hcl_pooling'"),
        ({"methods": {"reviewkd": {"mid_channels": 64.5}}}, "mid_channels is 64.5; it must be a whole number >= 1"),
        ({"methods": {"kdd": {"temperature": 1}}}, "unknown method 'kdd'"),
        ({"methods": {"kd": {"temprature": 1}}}, "did you mean 'temperature'"),
        ({"methods": {"kd": {"drop_last": 3}}}, "drop_last is 3"),
        ({"methods": {"kd": 3}}, "kd is 3; it must map names to values"),
        ({"sums": {"kd": {"ce_weight": 1}}}, "unknown KdOptions setting 'ce_weight'"),
        ({"pairs": [{"teacher": "resnet56", "beta": 1}]}, "unknown model None"),
        ({"pairs": [{"teacher": "resnet8", "student": "resnet8", "method": ["kd"]}]}, "method is .*it must be text"),
        ({"pairs": 3}, "pairs is 3; it must be a list"),
        ({"pairs": [{"teacher": "resnet8", "student": "resnet8", "weight": 1}]}, "setting 'weight'"),
        ({"review": {"ce_weight": 0.5}}, r"recipe r.yaml: review is called methods: {reviewkd: ...} now; rename it"),
        ({"loss_weights": []}, "loss_weights is called pairs now; rename it"),
        ({"epochs": None}, "epochs is None"),
        ({"lr_override": {"shuffle": 0}}, "shuffle is 0; it must be a finite number > 0"),
        ({"description": 5}, "description is 5; it must be text"),
    ],
)  # fmt: skip
def test_recipes_are_checked_at_any_depth(change, said, tmp_path):
    values = yaml.safe_load((paths.params() / "recipes" / "authors.yaml").read_text())
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({**values, **change}))
    with pytest.raises(ConfigError, match=said):
        run_of(recipe=str(path))
    path.write_text("description: x")
    with pytest.raises(ConfigError, match=r"recipe r.yaml: Recipe needs epochs"):
        load_recipe(str(path))


def test_numbers_that_papermill_injects_as_text():
    run = run_of(lr="1e-3", options={"warmup_epochs": "2e0", "hcl_weights": ["1e0", 1, 1, 1]})
    assert run.optimiser.lr == 0.001 and run.options.warmup_epochs == 2
    with pytest.raises(ConfigError, match=r"lr is '0.1'"):
        build(lr="0.1")


def test_chapters_build_under_every_recipe():
    for name, recipe in itertools.product(("table3", "modreduce"), recipe_names()):
        made = lines(name, recipe=recipe, seeds=[0])
        assert len({line.key for line in made}) == len(made) and all(line.runs for line in made)


def test_paper_profile_is_the_published_setting():
    for name in chapter_names():
        chapter, made = get_chapter(name), lines(name, profile="paper", seeds=[0])
        assert len({line.key for line in made}) == len(made)
        for line in made:
            recipe, (run,) = load_recipe(line.recipe), line.runs
            assert (run.epochs, run.batch_size) == (recipe.epochs, recipe.batch_size)
            assert run.data.train_images is None and run.data.name in chapter.datasets
            assert run.optimiser.decay_epochs == recipe.optimiser.decay_epochs
            if chapter.recipe in ("authors", "reproduction"):
                assert (run.epochs, run.batch_size) == (240, 128)
    assert resolve("table3", {"profile": "paper"}).seeds == (0, 1, 2, 3, 4)
    assert {(line.role, len(line.runs)) for line in lines("table3", profile="paper")} == {
        ("teacher", 1), ("student", 5), ("distilled", 5),
    }  # fmt: skip


def test_recipes_differ_where_the_sources_do_and_scale_with_the_epochs():
    def run(recipe, student="resnet20", teacher="resnet56", **given):
        return build(profile="paper", recipe=recipe, **given).distilled(teacher, student, 0)

    authors, reproduction, text = (run(r) for r in ("authors", "reproduction", "text"))
    assert [run.options.warmup_epochs for run in (authors, reproduction, text)] == [20, 0, 0]
    assert (authors.options.hcl_normaliser, reproduction.options.hcl_normaliser) == ("used", "all")
    assert reproduction.options.mid_channels == 64 and authors.options.mid_channels is None
    assert (authors.options.loss_weight, text.options.loss_weight) == (0.6, 0.7)
    assert (authors.optimiser.decay_when, text.optimiser.decay_when) == ("after", "before")
    assert (authors.options.residual, text.options.residual) == ("mid", "output")
    assert text.options.hcl_pooling == "max"
    assert run("text", "shufflenetv1", "wrn_40_2").optimiser.lr == 0.1
    assert authors.teacher.run.id == reproduction.teacher.run.id, "one teacher serves both"
    short = run("authors", epochs=24)
    assert short.optimiser.decay_epochs == (15, 18, 21) and short.options.warmup_epochs == 2
    assert run("authors", epochs=24, decay_epochs=[7]).optimiser.decay_epochs == (7,)
    for stage, given in ((10, {}), (30, {"options": {"init_epochs": 30}})):
        ab = run_of("ab", recipe="crd", epochs=80, **given)
        assert ab.stages[0].epochs == stage, "stages are scaled too, unless given"


def test_injected_values_hold_in_every_row():
    hcl = {"hcl_levels": ["h", 2, 1], "hcl_weights": [1, 0.5, 0.25]}
    rows = by_key("table3", loss_weight=0.9, attention=False, **hcl)
    for line in rows.values():
        if line.role == "distilled":
            o = line.runs[0].options
            assert o.loss_weight == 0.9 and o.attention is False and o.hcl_levels == ("h", 2, 1)
    assert rows["full"].runs[0].id == rows["rm_rlf_hcl"].runs[0].id


def test_chapters_that_sweep_a_parameter_add_a_line_for_an_injected_one():
    plain, injected = by_key("table4"), by_key("table4", hcl_levels=["h"], hcl_weights=[1])
    assert set(injected) - set(plain) == {"injected"}
    assert injected["injected"].runs[0].options.hcl_levels == ("h",)
    assert injected["4_1"].runs == plain["4_1"].runs
    assert [line.x for line in lines("figure6", loss_weights=[0.2, 0.4]) if line.x is not None] == [0.2, 0.4]


def test_options_by_method_reach_their_methods_and_the_parts_of_sums():
    given = {"recipe": "crd", "options": {"kd": {"temperature": 2}, "at": {"p": 1}}}
    assert run_of("kd", **given).options.temperature == 2
    assert run_of("sp", **given).options.loss_weight == 3000
    at, kd = run_of("at+kd", **given).options.parts
    assert (at.options.p, kd.options.temperature, kd.options.loss_weight) == (1, 2, 1.0)  # 0.9 is KD's alone
    with pytest.raises(ConfigError, match="unknown method 'kdd'"):
        run_of("kd", options={"kdd": {"temperature": 2}})
    assert run_of("kd", options={"temperature": 2}).options.temperature == 2
    with pytest.raises(ConfigError, match="are given by method"):
        run_of("at+kd", options={"temperature": 2})


def test_what_a_row_leaves_open_can_be_given_even_where_rows_win():
    builder = build(recipe="modreduce", epochs=24, options={"modreduce": {"growth_epochs": 5}})
    run = builder.distilled("resnet14", "resnet8", 0, "modreduce", {"aggregation": "fc"}, ("aggregation",))
    assert (run.options.growth_epochs, run.options.aggregation, run.ce_weight) == (5, "fc", 0.0)
    assert run.drop_last and not builder.distilled("resnet14", "resnet8", 0, "crd+kd").drop_last


# --- what a notebook declares ----------------------------------------------------------------------------

SMOKE = resolve("table3", {"profile": "smoke", "seeds": [0]})


def declared(**values):
    return Chapter.declared("mine", "Mine", {"METHOD": "reviewkd", **values})


def test_a_changed_row_changes_its_runs_alone():
    def runs(**changed):
        rows = get_chapter("table3").rows
        rows = {**rows, "full": {**rows["full"], **changed}}
        of = chapter_in("table3", {"METHOD": "reviewkd", "ROWS": rows})
        return {line.key: line.runs for line in of.lines(SMOKE)}

    ours, plain = runs(attention=False), runs()
    assert [key for key in plain if ours[key] != plain[key]] == ["full"]
    assert ours["full"] == ours["rm_rlf_hcl"], "without attention it is that row"


def test_a_row_may_be_added_and_says_which_names_it_may_have():
    line = declared(ROWS={"max": {"hcl_pooling": "max", "note": "{student}: {hcl_pooling}"}}).lines(SMOKE)[0]
    assert line.runs[0].options.hcl_pooling == "max" and line.note == "ResNet-8: max"
    with pytest.raises(
        ConfigError, match=r"unknown name in row 'x' of mine: 'atention' .did you mean 'attention'"
    ):
        declared(ROWS={"x": {"atention": False}}).lines(SMOKE)
    with pytest.raises(ConfigError, match="rows is 3; it must map names to values"):
        declared(ROWS=3)
    with pytest.raises(ConfigError, match=r"'\{weight\}' cannot be filled in"):
        declared(ROWS={"x": {"note": "{weight}"}}).lines(SMOKE)


def test_a_chapter_on_one_data_set_runs_on_its_own_unless_another_is_given():
    chapter = declared(ROWS={"full": {}}, DATASETS=["cifar10"])
    for given, expected in (({"profile": "short"}, "cifar10"), ({"profile": "smoke"}, "embedded")):
        s = resolve("mine", {"seeds": [0], "teacher_checkpoint": None, **given})
        assert {run.data.name for line in chapter.lines(s) for run in line.runs} == {expected}


def notebook(path, source):
    cell = {"cell_type": "code", "metadata": {"tags": ["rows"]}, "source": source, "outputs": []}
    path.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def test_cells_that_are_no_literals_are_not_executed(tmp_path, monkeypatch):
    touched = tmp_path / "touched"
    (tmp_path / "book").mkdir()
    notebook(tmp_path / "book" / "bad.ipynb", f"ROWS = {{'x': {{'note': str(open({str(touched)!r}, 'w'))}}}}")
    monkeypatch.setattr(paths, "home", lambda: tmp_path)
    with pytest.raises(ConfigError, match="the cell tagged rows must assign literals alone"):
        get_chapter("bad")
    assert not touched.exists()


def test_a_notebook_is_read_again_once_it_has_changed(tmp_path):
    for key in ("first", "second"):
        assert list(chapters._read(notebook(tmp_path / "x.ipynb", f"ROWS = ['{key}']")).rows) == [key]
