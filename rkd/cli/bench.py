import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from rkd.cli.declare import Names
from rkd.errors import ConfigError


def bench(
    *,
    pair: str | None = None,
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
    negatives: Annotated[int, int, "K", 16384] | None = None,
    out: Path | None = None,
) -> int:
    """Measure how fast this machine makes training steps: ours and the conventional ones in turn, in one process,
    against each other and against what the machine reaches at best. Needs no data; other work on the machine spoils it.

    Args:
        pair: TEACHER/STUDENT (default resnet56/resnet20)
        group: also N students in lock-step
        batch_size: images of a step (default 128; with --negatives 64)
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
        seconds: for all of it; three rounds are made in any case (default 100; with --negatives 10)
        negatives: not steps, but the drawing of CRD's K negatives per image (default 16384): ours against others'
        out: write the measurement there too, a .json file

    Examples:
        rkd bench
        rkd bench --compile --group 8 --out results/bench/mine.json
        rkd bench --pair resnet32x4/shufflenetv1 --seconds 600
        rkd bench --pair resnet20/resnet8 --precision bf16,fp16 --teacher-batch-norm batch --seconds 20
        rkd bench --device cuda --teacher-form unfolded,folded,fused --batch-norm native,cudnn --cudnn-benchmark
        rkd bench --negatives
    """
    given = {name: value for name, value in locals().items() if value not in (None, False) and name != "out"}
    if out is not None and out.suffix != ".json":
        raise ConfigError(f"--out is {str(out)!r}; it must be the name of a .json file")

    def say(text: str) -> None:
        print(f"{text} ...", file=sys.stderr, flush=True)

    save, text = (_negatives if "negatives" in given else _steps)(given, say)
    print(text, end="")
    if out is not None:
        save(out)
        print(f"written to {out}", file=sys.stderr)
    return 0


Outcome = tuple[Callable[[Any], None], str]  # what writes the file, and the text


def _steps(given: dict[str, Any], say: Callable[[str], None]) -> Outcome:
    from rkd.bench import Request, measure, report

    pair = given.pop("pair", "resnet56/resnet20")
    teacher, slash, student = pair.partition("/")
    if not (slash and teacher and student):
        raise ConfigError(f"--pair is {pair!r}; write TEACHER/STUDENT, for example resnet56/resnet20")
    lists = {"precision": "precisions", "teacher_batch_norm": "batch_norms", "teacher_form": "teacher_forms",
             "batch_norm": "kernels"}  # fmt: skip
    for name, field in lists.items():
        if (value := given.pop(name, None)) is not None:
            given[field] = value
    result = measure(Request(teacher, student, **given), say)
    return result.save, report(result)


def _negatives(given: dict[str, Any], say: Callable[[str], None]) -> Outcome:
    from rkd.bench.negatives import KIND, measure_negatives, report_negatives
    from rkd.bench.result import write_json

    values = {"batch_size": 64, "seconds": 10.0, **given}
    for name in values.keys() - {"negatives", "batch_size", "seconds", "device"}:
        raise ConfigError(f"--{name.replace('_', '-')} says nothing about --negatives")
    say(f"{values['negatives']:,} negatives for each of {values['batch_size']} images")
    found = measure_negatives(values["negatives"], values["batch_size"], values["device"], values["seconds"])
    return lambda path: write_json(path, KIND, found), report_negatives(found)
