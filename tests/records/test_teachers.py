"""Committed teachers: half precision, headers, damage, and the command that writes them."""

import dataclasses
import json
import shutil

import pytest
import safetensors.torch
import torch
from evidence import record

from rkd import data, models
from rkd.cli import main
from rkd.errors import RecordError
from rkd.experiments.selectors import Selectors
from rkd.records import Store
from rkd.records.teachers import load_teacher, save_teacher
from rkd.training import checkpoint

HEADER = {
    "run": "0123456789ab", "network": "resnet8", "weights": "best", "accuracy": 71.25, "accuracy_fp16": 71.26,
    "data": "cifar100", "normalisation": "cifar100_crd",
}  # fmt: skip


@pytest.fixture
def weights():
    torch.manual_seed(0)
    network = models.build("resnet8", 100)
    network.conv1.weight.data = network.conv1.weight.data.contiguous(memory_format=torch.channels_last)
    return network.state_dict()


@pytest.fixture
def saved(weights, tmp_path):
    path = tmp_path / "teachers" / "t.safetensors"
    save_teacher(path, weights, HEADER)
    return path


def test_round_trip_in_half_precision(saved, weights, tmp_path):
    found, header = load_teacher(saved)
    assert header == {name: str(value) for name, value in HEADER.items()}
    assert found.keys() == weights.keys() and list(saved.parent.iterdir()) == [saved]
    kept = safetensors.torch.load_file(saved)
    assert {t.dtype for t in kept.values()} == {torch.float16, torch.int64}
    for name, tensor in weights.items():
        wanted = tensor.half().float() if tensor.is_floating_point() else tensor
        assert found[name].dtype == wanted.dtype and torch.equal(found[name], wanted), name
    models.build("resnet8", 100).load_state_dict(found)
    for n in range(4):  # the library itself writes its header in an order that changes from call to call
        save_teacher(tmp_path / f"again{n}", found, header)
        assert (tmp_path / f"again{n}").read_bytes() == saved.read_bytes()


@pytest.mark.parametrize(("value", "dtype"), [(-1e5, torch.bfloat16), (float("nan"), torch.float32)])
def test_what_half_precision_cannot_hold_is_named(value, dtype, weights, tmp_path):
    name = next(name for name in weights if name.endswith("running_var"))
    weights[name] = weights[name].to(dtype)
    weights[name][3] = value
    path = tmp_path / "t.safetensors"
    with pytest.raises(RecordError, match=rf"{name} holds .*65504"):
        save_teacher(path, weights, HEADER)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b: b[:100], "cannot be read, or is damaged"),
        (lambda b: b[:-1] + bytes([b[-1] ^ 4]), "does not match its checksum"),
        (lambda b: b.replace(b"teacher 1", b"teacher 2"), "no committed teacher.* format 'rkd teacher 2'"),
        (lambda b: b.replace(b'"71.25"', b'"99.25"'), "does not match its checksum"),
    ],
)
def test_damaged_files_are_named(saved, spoil, message):
    before = saved.read_bytes()
    saved.write_bytes(spoil(before))
    assert saved.read_bytes() != before
    with pytest.raises(RecordError, match=message):
        load_teacher(saved)


# rkd records export --teachers


GIVEN = {
    "teacher": "resnet8", "student": "resnet8", "seeds": [0], "train_images": 100, "test_images": 100, "epochs": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of results with a finished teacher, and its config. Its last layer is fitted to the test images, so that
    their accuracy is neither chance nor that of the record."""
    _, runs = Selectors("smoke", GIVEN, settled=True).plan(["table6"])
    teacher = next(run.teacher.run for run in runs if run.teacher)
    folder = tmp_path_factory.mktemp("trained")
    store, images = Store(folder / "records", folder / "records" / "work"), data.load(teacher.data, folder)
    made = record(teacher, 70.0)
    store.save(dataclasses.replace(made, provenance={**made.provenance, "data_sha256": images.checksum}))
    torch.manual_seed(0)
    network = models.build("resnet8", images.classes).eval()
    with torch.no_grad():
        features = []
        network.fc.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
        network(pixels(images))
        targets = torch.nn.functional.one_hot(images.test_y, images.classes).float()
        network.fc.weight.copy_(torch.linalg.lstsq(features[0], targets).solution.T)
        network.fc.bias.zero_()
    state = {"run": teacher.id, "epoch": 1, "student": network.state_dict()}
    checkpoint.save(state, store.folder(teacher.id) / "best.pt")
    return folder, store, teacher


def pixels(images):
    """Normalised test images, (N, 3, H, W)."""
    x = (images.test_x.float() / 255 - torch.tensor(images.mean)) / torch.tensor(images.std)
    return x.permute(0, 3, 1, 2)


def export(capsys, folder, *more):
    tiny = [word for name, value in GIVEN.items() for word in ("--set", f"{name}={value}")]
    where = ["--results", str(folder / "records"), "--device", "cpu", "--chapters", "table6"]
    return main(["export", "--teachers", *where, *tiny, *more]), capsys.readouterr().out


def test_command_measures_the_rounded_weights(trained, capsys):
    folder, store, teacher = trained
    status, text = export(capsys, folder)
    path = folder / "teachers" / f"{teacher.id}-best.safetensors"
    assert status == 0 and str(path) in text and list(path.parent.iterdir()) == [path]
    found, header = load_teacher(path)
    images = data.load(teacher.data, folder)
    network = models.build("resnet8", images.classes)
    network.load_state_dict(found)
    network.eval()
    with torch.no_grad():
        right = (network(pixels(images)).argmax(1) == images.test_y).double().mean().item()
    assert float(header["accuracy_fp16"]) == pytest.approx(100 * right)
    assert 100 * right > 5 and f"{100 * right:.2f} % rounded" in text
    assert float(header["accuracy"]) == store.load(teacher.id).accuracy("best")
    assert (header["run"], header["network"], header["weights"]) == (teacher.id, "resnet8", "best")
    assert (header["data"], header["normalisation"]) == (teacher.data.name, teacher.data.normalisation)
    full = checkpoint.load(store.folder(teacher.id) / "best.pt")["student"]
    assert all(torch.allclose(found[name], full[name], rtol=2**-10, atol=1e-7) for name in full)

    before = path.read_bytes(), path.stat().st_mtime_ns
    status, text = export(capsys, folder)
    assert status == 0 and "was there" in text and before == (path.read_bytes(), path.stat().st_mtime_ns)

    kept, header = load_teacher(path)
    save_teacher(path, {name: tensor + 1 for name, tensor in kept.items()}, header)
    before = path.read_bytes()
    status, text = export(capsys, folder)
    assert status == 1 and "holds other weights of it" in text and path.read_bytes() == before


def test_what_is_not_recorded_or_of_other_images_is_told(trained, capsys, tmp_path):
    _, store, teacher = trained
    status, text = export(capsys, tmp_path)
    assert status == 0 and f"{teacher.id} best resnet8: not recorded" in text
    shutil.copytree(store.records, tmp_path / "records")
    body = json.loads(store.path(teacher.id).read_text())
    body["provenance"]["data_sha256"] = "0" * 64
    (tmp_path / "records" / f"{teacher.id}.json").write_text(json.dumps(body))
    status, text = export(capsys, tmp_path)
    assert status == 1 and "are not those it was trained on" in text and not (tmp_path / "teachers").exists()
