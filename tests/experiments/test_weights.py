"""What `teacher_checkpoint` names besides files: recorded runs, which may have been taught, and shared weights."""

import dataclasses
import json
import re
import shutil

import pytest
import torch

from rkd import models, paths
from rkd.errors import ConfigError, RecordError
from rkd.experiments.recipes import Builder
from rkd.experiments.runner import Runner
from rkd.experiments.settings import resolve
from rkd.experiments.weights import find_weights
from rkd.files import sha256
from rkd.records import Store, teachers, transfer

TINY = "--train-images 32 --test-images 20 --batch-size 16 --epochs 1 --precision fp32 --student resnet8 --results mine"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one's own, in which one stands."""
    shutil.copytree(paths.params(), tmp_path / "params")
    (tmp_path / "book").mkdir()
    monkeypatch.setenv("RKD_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def built(**given):
    """A run of ResNet-8 taught by KD, by what is given."""
    settings = resolve("run", given)
    return Builder(settings, "crd").distilled(settings.teacher, "resnet8", 0, "kd")


def trained(out):
    """Id of the run that a call has trained, and its record."""
    run = re.search(r"^([0-9a-f]{12}) finished", out, re.MULTILINE)[1]
    return run, json.loads((paths.home() / "mine" / f"{run}.json").read_text())


def test_born_again_for_two_generations(project, done, rkd):
    first, _ = trained(done(f"run {TINY}"))
    taught = f"run {TINY} --method kd --teacher-checkpoint"
    status, out, err = rkd(f"{taught} {first}")
    second, record = trained(out)
    assert status == 0 and f"teacher ResNet-8: run {first}; student ResNet-8" in err
    weights = project / "mine" / "work" / first / "last.pt"
    assert record["config"]["teacher"] == {
        "network": "resnet8", "sha256": sha256(weights), "record": first, "weights": "best", "run": None,
        "checkpoint": f"mine/work/{first}/last.pt", "batch_norm": "running",
    }  # fmt: skip
    facts = record["provenance"]["teacher"]
    assert (facts["run"], facts["weights"]) == (first, "last"), "as the recipe of kd has it"
    said = json.loads((project / "mine" / f"{first}.json").read_text())["result"]["last_accuracy"]
    assert torch.load(weights, weights_only=True)["accuracy"] == said
    third, record = trained(done(f"{taught} {second}"))
    assert len({first, second, third}) == 3 and record["config"]["teacher"]["record"] == second

    transfer.export(Store(project / "mine", project / "mine" / "work"), project / "carry")
    carried = (project / "carry" / "manifest.json").read_text()
    assert all(f"work/{run}/last.pt" in carried for run in (first, second))
    assert f"work/{third}/" not in carried

    # Other weights under the same id are another teacher; the same ones under any spelling are the same.
    digest = record["config"]["teacher"]["sha256"]
    file = f"mine/work/{second}/last.pt --teacher resnet8"
    for spelt in (f"mine/{second}", file, f"{second}#sha256={digest}"):
        assert f"{third} finished (was recorded)" in done(f"{taught} {spelt}")
    for more, message in (
        (f"{second} --teacher resnet14", "is a ResNet-8, but the teacher is to be ResNet-14; leave one"),
        (f"{second} --dataset cifar100", "on 'embedded' but the student is to be trained on 'cifar100'"),
        ("0123456789ab", "no run 0123456789ab is recorded in mine, "),
        (f"elsewhere/{second}", f"no run {second} is recorded in elsewhere"),
    ):
        status, _, err = rkd(f"{taught} {more} --dry-run")
        assert status == 2 and message in err
    (project / "mine" / "work" / second / "last.pt").unlink()
    status, _, err = rkd(f"{taught} {second}")
    assert (
        status == 2
        and "whose last weights are not on this machine; carry them here (`rkd records export" in err
    )
    said = done(f"{taught} {second}#sha256={digest}")
    assert f"{third} finished (was recorded)" in said, "named by content"


def test_a_run_of_another_profile(project, done):
    run, _ = trained(done(f"run {TINY}"))
    (project / "results").mkdir()
    shutil.copytree(project / "mine", project / "results" / "theirs", ignore=shutil.ignore_patterns("work"))
    shutil.move(project / "mine" / "work", project / "checkpoints" / "theirs")
    (project / "mine" / f"{run}.json").unlink()
    given = {"teacher_checkpoint": run, "results": "mine"}
    taught = built(**given).teacher
    assert (taught.name, taught.checkpoint) == ("resnet8", f"checkpoints/theirs/{run}/last.pt")
    profile = project / "own.yaml"
    profile.write_text(f"teacher: resnet14\nteacher_checkpoint: {run}\nresults: mine\ndataset: embedded")
    for more, network in (({}, "resnet14"), ({"teacher_checkpoint": run}, "resnet8")):
        found = resolve("run", {"profile": "own.yaml", **more})
        assert found.teacher == network, "what is given goes before"
    with pytest.raises(ConfigError, match="is a ResNet-8, but the teacher is to be ResNet-14"):
        built(profile="own.yaml")
    shutil.copytree(project / "results" / "theirs", project / "results" / "third")
    other = project / "checkpoints" / "third" / run / "last.pt"
    other.parent.mkdir(parents=True)
    torch.save({"run": run, "student": models.build("resnet8").state_dict()}, other)
    several = f"several weights; name one of results/theirs/{run}, results/third/{run}"
    with pytest.raises(ConfigError, match=several):
        built(**given)
    chosen = built(teacher_checkpoint=f"results/third/{run}", results="mine")
    assert chosen.teacher.sha256 == sha256(other)


def test_input_statistics_are_the_teachers(project):
    half = {"epochs": 1, "normalisation": "half", "precision": "fp32", "train_images": 32, "test_images": 20}
    config = Builder(resolve("run", half)).plain("resnet8", 0)
    store = Store(project / "mine", project / "mine" / "work")
    Runner(store, project, "cpu").run([config])
    for given, used in ((None, "half"), ("embedded", "embedded")):
        taught = built(**{**half, "normalisation": given}, results="mine", teacher_checkpoint=config.id)
        assert taught.data.normalisation == used


def test_a_shared_name_and_safetensors(project):
    folder, store = project / "data" / "teachers", Store(project / "mine", project / "work")
    asked, file = ("teacher_checkpoint", "ours", store, project / "data", "best"), folder / "ours.safetensors"
    folder.mkdir(parents=True)
    network = models.build("resnet8")
    teachers.save_teacher(file, network.state_dict(), {"run": "none"})
    assert find_weights(*asked) == ("data/teachers/ours.safetensors", sha256(file), None)
    again = models.build("resnet8")
    models.load_weights(again, file)
    torch.testing.assert_close(again.fc.weight, network.fc.weight, atol=1e-3, rtol=0)
    (folder / "ours.pth").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"'ours' may be any of ours\.pth, ours\.safetensors"):
        find_weights(*asked)
    file.write_bytes(b"damaged")
    with pytest.raises(RecordError, match="is not a checkpoint, or is damaged"):
        models.load_weights(again, file)


