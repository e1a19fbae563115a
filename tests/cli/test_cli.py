"""The command line: help that teaches, output, exit codes."""

import os
import subprocess
import sys
import time

import pytest

from rkd.cli import ALIASES, COMMANDS, main, parse
from rkd.experiments.settings import names

TINY = ["--set", "train_images=100", "--set", "test_images=100", "--set", "epochs=1"]


def rkd(capsys, *arguments):
    status = main(arguments)
    out = capsys.readouterr()
    return status, out.out, out.err


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text and f"rkd {command or 'book'}" in text


def test_every_parameter_of_the_chapters_is_an_option(capsys):
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    text = capsys.readouterr().out
    for name in names():
        assert name == "profile" or f"--{name.replace('_', '-')} " in text, name
    spelt = parse(
        ["run", "--student", "resnet8", "--epochs", "3", "--hcl-levels", "[h, 2]", "--attention", "false"]
    )
    assert (spelt.epochs, spelt.hcl_levels, spelt.attention) == (3, ["h", 2], False)
    assert parse(["status", "--compile", "--lr", "1e-3"]).compile is True
    assert parse(["status", "--lr", "1e-3"]).lr == 0.001


@pytest.mark.parametrize("alias", ALIASES)
def test_spellings_of_before(alias, capsys):
    with pytest.raises(SystemExit) as stop:
        main([alias, "--help"])
    assert stop.value.code == 0 and f"rkd {ALIASES[alias].partition(' --')[0]}" in capsys.readouterr().out


def test_help_does_not_wait_for_torch():
    check = (
        "import sys; from rkd.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\nsys.exit('torch' in sys.modules)"
    )
    started = time.monotonic()
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, timeout=60).returncode == 0
    assert time.monotonic() - started < 20


