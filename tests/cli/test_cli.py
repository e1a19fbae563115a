"""The command line: help that teaches, what calls print, exit statuses; nothing here trains more than an epoch."""

import csv
import inspect
import io
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import ROOT, tiny_plain
from evidence import record

from rkd import models
from rkd.cli import ALIASES, COMMANDS, carry, main, parse
from rkd.cli.declare import command_line, parsed_values
from rkd.cli.sweep import sweep
from rkd.experiments.settings import parameter_names
from rkd.records import Store
from rkd.records.provenance import machine_state

TINY = "--train-images 100 --test-images 100 --epochs 1"
KD = "kdrefine-benchmark-resnet56-resnet20-kd-cifar100"
GAIN = "knowledge_distillation-results-resnet20-resnet20-at-cifar10"


@pytest.fixture
def config(done):
    """The configuration a run would have."""
    return lambda line: yaml.safe_load(done(f"run {line} --dry-run"))


@pytest.mark.parametrize("command", ["", *COMMANDS, *ALIASES])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    if command == "bench":  # what it was has become one of two
        assert all(name in text for name in ("rkd bench", "speed", "gate"))
    else:
        assert "examples:" in text and f"rkd {ALIASES.get(command, command or 'book')}" in text


def test_a_former_spelling_is_the_present_command_and_an_unknown_one_is_named(capsys):
    assert {name.split()[0] for name in COMMANDS} == set(
        ["run", "sweep", "book", "status", "verdicts", "show", "model", "records", "bench", "cluster"]
    )
    for words in ("bench --seconds 9", "bench speed --seconds 9"):
        assert parse(words.split()).seconds == 9
    for words, said in (
        (
            "exprot",
            "rkd: unknown command 'exprot' (did you mean 'export'?); allowed: bench, book, cluster, export, model",
        ),
        (
            "records exprot",
            "rkd: unknown 'rkd records' command 'exprot' (did you mean 'export'?); allowed: check, export",
        ),
    ):
        assert main(words.split()) == 2 and capsys.readouterr().err.startswith(said)
    with pytest.raises(SystemExit, match="0"):
        main(["records"])
    assert "import-logs" in capsys.readouterr().out, "a group alone is its help"
    assert parse(["gate"]).call is parse(["bench", "gate"]).call is not parse(["bench"]).call
    assert (
        parse(["export", "--out", "x"]).call
        is parse(["records", "export", "--out", "x"]).call
        is carry.export
    )


def test_every_parameter_of_the_chapters_is_an_option(capsys):
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    text = capsys.readouterr().out
    for name in parameter_names():
        assert name == "profile" or f"--{name.replace('_', '-')} " in text, name
    spelt = parse(shlex.split("run --student x --options '{stem: true}' --device cuda:1 --results 1"))
    assert (spelt.options, spelt.device, spelt.results) == ({"stem": True}, "cuda:1", "1")
    spelt = parse(shlex.split("run --student x --epochs 3 --hcl-levels [h,2] --attention false --lr 1e-3"))
    assert (spelt.epochs, spelt.hcl_levels, spelt.attention, spelt.lr) == (3, ["h", 2], False, 0.001)
    assert parse(["status", "--compile", "--lr", "1e-3"]).compile is True
    numbers = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}
    for text, found in (("imagenet", "imagenet"), (str(numbers), numbers)):
        assert parse(["run", "--student", "x", "--normalisation", text]).normalisation == found


@pytest.mark.parametrize(
    "words",
    [
        ["--results", "1"], ["--recipe", "null"], ["--data-root", "2020-01-01"], ["--results", " a: b\n#"],
        ["--results", "{"], ["--dataset", "été 😀.npz"], ["--dataset", "cifar10"], ["-s", "recipe=null"],
        ["--options", "{kd: {temperature: 1e-7}}"], ["--lr", "1e-3", "--budget", "9m", "--chapters", "table3,table4"],
    ],
)  # fmt: skip
def test_a_call_that_is_spelt_to_go_on_with_means_the_same(words):
    first, values = parsed_values(parse(["sweep", "p.yaml", *words]))
    bound = inspect.signature(sweep).bind(*first, **values)
    bound.apply_defaults()
    assert parsed_values(parse(shlex.split(command_line(sweep, bound.arguments))[1:])) == (first, values)


