"""Every `rkd ...` line of the README and of the written pages is one that the command line takes; what `rkd run` is
told to train can be configured; answers to questions are executed as they stand, those that train long as dry runs."""

import importlib
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml
from PIL import Image

from rkd import paths
from rkd.cli import ALIASES, COMMANDS, GROUPS, main, parse
from rkd.data.normalisation import PRESETS
from rkd.methods import method_names
from rkd.models import registry

HOME = paths.home()
PAGES = {name: HOME / name for name in ("README.md", "book/running.md", "book/coming_from.md")}


KNOWN = {*COMMANDS, *ALIASES, *GROUPS}


def commands(text):
    """Lines of fenced shell blocks that begin with rkd, continued ones joined; and inline ones that have arguments."""
    for block in re.findall(r"^```(?:shell|bash|sh)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in re.sub(r"\\\n *", "", block).splitlines():
            if line.startswith("rkd "):
                yield line
    for line in re.findall(r"(?<!`)`(rkd [a-z]+ [^`]+)`(?!`)", text):
        known = line.split()[1] in KNOWN and line.removeprefix("rkd ") not in COMMANDS
        if known and not re.search(r"\bID\b", line):
            yield line


FOUND = [
    (name, line) for name, path in PAGES.items() for line in dict.fromkeys(commands(path.read_text("utf-8")))
]


def test_the_pages_have_commands():
    counts = {name: sum(name == n for n, _ in FOUND) for name in PAGES}
    assert counts["README.md"] >= 5 and counts["book/running.md"] >= 8 and counts["book/coming_from.md"] >= 15


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    """The folder a reader stands in: photographs in nine classes, one of them grey, a network and its bare weights."""
    folder, draw = tmp_path_factory.mktemp("standing"), np.random.default_rng(0)
    for part, count in (("train", 3), ("val", 1)):
        for name in "abcdefghi":
            (folder / "photos" / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 256, (48, 40) if name == "a" else (40, 48, 3), np.uint8)
                Image.fromarray(pixels).save(folder / "photos" / part / name / f"{i}.png")
    page = PAGES["book/running.md"].read_text()
    (source,) = re.findall(r"^```python\n(import torchvision\n.*?)^```", page, re.M | re.S)
    (folder / "my_nets.py").write_text(source)
    torch.save(torchvision.models.resnet18(num_classes=100).state_dict(), folder / "my_weights.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))  # the network registers itself
        yield folder


# What is in the line -> what is in its answer: of a dry run, and of lines that are executed, in their order.
DRY = {
    "--image-size 384 --norm": ["name: photos/", "image_size: 384", "- 0.45", "mobilenet_v2: 2 epochs"],
    "-b 30": ["ResNet-50: 240 epochs in batches of 64, lr 0.05", "MobileNetV2: 240 epochs in batches of 64, lr 0.01",
              "loss_weight: 30.0"],
    "--epochs 120": ["teacher ResNet-56: 240 epochs", "ResNet-20: 120 epochs", "lr 0.1 (falls at 150, 180, 210)",
                     "warmup_epochs: 20"],
    "vectors: columns": ["vectors: columns"],
    "wrn_40_1 --profile paper --seed 1": ["seed: 1", "network: wrn_40_1", "epochs: 240"],
}  # fmt: skip
EXECUTED = {
    "show data photos": ["classes          9", "size             384 x 384", "4 of 36 images are grey"],
    "--checkpoint my_weights": ["% on 2000 test images of embedded with embedded statistics"],
    "--teacher my_nets": ["finished: last"], "--dataset photos --image-size 32": ["finished: last"],
    "show figures --teacher wrn_40_2": ["75.09", "74.14"], "--student resnet8 --precision": ["c4f5df2aa8e4 finished"],
    "teacher_checkpoint=c4f5": ["finished: last"],
    "student.onnx": ["wrote student.onnx", "differ from torch's by at most"],
    "student.ts": ["wrote student.ts", "differ from torch's by at most"],
    "features.npz": ["pooled_train (16, 64)"],
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # of exporters, about themselves
@pytest.mark.parametrize("part", EXECUTED)
def test_answers_are_executed_as_they_stand(part, standing, monkeypatch, done):
    (line,) = {line for _, line in FOUND if part in line and "rkd show data my" not in line}
    if line.endswith(".onnx --results mine"):
        pytest.importorskip("onnxruntime")
    monkeypatch.chdir(standing)
    out = done(line.removeprefix("rkd "))
    assert all(words in out for words in EXECUTED[part]), out


def test_a_run_is_the_beginning_of_a_longer_one_of_the_same_schedule(standing, monkeypatch, done):
    """Of the small commands' sort: to the bit, while the rate has not fallen."""
    monkeypatch.chdir(standing)
    few = "--student resnet8 --precision fp32 --decay-epochs [150,180,210] --train-images 48"
    curves = []
    for epochs in (1, 2):
        done(f"run {few} --results lengths --epochs {epochs}")
        (path,) = (p for p in (standing / "lengths").glob("*.json") if f'"epochs": {epochs}' in p.read_text())
        curves.append(yaml.safe_load(path.read_text())["curves"])
    assert all(curves[1][name][:1] == curve for name, curve in curves[0].items()), curves
    assert len(curves[1]["loss_ce"]) == 2


@pytest.mark.parametrize(("page", "line"), FOUND, ids=[line for _, line in FOUND])
def test_command_is_taken(page, line, standing, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(standing)
    words = shlex.split(line, comments=True)[1:]
    parse(words)
    if words[0] == "run":
        teacher = tmp_path / "teacher.pth"  # a dry run needs its hash alone
        teacher.write_bytes(b"weights")
        words = [re.sub(r"^(\w*(checkpoint|pretrained))=.*", rf"\1={teacher}", word) for word in words]
        words = [re.sub(r"^dataset=my_images/", "dataset=cifar10", word) for word in words]
        if re.search(r"teacher_checkpoint=[0-9a-f]{12}( |$)", line):  # on no record here, which names it
            words += ["--teacher", "resnet20"]
        assert main([*words, "--dry-run"]) == 0, capsys.readouterr().err
        out = capsys.readouterr().out
        assert out.startswith("# run ")
        assert all(words in out for part, told in DRY.items() if part in line for words in told), out


def test_every_question_is_answered_by_a_command_that_is_tested():
    text = PAGES["book/coming_from.md"].read_text("utf-8")
    lines = [*commands(text[text.index("## Questions that come up") :])]
    untested = "rkd sweep params/paper.yaml", "rkd show records"  # which would train, and has nothing to show
    tested = (*DRY, *EXECUTED, *untested)
    assert all(any(part in line for part in tested) for line in lines) and len(lines) >= 10


def test_the_reference_names_what_exists():
    text = (HOME / "book/api.md").read_text("utf-8")
    found = re.findall(r"^\.\. auto(\w+):: ([\w.]+)$", text, re.MULTILINE)
    assert len(found) > 10
    for kind, name in found:
        if kind == "module":
            importlib.import_module(name)
        else:
            module, _, member = name.rpartition(".")
            assert hasattr(importlib.import_module(module), member), name


def test_method_names_and_presets_of_the_tables_exist():
    text = Path(PAGES["book/coming_from.md"]).read_text("utf-8")
    rows = re.findall(r"^\| `\w+` \| `(\w+)` \| \| `\w+` \| `(\w+)` \|$", text, re.MULTILINE)
    named = {name for row in rows for name in row}
    assert len(named) == 14 and named <= set(method_names())
    section = text[text.index("| Files of |") :]
    presets = set(re.findall(r"\| `(cifar\w+)` \|$", section, re.MULTILINE))
    assert presets == {name for name in PRESETS if name.startswith("cifar")}


@pytest.mark.parametrize(
    ("options", "method"),
    [
        ("{hint_layer: 2}", "fitnet"), ("{k: 1}", "kdsvd"), ("{init_epochs: 30}", "ab"), ("{positive: relax}", "crd"),
        ("{feature_dim: 128, negatives: 16384, temperature: 0.07, momentum: 0.5}", "crd"), ("{temperature: 4}", "kd"),
        ("{distance_weight: 25, angle_weight: 50}", "rkd"), ("{init_variance: 5}", "vid"),
        ("{mid_channels: 512}", "reviewkd"), ("{warmup_epochs: 20}", "reviewkd"),
        ("{alpha: 1, beta: 8, temperature: 4, warmup_epochs: 20}", "dkd"), ("{aggregation: wavg}", "modreduce"),
        ("{kd: {temperature: 4}}", "crd+kd"), ("{kd: {loss_weight: 1}}", "crd+kd"),
        ("{kd: {loss_weight: 1, temperature: 4}}", "reviewkd+kd"),
    ],
)  # fmt: skip
def test_options_of_the_tables_are_those_of_the_methods(options, method, capsys):
    assert f"options={options}" in PAGES["book/coming_from.md"].read_text("utf-8")
    call = f"run --method {method} --teacher resnet56 --student resnet20 --dry-run --set".split()
    assert main([*call, f"options={options}"]) == 0, capsys.readouterr().err


def test_every_option_in_a_table_is_tested_above():
    text = PAGES["book/coming_from.md"].read_text("utf-8")
    tested = {mark.args[1][i][0] for mark in test_options_of_the_tables_are_those_of_the_methods.pytestmark
              for i in range(len(mark.args[1]))}  # fmt: skip
    inline = set(re.findall(r"`[^`\n]*options=(\{[^`\n]*?\})'`", text))
    assert inline <= tested | {"{crd: {loss_weight: 0.8}, kd: {loss_weight: 1}}"}, inline - tested


def test_conda_gets_the_pins_of_the_book():
    book = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]["optional-dependencies"]["book"]
    conda = yaml.safe_load((HOME / "environment.yml").read_text())["dependencies"]
    (pip,) = (entry["pip"] for entry in conda if isinstance(entry, dict))
    assert pip == [*book, "-e ."]
