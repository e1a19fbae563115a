"""Logs as other systems write them: whole ones become runs; what is cut, mixed or hostile gets one sentence."""

import os
import struct
from pathlib import Path

import pytest

from rkd.errors import ConfigError
from rkd.published import logs, others

CURVE = (15.64, 23.07, 70.5, 71.53, 71.37)
STUDENT = "S:wrn_16_2_T:wrn_40_2_cifar100_{}_r:1_a:{}_b:0.8_1"


def worklog(values=CURVE, first=1, end=True):
    line = "-" * 25 + "\n"
    blocks = (
        f"{line}epoch: {epoch}\nlr: 0.05\ntrain_acc: 9.26\ntrain_loss: 6.84\ntest_acc: {value}\n"
        f"test_acc_top5: 92.50\ntest_loss: 1.20\n{line}"
        for epoch, value in enumerate(values, first)
    )
    return "".join(blocks) + (f"best_acc\t{max(values)}" if end else "")


def printed(values=CURVE, end=True):
    """What RepDistiller prints; the accuracy of the training set comes in the same form."""
    meters = "Time 0.1 (0.1)\tLoss 1.2 (1.2)\tAcc@1 9.000 (8.000)\tAcc@5 20.000 (21.000)"
    text = "teacher accuracy:  tensor(75.6100, device='cuda:0')\nEpoch: [1/30]\tTime 1.0 (1.0)\tlosses: 0.1 (0.2)\n"
    for epoch, value in enumerate(values, 1):
        text += f"==> training...\nEpoch: [{epoch}][0/782]\t{meters}\n * Acc@1 88.000 Acc@5 99.000\n"
        text += (
            f"epoch {epoch}, total time 31.50\nTest: [0/313]\t{meters}\n * Acc@1 {value:.3f} Acc@5 92.650\n"
        )
        text += "saving the best model!\n"
    return text + (f"best accuracy: tensor({max(values):.4f}, device='cuda:0')\n" if end else "")


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def load(path, format, **given):
    return logs.load(path, format, given, {}, {})


def run_of(path, format, **given):
    runs, refused = load(path, format, **given)
    assert not refused
    (run,) = runs
    return run


def refusal(path, format, **given):
    runs, refused = load(path, format, **given)
    (why,) = refused.values()
    assert not runs and "\n" not in why
    return why


def pair(run):
    return run.teacher, run.student, run.method, run.dataset, run.epochs


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("dkd,res56,res20", ("resnet56", "resnet20", "dkd")),
        ("reviewkd,wrn_40_2,shuv1", ("wrn_40_2", "shufflenetv1", "reviewkd")),
        ("vanilla,res32x4,res8x4", ("", "resnet8x4", "none")),
        ("kd,dot,ResNet50,mv2", ("resnet50", "mobilenetv2", "kd,dot")),
        ("kd,res56,res20DISTILLER.STUDENT:resnet8,KD.TEMPERATURE:2", ("resnet56", "resnet8", "kd")),
        ("kd,resnet56,resnet20,2,9", ("resnet56", "resnet20", "kd")),
    ],
)
def test_folders_of_mdistiller_tell_the_run(tmp_path, tag, expected):
    log = written(tmp_path / "cifar100_baselines" / tag / "worklog.txt", worklog())
    run = run_of(log, "mdistiller")
    assert pair(run) == (*expected, "cifar100", 5)
    assert (run.curve, run.last, run.best, run.file) == (CURVE, 71.37, 71.53, f"{tag}/worklog.txt")


