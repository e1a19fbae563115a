"""Odd and damaged inputs of every kind, drawn by hypothesis in an order that is always the same: only the package's own
errors come out, exit statuses are 0, 1 or 2, nothing is imported, executed, or written elsewhere.

RKD_FUZZ_SECONDS (60) is what all kinds take together; `make fuzz` takes longer, and prints their counts.
"""

import contextlib
import copy
import io
import itertools
import json
import math
import os
import pickle
import shlex
import shutil
import signal
import sys
import time
import traceback
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from conftest import Silent, StopAfter, tiny_data, tiny_plain, trained
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import rkd
from rkd import cli, data, models
from rkd.cli import evaluate
from rkd.data import DataConfig
from rkd.errors import RkdError
from rkd.experiments.group import RunGroup
from rkd.experiments.recipes import Builder
from rkd.experiments.runner import Runner
from rkd.experiments.settings import parameter_names, resolve
from rkd.experiments.snapshots import load_snapshots
from rkd.published import logs, others
from rkd.records import Record, Store
from rkd.records.csv_summary import summarise
from rkd.records.teachers import load_teacher, save_teacher
from rkd.records.transfer import export, merge
from rkd.report.book import Book
from rkd.report.book.building import adopt
from rkd.training import checkpoint

HOME = Path(rkd.__file__).resolve().parents[1]
SECONDS = float(os.environ.get("RKD_FUZZ_SECONDS", 60))
PATIENCE = 60  # seconds for one input; more is a hang
QUIET = {"suppress_health_check": list(HealthCheck)}
CANARY = "rkd_canary"  # a module that lies where Python looks; nothing may import it


# --- what is drawn ---------------------------------------------------------------------------------

TEXT = st.text("ab_.0:/ <é☃\0\n", max_size=5)
ODD = st.one_of(
    st.sampled_from([
        None, True, False, 0, 1, -1, 2, 1.5, 10**9, 10**400, -(10**30), 1e308, 1e-320, math.nan, math.inf, -math.inf,
        "", " ", "abc", "nan", "1e-3", "é☃𝕏", "a\0b", "\ud800", "x\ny", "../../x", "/dev/null", "~", "%s{0}",
        "x" * 5000, f"{CANARY}:go", f"{CANARY}.sub:go", ":", "a:b:c", "<script>alert(1)</script>", "javascript:x()",
        "auto", "h/2", "resnet20", "resnet_7x7", "wrn_9999999_1", "kd", "kd+kd", "kd+", "+", "cpu", "cuda:99", "mps",
        "meta", "embedded", [], {}, [[]], [None], {"": None}, {"a": {"b": 1}}, [0] * 300, [1, "h"], ["h", 4], [0, 0],
        [1, [2, [3]]], [-1], json.loads("[" * 500 + "]" * 500),
    ]),
    st.integers(), st.floats(), TEXT,
    st.recursive(st.none() | st.integers() | st.floats() | TEXT,
                 lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=4),
)  # fmt: skip


@st.composite
def mutated(draw, tree, odd=ODD):
    """A tree of mappings and lists with up to four places changed."""
    whole = [copy.deepcopy(tree)]
    for _ in range(draw(st.integers(1, 4))):
        node, key = whole, 0
        while isinstance(node[key], dict | list) and node[key] and draw(st.integers(0, 9)):
            node = node[key]
            key = draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
        change = draw(st.sampled_from(["replace", "replace", "replace", "delete", "add", "rename", "double"]))
        if change == "delete" and node is not whole:
            del node[key]
        elif change == "add" and isinstance(node[key], dict):
            node[key][draw(TEXT)] = copy.deepcopy(draw(odd))
        elif change == "rename" and isinstance(node, dict):
            node[draw(TEXT)] = node.pop(key)
        elif change == "double" and isinstance(node[key], list):
            node[key] += node[key][:20]
        else:
            node[key] = copy.deepcopy(draw(odd))
    return whole[0]


