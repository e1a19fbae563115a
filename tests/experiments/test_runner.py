"""Where runs come from: groups, teachers of every kind, own networks, own data."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from conftest import accuracy_of, tiny_data, tiny_plain, tiny_review
from evidence import whole

from rkd import models
from rkd.devices import pick_device
from rkd.errors import ConfigError, DataError, RecordError
from rkd.experiments import group
from rkd.experiments.chapters import get_chapter
from rkd.experiments.runner import Runner, run_groups, unfinished
from rkd.experiments.settings import resolve
from rkd.records.teachers import save_teacher, teacher_file
from rkd.review import ReviewOptions
from rkd.training import checkpoint


def test_groups_share_everything_the_batches_depend_on():
    same = [tiny_review(), tiny_review(ReviewOptions(attention=False)), tiny_review(ce_weight=0.5)]
    apart = [
        tiny_review(seed=1), tiny_review(epochs=3), tiny_review(batch_size=32), tiny_review(precision="bf16"),
        tiny_review(batch_norm="running"), tiny_review(data=tiny_data(train_images=90)), tiny_plain(),
    ]  # fmt: skip
    assert [len(g) for g in run_groups([*same, *apart], 8)] == [3] + [1] * 7
    assert [len(g) for g in run_groups(same * 2, 4)] == [4, 2]
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no CUDA device"):
            pick_device("cuda")
    seeds = [tiny_review(seed=seed) for seed in (0, 1, 2)]
    assert [[len(g) for g in run_groups(seeds, 8, across)] for across in (False, True)] == [[1, 1, 1], [3]]


def test_what_is_unfinished_includes_teachers_whose_weights_are_lost(store):
    student = tiny_review(teacher_weights="best")
    teacher = student.teacher.run

    def left():
        return [run.id for run in unfinished([student], store)]

    assert left() == [teacher.id, student.id]
    store.save(whole(teacher))
    assert left() == [teacher.id, student.id]
    for file in (store.folder(teacher.id) / "best.pt", teacher_file(store, teacher.id, "best")):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        assert left() == [student.id], "only the best weights are needed; a committed teacher serves as well"
        file.unlink()
    store.save(whole(student))
    assert left() == [], "no run needs the teacher any more"


def test_a_recorded_teacher_without_weights_is_trained_again_unless_it_is_committed(store, silent, tmp_path):
    config = tiny_review(teacher_weights="best", epochs=1)
    runner = Runner(store, tmp_path, "cpu", progress=silent)
    teacher = config.teacher.run
    accuracy = runner.run([teacher])[teacher.id].accuracy("best")
    before = store.path(teacher.id).read_bytes()
    weights = checkpoint.load(runner.weights_file(teacher.id, "best"))["student"]
    header = {
        "run": teacher.id, "network": teacher.network, "weights": "best", "accuracy": accuracy,
        "accuracy_fp16": accuracy, "data": "embedded", "normalisation": "embedded",
    }  # fmt: skip
    committed = teacher_file(store, teacher.id, "best")
    save_teacher(committed, weights, header)
    shutil.rmtree(store.folder(teacher.id))
    record = runner.run([config])[config.id]
    assert record.provenance["teacher"]["stored"] == "fp16"
    assert len(silent.titles) == 2, "the teacher was not trained again"
    network, _ = runner.network(teacher, "best")
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, weights[name].half().float(), rtol=0, atol=0)
    committed.unlink()
    runner.run([dataclasses.replace(config, ce_weight=0.5)])
    assert len(silent.titles) == 4 and store.path(teacher.id).read_bytes() == before
    assert accuracy_of(runner, teacher, "best") == pytest.approx(accuracy, abs=1e-4)


def test_teacher_from_a_checkpoint_file(store, silent, tmp_path):
    torch.manual_seed(3)
    file = tmp_path / "ckpt_epoch_240.pth"
    torch.save({"epoch": 240, "model": models.build("resnet14").state_dict(), "accuracy": 70.0}, file)
    given = {
        "teacher": "resnet14", "student": "resnet8", "teacher_checkpoint": str(file), "seeds": [0],
        "train_images": 100, "test_images": 100, "epochs": 1,
    }  # fmt: skip
    lines = get_chapter("table6").lines(resolve("table6", given))
    assert [line.role for line in lines][:2] == ["student", "distilled"]
    config = lines[1].runs[0]
    record = Runner(store, tmp_path, "cpu", progress=silent).run([config])[config.id]
    assert record.provenance["teacher"]["sha256"] == config.teacher.sha256 and store.ids() == [record.id]
    moved = dataclasses.replace(config.teacher, checkpoint="elsewhere.pth")
    assert dataclasses.replace(config, teacher=moved).id == config.id, "the hash names it, not the path"

    torch.save({"model": models.build("resnet14").state_dict()}, file)
    again = dataclasses.replace(config, seed=1)
    with pytest.raises(RecordError, match="has sha256"):
        Runner(store, tmp_path, "cpu", progress=silent).run([again])
    file.unlink()
    with pytest.raises(RecordError, match="does not exist; put the ResNet-14"):
        Runner(store, tmp_path, "cpu", progress=silent).run([again])

    def named(checkpoint, chapter="table6"):
        return get_chapter(chapter).lines(resolve(chapter, {**given, "teacher_checkpoint": checkpoint}))

    known = named(f"{file}#sha256={again.teacher.sha256}")[1]
    assert known.runs[0].id == config.id, "known without the file"
    for call, message in (
        ([f"{file}#sha256=123"], "64 hexadecimal digits"),
        (["nowhere.pth"], "is not a file"),
        ([str(file), "table1"], "name 4 teachers"),
    ):
        with pytest.raises(ConfigError, match=message):
            named(*call)


def test_own_networks_train_on_either_side(store, silent, tmp_path, monkeypatch):
    """A pair the released code could not build, from dry pass to record."""
    from rkd.models import registry

    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))

    @models.register("my_vgg")
    def my_vgg(num_classes):
        layers = [torch.nn.Conv2d(3, 12, 3, padding=1), torch.nn.ReLU(inplace=True), torch.nn.MaxPool2d(4),
                  torch.nn.Conv2d(12, 20, 3, padding=1), torch.nn.ReLU(inplace=True), torch.nn.AdaptiveAvgPool2d(1),
                  torch.nn.Flatten(), torch.nn.Linear(20, num_classes)]  # fmt: skip
        net = torch.nn.Sequential(*layers)
        return models.from_module(net, stages=["1", "4"], stages_pre=["0", "3"], pooled="5")

    models.register("my_student")(lambda num_classes: my_vgg(num_classes))
    given = {
        "pairs": [["my_vgg", "my_student"]], "seeds": [0], "train_images": 40, "test_images": 40, "epochs": 1,
    }  # fmt: skip
    distilled = get_chapter("table1").lines(resolve("table1", given))[-1].runs[0]
    record = Runner(store, tmp_path, "cpu", progress=silent).run([distilled])[distilled.id]
    assert record.status == "finished" and record.cost["extra_parameters"] > 0


def test_own_data_are_part_of_the_identity(store, silent, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def planned(seed):
        random = np.random.default_rng(seed)
        x_train, x_test = (random.integers(0, 256, (n, 3, 16, 16), dtype=np.uint8) for n in (40, 8))
        labels = {"y_train": np.arange(40) % 4, "y_test": np.arange(8) % 4}
        np.savez("own.npz", x_train=x_train, x_test=x_test, **labels)
        given = {"dataset": "own.npz", "student": "resnet8", "teacher": "resnet8", "seeds": [0], "epochs": 1}
        given |= {"train_images": 40, "test_images": 8}
        return get_chapter("table6").lines(resolve("table6", given))[1].runs[0]

    first = planned(0)
    record = Runner(store, tmp_path, "cpu", progress=silent).run([first])[first.id]
    assert record.provenance["train_images"] == 40 and first.data.sha256
    assert planned(1).id != first.id
    group.load_images.cache_clear()  # as in a later process
    with pytest.raises(DataError, match="checksum has changed"):
        Runner(store, tmp_path, "cpu", progress=silent).run([dataclasses.replace(first, seed=1)])


def test_data_that_lack_are_told_before_anything_is_trained(store, silent, tmp_path):
    lacking = tiny_plain(data=tiny_data(name="mine.npz"))
    with pytest.raises(DataError, match=r"'mine\.npz' is neither"):
        Runner(store, tmp_path, "cpu", progress=silent).run([tiny_plain(), lacking])
    assert not store.ids()
