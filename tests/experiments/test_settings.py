"""Parameters: layers, checks, and what each chapter makes of them."""

import pytest
import yaml

from rkd import paths
from rkd.errors import ConfigError
from rkd.experiments.chapters import chapter_names, get_chapter
from rkd.experiments.recipes import Builder, load_recipe, recipe_names
from rkd.experiments.settings import load_profile, profile_names, resolve, stray


def lines(chapter, **given):
    return get_chapter(chapter).lines(resolve(chapter, given))


def by_key(chapter, **given):
    return {line.key: line for line in lines(chapter, **given)}


def test_profiles_and_recipes_there_are():
    assert profile_names() == ["mini", "paper", "short", "smoke"]
    assert recipe_names() == [
        "authors", "crd", "kdrefine", "knowledge_distillation", "mdistiller", "modreduce", "reproduction", "semckd",
        "text",
    ]  # fmt: skip


def test_layers_later_wins():
    assert resolve("table3", {}).profile == "smoke" and resolve("table3", {}).dataset == "embedded"
    assert resolve("table1", {}).epochs == 1 and resolve("table3", {}).epochs != 1
    assert resolve("table1", {"epochs": 7}).epochs == 7
    assert resolve("table3", {"profile": "paper"}).epochs is None, "each recipe has its own"
    assert resolve("table3", {"budget": {"table3": {"epochs": 9}}}).epochs == 9
    assert resolve("table3", {"epochs": None}).epochs == resolve("table3", {}).epochs


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"los_weight": 1}, "unknown parameter 'los_weight' .did you mean 'loss_weight'"),
        ({"profile": "smok"}, "unknown profile 'smok' .did you mean 'smoke'"),
        ({"loss_weight": -0.5}, "loss_weight is -0.5; it must be a finite number >= 0"),
        ({"loss_weight": "much"}, "loss_weight is 'much'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": 2.5}, "epochs is 2.5"),
        ({"threads": 0}, "threads is 0; it must be auto or a whole number >= 1"),
        ({"threads": "many"}, "threads is 'many'; it must be auto or a whole number >= 1"),
        ({"threads": True}, "threads is True"),
        ({"threads": 1.5}, "threads is 1.5"),
        ({"seeds": 3}, "seeds is 3; it must be a list"),
        ({"seeds": []}, "at least one entry"),
        ({"seeds": [-1]}, "seeds is -1"),
        ({"attention": "no"}, "attention is 'no'; it must be True or False"),
        ({"on_missing": "ignore"}, "unknown on_missing 'ignore'"),
        ({"pairs": ["resnet56"]}, "each pair must be"),
        ({"options": [1]}, "must map names"),
        ({"holdout": -1}, "holdout is -1"),
    ],
)
def test_bad_parameters_get_one_sentence(given, message):
    with pytest.raises(ConfigError, match=message) as error:
        resolve("table3", given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hcl_levels": ["h", 4, 2, 1], "hcl_weights": [1, 0.5, 0.25]}, "4 sizes.*3 values"),
        ({"hcl_levels": ["h", 2, 1]}, "3 sizes.*4 values"),
        ({"hcl_levels": ["height"], "hcl_weights": [1]}, "'height' is not a size"),
        ({"teacher": "resnet57"}, "resnet5"),
        ({"recipe": "author"}, "did you mean 'authors'"),
        ({"residual": "input"}, "unknown residual 'input'"),
        ({"dataset": "imagenet"}, "imagenet"),
        ({"normalisation": "zscore"}, "zscore"),
        ({"options": {"hcl_poolling": "max"}}, "did you mean 'hcl_pooling'"),
        ({"precision": "fp17"}, "unknown precision 'fp17'"),
        ({"teacher_batch_norm": "eval"}, "allowed: batch, running"),
    ],
)
def test_contradictions_stop_before_any_run(given, message):
    with pytest.raises(ConfigError, match=message) as error:
        lines("table3", **given)
    assert "\n" not in str(error.value)


def test_misspelt_injected_names_are_found():
    namespace = {"los_weight": 0.9, "epochs": 3, "page": object(), "In": [], "_i": "x", "colour": "red"}
    assert stray(namespace, {"loss_weight", "epochs"}) == [("los_weight", "loss_weight")]


