"""`rkd records import-logs`: a reader's own old runs become evidence of grade B."""

import re
from pathlib import Path
from typing import Literal

from rkd.cli.declare import Lines
from rkd.errors import ConfigError
from rkd.experiments.selectors import Selectors
from rkd.files import write_atomic
from rkd.published import logs, others


def import_logs(
    path: Path,
    *,
    format: Literal["mdistiller", "repdistiller", "tensorboard", "csv"],
    name: str | None = None,
    line: Lines | None = None,
    teacher: str | None = None,
    student: str | None = None,
    method: str | None = None,
    dataset: str | None = None,
    epochs: int | None = None,
) -> int:
    """Take runs of your own, made with another system, as evidence of grade B: what their logs tell becomes a table in
    results/others. Networks, method and data set are told by the log or by the names of its folders, as RepDistiller
    (S:..._T:...) and mdistiller (METHOD,TEACHER,STUDENT) give them, or by the options. A log that is cut, or mixes two
    runs, is refused by name. Nothing in a log is executed.

    Args:
        path: a log, a run's folder, or a folder of many
        format: worklog.txt of mdistiller, what RepDistiller's scripts print, TensorBoard's event files, or CSV
        name: of the table, without suffix (default: from PATH)
        line: chapter/line whose setting the runs share; may be repeated; without one they tell of spread alone
        teacher: network of the teacher
        student: network of the student
        method: of distillation, or none
        dataset: such as cifar100
        epochs: of the schedule, where a log does not say that its run came to its end: event files and CSV never do

    Examples:
        rkd records import-logs output/cifar100_baselines --format mdistiller
        rkd records import-logs output/reviewkd,res56,res20 --format mdistiller --line table1/resnet20-resnet56-reviewkd
        rkd records import-logs S:resnet20_T:resnet56_cifar100_kd_r:0.1_a:0.9_b:0_1.log --format repdistiller
        rkd records import-logs save/student_tensorboards --format tensorboard --epochs 240
        rkd records import-logs old.csv --format csv --epochs 240 --student resnet20 --method none --dataset cifar100

        CSV has the columns of results/others/public_runs.csv, or, of one run: epoch (or step), and test_acc (or
        test_accuracy, test_top1, val_acc, ...) in percent or as a fraction, or TensorBoard's tag and value. Exit
        status: 0 all of it is there now, 1 some log was refused, 2 wrong call, or the table is there with other runs.
    """
    import pandas as pd

    name = _name(path.absolute()) if name is None else name
    if not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise ConfigError(f"--name {name!r} is no plain name of a file; write one such as my_runs")
    target = others.others_folder() / f"{name}.csv"
    before = {file: others.read_runs(file) for file in others.others_folder().glob("*.csv") if file != target}
    known = {logs.fingerprint(run): file.name for file, runs in before.items() for run in runs}
    told = {"teacher": teacher, "student": student, "method": method, "dataset": dataset, "epochs": epochs}
    given = {field: value for field, value in told.items() if value is not None}
    selectors = Selectors("paper")
    lines = {selector: _setting(selectors.line(selector).runs[0]) for selector in line or ()}
    runs, refused = logs.load(path, format, given, lines, known)
    text, there = others.as_csv(runs).encode(), target.read_bytes() if target.exists() else None
    if runs and there not in (None, text):
        raise ConfigError(f"{target} holds other runs, and stays; delete it, or give these another --name")
    if runs:
        shown = ("file", "student", "teacher", "method", "dataset", "epochs", "last", "best")
        rows = [{field: getattr(run, field) for field in shown} for run in runs]
        print(pd.DataFrame(rows).to_string(index=False))
    for log, why in refused.items():
        print(f"refused {log}: {why}")
    if runs and there is None:
        write_atomic(target, text)
        print(f"imported into {target}: {len(runs)}")
    else:
        print(f"nothing was changed: all of it is in {target}" if runs else "nothing was imported")
    return 1 if refused else 0


def _name(path: Path) -> str:
    """Return a table name made from a folder or log, or from a log's folder if such logs have one name in all runs."""
    alike = re.match(r"worklog|events\.", path.name)
    return re.sub(r"\W+", "_", path.parent.name if alike else path.name if path.is_dir() else path.stem)[:80]


def _setting(config) -> dict[str, object]:
    """Return the values that a run shares with the runs that others made in the same setting."""
    teacher = config.teacher.name if config.teacher else ""
    return {
        "student": config.network, "teacher": teacher, "method": config.method or "none",
        "dataset": config.data.name, "epochs": config.epochs,
    }  # fmt: skip
