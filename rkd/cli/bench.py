"""Measure how fast this machine makes training steps: ours and the conventional ones in turn, in one process, against
each other and against what the machine reaches at best. Needs no data; other work on the machine spoils it."""

import argparse
from collections.abc import Callable
from typing import Any

EPILOG = """examples:
  rkd bench
  rkd bench --compile --gang 8 --out results/bench/mine.json
  rkd bench --pair resnet32x4/shufflenetv1 --seconds 600
  rkd bench --pair resnet20/resnet8 --precision bf16 fp16 --teacher-batch-norm batch --seconds 20
  rkd bench --negatives"""
# Without --negatives, and with it: where the two measurements differ.
STEP = {"pair": "resnet56/resnet20", "gang": 1, "precision": ["fp32", "auto"], "compile": "no",
        "teacher_batch_norm": "running,batch", "batch_size": 128, "seconds": 100.0, "threads": "auto"}  # fmt: skip
NEGATIVES = {"batch_size": 64, "seconds": 10.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pair", metavar="TEACHER/STUDENT",
        help="two networks (default resnet56/resnet20)",
    )  # fmt: skip
    parser.add_argument("--gang", type=int, metavar="N", help="also N students in lock-step")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images of a step (default 128; with --negatives 64)"
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--threads", metavar="N",
        help="threads on a CPU, or auto: with which the conventional loop is quickest (default: auto)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", nargs="+", metavar="NAME",
        help="arithmetics of our step: auto, fp32, bf16, fp16, fp64 (default: fp32 auto)",
    )  # fmt: skip
    parser.add_argument(
        "--teacher-batch-norm", metavar="A,B",
        help="what the teacher normalises by: running, batch (default: both)",
    )  # fmt: skip
    parser.add_argument(
        "--compile", nargs="?", const="engine", metavar="WHAT",
        help="also compiled steps: engine (what runs compile: the teacher, on CUDA the students too) or all (each)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=float, metavar="S",
        help="for all of it; three rounds are made in any case (default 100; with --negatives 10)",
    )  # fmt: skip
    parser.add_argument(
        "--negatives", nargs="?", type=int, const=16384, metavar="K",
        help="not steps, but the drawing of CRD's K negatives per image (default 16384): ours against image by image",
    )  # fmt: skip
    parser.add_argument("--out", metavar="FILE.json", help="write the measurement there too")


def call(options: argparse.Namespace) -> int:
    import sys
    from pathlib import Path

    from rkd.errors import ConfigError

    out = None if options.out is None else Path(options.out)
    if out is not None and out.suffix != ".json":
        raise ConfigError(f"--out is {options.out!r}; it must be the name of a .json file")

    def say(text: str) -> None:
        print(f"{text} ...", file=sys.stderr, flush=True)

    result, text = (_steps if options.negatives is None else _negatives)(options, say)
    print(text, end="")
    if out is not None:
        result.save(out)
        print(f"written to {out}", file=sys.stderr)
    return 0


def _given(options: argparse.Namespace, defaults: dict[str, Any]) -> argparse.Namespace:
    """The options with these defaults."""
    values = {
        k: default if getattr(options, k) is None else getattr(options, k) for k, default in defaults.items()
    }
    return argparse.Namespace(**{**vars(options), **values})


def _steps(options: argparse.Namespace, say: Callable[[str], None]) -> tuple[Any, str]:
    from rkd.bench import Request, measure, report
    from rkd.errors import ConfigError

    options = _given(options, STEP)
    teacher, slash, student = options.pair.partition("/")
    if not (slash and teacher and student):
        raise ConfigError(f"--pair is {options.pair!r}; write TEACHER/STUDENT, for example resnet56/resnet20")
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
        threads=options.threads,
    )
    result = measure(request, say)
    return result, report(result)


def _negatives(options: argparse.Namespace, say: Callable[[str], None]) -> tuple[Any, str]:
    from rkd.bench.negatives import NegativesRequest, measure_negatives, report_negatives
    from rkd.errors import ConfigError

    for name in STEP.keys() - NEGATIVES.keys():
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')} says nothing about --negatives")
    options = _given(options, NEGATIVES)
    request = NegativesRequest(
        negatives=options.negatives,
        batch_size=options.batch_size,
        device=options.device,
        seconds=options.seconds,
    )
    result = measure_negatives(request, say)
    return result, report_negatives(result)
