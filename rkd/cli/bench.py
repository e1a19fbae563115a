"""`rkd bench`: steps, ours and conventional ones, timed in turn."""

import sys
from pathlib import Path
from typing import Annotated

from rkd.cli.declare import Names
from rkd.errors import ConfigError


def bench(
    *,
    pair: str = "resnet56/resnet20",
    group: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    threads: str | None = None,
    precision: Names | None = None,
    teacher_batch_norm: Names | None = None,
    compile: Annotated[str, str, "WHAT", "engine"] | None = None,
    teacher_form: Names | None = None,
    batch_norm: Names | None = None,
    cudnn_benchmark: bool = False,
    seconds: float | None = None,
    out: Path | None = None,
) -> int:
    """Measure how fast this machine makes training steps: ours and the conventional ones in turn, in one process,
    against each other. Needs no data; other work on the machine spoils it.

    Args:
        pair: TEACHER/STUDENT (default resnet56/resnet20)
        group: also N students in lock-step
        batch_size: images of a step (default 128)
        device: auto, cpu, cuda or cuda:N
        threads: threads on a CPU, or auto: as runs choose it (default)
        precision: arithmetics of our step: auto, fp32, bf16, fp16, fp64 (default: fp32,auto)
        teacher_batch_norm: what the teacher normalises by: running, batch (default: both)
        compile: also compiled steps: engine (what runs compile: the teacher, on CUDA students too; the default) or all
        teacher_form: forms of the teacher's graph: unfolded, folded (BatchNorm in the convolutions), fused (with bias,
            addition and ReLU in one operation of cuDNN; on CUDA alone), auto (default: auto, what runs take)
        batch_norm: on CUDA: every BatchNorm by PyTorch's own kernels (native), or by cuDNN where PyTorch takes it
            (cudnn, the default)
        cudnn_benchmark: on CUDA: each of our steps also with torch.backends.cudnn.benchmark
        seconds: for all of it; three rounds are made in any case (default 100)
        out: write the measurement there too, a .json file

    Examples:
        rkd bench
        rkd bench --compile --group 8 --out results/bench/mine.json
        rkd bench --pair resnet32x4/shufflenetv1 --seconds 600
        rkd bench --pair resnet20/resnet8 --precision bf16,fp16 --teacher-batch-norm batch --seconds 20
        rkd bench --device cuda --teacher-form unfolded,folded,fused --batch-norm native,cudnn --cudnn-benchmark
    """
    given = {
        "batch_size": batch_size, "device": device, "threads": threads, "precisions": precision, "group": group,
        "batch_norms": teacher_batch_norm, "compile": compile, "teacher_forms": teacher_form, "kernels": batch_norm,
        "cudnn_benchmark": cudnn_benchmark, "seconds": seconds,
    }  # fmt: skip
    from rkd.bench import Request, measure, report

    teacher, slash, student = pair.partition("/")
    if not (slash and teacher and student):
        raise ConfigError(f"--pair is {pair!r}; write TEACHER/STUDENT, for example resnet56/resnet20")
    if out is not None and out.suffix != ".json":
        raise ConfigError(f"--out is {str(out)!r}; it must be the name of a .json file")

    def say(text: str) -> None:
        print(f"{text} ...", file=sys.stderr, flush=True)

    result = measure(Request(teacher, student, **{k: v for k, v in given.items() if v is not None}), say)
    print(report(result), end="")
    if out is not None:
        result.save(out)
        print(f"written to {out}", file=sys.stderr)
    return 0
