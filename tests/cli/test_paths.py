"""One rule for paths: what is typed starts where one stands, what a profile says at the project's top."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from rkd import models, paths
from rkd.data import DataConfig, full_name, load
from rkd.experiments.recipes import Builder
from rkd.experiments.settings import PATHS, load_profile, namespace_parameters, resolve
from rkd.experiments.workspace import data_root, result_folders, store_of
from rkd.files import sha256

TINY = "--train-images 16 --test-images 12 --batch-size 8 --epochs 1 --precision fp32 --student resnet8"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A project that RKD_HOME names, and the folder one stands in, below neither it nor the checkout."""
    project, folder = tmp_path / "project", tmp_path / "elsewhere" / "deeper"
    shutil.copytree(paths.params(), project / "params")
    (project / "book").mkdir()
    folder.mkdir(parents=True)
    monkeypatch.setenv("RKD_HOME", str(project))
    monkeypatch.chdir(folder)
    return project, folder


def own_images(folder):
    """The same 16 and 8 images as a folder and as an npz file."""
    random = np.random.default_rng(0)
    x = {name: random.integers(0, 256, (n, 8, 8, 3), np.uint8) for name, n in (("train", 16), ("test", 8))}
    for split, images in x.items():
        for i, image in enumerate(images):
            path = folder / "imgs" / split / f"class{i % 2}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    labels = {f"y_{split}": np.arange(len(images)) % 2 for split, images in x.items()}
    np.savez(folder / "imgs.npz", x_train=x["train"], x_test=x["test"], **labels)


def test_every_path_that_is_typed_starts_where_one_stands(elsewhere, done):
    project, folder = elsewhere
    torch.manual_seed(0)
    torch.save(models.build("resnet8", 2).state_dict(), folder.parent / "teacher.pth")
    own_images(folder)
    kept = {}
    for dataset in ("imgs", "imgs.npz"):
        out = done(
            f"run {TINY} --teacher resnet8 --method kd --teacher-checkpoint ../teacher.pth --data-root ../sets "
            f"--dataset {dataset} --results mine"
        )
        run = out.split(" finished: ")[0].splitlines()[-1]
        kept[dataset] = json.loads((folder / "mine" / f"{run}.json").read_text())
        assert kept[dataset]["config"]["teacher"]["sha256"] == sha256(folder.parent / "teacher.pth")
    assert kept["imgs"]["config"]["data"]["name"] == "imgs/"
    assert kept["imgs"]["config"]["data"]["sha256"] and kept["imgs.npz"]["config"]["data"]["sha256"]
    done(f"export-model {run} --results mine --out net.safetensors")
    out = done("show records --results mine --csv all.csv")
    assert f"2 runs of 2 configurations in {folder / 'mine'}" in out
    assert (folder / "net.safetensors").is_file() and (folder / "all.csv").is_file()
    weights = f"mine/work/{run}/last.pt"
    done(f"evaluate --checkpoint {weights} --model resnet8 --dataset imgs --normalisation half")
    assert "train_images     16" in done("show data imgs.npz --root ../sets")
    assert {path.name for path in project.iterdir()} == {"params", "book"}, "nothing is written there"


def test_a_path_in_a_profile_starts_at_the_projects_top(elsewhere):
    project, folder = elsewhere
    profile, recipe = folder / "own.yaml", (paths.params() / "recipes" / "crd.yaml").read_text()
    (project / "own_recipe.yaml").write_text(recipe)
    (project / "weights.pth").write_bytes(b"x")
    own_images(project)
    profile.write_text(
        "data_root: sets\nresults: kept\nteacher_checkpoint: weights.pth\nrecipe: own_recipe.yaml\n"
        "dataset: imgs.npz\ntrain_images: 16\n"
    )
    settings = resolve("run", {"profile": "own.yaml"})
    assert data_root(settings) == project / "sets" and store_of(settings).records == project / "kept"
    config = Builder(settings).distilled("resnet20", "resnet8", 0, "kd")
    assert config.teacher.checkpoint == "weights.pth" and config.data.sha256 == sha256(project / "imgs.npz")

    injected = namespace_parameters({**load_profile("own.yaml"), "profile": "own.yaml", "data_root": "sets2"})
    settings = resolve("run", injected)  # papermill -f, and a cell that says otherwise
    assert data_root(settings) == folder / "sets2"
    assert result_folders("own", settings.results)[0] == project / "kept"


def test_paths_below_the_project_are_kept_from_its_top(elsewhere, monkeypatch):
    project, _ = elsewhere
    (project / "book" / "deep").mkdir()
    monkeypatch.chdir(project / "book" / "deep")
    given = {name: "../../x/y.yaml" for name in PATHS}
    settings = resolve("run", given | {"teacher_checkpoint": "../../x/y.yaml#sha256=0"})
    assert {getattr(settings, name) for name in PATHS} == {"x/y.yaml", "x/y.yaml#sha256=0"}
    monkeypatch.setenv(paths.STANDS_IN, str(project))  # as in the book's kernels
    assert resolve("run", {"results": "x"}).results == "x"
    assert resolve("run", {"recipe": "crd"}).recipe == "crd"


def test_a_data_set_is_found_from_where_the_book_is_built(elsewhere, monkeypatch):
    project, folder = elsewhere
    own_images(folder)
    monkeypatch.chdir(project / "book")  # as in its kernels
    monkeypatch.setenv(paths.STANDS_IN, str(folder))
    assert full_name("imgs") == "imgs/" and len(load(DataConfig("imgs/")).train_y) == 16
    assert len(load(DataConfig("imgs.npz")).train_y) == 16