def test_help_does_not_wait_for_torch():
    check = (
        "import sys; from rkd.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, timeout=60).returncode == 0


@pytest.mark.parametrize("line", ["show models resnet8 --teacher resnet14", "run --student \u2190\udcff"])
def test_what_a_terminal_lacks_is_replaced(line, monkeypatch):
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="ascii") for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    assert main(line.split()) in (0, 2)
    for stream in streams.values():
        stream.flush()
    assert b"?" in b"".join(stream.buffer.getvalue() for stream in streams.values())


def test_a_printed_command_can_be_pasted_into_a_shell(capsys):
    done = SimpleNamespace(files=(), left_out={}, no_room=(), without_weights=(), parts=())
    carry.print_export(done, Path("a b; rm -r $HOME"))
    command = capsys.readouterr().out.partition("with: ")[2]
    assert shlex.split(command) == ["rkd", "records", "import", "a b; rm -r $HOME"]


@pytest.mark.parametrize("line", ["", "trian", "run", "run --student", "sweep"])
def test_calls_that_lack_something_exit_2(line, capsys):
    try:
        status = main(line.split())
    except SystemExit as stop:
        status = stop.code
    assert status == 2 and "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run --student resnet21", "resnet21"),
        ("", "name a command: bench, book, cluster, model, records, run, show, status, sweep, verdicts"),
        ("-x run --student resnet8", "unknown option '-x'"),
        ("bench gat", "unknown 'rkd bench' command 'gat' (did you mean 'gate'?); allowed: gate, speed"),
        ("run --studnet resnet8", "unknown option '--studnet' (did you mean '--student'?); `rkd run --help`"),
        ("bench speed gate", "unknown argument 'gate'; `rkd bench speed --help` lists what it takes"),
        ("status --chapters table3 --results {file}", "a file; name a folder, which may be new"),
        ("show records --results {file}", "a file; name a folder, which may be new"),
        ("run --student resnet8 --results {file}", "a file; name a folder, which may be new"),
        ("records check --results nowhere", "nowhere', so nothing to check"),
        ("run --student resnet8 --set epochs", "not of the form NAME=VALUE"),
        ("run --student resnet8 --device tpu9", "unknown device 'tpu9'"),
        ("run --student resnet8 --set device=", "there is no value"),
        ("status --device cuda:99", "this machine has no"),
        ("bench --device tpu", "unknown device 'tpu'"),
        ("run --student resnet8 --budget=-5m", "'-5m' is not a duration"),
        ("run --student resnet8 --budget 0s", "'0s' is no time at all"),
        ("run --student resnet8 --set budget=9m", "an option of the command's own, no parameter: --budget"),
        ("run --student resnet8 --set given=1", "unknown parameter 'given'"),
        ("run --student resnet8 --options '{a: 1, a: 2}'", "'a' is given twice"),
        (
            "run --student resnet8 --teacher resnet14 --hcl-levels [h,999] --hcl-weights [1,1]",
            "hcl_levels has 999",
        ),
        ("check-method kdsvd --teacher resnet8x4 --student resnet8", "equal channels"),
        ("evaluate --checkpoint x.pt --model resnet8 --weights best", "about a recorded run"),
        ("evaluate ffffffffffff --batch-size 64", "batch_size has no effect on an evaluation"),
        ("run --student resnet8 --maps --dry-run", "--maps keeps what ReviewKD compares"),
        ("models --teacher resnet20", "name that too"),
        ("claims --source kdrefine --results x", "go with --resolve"),
        ("models wrn_40_9999", "would have about 58,049,188 million parameters"),
        ("models --classes -5", "--classes is -5; it must be between 1 and"),
        ("verdicts --profile smoke", "a self-test and never evidence"),
        ("verdicts --profile short", "are of grade C whatever is given; leave it out"),
        ("summary --csv .", "'.' is a folder; name a file in it"),
        ("summary --csv nowhere/x.csv", "nowhere', where x.csv is to be written, is no folder"),
        ("sweep params/smoke.yaml --out README.md", "'README.md' is a file; name a folder"),
        ("claims --source re_papre", "did you mean 're_paper'"),
        (f"claims --id {KD[:-1]}", f"did you mean '{KD}'?"),
        ("claims --resolve --profile papre", "allowed: mini, paper, short, smoke, the path of"),
        ("data nowhere.npz", "nowhere.npz"),
        ("book --only table9", "unknown chapter 'table9'"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_2(line, message, rkd):
    status, _, err = rkd(line.replace("{file}", __file__))
    assert status == 2 and message in err and err.count("\n") == 1


def test_names_from_files_are_text_until_they_are_vouched_for(tmp_path, monkeypatch, rkd):
    """A record of a network of somebody's, in a folder with a module of that name, beside one of our own."""
    (tmp_path / "evil_for_cli.py").write_text(
        "open('ran', 'a').write('x')\nfrom rkd import models\n"
        "def build(classes): return models.build('resnet8', classes)\n"
    )
    (tmp_path / "p.yaml").write_text("student: evil_for_cli:build")
    monkeypatch.setenv("RKD_HOME", str(ROOT))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rkd.trust._TRUSTED", set())
    store, ids = Store(tmp_path / "r", tmp_path / "r" / "work"), []
    where = f"--results {tmp_path / 'r'}"
    for network in ("evil_for_cli:build", "resnet8"):
        made = record(tiny_plain(network=network), 5.0)
        device = machine_state(torch.device("cpu"))["device_name"]
        made.provenance.update(device_name=device, train_images=100)
        store.save(made)
        ids.append(made.id)
        store.folder(made.id).mkdir(parents=True)
        torch.save({"student": models.build("resnet8").state_dict()}, store.folder(made.id) / "last.pt")
    for line in ("status --chapters table3 -v", "summary", "export --out x --all-weights"):
        status, out, err = rkd(f"{line} {where}")
        assert status in (0, 1) and out, err
    for line, said in (
        (f"sweep p.yaml --chapters table3 --dry-run {where}", "profile p"),
        (f"evaluate {ids[0]} {where}", f"the record of run {ids[0]}"),
    ):
        status, _, err = rkd(line)
        assert status == 2 and f"'evil_for_cli:build', named by {said}, is code from elsewhere" in err, err
    assert not (tmp_path / "ran").exists()
    status, out, _ = rkd(f"evaluate {ids[0]} {where} --trust evil_for_cli:build")
    assert status == 1 and " now, 5.00 % in the record" in out and (tmp_path / "ran").exists()


def test_run_then_run_again_then_evaluate(tmp_path, rkd, done):
    call = f"run --student resnet8 --results {tmp_path} {TINY}"
    out = done(call)
    assert "finished: last" in out
    run = out.split()[0]
    status, out, err = rkd(call)
    assert status == 0 and "(was recorded)" in out and err == ""
    assert " now, " in done(f"evaluate {run} --results {tmp_path}")
    (tmp_path / "work" / run / "last.pt").unlink()
    status, _, err = rkd(f"evaluate {run} --results {tmp_path}")
    assert status == 2 and "not on this machine" in err


def test_status_and_sweep(tmp_path, done):
    tiny = f"{TINY} --seeds [0] --teacher resnet8 --results {tmp_path}"
    assert "0 recorded, 4 to train" in done(f"sweep params/smoke.yaml --chapters table5 --dry-run {tiny}")
    assert "4 runs are recorded" in done(f"sweep params/smoke.yaml --chapters table5 {tiny}")
    out = done(f"status --chapters table5,table6 --verbose {tiny}")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.startswith("table")}
    assert rows == {"table5": ["4", "0", "0", "0", "0", "0"], "table6": ["2", "0", "0", "0", "0", "3"]}