def test_profile_files_are_checked(tmp_path):
    def write(**values):
        (tmp_path / "p.yaml").write_text(yaml.safe_dump(values))
        return str(tmp_path / "p.yaml")

    assert load_profile(write(profile="own", epochs=3))["epochs"] == 3
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        load_profile(write(epoch=3))
    with pytest.raises(ConfigError, match="both for all chapters and in the budget of table1"):
        load_profile(write(epochs=3, budget={"table1": {"epochs": 1}}))
    (tmp_path / "p.yaml").write_text("{")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_profile(str(tmp_path / "p.yaml"))


def test_every_chapter_builds_under_every_profile_and_recipe():
    for name in chapter_names():
        for profile in profile_names():
            for recipe in recipe_names():
                made = lines(name, profile=profile, recipe=recipe, seeds=[0])
                assert len({line.key for line in made}) == len(made)
                assert all(line.runs for line in made)


def test_paper_profile_is_the_published_setting():
    for name in chapter_names():
        chapter = get_chapter(name)
        for line in lines(name, profile="paper"):
            recipe = load_recipe(line.recipe or chapter.recipe)
            for run in line.runs:
                assert (run.epochs, run.batch_size) == (recipe.epochs, recipe.batch_size)
                assert run.data.train_images is None and run.data.name in chapter.datasets
                assert list(run.optimiser.decay_epochs) == recipe.optimiser["decay_epochs"]
                if chapter.recipe in ("authors", "reproduction"):
                    assert (run.epochs, run.batch_size) == (240, 128)
            assert [run.seed for run in line.runs] == ([0] if line.role == "teacher" else [0, 1, 2, 3, 4])


def test_recipe_authors_on_the_eight_pairs():
    builder = Builder(resolve("table1", {"profile": "paper"}), "authors")
    weights = {
        ("resnet56", "resnet20"): 0.6, ("resnet110", "resnet32"): 1.0, ("resnet32x4", "resnet8x4"): 5.0,
        ("wrn_40_2", "wrn_16_2"): 5.0, ("wrn_40_2", "wrn_40_1"): 5.0, ("resnet32x4", "shufflenetv1"): 5.0,
        ("wrn_40_2", "shufflenetv1"): 5.0, ("resnet32x4", "shufflenetv2"): 8.0,
    }  # fmt: skip
    for (teacher, student), weight in weights.items():
        run = builder.review(teacher, student, 0)
        assert run.options.loss_weight == weight and run.options.warmup_epochs == 20
        assert run.optimiser.lr == (0.02 if "shuffle" in student else 0.1)
        assert run.teacher.batch_norm == "batch" and run.teacher.weights == "best"
        assert run.data.normalisation == "cifar10_reviewkd"
        assert run.teacher.run.optimiser.lr == 0.1 and run.teacher.run.seed == 0


def test_recipes_differ_where_the_sources_do():
    def run(recipe, student="resnet20", teacher="resnet56"):
        return Builder(resolve("table3", {"profile": "paper", "recipe": recipe})).review(teacher, student, 0)

    authors, reproduction, text = (run(r) for r in ("authors", "reproduction", "text"))
    assert (
        authors.options.warmup_epochs,
        reproduction.options.warmup_epochs,
        text.options.warmup_epochs,
    ) == (20, 0, 0)
    assert (authors.options.hcl_normaliser, reproduction.options.hcl_normaliser) == ("used", "all")
    assert reproduction.options.mid_channels == 64 and authors.options.mid_channels is None
    assert (authors.options.loss_weight, text.options.loss_weight) == (0.6, 0.7)
    assert (authors.optimiser.decay_when, text.optimiser.decay_when) == ("after", "before")
    assert (authors.options.residual, text.options.residual) == ("mid", "output")
    assert text.options.hcl_pooling == "max"
    assert run("text", "shufflenetv1", "wrn_40_2").optimiser.lr == 0.1
    assert authors.teacher.run.id == reproduction.teacher.run.id, "one teacher serves both"


def test_schedules_scale_with_the_epochs():
    run = Builder(resolve("table3", {"profile": "paper", "epochs": 24, "recipe": "authors"})).review(
        "resnet56", "resnet20", 0
    )
    assert run.optimiser.decay_epochs == (15, 18, 21) and run.options.warmup_epochs == 2
    run = Builder(resolve("table3", {"profile": "paper", "epochs": 24, "decay_epochs": [7]})).plain(
        "resnet20", 0
    )
    assert run.optimiser.decay_epochs == (7,)


