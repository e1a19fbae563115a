"""Measure how fast this machine makes training steps: ours and the conventional ones in turn, in one process, against
each other and against what the machine reaches at best. Needs no data; other work on the machine spoils it."""

import argparse

EPILOG = """examples:
  rkd bench
  rkd bench --compile --gang 8 --out results/bench/mine.json
  rkd bench --pair resnet32x4/shufflenetv1 --seconds 600
  rkd bench --pair resnet20/resnet8 --precision bf16 fp16 --teacher-batch-norm batch --seconds 20"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pair", default="resnet56/resnet20", metavar="TEACHER/STUDENT",
        help="two networks (default resnet56/resnet20)",
    )  # fmt: skip
    parser.add_argument("--gang", type=int, default=1, metavar="N", help="also N students in lock-step")
    parser.add_argument(
        "--batch-size", type=int, default=128, metavar="N", help="images of a step (default 128)"
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--precision", nargs="+", default=["fp32", "auto"], metavar="NAME",
        help="arithmetics of our step: auto, fp32, bf16, fp16, fp64 (default: fp32 auto)",
    )  # fmt: skip
    parser.add_argument(
        "--teacher-batch-norm", default="running,batch", metavar="A,B",
        help="what the teacher normalises by: running, batch (default: both)",
    )  # fmt: skip
    parser.add_argument(
        "--compile", nargs="?", default="no", const="engine", metavar="WHAT",
        help="also compiled steps: engine (what runs compile: the teacher, on CUDA the students too) or all (each)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=float, default=100.0, metavar="S",
        help="for all of it; three rounds are made in any case (default 100)",
    )  # fmt: skip
    parser.add_argument("--out", metavar="FILE.json", help="write the measurement there too")


def call(options: argparse.Namespace) -> int:
    import sys
    from pathlib import Path

    from rkd.bench import Request, measure, report
    from rkd.errors import ConfigError

    teacher, slash, student = options.pair.partition("/")
    if not (slash and teacher and student):
        raise ConfigError(f"--pair is {options.pair!r}; write TEACHER/STUDENT, for example resnet56/resnet20")
    out = None if options.out is None else Path(options.out)
    if out is not None and out.suffix != ".json":
        raise ConfigError(f"--out is {options.out!r}; it must be the name of a .json file")
    request = Request(
        teacher=teacher,
        student=student,
        batch_size=options.batch_size,
        device=options.device,
        precisions=tuple(options.precision),
        batch_norms=tuple(name.strip() for name in options.teacher_batch_norm.split(",")),
        gang=options.gang,
        compile=options.compile,
        seconds=options.seconds,
    )
    result = measure(request, lambda text: print(f"{text} ...", file=sys.stderr, flush=True))
    print(report(result), end="")
    if out is not None:
        result.save(out)
        print(f"written to {out}", file=sys.stderr)
    return 0