def test_what_repdistiller_prints_is_told_by_its_folder_or_its_call(tmp_path):
    log = written(tmp_path / STUDENT.format("hint", "0.0") / "out.log", printed())
    assert pair(run_of(log, "repdistiller")) == ("wrn_40_2", "wrn_16_2", "fitnet", "cifar100", 5)
    assert run_of(log, "repdistiller").curve == CURVE
    sums = written(tmp_path / (STUDENT.replace(":", "_").format("crd", "1.0") + ".txt"), printed())
    assert run_of(sums, "repdistiller").method == "crd+kd"
    alone = written(tmp_path / "resnet56_cifar100_lr_0.05_decay_0.0005_trial_0" / "out.log", printed())
    assert pair(run_of(alone, "repdistiller")) == ("", "resnet56", "none", "cifar100", 5)
    cut = written(tmp_path / STUDENT.format("kd", "0.9") / "cut.log", printed(end=False))
    assert run_of(cut, "repdistiller", epochs=5).epochs == 5
    call = "python train_student.py --path_t ./save/models/vgg13_vanilla/ckpt.pth --distill kd --model_s vgg8 -a 0.9\n"
    options = (
        "Namespace(dataset='cifar100', model_s='vgg8', distill='kd', epochs=5, init_epochs=30, alpha=0.9)\n"
    )
    told = written(tmp_path / "nohup.out", call + options + printed(end=False))
    assert pair(run_of(told, "repdistiller")) == ("vgg13", "vgg8", "kd", "cifar100", 5)
    written(told, call + printed() + call.replace("kd", "rkd"))
    assert "two configurations: method is kd and rkd" in refusal(told, "repdistiller")
    other = written(tmp_path / STUDENT.format("kd", "0.9") / "out.log", call + printed())
    assert "two configurations" in refusal(other, "repdistiller")
    assert run_of(other, "repdistiller", teacher="vgg13", student="vgg8").student == "vgg8"


def events(folder, points, tag="test_acc", name="events.out.tfevents.1"):
    record_writer = pytest.importorskip("tensorboard.summary.writer.record_writer")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / name, "wb") as file:
        for step, value in points:
            scalars = [Summary.Value(tag=t, simple_value=v) for t, v in ((tag, value), ("train_acc", 99.0))]
            record_writer.RecordWriter(file).write(
                Event(step=step, summary=Summary(value=scalars)).SerializeToString()
            )
    return folder / name


def test_event_files_need_a_schedule(tmp_path):
    folder = tmp_path / STUDENT.format("kd", "0.9")
    file = events(folder, enumerate(CURVE, 1))
    run = run_of(folder, "tensorboard", epochs=5)
    assert (run.curve, pair(run)) == (CURVE, ("wrn_40_2", "wrn_16_2", "kd", "cifar100", 5))
    assert "tell its schedule by --epochs" in refusal(file, "tensorboard")
    assert "it has 5 epochs, not 240" in refusal(file, "tensorboard", epochs=240)
    file.write_bytes(file.read_bytes()[:-20])
    assert "it has 4 epochs, not 5" in refusal(file, "tensorboard", epochs=5)
    events(folder, [(step, value / 100) for step, value in enumerate(CURVE)], "accuracy/test_accuracy")
    assert run_of(file, "tensorboard", epochs=5).curve == CURVE
    assert run_of(file, "tensorboard", epochs=5).note == "told as fractions"
    events(folder, [*enumerate(CURVE, 1), *enumerate(CURVE, 1)])
    assert "mixes two runs" in refusal(file, "tensorboard", epochs=5)
    events(folder, enumerate(CURVE, 1), "loss")
    assert "needs one test accuracy" in refusal(file, "tensorboard", epochs=5)
    record_writer = pytest.importorskip("tensorboard.summary.writer.record_writer")
    with open(file, "wb") as stream:
        record_writer.RecordWriter(stream).write(b"\xff\xff")
    assert "holds no events" in refusal(file, "tensorboard", epochs=5)
    for length in (2**60, 2**63):
        head = struct.pack("<Q", length)
        file.write_bytes(head + struct.pack("<I", record_writer.masked_crc32c(head)) + b"abc")
        assert "holds no events" in refusal(file, "tensorboard", epochs=5)


@pytest.mark.parametrize("content", [b"", b"abc" * 999, struct.pack("<Q", 2**60) + b"x" * 50])
def test_no_event_file(tmp_path, content):
    pytest.importorskip("tensorboard")
    file = written(tmp_path / "events.out.tfevents.1", content)
    assert "needs one test accuracy, such as test_acc, and has none" in refusal(file, "tensorboard", epochs=5)