def test_rows_of_table_3():
    rows = by_key("table3", profile="paper")
    parts = {
        k: (o.connector, o.attention, o.loss, o.stem)
        for k, o in ((k, r.runs[0].options) for k, r in rows.items())
        if o
    }
    assert parts == {
        "none": ("none", True, "l2", True),
        "rm": ("mechanism", True, "l2", True),
        "rm_rlf": ("residual", False, "l2", False),
        "rm_rlf_abf": ("residual", True, "l2", False),
        "rm_rlf_hcl": ("residual", False, "hcl", False),
        "full": ("residual", True, "hcl", False),
    }
    assert [p.value for p in rows["rm"].published] == [69.58, 69.53]


def test_tables_share_runs():
    """The full method is one run in Tables 3, 4, 5 and 6; fusing without attention one in 3 and 6."""
    full = {
        by_key(c, profile="paper")[k].runs[0].id
        for c, k in (("table3", "full"), ("table4", "h_4_2_1"), ("table5", "large_first"), ("table6", "full"))
    }
    assert len(full) == 1
    assert by_key("table3")["rm_rlf_hcl"].runs == by_key("table6")["add"].runs


def test_injected_values_hold_in_every_row():
    rows = by_key(
        "table3", loss_weight=0.9, attention=False, hcl_levels=["h", 2, 1], hcl_weights=[1, 0.5, 0.25]
    )
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


def test_no_cross_entropy_has_weight_zero():
    assert [run.ce_weight for run in by_key("no_cross_entropy")["alone"].runs] == [0.0, 0.0]


def test_recipe_files_name_known_keys_only(tmp_path):
    values = yaml.safe_load((paths.params() / "recipes" / "authors.yaml").read_text())
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**values, "optimizer": {}}))
    with pytest.raises(ConfigError, match="did you mean 'optimiser'"):
        load_recipe(str(tmp_path / "r.yaml"))


def test_options_by_method_reach_their_methods_and_the_parts_of_sums():
    settings = resolve("run", {"recipe": "crd", "options": {"kd": {"temperature": 2}, "at": {"p": 1}}})
    builder = Builder(settings)
    pair = "resnet14", "resnet8", 0
    assert builder.distilled(*pair, "kd").options.temperature == 2
    assert builder.distilled(*pair, "sp").options.loss_weight == 3000
    at, kd = builder.distilled(*pair, "at+kd").options.parts
    assert (at.options.p, kd.options.temperature, kd.options.loss_weight) == (1, 2, 1.0)  # 0.9 is KD's alone
    with pytest.raises(ConfigError, match="unknown method 'kdd'"):
        Builder(resolve("run", {"options": {"kdd": {"temperature": 2}}})).distilled(*pair, "kd")
    flat = Builder(resolve("run", {"options": {"temperature": 2}}))
    assert flat.distilled(*pair, "kd").options.temperature == 2
    with pytest.raises(ConfigError, match="are given by method"):
        flat.distilled(*pair, "at+kd")


def test_epochs_of_a_method_are_scaled_unless_given():
    def stage(**given):
        builder = Builder(resolve("run", {"recipe": "crd", "epochs": 80, **given}))
        return builder.distilled("resnet14", "resnet8", 0, "ab").stages[0].epochs

    assert stage() == 10 and stage(epochs=2) == 1 and stage(options={"init_epochs": 30}) == 30


def test_teachers_of_the_family_are_one_run():
    """Whatever the recipe of the student, its teacher is the benchmark's."""
    runs = {
        Builder(resolve("run", {"profile": "paper", "recipe": recipe}))
        .distilled("resnet56", "resnet20", 0, "kd")
        .teacher
        for recipe in ("crd", "kdrefine", "mdistiller", "modreduce", "semckd")
    }
    assert len({teacher.run.id for teacher in runs}) == 1 and len(runs) == 1


def test_what_a_row_leaves_open_can_be_given_even_where_rows_win():
    builder = Builder(
        resolve("run", {"recipe": "modreduce", "epochs": 24, "options": {"modreduce": {"growth_epochs": 5}}})
    )
    run = builder.distilled(
        "resnet14", "resnet8", 0, "modreduce", {"aggregation": "fc"}, fixed=("aggregation",)
    )
    assert (run.options.growth_epochs, run.options.aggregation, run.ce_weight) == (5, "fc", 0.0)
    assert run.drop_last and not builder.distilled("resnet14", "resnet8", 0, "crd+kd").drop_last
