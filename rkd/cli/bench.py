"""`rkd bench speed`: time our training steps and conventional ones in turn; `rkd bench gate`: measure whether a quicker
arithmetic costs accuracy."""

import sys
from typing import Annotated, Any

from rkd.cli.declare import File, Folder, Names, parse_value
from rkd.errors import ConfigError

Numbers = Annotated[tuple[int, ...], lambda text: tuple(parse_value(f"[{text}]")), "A,B"]


def bench(
    *,
    pair: str = "resnet56/resnet20",
    batch_size: int = 128,
    device: str = "auto",
    seconds: float = 100.0,
    precision: Names = ("fp32", "auto"),
    teacher_batch_norm: Names = ("running", "batch"),
    batch_norm: Names = ("cudnn",),
    threads: str = "auto",
    group: int = 1,
    compile: Annotated[str, str, "WHAT", "engine"] = "no",
    cudnn_benchmark: bool = False,
    out: File | None = None,
) -> int:
    """Measure how fast this machine makes training steps: ours and the conventional ones in turn, in one process,
    against each other. Needs no data; other work on the machine spoils it.

    Args:
        pair: TEACHER/STUDENT (default resnet56/resnet20)
        batch_size: images of a step (default 128)
        device: auto, cpu, cuda or cuda:N
        seconds: for all of it; three rounds are made in any case (default 100)
        precision: arithmetics of our step: auto, fp32, bf16, fp16, fp64 (default: fp32,auto)
        teacher_batch_norm: what the teacher normalises by: running, batch (default: both)
        batch_norm: on CUDA: every BatchNorm by PyTorch's own kernels (native), or by cuDNN where PyTorch takes it
            (cudnn, the default)
        threads: threads on a CPU, or auto: as runs choose it (default)
        group: also N students in lock-step
        compile: also compiled steps: engine (what runs compile: the teacher, on CUDA students too; the default) or all
        cudnn_benchmark: on CUDA: each of our steps also with torch.backends.cudnn.benchmark
        out: write the measurement there too, a .json file

    Examples:
        rkd bench speed
        rkd bench speed --compile --group 8 --out results/bench/mine.json
        rkd bench speed --pair resnet20/resnet8 --precision bf16,fp16 --teacher-batch-norm batch --seconds 20
        rkd bench speed --device cuda --batch-norm native,cudnn --cudnn-benchmark
    """
    given = {name: found for name, found in locals().items() if name not in ("pair", "batch_norm", "out")}
    from rkd.bench import Request, measure, save
    from rkd.bench.tables import report

    teacher, slash, student = pair.partition("/")
    if not (slash and teacher and student):
        raise ConfigError(f"--pair is {pair!r}; write TEACHER/STUDENT, for example resnet56/resnet20")
    if out is not None and out.suffix != ".json":
        raise ConfigError(f"--out is {str(out)!r}; it must be the name of a .json file")

    def say(text: str) -> None:
        print(f"{text} ...", file=sys.stderr, flush=True)

    result = measure(Request(teacher, student, kernels=batch_norm, **given), say)
    print(report(result), end="")
    if out is not None:
        save(out, result)
        print(f"written to {out}", file=sys.stderr)
    return 0


def gate(
    *,
    profile: str = "mini",
    seeds: Numbers = (0, 1, 2),
    chapter: str = "table3",
    row: str = "full",
    work: Folder | None = None,
    out: File | None = None,
    **given: Any,
) -> int:
    """Measure whether a quicker arithmetic costs accuracy: train one row of a chapter with each seed once in fp32 and
    once in the quicker arithmetic (--precision; this device's fastest where not given), from the same first weights on
    the same batches with the same teacher, which is trained in fp32. An interrupted call goes on where it was.

    The two are shown equal where the whole 90 % interval of the mean difference lies within half a point of zero and no
    run diverged. That is evidence about runs of this length on these images, and about no others.

    Args:
        profile: name or path of a profile (default mini)
        seeds: one pair of runs each (default 0,1,2)
        chapter: whose row is trained (default table3)
        row: of the chapter's table (default full)
        work: folder of the runs (default _build/gate)
        out: file to write (default results/bench/gate-DEVICE.json)

    Examples:
        rkd bench gate
        rkd bench gate --precision bf16 --chapter table1 --row resnet20-resnet56-reviewkd

        Exit status: 0 written, 1 a run diverged, 2 wrong call.
    """
    from rkd.bench import save
    from rkd.bench.gate import accuracy_table, conclusion, train_pairs

    found, path = train_pairs(chapter, row, {"profile": profile, "seeds": list(seeds), **given}, work, out)
    print(f"{accuracy_table(found).to_string(index=False)}\n{conclusion(found)}")
    save(path, found)
    print(f"written to {path}", file=sys.stderr)
    return int(found.diverged)