def test_rows_and_methods_by_name_take_their_recipe(config):
    row = config("--row table3/rm --profile paper --seed 2")
    told = row["options"]["connector"], row["seed"], row["teacher"]["run"]["network"]
    assert told == ("mechanism", 2, "resnet56")
    at = config("--set method=at --teacher resnet110 --student resnet20 --profile paper -r 0.5")
    told = at["method"], at["batch_size"], at["ce_weight"], at["optimiser"]["lr"]
    assert told == ("at", 64, 0.5, 0.05) and at["options"]["loss_weight"] == 1000.0
    assert at["teacher"]["batch_norm"] == "running"
    review = config("--teacher resnet56 --student resnet20 --profile paper")
    told = review["method"], review["batch_size"], review["options"]["loss_weight"]
    assert told == ("reviewkd", 128, 0.6)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("show models shufflenetv2 --teacher resnet32x4", ["1,355,528 parameters", "4,195,718 fusion parameters in"]),
        ("show models represnet20", ["997,684 para", "merged  277,636 parameters, 40,818,944 multiply-adds"]),
        ("claims --table 'Table 6'", ["71.62", "\n3 figures"]),
        ("claims --teacher wrn_40_2 --student wrn_40_1", ["75.09", "kdrefine", "modreduce"]),
        (f"run --claim {GAIN}-delta_vs_baseline", [
            f"rkd run --claim {GAIN}\n", "rkd run --claim knowledge_distillation-results-resnet20-baseline-cifar10\n",
        ]),
        ("run --claim re_paper-text3.2-training-cifar100-epochs", ["It is a setting: 240 (recipe text: epochs)."]),
        ("run --claim kdrefine-benchmark-resnet50-vgg8-fsp-cifar100", ["The source prints nothing in this cell."]),
    ],
)  # fmt: skip
def test_what_calls_print(line, said, done):
    out = done(line)
    assert all(words in out for words in said), out
    assert ("merged" in out) == ("represnet20" in line)


