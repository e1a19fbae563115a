"""Early records that say "auto": an import renames them with all that came with them."""

import json

import pytest
import torch
from conftest import tiny_plain, tiny_review
from evidence import record
from test_transfer import craft, maps, merged, refusals, saved, snapshot, states

from rkd.errors import RecordError
from rkd.experiments.group import weights_file
from rkd.records import Record, transfer
from rkd.training import checkpoint


def early(request, own, **cost):
    """A record as early versions wrote it: under the request's id, the arithmetic in its cost alone."""
    body = json.loads(record(request, 70.0, arithmetic=own, teachers=own).to_json())
    body |= {"config": request.to_dict(), "id": request.id, "cost": {"arithmetic": own, **cost}}
    if request.teacher:
        body["provenance"]["teacher"] = {"run": request.teacher.run.id, "accuracy": 70.0}
    return {f"records/{request.id}.json": json.dumps(body).encode()}


STUDENT, UNTRAINED = (
    tiny_review(teacher_weights="best").request,
    tiny_review(teacher_weights="random").request,
)
TEACHER = STUDENT.teacher.run


def test_everything_goes_along_and_twice_is_once(store, tmp_path):
    files = early(STUDENT, "bf16") | early(UNTRAINED, "fp32") | early(TEACHER, "fp16")
    files |= {f"work/{TEACHER.id}/best.pt": saved(TEACHER.id), f"maps/{STUDENT.id}.npz": maps(STUDENT.id)}
    folder = craft(tmp_path / "early", files)
    assert states(transfer.merge(store, folder)) == dict.fromkeys(files, "added")
    named = {
        TEACHER.settled("fp16", ""): TEACHER,
        STUDENT.settled("bf16", "fp16"): STUDENT,
        UNTRAINED.settled("fp32", "fp32"): UNTRAINED,
    }
    assert store.ids() == sorted(config.id for config in named)
    for config, request in named.items():
        made, was = store.load(config.id), json.loads(files[f"records/{request.id}.json"])
        assert made.config == config and made.accuracy() == 70.0 and made.cost == was["cost"]
        if config.teacher:
            assert made.provenance["teacher"] == {"run": config.teacher.run.id, "accuracy": 70.0}
    teacher, student, _ = named
    state = checkpoint.load(weights_file(store, teacher.id, "best"))
    assert state["run"] == teacher.id and state["student"]["n"] == torch.tensor(3)
    assert store.maps(student.id).exists()
    before = snapshot(store)
    assert states(transfer.merge(store, folder)) == dict.fromkeys(files, "here") and snapshot(store) == before
    assert transfer.export(store, tmp_path / "out").left_out == {}
    # A student that comes later finds its teacher here.
    other = tiny_review(teacher_weights="best", seed=1).request
    assert refusals(merged(store, early(other, "fp32"))) == {}
    assert list(store.recorded(other)) == [other.settled("fp32", "fp16")]


@pytest.mark.parametrize(
    "files",
    [
        early(STUDENT, "bf16"),
        early(tiny_plain(precision="auto"), "bf16", arithmetic=None),
        early(tiny_plain(precision="auto"), "bf16", arithmetic="fp8"),
    ],
)
def test_what_cannot_be_named_is_refused(files, store):
    said = refusals(merged(store, files))
    assert all('"auto", as early ones do' in why for why in said.values()) and len(said) == 1
    assert store.ids() == []


def test_an_early_record_is_refused_elsewhere_with_what_to_do():
    (text,) = early(TEACHER, "fp16").values()
    with pytest.raises(RecordError, match=r'"auto".*`rkd import`') as caught:
        Record.from_json(text, TEACHER.id)
    assert "\n" not in str(caught.value)
