"""`rkd run`: one network, trained and recorded."""

from contextlib import nullcontext
from pathlib import Path
from shlex import quote
from typing import Any

from rkd.cli.declare import Duration, Folder
from rkd.cli.status import list_runs
from rkd.errors import ConfigError, unknown
from rkd.experiments.budget import Budget
from rkd.experiments.selectors import Selectors
from rkd.experiments.settings import check_effect, resolve
from rkd.experiments.workspace import runner_of


def run(
    *,
    student: str | None = None,
    row: str | None = None,
    claim: str | None = None,
    teacher: str | None = None,
    method: str | None = None,
    seed: int = 0,
    budget: Duration | None = None,
    dry_run: bool = False,
    maps: bool = False,
    tensorboard: Folder | None = None,
    profile: str = "smoke",
    **given: Any,
) -> int:
    """Train one network and record it. With --teacher it is distilled, by ReviewKD or another --method (the teacher
    is trained first, once, if it is not recorded yet); without, it is trained on labels alone. Or name a row of a
    chapter's table with --row, or a published figure with --claim. At the end of a --budget, on SIGTERM and on
    Ctrl-C it stops after the batch under way; the same call goes on there.

    Args:
        student: network to train, see `rkd show models`
        row: a row of a chapter's table, CHAPTER/ROW, on its own pair or the one given
        claim: what answers the published figure of this id, see `rkd show figures`
        teacher: network to learn from; none: train on labels alone, or learn from --teacher-checkpoint RUN
        method: how to learn from it, or a sum such as "at+kd" (default: reviewkd)
        seed: steers initialisation, data order and augmentation (default 0)
        budget: stop in time to be done after 9m, 90s, 1h30m (default: no limit)
        dry_run: print the run's id and config, train nothing
        maps: keep maps of a few test images of a ReviewKD run beside its record
        tensorboard: write each epoch's curves for TensorBoard, in a folder of this one

    Examples:
        rkd run --row table3/rm_rlf --profile smoke            `rkd run --row table3/` lists a chapter's rows
        rkd run --student resnet20 --teacher resnet56 --profile paper --seed 1
        rkd run --method at --teacher resnet110 --student resnet20 --profile paper
        rkd run --method crd+kd --teacher resnet32x4 --student resnet8x4 --options '{crd: {loss_weight: 0.8}}'
        rkd run --method kd --teacher resnet56 --student resnet20 -r 0.1 -b 0.9 --options '{temperature: 4}'
        rkd run --student resnet8 --teacher resnet14 --hcl-levels '[h, 2, 1]' --hcl-weights '[1, .5, .25]'
        rkd run --student resnet20 --method kd --teacher-checkpoint 3f2a91c04b7d     a recorded run teaches
        rkd run --claim kdrefine-benchmark-resnet56-resnet20-crd-cifar100 --profile paper

        Who comes from RepDistiller: -r is -r, -b is -b, and -a is KD in a sum: --method crd+kd. `rkd show figures`
        prints the ids of the published figures. Options of a sum's parts go by method.

        Exit status: 0 the run is recorded (or --dry-run, or a figure that needs no run of its own), 1 it was stopped
        or has diverged, 2 wrong call.
    """
    limit = Budget(budget)  # started before torch is imported, as imports count too
    if "seeds" in given:
        raise ConfigError(
            "seeds: this command trains one run; give --seed, or have `rkd sweep` train several"
        )
    given |= {"profile": profile}
    if row is not None and claim is None and method is None:
        pair = {"teacher": teacher, "student": student}
        found = _row(row, seed, given | {name: net for name, net in pair.items() if net is not None})
    elif claim is not None and (row, student, teacher, method) == (None,) * 4:
        found = _claim(claim, seed, given)
    elif student is not None and row is None and claim is None:
        found = _network(student, teacher, method, seed, given)
    else:
        raise ConfigError(
            "name what to train: --student, with or without --teacher and --method, or --row, which names its own "
            "method, or --claim, which names its own pair and method"
        )
    if found is None:
        return 0
    settings, config, labels = found
    with nullcontext() if dry_run else limit:
        return _train(settings, config, labels, limit, dry_run, maps, tensorboard)