def test_wrong_calls_exit_2():
    for arguments in ([], ["trian"], ["run"], ["run", "--student"]):
        done = subprocess.run(
            [sys.executable, "-m", "rkd", *arguments], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 2 and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--student", "resnet21"], "resnet21"),
        (["run", "--student", "resnet8", "--set", "epochs"], "not of the form NAME=VALUE"),
        (["run", "--student", "resnet8", "--set", "epochs=0"], "epochs is 0"),
        (["run", "--student", "resnet8", "--profile", "papr"], "did you mean 'paper'"),
        (["run", "--student", "resnet8", "--device", "tpu9"], "unknown device 'tpu9'"),
        (["run", "--row", "table3/rlf"], "unknown row of table3 'rlf'"),
        (["run", "--row", "table3/rm", "--method", "at"], "--row, which names its own method"),
        (["sweep", "params/nowhere.yaml"], "unknown profile"),
        (["status", "--chapters", "tabel3"], "did you mean 'table3'"),
        (["evaluate", "ffffffffffff"], "not recorded"),
        (["evaluate"], "either a recorded run or --checkpoint"),
        (["evaluate", "--checkpoint", "x.pt"], "x.pt: cannot be read"),
        (["models", "vgg99"], "vgg99"),
        (["check-method", "kdd"], "did you mean 'kd'"),
        (["check-method", "kd", "--set", "temperatur=2"], "did you mean 'temperature'"),
        (["check-method", "nowhere:build"], "method 'nowhere:build' cannot be imported"),
        (["claims", "--source", "re_papre"], "did you mean 're_paper'"),
        (["data", "nowhere.npz"], "nowhere.npz"),
        (["book", "--timeout", "soon"], "not a duration"),
        (["book", "--only", "table9"], "unknown chapter 'table9'"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_2(arguments, message, capsys):
    status, _, err = rkd(capsys, *arguments)
    assert status == 2 and message in err and err.count("\n") == 1


def test_run_then_run_again_then_evaluate(tmp_path, capsys):
    call = ["run", "--student", "resnet8", "--results", str(tmp_path), *TINY]
    status, out, _ = rkd(capsys, *call)
    assert status == 0 and "finished: last" in out
    run = out.split()[0]
    status, out, err = rkd(capsys, *call)
    assert status == 0 and "(was recorded)" in out and err == ""
    status, out, _ = rkd(capsys, "evaluate", run, "--results", str(tmp_path))
    assert status == 0 and " now, " in out
    (tmp_path / "work" / run / "last.pt").unlink()
    status, _, err = rkd(capsys, "evaluate", run, "--results", str(tmp_path))
    assert status == 2 and "not on this machine" in err


def test_dry_run_prints_the_config(capsys):
    status, out, _ = rkd(
        capsys,
        "run",
        "--student",
        "resnet8",
        "--teacher",
        "resnet14",
        "--dry-run",
        "--set",
        "loss_weight=0.9",
    )
    assert status == 0 and "loss_weight: 0.9" in out and out.startswith("# run ")


def test_a_row_of_a_table_is_a_named_variant(capsys):
    status, out, _ = rkd(
        capsys, "run", "--row", "table3/rm", "--dry-run", "--profile", "paper", "--seed", "2"
    )
    assert status == 0 and "connector: mechanism" in out and "seed: 2" in out and "network: resnet56" in out


def test_status_and_sweep(tmp_path, capsys):
    tiny = [*TINY, "--set", "seeds=[0]", "--set", "teacher=resnet8", "--results", str(tmp_path)]
    status, out, _ = rkd(capsys, "sweep", "params/smoke.yaml", "--chapters", "table5", "--dry-run", *tiny)
    assert status == 0 and "0 recorded, 4 to train" in out
    status, out, _ = rkd(capsys, "sweep", "params/smoke.yaml", "--chapters", "table5", *tiny)
    assert status == 0 and "4 runs are recorded" in out
    status, out, _ = rkd(capsys, "status", "--chapters", "table5,table6", "--verbose", *tiny)
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.startswith("table")}
    assert status == 0 and rows == {"table5": ["4", "0", "0", "0", "0"], "table6": ["2", "0", "0", "0", "3"]}


def test_models(capsys):
    status, out, _ = rkd(capsys, "models", "shufflenetv2", "--teacher", "resnet32x4")
    assert status == 0 and "1,355,528 parameters" in out and "4,195,718 fusion parameters in all" in out


def test_claims(capsys):
    status, out, _ = rkd(capsys, "claims", "--table", "Table 6")
    assert status == 0 and "71.62" in out and out.rstrip().endswith("3 figures")
    status, out, _ = rkd(capsys, "claims", "--csv")
    assert len(out.splitlines()) == 472 and out.startswith("id,source,table,teacher")


def test_interrupt_exits_1(monkeypatch, capsys):
    import rkd.cli.show as module

    def interrupt():
        """Nothing."""
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "models", interrupt)
    status, _, err = rkd(capsys, "models")
    assert status == 1 and "resumes" in err and os.environ.get("OMP_NUM_THREADS")


def test_check_method(capsys, tmp_path, monkeypatch):
    """A method that can be captured, one in a file that cannot, and pairs that a method refuses."""
    small = ["--teacher", "resnet8", "--student", "resnet8"]
    status, out, _ = rkd(capsys, "check-method", "kd", *small, "--set", "temperature=2")
    assert status == 0 and out == "kd can be captured: 3 steps hold nothing that a replay could not do\n"
    (tmp_path / "reading.py").write_text(
        "from rkd.methods import SingleLoss\n\n\n"
        "class Reading(SingleLoss):\n"
        "    def loss(self, batch):\n"
        "        return batch.student.logits.float().mean() * batch.teacher.logits.mean().item()\n"
    )
    monkeypatch.chdir(tmp_path)
    status, out, _ = rkd(capsys, "check-method", "reading:Reading", *small)
    assert status == 1 and out.startswith("reading.py, line 6, `return") and out.count("\n") == 1
    assert "reads a value back" in out and "aten._local_scalar_dense" in out
    status, _, err = rkd(capsys, "check-method", "kdsvd", "--teacher", "resnet8x4", "--student", "resnet8")
    assert status == 2 and "equal channels" in err