@st.composite
def damaged(draw, content):
    """Bytes cut, flipped, overwritten, doubled; most in their first and last thousand, where headers lie."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        end = draw(st.sampled_from([len(found), min(len(found), 1000)]))
        at = draw(st.integers(0, max(end - 1, 0)))
        at = max(len(found) - 1 - at, 0) if draw(st.booleans()) else at
        flipped = bytes(byte ^ 1 << draw(st.integers(0, 7)) for byte in found[at : at + 1])
        width, put = draw(st.sampled_from([
            (len(found), b""), (1, flipped), (8, draw(st.binary(max_size=12))), (draw(st.integers(1, 64)), b""),
            (0, found[at : at + 200]),
        ]))  # fmt: skip
        found[at : at + width] = put
    return bytes(found)


TENSORS = st.sampled_from([
    torch.zeros(()), torch.zeros(0), torch.full((3, 3), math.nan), torch.ones(2, dtype=torch.int64), torch.ones(1) * 1j,
    torch.ones(1, dtype=torch.bool), torch.ones(3, dtype=torch.bfloat16), torch.zeros(1).expand(2, 10**6),
])  # fmt: skip


class Hostile:
    """What a pickle of it does where it is believed."""

    def __reduce__(self):
        return __import__, (CANARY,)


def saved(content):
    with io.BytesIO() as file:
        torch.save(content, file)
        return file.getvalue()


def zipped(arrays):
    with io.BytesIO() as file:
        np.savez(file, **arrays)
        return file.getvalue()


def promising(name, length):
    """An npz file whose header promises more than there is."""
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive, archive.open(f"{name}.npy", "w") as array:
            form = {"descr": "|u1", "fortran_order": False, "shape": (length, 4, 4, 3)}
            np.lib.format.write_array_header_1_0(array, form)
        return file.getvalue()


def as_json(tree):
    return json.dumps(tree).encode()


def as_yaml(tree):
    return yaml.safe_dump(tree).encode()


def files_of(tree, write, odd=ODD):
    """Files of a tree with odd values, and damaged ones."""

    def written(found):
        try:
            return write(found)
        except Exception:  # what cannot be written at all is no input
            return b""

    return mutated(tree, odd).map(written) | damaged(write(tree))


def torch_files(state):
    hostile = [saved(Hostile()), saved({**state, "x": Hostile()}), pickle.dumps(Hostile())]
    return files_of(state, saved, ODD | TENSORS) | st.sampled_from(hostile)


def npz_files(sound):
    shapes = st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 7]), max_size=5)
    kinds = st.sampled_from(["u1", "i8", "u8", "f4", "f8", "?", "c8", "U3", "S2", "M8[s]", "O"])
    labels = [2**40, [-1, 0, 1, 1], [0, 1, 2**40, 0], [0, 1, 3, 3], ["a", "<b>"]]
    odd = st.builds(np.zeros, shapes, kinds) | st.sampled_from(labels).map(np.array)
    names = st.sampled_from([*sound, "class_names", "more"])
    changed = st.dictionaries(names, odd, min_size=1, max_size=2).map(lambda more: zipped({**sound, **more}))
    lacking = names.map(lambda name: zipped({n: a for n, a in sound.items() if n != name}))
    return changed | lacking | damaged(zipped(sound)) | st.builds(promising, names, st.integers(0, 2**62))


YAML = st.sampled_from([
    b"", b"[]", b"3", b"a: [", b"a: 1\na: 2", b"\xff\xfe", b"a: &x [*x]", b"&a [" + b"[" * 3000, b"? [1]\n: 2", b"1: 2",
    b"!!python/object/apply:__import__ [rkd_canary]", b"epochs: 2021-13-45", b"a: \0", b"--- 1\n--- 2", b"\t", b"<<: 3",
])  # fmt: skip


# --- what reads it ---------------------------------------------------------------------------------


class Kinds:
    """Strategy and reader by kind of input, in a folder of their own; `inside` is where readers write."""

    def __init__(self, folder):
        self.inside = folder / "inside"
        self.inside.mkdir(parents=True)
        home = folder / "home"
        shutil.copytree(HOME / "params", home / "params")
        shutil.copytree(HOME / "book", home / "book", ignore=shutil.ignore_patterns("_assets"))
        shutil.copytree(HOME / "results" / "others", home / "results" / "others")
        shutil.copy(HOME / "_config.yml", home)
        os.environ["RKD_HOME"] = str(home)  # the checkout stays as it is
        (folder / "inside" / f"{CANARY}.py").write_text("open('PWNED', 'w')\n")
        few = tiny_data(train_images=40, test_images=20)
        self.config = tiny_plain(data=few, batch_size=24, epochs=1)

    def file(self, name, content):
        path = self.inside / name
        path.write_bytes(content)
        return path

    def store(self):
        shutil.rmtree(self.inside / "store", ignore_errors=True)
        return Store(self.inside / "store" / "records", self.inside / "store" / "work")

    def records(self):
        every = [json.loads(path.read_bytes()) for path in sorted((HOME / "results" / "mini").glob("*.json"))]
        by = {record["config"]["method"]: record for record in every}

        def read(text):
            store = self.store()
            store.records.mkdir(parents=True)
            (store.records / "0123456789ab.json").write_bytes(text)
            record = Record.from_json(text, "it")
            store.save(record)
            assert Record.from_json(record.to_json(), "again").id == record.id
            summarise([record])
            record.accuracy("best")
            with contextlib.suppress(RkdError):
                list(store)

        return st.one_of(files_of(record, as_json) for record in (by["reviewkd"], by[None])), read

    def profiles(self):
        sound = yaml.safe_load((HOME / "params" / "smoke.yaml").read_text())

        def read(text):
            profile = str(self.file("odd.yaml", text))
            for chapter in ("run", "table1"):
                Builder(resolve(chapter, {"profile": profile})).distilled("resnet14", "resnet8", 0)

        return files_of(sound, as_yaml) | YAML, read

    def recipes(self):
        sound = yaml.safe_load((HOME / "params" / "recipes" / "authors.yaml").read_text())
        crd = yaml.safe_load((HOME / "params" / "recipes" / "crd.yaml").read_text())

        def read(text):
            given = {"recipe": str(self.file("odd.yaml", text)), "dataset": "embedded"}
            builder = Builder(resolve("run", given))
            builder.plain("resnet8", 0)
            for method in ("reviewkd", "kd", "at+kd"):
                builder.distilled("resnet14", "resnet8", 0, method)

        return files_of(sound, as_yaml) | files_of(crd, as_yaml) | YAML, read

    def parameters(self):
        some = st.dictionaries(
            st.sampled_from([*parameter_names(), "budget", "typo"]), ODD, min_size=1, max_size=2
        )

        def read(given):
            settings = resolve("run", {"dataset": "embedded", **given})
            for method in (settings.method or "reviewkd", "crd+kd"):
                run = Builder(settings).distilled(settings.teacher, settings.student, 0, method)
                assert len(run.id) == 12

        return some, read

    def images(self):
        x, y = np.zeros((4, 4, 4, 3), np.uint8), np.array([0, 1, 0, 1])

        def read(content):
            self.file("odd.npz", content)
            data.describe(DataConfig("odd.npz", "half"), self.inside)
            data.load(DataConfig("odd.npz", "half", train_images=3, holdout=1), self.inside)

        return npz_files({"x_train": x, "y_train": y, "x_test": x, "y_test": y}), read

    def checkpoints(self):
        state, run = trained(self.config, stop=StopAfter(1)), self.config

        def read(content):
            store = self.store()
            path = store.folder(run.id) / "checkpoint.pt"
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
            runner = Runner(store, self.inside, "cpu", progress=Silent(), stop=lambda needed: True)
            RunGroup([run], runner).train()
            path.write_bytes(content)
            checkpoint.load_unfinished(path, run.id)

        return torch_files(state.state_dict()), read

    def weights(self):
        network = models.build("resnet8")
        weights = dict(network.state_dict())
        state = {"run": "0" * 12, "epoch": 1, "model": weights, "data": {"name": "cifar100"}}

        def read(content):
            path = self.file("odd.pt", content)
            models.stated_accuracy(path)
            models.load_weights(network, path)

        return st.one_of(map(torch_files, (state, weights))), read

    def exported(self):
        network = models.build("resnet8")
        facts = {"network": "resnet8", "data": "{}", "class_names": '["a"]', "accuracy": "50"}
        bare = safetensors.torch.save({"a": torch.ones(2)}, facts)
        files = damaged(safetensors.torch.save(network.state_dict(), facts)) | damaged(bare)

        def read(content):
            path = self.file("odd.safetensors", content)
            evaluate.read_model_facts(path)
            models.load_weights(network, path)

        return files, read

    def teachers(self):
        path = self.inside / "sound.safetensors"
        save_teacher(path, models.build("resnet8").state_dict(), {"run": "0" * 12, "network": "resnet8"})
        bare = safetensors.torch.save({"a": torch.ones(2)}, {"format": "rkd teacher 1", "sha256": "0"})
        files = damaged(path.read_bytes()) | damaged(bare)
        return files, lambda content: load_teacher(self.file("odd.safetensors", content))

    def snapshots(self):
        sound = {
            "run": np.array("0" * 12), "epochs": np.arange(2), "levels": np.array(["a"]), "size": np.array(4),
            "classes": np.array(["a"]), "labels": np.zeros(2, int), "images": np.zeros((2, 4, 4, 3), np.uint8),
        }  # fmt: skip

        def read(content):
            store = self.store()
            store.maps("0" * 12).parent.mkdir(parents=True)
            store.maps("0" * 12).write_bytes(content)
            if load_snapshots(store, "0" * 12) is None:
                raise RkdError("it is damaged, and said so")

        return npz_files(sound), read

    def exports(self):
        store, run = self.store(), self.config
        Runner(store, self.inside, "cpu", progress=Silent()).run([run])
        sound = self.inside / "sound_export"
        export(store, sound, planned=[run], all_weights=True)
        manifest = json.loads((sound / "manifest.json").read_text())
        (part,) = (path for path in sound.iterdir() if path.suffix == ".bin")
        content = part.read_bytes()

        def read(odd):
            text, tar = odd
            folder = self.inside / "export"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            (folder / "manifest.json").write_bytes(text)
            (folder / part.name).write_bytes(tar)
            merge(self.store(), folder)

        manifests = files_of(manifest, as_json).map(lambda text: (text, content))
        return manifests | damaged(content).map(lambda tar: (as_json(manifest), tar)), read

    def notebooks(self):
        sound = json.loads((HOME / "book" / "table1.ipynb").read_text())
        for cell in sound["cells"]:
            if cell["cell_type"] == "code":
                cell |= {"execution_count": 1, "outputs": []}
                cell["metadata"]["execution"] = {"shell.execute_reply": "2026-01-01T00:00:00Z"}
        told = {"parameters": {"epochs": 3}, "end_time": "2026-01-01T00:00:00", "duration": 1.0}
        sound["metadata"]["papermill"] = told
        profile = HOME / "params" / "smoke.yaml"
        book = Book("smoke", HOME / "book", HOME / "_config.yml", self.inside / "build", profile)
        return files_of(sound, as_json), lambda text: adopt(book, self.file("odd.ipynb", text), "name")

    def tables(self):
        """Other people's logs and tables of runs."""
        table = (HOME / "results" / "others" / "public_runs.csv").read_bytes()[:3000]
        log = b"epoch: 1\ntest_acc: 50.0\n---\nepoch: 2\ntest_acc: 51.0\n---\nbest_acc\t51.0\n"
        told = {"student": "resnet20", "epochs": 2, "dataset": "cifar100", "method": "kd"}

        def read(odd):
            form, text = odd
            path = self.file("odd.csv", text)
            return others.read_runs(path) if form == "others" else logs.load(path, form, told, {}, {})

        forms = st.sampled_from(["others", *logs.FORMATS])
        return st.tuples(forms, damaged(table) | damaged(log) | st.binary(max_size=40)), read

    def calls(self):
        lines = [
            "run --student resnet8", "run --student resnet8 --teacher resnet14 --method at+kd --set epochs=2 -b 1",
            "run --row table3/rm --seed 1", "run --claim review-table1-resnet20-resnet56-reviewkd",
            "sweep params/smoke.yaml --chapters table3 --budget 1m", "sweep params/mini.yaml --order verdicts",
            "status --chapters table3 --verbose", "verdicts --chapter table3 --grade B --csv", "show data odd.npz",
            "evaluate 0123456789ab --weights best", "evaluate --checkpoint odd.pt --model resnet8 --dataset embedded",
            "export --out exported --max-part 1MB", "import export", "show models resnet8 --classes 10",
            "show figures --student resnet8 --csv", "show records --last 1", "import-logs odd.csv --format csv",
            "book --list-variations", "book --drop x", "book --add odd.ipynb --name x", "records check",
        ]  # fmt: skip
        # Last, so that nothing is trained, measured or built.
        ends = {"run": ["--dry-run"], "sweep": ["--dry-run"], "book": ["--no-html"]}
        odd = ODD.map(lambda value: value if isinstance(value, str) else json.dumps(value))
        odd = odd.filter(lambda text: CANARY not in text and ".." not in text)  # what is typed is believed
        own = ("csv", "name", "nope", "seed", "budget", "last", "max-part", "format", "chapters", "out", "")
        option = st.sampled_from([f"--{name.replace('_', '-')}" for name in (*parameter_names(), *own)])
        named = st.sampled_from(parameter_names())
        assigned = st.builds(lambda name, value: ("--set", f"{name}={value}"), named, odd)
        added = st.tuples(option, odd) | assigned | st.tuples(st.just("-p"), named, odd) | st.tuples(odd)

        @st.composite
        def call(draw):
            line = shlex.split(draw(st.sampled_from(lines)))
            for _ in range(draw(st.integers(1, 2))):
                at, width = draw(st.integers(1, len(line))), draw(st.integers(0, 1))
                line[at : at + width] = draw(added | st.tuples(odd)) if draw(st.integers(0, 3)) else ()
            return [*line, *ends.get(line[0], [])]

        def read(line):
            out, err = io.StringIO(), io.StringIO()
            book = mock.patch("rkd.report.book.build_book", side_effect=RkdError("not built here"))
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), book:
                try:
                    status = cli.main(line)
                except SystemExit as left:  # argparse
                    status = left.code
            said = err.getvalue()
            assert status in (0, 1, 2), f"exit status {status}"
            assert "Traceback" not in said + out.getvalue()
            if status == 2:
                told = [text for text in said.splitlines() if not text.startswith("usage:")]
                assert len(told) == 1 and told[0].startswith("rkd"), f"{len(told)} lines: {said[:300]!r}"
                raise RkdError(told[0])

        return call(), read


