"""Every `rkd ...` line of the README and of the written pages is one that the command line takes; what `rkd run` is
told to train can be configured."""

import importlib
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from rkd import paths
from rkd.cli import ALIASES, COMMANDS, GROUPS, main, parse
from rkd.data.normalisation import PRESETS
from rkd.methods import method_names

HOME = paths.home()
PAGES = {name: HOME / name for name in ("README.md", "book/running.md", "book/coming_from.md")}


KNOWN = {*COMMANDS, *ALIASES, *GROUPS}


def commands(text):
    """Lines of fenced shell blocks that begin with rkd, continued ones joined; and inline ones that have arguments."""
    for block in re.findall(r"^```(?:shell|bash|sh)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("rkd "):
                yield line
    for line in re.findall(r"(?<!`)`(rkd (?!show [a-z]+`)[a-z]+ [^`]+)`(?!`)", text):
        if line.split()[1] in KNOWN and not re.search(r"\bID\b", line):
            yield line


FOUND = [
    (name, line) for name, path in PAGES.items() for line in dict.fromkeys(commands(path.read_text("utf-8")))
]


def test_the_pages_have_commands():
    counts = {name: sum(name == n for n, _ in FOUND) for name in PAGES}
    assert counts["README.md"] >= 5 and counts["book/running.md"] >= 8 and counts["book/coming_from.md"] >= 15


@pytest.mark.parametrize(("page", "line"), FOUND, ids=[line for _, line in FOUND])
def test_command_is_taken(page, line, tmp_path, capsys):
    words = shlex.split(line, comments=True)[1:]
    parse(words)
    if words[0] == "run":
        teacher = tmp_path / "teacher.pth"  # a dry run needs its hash alone
        teacher.write_bytes(b"weights")
        words = [re.sub(r"^teacher_checkpoint=.*", f"teacher_checkpoint={teacher}", word) for word in words]
        assert main([*words, "--dry-run"]) == 0, capsys.readouterr().err
        assert capsys.readouterr().out.startswith("# run ")


def test_the_reference_names_what_exists():
    found = re.findall(
        r"^\.\. auto(\w+):: ([\w.]+)$", (HOME / "book/api.md").read_text("utf-8"), re.MULTILINE
    )
    assert len(found) > 10
    for kind, name in found:
        if kind == "module":
            module = importlib.import_module(name)
            assert all(hasattr(module, member) for member in getattr(module, "__all__", ())), name
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
    call = [
        "run",
        "--method",
        method,
        "--teacher",
        "resnet56",
        "--student",
        "resnet20",
        "--set",
        f"options={options}",
    ]
    assert main([*call, "--dry-run"]) == 0, capsys.readouterr().err


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
