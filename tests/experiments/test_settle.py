"""Runs in whatever arithmetic: what they come to, and that records, teachers and pages are found by them."""

import dataclasses
from itertools import product

import pytest
import torch
from conftest import Silent, accuracy_of, tiny_plain, tiny_review
from evidence import record

from rkd.experiments import runner as module
from rkd.experiments.runner import Runner, settle
from rkd.records.teachers import teacher_file
from rkd.training import RunConfig, TeacherConfig, arithmetic

CPU, GPU = torch.device("cpu"), torch.device("cuda")
OWN = arithmetic("auto", CPU).name  # of this machine
OTHER = "bf16" if OWN == "fp32" else "fp32"


def taught(weights="last", own="auto", teachers="auto", **values):
    run = tiny_review(teacher_weights=weights, precision=own, epochs=1, **values)
    teacher = dataclasses.replace(run.teacher.run, precision=teachers)
    return dataclasses.replace(run, teacher=dataclasses.replace(run.teacher, run=teacher))


def replaced(run, own, teachers):
    """Field by field, as an independent way to what `settled` gives."""
    values = run.to_dict()
    values["precision"] = own if values["precision"] == "auto" else values["precision"]
    if values["teacher"] and values["teacher"]["run"]["precision"] == "auto":
        values["teacher"]["run"]["precision"] = teachers
    return RunConfig.from_dict(values)


def test_the_short_way_to_an_id_is_the_long_one():
    for run in (tiny_plain(precision="auto"), taught(), taught(own="fp16"), taught(teachers="bf16")):
        for own, teachers in product(("fp32", "bf16"), ("fp16", "bf16")):
            long = replaced(run, own, teachers)
            assert run.settled(own, teachers) == long and run.settled_id(own, teachers) == long.id
            assert not any(long.open) and long.settled("fp64", "fp64") == long
            assert long.request == taught() if run.teacher else long.request.precision == "auto"


def test_order(store, monkeypatch):
    """The device's own, then fp32, fp16, bf16, then to be trained in the device's own."""
    monkeypatch.setattr(module, "arithmetic", lambda name, device: arithmetic("bf16", device))
    run = taught()
    assert settle(run, store, CPU) == replaced(run, "bf16", "bf16")
    for names in ("fp16 fp16", "fp32 fp16", "bf16 fp16", "bf16 fp32", "bf16 bf16"):
        there = replaced(run, *names.split())
        store.save(record(there, 1.0))
        assert settle(run, store, CPU) == there, names
    found = [(c.precision, c.teacher.run.precision) for c in store.recorded(run)]
    assert found == [("fp32", "fp16"), ("fp16", "fp16"), ("bf16", "fp32"), ("bf16", "fp16"), ("bf16", "bf16")]
    named = taught(own="fp32", teachers="bf16")
    assert settle(named, store, CPU) == named and list(store.recorded(named)) == []


def test_the_teacher_is_one_whose_weights_are_here(store):
    """Rather than one to be trained, and before one that is recorded without its weights; first weights are the same in
    every arithmetic, and a file is what it is."""
    run = taught()
    for name in ("fp32", "bf16"):
        store.save(record(dataclasses.replace(run.teacher.run, precision=name), 1.0))
    assert settle(run, store, GPU).teacher.run.precision == "fp16"
    there = teacher_file(store, dataclasses.replace(run.teacher.run, precision="bf16").id, "last")
    there.parent.mkdir(parents=True)
    there.touch()
    found, first = settle(run, store, GPU), settle(taught("random"), store, GPU)
    assert (found.precision, found.teacher.run.precision) == ("fp16", "bf16")
    assert (first.precision, first.teacher.run.precision) == ("fp16", "fp32")
    file = TeacherConfig(checkpoint="x.pt", sha256="0" * 64, network="resnet14")
    run = dataclasses.replace(tiny_review(precision="auto"), teacher=file)
    assert run.open == (True, False) and settle(run, store, GPU) == dataclasses.replace(run, precision="fp16")


def test_the_runner_answers_by_what_was_asked(store, tmp_path):
    """And records what it came to; the teacher that is here in another arithmetic is not trained again."""
    run = taught()
    teacher = dataclasses.replace(run.teacher.run, precision=OTHER)
    runner = Runner(store, tmp_path, "cpu", progress=Silent())
    runner.run([teacher])
    asked = runner.run([run, run.teacher.run])
    assert set(asked) == {run.id, run.teacher.run.id}
    assert asked[run.teacher.run.id].id == teacher.id, "recorded in another arithmetic: that one"
    made = asked[run.id]
    assert made.config == replaced(run, OWN, OTHER) and made.arithmetic == f"{OWN} from a {OTHER} teacher"
    assert made.provenance["teacher"]["run"] == teacher.id and made.cost["arithmetic"] == OWN
    assert store.ids() == sorted([teacher.id, made.id]), "nothing under the name of the request"
    assert {p.name for p in store.work.iterdir()} == set(store.ids())
    again = runner.run([run], on_missing="error")
    assert again == {run.id: made} and accuracy_of(runner, run) == pytest.approx(made.accuracy(), abs=0.5)