KINDS = [name for name in vars(Kinds) if name[0] != "_" and name not in ("file", "store")]


# --- the run ---------------------------------------------------------------------------------------


class Tally:
    """How inputs of a kind ended: "own error", "accepted", "other"; and of each other its place and first input."""

    def __init__(self):
        self.ends, self.others = Counter(), {}

    def take(self, read, value):
        def hang(*_):
            raise TimeoutError(f"more than {PATIENCE} s")

        signal.signal(signal.SIGALRM, hang)
        signal.alarm(PATIENCE)
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # what is said without stopping
                read(value)
            self.ends["accepted"] += 1
        except RkdError as error:
            self.ends["own error"] += 1
            if not str(error).strip():
                self.others.setdefault("an error without words", repr(value))
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [f for f in frames if f.filename.startswith((str(HOME / "rkd"), str(HOME / "tests")))]
            at = f"{Path(ours[-1].filename).relative_to(HOME)}:{ours[-1].lineno}" if ours else "?"
            self.ends["other"] += 1
            self.others.setdefault(f"{at} {type(error).__name__}: {str(error)[:40]!r}", repr(value))
        finally:
            signal.alarm(0)

    def __str__(self):
        counts = ", ".join(f"{self.ends[end]} {end}" for end in ("own error", "accepted", "other"))
        found = "".join(f"\n    {what}\n      {value[:700]}" for what, value in self.others.items())
        return f"{sum(self.ends.values())} inputs: {counts}{found}"