def test_networks_are_listed_in_groups(done):
    out = done("models --classes 10")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.startswith("  ")}
    assert set(rows) == set(models.names()) and rows["vgg8"] == ["3,918,858", "96.15"]
    assert rows["repvgg8"][2:] == ["merged:", "3,915,914", "96.15"]
    assert [group for group in models.groups() if group not in out.splitlines()] == []


def test_published_figures_and_answers_counted_by_source(done):
    pair = "claims --teacher wrn_40_2 --student wrn_40_1"
    assert done(pair) == done("claims --teacher WRN40-2 --student WRN-40-1")
    out = done("claims --csv")
    assert len(out.splitlines()) == 472 and out.startswith("id,source,table,teacher")
    rows = {line.split()[0]: line.split()[1:] for line in done("claims --resolve").splitlines()}
    assert rows["source"] == ["run", "derived", "setting", "explained", "all", "unanswered"]
    assert rows["all"] == ["390", "34", "39", "8", "471", "0"]
    assert rows["modreduce"] == ["90", "0", "0", "0", "90", "0"]


def test_answers_one_by_one_say_what_is_recorded(done, tmp_path):
    call = f"claims --resolve --source kdrefine --student resnet20 --method KD --results {tmp_path}"
    rows = list(csv.DictReader(io.StringIO(done(f"{call} --csv"))))
    assert [row["id"] for row in rows] == [KD, KD.replace("resnet56", "resnet110")]
    assert rows[0]["answer"] == "kdrefine/resnet20-resnet56-kd" and rows[0]["recorded"] == "0/5"
    runs = rows[0]["runs"].split()
    assert len(runs) == 5
    assert done(f"run --claim {KD} --profile paper --seed 2 --dry-run").startswith(f"# run {runs[2]}\n")
    (tmp_path / f"{runs[2]}.json").write_text("{}")
    out = done(call)
    assert "1/5" in out and runs[2] in out


def test_check_method(done, rkd, tmp_path, monkeypatch):
    """A method that can be captured, and one in a file that cannot."""
    small = "--teacher resnet8 --student resnet8"
    out = done(f"check-method kd {small} --set temperature=2")
    assert out == "kd can be captured: 3 steps hold nothing that a replay could not do\n"
    (tmp_path / "reading.py").write_text(
        "from rkd.methods import SingleLoss\n\n\n"
        "class Reading(SingleLoss):\n"
        "    def loss(self, batch):\n"
        "        return batch.student.logits.float().mean() * batch.teacher.logits.mean().item()\n"
    )
    monkeypatch.chdir(tmp_path)
    status, out, _ = rkd(f"check-method reading:Reading {small}")
    assert status == 1 and out.startswith("reading.py, line 6, `return") and out.count("\n") == 1
    assert "reads a value back" in out and "aten._local_scalar_dense" in out