def test_csv_of_one_run_and_of_many(tmp_path):
    given = {"student": "ResNet-20", "method": "none", "dataset": "cifar100", "epochs": 5}
    rows = list(enumerate(CURVE))
    for head, lines in (
        ("epoch,train_acc,val_acc,test_acc", [f"{e},99,1,{v}" for e, v in rows]),
        ("Wall time,Step,Value", [f"17.5,{e + 1},{v / 100}" for e, v in rows]),
        ("step,tag,value", [f"{e},{t},{v}" for t in ("train_acc", "test_acc") for e, v in rows]),
        ("epoch,val_acc", [f"{e},{v}" for e, v in rows]),
    ):
        file = written(tmp_path / "one.csv", "\n".join([head, *lines]))
        run = run_of(file, "csv", **given)
        assert (run.curve, pair(run)) == (CURVE, ("", "resnet20", "none", "cifar100", 5)), head
    public = written(tmp_path / "many.csv", (others.others_folder() / "public_runs.csv").read_bytes())
    runs, refused = load(public, "csv")
    assert runs == others.read_runs(public) and not refused
    twice = public.read_text().splitlines()
    public.write_text("\n".join([*twice, twice[1]]))
    runs, refused = load(public, "csv")
    assert len(runs) == 131 and list(refused) == [f"{tmp_path.name}/many.csv, run 132"]
    for text, why in (
        ("a,b\n1,2", "needs a column epoch or step"),
        ("epoch,loss\n1,2", "needs one test accuracy"),
        ("epoch,test_acc,acc_test\n1,2,3", "needs one test accuracy"),
        ("epoch,test_acc\n1", "accuracy is 'None', which is no number"),
        ("", "needs a column epoch or step"),
    ):
        assert why in refusal(written(file, text), "csv", **given)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (worklog(end=False), "does not say that its run came to its end"),
        (worklog(end=False)[:-30], "4 of its 5 epochs have a complete block"),
        (worklog()[:-1], "best is 71.5, but 71.53 by its curve"),
        (worklog(end=False) + worklog(), "mixes two runs: epoch 1 comes after epoch 5"),
        (worklog() + worklog((72.0,), 6), "comes to an end 2 times"),
        (worklog(first=31), "begins with epoch 31"),
        (worklog(CURVE[:2], end=False) + worklog(CURVE[3:], 4), "some epochs between 2 and 4 are missing"),
        (worklog().replace("23.07", "nan"), "the accuracy after epoch 2 is nan"),
        (worklog().replace("23.07", "1e999"), "the accuracy after epoch 2 is inf"),
        (worklog().replace("23.07", "2" * 5000), "the accuracy after epoch 2 is inf"),
        (worklog().replace("23.07", "high"), "accuracy is 'high', which is no number"),
        (worklog().replace("epoch: 2", "epoch: " + "9" * 5000), "some epochs between 1 and inf are missing"),
        (worklog((1.0,) * 5), "never gets beyond 1 %"),
        (worklog((0.71,) * 5), "never gets beyond 1 %"),
        (worklog().encode("utf-16"), "no text in UTF-8"),
        (os.urandom(999), "no text in UTF-8"),
        (bytes(999), "no text in UTF-8"),
        ("", "tells of no epoch"),
        (b"\xef\xbb\xbf" + worklog(end=False).encode(), "does not say that its run came"),
        (printed(end=False), "does not say that its run came to its end"),
        (printed(end=False).rpartition("Test:")[0], "4 of its 5 epochs"),
        (printed(end=False) + printed(), "epoch 1 comes after epoch 5"),
        (printed((1.0, float("nan"))), "the accuracy after epoch 2 is nan"),
    ],
)
def test_what_is_cut_mixed_or_hostile_is_refused(tmp_path, text, why):
    log = written(tmp_path / "cifar100" / "kd,res56,res20" / "worklog.txt", text)
    assert why in refusal(log, "repdistiller" if "total time" in str(text) else "mdistiller")