def _train(settings, config, labels, limit, dry_run: bool, maps: bool, tensorboard: Path | None) -> int:
    import yaml

    from rkd.experiments.runner import describe_schedules, required, settle
    from rkd.experiments.snapshots import has_maps
    from rkd.experiments.tensorboard import TensorBoard
    from rkd.training.build import check_batches

    labels = {"profile": settings.profile, **labels}
    progress = TensorBoard(tensorboard) if tensorboard else None
    runner = runner_of(settings, progress=progress, labels=labels, stop=limit.stop, maps=maps)
    store = runner.store
    config = settle(config, store, runner.device)
    if maps and not has_maps(config):
        raise ConfigError("--maps keeps what ReviewKD compares; this run is by another method, or by none")
    if dry_run:
        # The data set itself is not read.
        check_batches(config, config.data.train_images or config.batch_size)
        print(f"# run {config.id}", *describe_schedules([config]), sep="\n# ")
        print(yaml.safe_dump(config.to_dict(), sort_keys=False), end="")
        return 0
    known = store.has(config.id)
    records = runner.run([config])
    if runner.failed:  # already reported
        return 1
    if config.id not in records:
        print(f"stopped: {limit.reason}; the same call goes on here:")
        list_runs(required([config]), store)
        return 1
    result = (record := records[config.id]).result
    print(
        f"{config.id} {record.status}{' (was recorded)' if known else ''}: last {result['last_accuracy']:.2f} %, "
        f"best {result['best_accuracy']:.2f} % at epoch {result['best_epoch'] + 1} of {result['epochs']}; "
        f"{store.path(config.id)}"
    )
    return 0 if record.status == "finished" else 1


def _network(student: str, teacher: str | None, method: str | None, seed: int, given: dict[str, Any]):
    """Return settings, config and labels of a network trained with or without a teacher."""
    from rkd.experiments.recipes import OWN_RECIPES, Builder
    from rkd.experiments.weights import is_run_id

    settings = resolve("run", given)
    if teacher is None and is_run_id(given.get("teacher_checkpoint")):
        teacher = settings.teacher
    if teacher is None:
        if method is not None:
            raise ConfigError(f"--method {method} needs a --teacher to learn from")
        builder, what = Builder(settings), "a network trained on labels alone, without --teacher"
        config = builder.plain(student, seed)
    else:
        method = method or "reviewkd"
        builder, what = Builder(settings, OWN_RECIPES.get(method, "crd")), f"a run by {method}"
        config = builder.distilled(teacher, student, seed, method)
    check_effect(given, builder.read, what)
    return settings, config, {"recipe": builder.recipe_name}


def _row(row: str, seed: int, given: dict[str, Any], of_paper: bool = False):
    """Return the same for a chapter's row, as this profile has it or as the paper profile has it under this name."""
    selectors, (name, _, key) = Selectors(given["profile"], {**given, "seeds": [seed]}), row.partition("/")
    settings, rows = selectors.chapter(name)
    if not of_paper and key not in rows:
        raise unknown(f"row of {name}", key, rows)
    line = selectors.line_of_paper(row) if of_paper else rows[key]
    check_effect(given, line.read, f"row {row}")
    return settings, line.runs[0], {"row": row}


def _claim(figure: str, seed: int, given: dict[str, Any]):
    """Return the same for the run that answers a published figure; if none does, print why and return None."""
    from rkd import published
    from rkd.experiments.answers import answer_of

    found = answer_of(figure)
    if found.kind == "run":
        settings, config, labels = _row(found.lines[0], seed, given, of_paper=True)
        return settings, config, {"claim": figure, **labels}
    print(f"{figure} (printed: {published.get(figure).value or 'nothing'}) needs no run of its own.")
    if found.kind == "derived":
        print(f"It is derived: {found.how}. Run what it derives from:")
        for part in found.parts:
            print(f"  rkd run --claim {quote(part)}")
        for selector in () if found.parts else found.lines:
            print(f"  rkd run --row {quote(selector)}")
    else:
        print(f"It is a setting: {found.ours} ({found.how})." if found.kind == "setting" else found.how)
    return None