def listed(folder, ours):
    """Files outside what readers write to."""
    found = {path.relative_to(folder) for path in folder.rglob("*")}
    return {path for path in found if path.parts[0] not in ours}


@pytest.mark.parametrize("kind", KINDS)
def test_odd_inputs_get_our_own_errors(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("RKD_HOME", "")  # put back at the end
    kinds, tally, numbers = Kinds(tmp_path), Tally(), itertools.count()
    monkeypatch.chdir(kinds.inside)
    monkeypatch.syspath_prepend(kinds.inside)
    strategy, read = getattr(kinds, kind)()
    ours = ("inside", "home") if kind == "calls" else ("inside",)  # a call may name a folder below home
    there, end = listed(tmp_path, ours), time.monotonic() + SECONDS / len(KINDS)
    while time.monotonic() < end:

        @seed(next(numbers))
        @settings(max_examples=100, database=None, deadline=None, phases=[Phase.generate], **QUIET)
        @given(strategy)
        def chunk(value):
            if time.monotonic() < end:
                tally.take(read, value)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            chunk()
    print(f"{kind}: {tally}")
    assert tally.ends["own error"] and not tally.others, f"{kind}: {tally}"
    run = CANARY in sys.modules or (kinds.inside / "PWNED").exists()
    assert not run, "a name from a file was imported"
    assert (new := listed(tmp_path, ours) - there) == set(), f"written outside its folder: {new}"