def test_what_is_not_told_has_to_be(tmp_path):
    log = written(tmp_path / "a" / "b" / "c" / "worklog.txt", worklog())
    assert "does not tell its student; name it by --student" in refusal(log, "mdistiller")
    given = {"student": "my_net", "method": "My-Loss"}
    assert "name it by --dataset" in refusal(log, "mdistiller", **given)
    assert pair(run_of(log, "mdistiller", dataset="cars", **given)) == ("", "my_net", "my-loss", "cars", 5)


def test_files_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match="nowhere does not exist"):
        load(tmp_path / "nowhere", "mdistiller")
    with pytest.raises(ConfigError, match=r"holds no log of the format csv: no \*\.csv"):
        load(tmp_path, "csv")
    (tmp_path / "runs" / "loop").mkdir(parents=True)
    (tmp_path / "runs" / "loop" / "up").symlink_to(tmp_path / "runs")
    (tmp_path / "runs" / "self.txt").symlink_to(tmp_path / "runs" / "self.txt")
    os.mkfifo(tmp_path / "runs" / "pipe.txt")
    (tmp_path / "runs" / "folder.txt").mkdir()
    written(Path(os.fsdecode(bytes(tmp_path / "runs") + b"/\xff.txt")), "")
    runs, refused = load(tmp_path / "runs", "mdistiller")
    assert not runs and refused.pop("runs/\N{REPLACEMENT CHARACTER}.txt") == "it tells of no epoch"
    assert sorted(refused) == ["runs/pipe.txt", "runs/self.txt"]
    assert all("no file of at most 64 MiB that can be read" in why for why in refused.values())
    with pytest.raises(ConfigError, match="does not exist"):
        load(tmp_path / "runs" / "self.txt", "mdistiller")


@pytest.fixture
def imported(rkd, tmp_path, monkeypatch):
    """What `rkd records import-logs` of a path gives: status, output, complaints; its tables go to others/."""
    monkeypatch.setattr(others, "others_folder", lambda: tmp_path / "others")
    return lambda path, *more: rkd("import-logs --format mdistiller", path, *more)


def test_command_imports_the_good_ones_once_and_lists_the_others(tmp_path, imported):
    output, table = tmp_path / "cifar100_baselines", tmp_path / "others" / "cifar100_baselines.csv"
    for seed, curve in enumerate((CURVE, CURVE[::-1], CURVE)):
        written(output / f"{seed}" / "reviewkd,res56,res20" / "worklog.txt", worklog(curve))
    written(output / "3" / "kd,res56,res20" / "worklog.txt", worklog(end=False))
    status, said, _ = imported(output)
    assert status == 1
    assert "refused cifar100_baselines/3/kd,res56,res20/worklog.txt: it does not say" in said
    assert "2/reviewkd,res56,res20/worklog.txt: its run is that of cifar100_baselines/0/" in said
    runs = others.read_runs(table)
    assert [(run.run, run.curve, run.lines) for run in runs] == [(1, CURVE, ()), (2, CURVE[::-1], ())]
    before = table.stat()
    for more, expected, words in (
        ((), 1, "nothing was changed"),
        (("--method", "kd"), 2, "holds other runs, and stays"),
        (("--name", "again"), 1, "that of cifar100_baselines.csv"),
        (("--name", "../again"), 2, "no plain name"),
    ):
        status, said, complaint = imported(output, *more)
        assert status == expected and words in said + complaint
    assert table.stat() == before and list(table.parent.iterdir()) == [table]


def test_lines_are_those_of_the_runs_setting(tmp_path, imported):
    curve = [round(15 + epoch / 5, 2) for epoch in range(240)]
    log = written(tmp_path / "cifar100" / "reviewkd,res56,res20" / "worklog.txt", worklog(curve))
    status, _, complaint = imported(log, "--line", "table6/none")
    assert status == 2 and "unknown line of table6" in complaint
    status, said, _ = imported(log, "--line", "table3/student")
    assert status == 1 and "it is no run of table3/student: teacher is 'resnet56', not ''" in said
    assert imported(log, "--line", "table3/full", "--line", "table6/full")[0] == 0
    (run,) = others.read_runs(tmp_path / "others" / "reviewkd_res56_res20.csv")
    assert run.lines == ("table3/full", "table6/full")