@pytest.mark.parametrize("name", ["resnet8", "torchvision_mobilenet_v3_small"])
def test_a_network_starts_from_weights_with_another_classifier(name, project, rkd, done):
    torch.manual_seed(5)
    theirs = models.build(name, 1000)
    named_otherwise = {k.removeprefix("net."): v for k, v in theirs.state_dict().items()}
    torch.save({"state_dict": named_otherwise}, "theirs.pth")
    call = f"run {TINY} --set lr=1e-12".replace("resnet8", name)
    status, out, err = rkd(f"{call} --pretrained theirs.pth")
    assert status == 0, err
    assert re.search(r"from theirs.pth \(weights from 'state_dict'; without \S+weight \(1000, \d+\), ", err)
    run, record = trained(out)
    assert record["config"]["pretrained"] == {"checkpoint": "theirs.pth", "sha256": sha256("theirs.pth")}
    network, taken, kept = models.build(name, 100), theirs.state_dict(), []
    models.load_weights(network, project / "mine" / "work" / run / "last.pt")
    for key, value in network.state_dict().items():
        if value.shape != taken[key].shape:
            kept.append(key)
        elif "running" not in key and "num_batches" not in key:
            torch.testing.assert_close(value, taken[key], rtol=1e-4, atol=1e-6)
    assert len(kept) == 2, "weight and bias of the classifier"
    plain, bare = trained(done(call))
    assert plain != run and bare["config"]["pretrained"] is None
    torch.save({"state_dict": theirs.state_dict(), "more": 1}, "theirs.pth")
    other = f"{call} --pretrained theirs.pth#sha256={'0' * 64} --epochs 2".replace("--epochs 1 ", "")
    assert rkd(other)[0] == 2


def test_a_teacher_starts_from_weights_too_and_ids_without_stay(project, rkd):
    given = {"epochs": 1, "train_images": 32, "test_images": 20}
    network = models.build("resnet14", 7)
    torch.save(network.state_dict(), "teacher.pth")
    plain, begun = (
        Builder(resolve("run", given | more)).distilled("resnet14", "resnet8", 0)
        for more in ({}, {"teacher_pretrained": "teacher.pth"})
    )
    assert begun.teacher.run.pretrained.sha256 == sha256("teacher.pth") and begun.pretrained is None
    assert begun.id != plain.id and type(begun).from_dict(begun.to_dict()) == begun
    moved = dataclasses.replace(begun.teacher.run.pretrained, checkpoint="elsewhere.pth")
    run = dataclasses.replace(begun.teacher.run, pretrained=moved)
    assert run.id == begun.teacher.run.id, "the hash names it, not the path"
    taught = f"run {TINY} --teacher resnet14 --method kd"
    for more, message in (
        ("--pretrained teacher.pth", "are not those of this network"),
        ("--pretrained nowhere.pth", "pretrained 'nowhere.pth' is not a file"),
        ("--teacher-checkpoint teacher.pth --teacher-pretrained teacher.pth", "pretrained has no effect"),
    ):
        status, _, err = rkd(f"{taught} {more}")
        assert status == 2 and message in err


@pytest.mark.parametrize("given", ["--pretrained", "--teacher resnet8 --teacher-checkpoint"])
def test_nothing_is_trained_from_or_taught_by_weights_that_are_no_numbers(given, project, rkd):
    state = models.build("resnet8", 100).state_dict()
    state["fc.bias"][3] = torch.nan
    torch.save(state, "nan.pth")
    status, _, err = rkd(f"run {TINY} {given} nan.pth")
    assert status and "nan.pth: 1 of its tensors hold NaN or infinity, fc.bias first" in err
    assert not [*project.glob("mine/*.json")]
