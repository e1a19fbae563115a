"""rkd claims --resolve and rkd run for those who come from other code."""

import csv
import io

import pytest
import yaml

from rkd.cli import main

KD = "kdrefine-benchmark-resnet56-resnet20-kd-cifar100"


def rkd(capsys, *arguments):
    status = main(arguments)
    out = capsys.readouterr()
    return status, out.out, out.err


def config(capsys, *arguments):
    """What --dry-run prints, as a mapping."""
    status, out, err = rkd(capsys, "run", *arguments, "--dry-run")
    assert status == 0, err
    return yaml.safe_load(out)


def test_answers_are_counted_by_source(capsys):
    status, out, _ = rkd(capsys, "claims", "--resolve")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert status == 0
    assert rows["source"] == ["run", "derived", "setting", "explained", "all", "unanswered"]
    assert rows["all"] == ["390", "34", "39", "8", "471", "0"]
    assert rows["modreduce"] == ["90", "0", "0", "0", "90", "0"]


def test_answers_one_by_one_say_what_is_recorded(capsys, tmp_path):
    given = ["--resolve", "--source", "kdrefine", "--student", "resnet20", "--method", "KD"]
    status, out, _ = rkd(capsys, "claims", *given, "--results", str(tmp_path), "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 0 and [row["id"] for row in rows] == [KD, KD.replace("resnet56", "resnet110")]
    assert rows[0]["answer"] == "kdrefine/resnet20-resnet56-kd" and rows[0]["recorded"] == "0/5"
    first = rows[0]["runs"].split()
    assert len(first) == 5
    run = config(capsys, "--claim", KD, "--profile", "paper", "--seed", "2")
    status, out, _ = rkd(capsys, "run", "--claim", KD, "--profile", "paper", "--seed", "2", "--dry-run")
    assert out.splitlines()[0] == f"# run {first[2]}" and run["seed"] == 2
    (tmp_path / f"{first[2]}.json").write_text("{}")
    status, out, _ = rkd(capsys, "claims", *given, "--results", str(tmp_path))
    assert status == 0 and "1/5" in out and first[2] in out


def test_a_claim_that_is_no_run_says_what_it_is(capsys):
    gain = "knowledge_distillation-results-resnet20-resnet20-at-cifar10-delta_vs_baseline"
    status, out, _ = rkd(capsys, "run", "--claim", gain)
    assert status == 0 and f"rkd run --claim {gain.removesuffix('-delta_vs_baseline')}\n" in out
    assert "rkd run --claim knowledge_distillation-results-resnet20-baseline-cifar10\n" in out
    status, out, _ = rkd(capsys, "run", "--claim", "re_paper-text3.2-training-cifar100-epochs")
    assert status == 0 and "It is a setting: 240 (recipe text: epochs)." in out
    status, out, _ = rkd(capsys, "run", "--claim", "kdrefine-benchmark-resnet50-vgg8-fsp-cifar100")
    assert status == 0 and "The source prints nothing in this cell." in out


def test_a_claim_is_run_and_recorded(capsys, tmp_path):
    call = [
        "run",
        "--claim",
        "re_paper-table1-resnet56-resnet20-student-cifar100",
        "--results",
        str(tmp_path),
    ]
    tiny = ["--set", "train_images=64", "--set", "test_images=100", "--set", "epochs=1"]
    status, out, _ = rkd(capsys, *call, *tiny)
    assert status == 0 and "finished: last" in out
    status, out, _ = rkd(capsys, *call, *tiny)
    assert status == 0 and "(was recorded)" in out


def test_methods_by_name_take_the_recipe_of_their_code(capsys):
    at = config(
        capsys, "--method", "at", "--teacher", "resnet110", "--student", "resnet20", "--profile", "paper"
    )
    assert (at["method"], at["options"]["loss_weight"], at["batch_size"]) == ("at", 1000.0, 64)
    assert at["optimiser"]["lr"] == 0.05 and at["teacher"]["batch_norm"] == "running"
    refined = config(capsys, "--method", "kdrefine", "--teacher", "resnet56", "--student", "represnet20")
    assert refined["optimiser"]["lr"] == 0.01 and refined["ce_weight"] == 0.1
    review = config(capsys, "--teacher", "resnet56", "--student", "resnet20", "--profile", "paper")
    assert (review["method"], review["batch_size"], review["options"]["loss_weight"]) == (
        "reviewkd",
        128,
        0.6,
    )
    named = config(capsys, "--set", "method=at", "--teacher", "resnet110", "--student", "resnet20")
    assert named["method"] == "at"


def test_weights_and_options_of_a_method(capsys):
    kd = config(
        capsys, "--method", "kd", "--teacher", "resnet56", "--student", "resnet20",
        "-r", "0.5", "-b", "2", "--set", "options={temperature: 2}",
    )  # fmt: skip
    assert (kd["ce_weight"], kd["options"]["loss_weight"], kd["options"]["temperature"]) == (0.5, 2.0, 2.0)
    both = config(
        capsys, "--method", "crd+kd", "--teacher", "resnet32x4", "--student", "resnet8x4",
        "--set", "options={crd: {loss_weight: 0.5}}",
    )  # fmt: skip
    weights = {part["method"]: part["options"]["loss_weight"] for part in both["options"]["parts"]}
    assert both["method"] == "crd+kd" and weights == {"crd": 0.5, "kd": 1.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--student", "resnet8", "--method", "at"], "--method at needs a --teacher"),
        (["run", "--student", "resnet8", "--teacher", "resnet14", "--method", "att"], "unknown method 'att'"),
        (["run", "--claim", KD, "--teacher", "resnet8"], "--claim, which names its own pair"),
        (["run", "--claim", KD + "0"], f"did you mean '{KD}'?"),
        (
            ["run", "--student", "resnet8", "--teacher", "resnet14", "--method", "crd+kd", "-b", "2"],
            "by method",
        ),
        (["claims", "--resolve", "--profile", "papre"], "unknown profile"),
        (["claims", "--id", KD[:-1]], f"did you mean '{KD}'?"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_2(arguments, message, capsys):
    status, _, err = rkd(capsys, *arguments)
    assert status == 2 and message in err and err.count("\n") == 1
