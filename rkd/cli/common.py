"""Options several commands share."""

import argparse
from typing import Any


def add_profile(parser: argparse.ArgumentParser, default: str = "smoke") -> None:
    parser.add_argument(
        "--profile", default=default, metavar="NAME",
        help=f"smoke, mini, short, paper, or the path of a YAML file like those in params/ (default {default})",
    )  # fmt: skip


def add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="a recipe of params/recipes/, such as authors or crd, or the path of a YAML file (default: its own)",
    )
    parser.add_argument("--data-root", metavar="DIR", help="folder of the CIFAR files (default: data)")
    parser.add_argument("--results", metavar="DIR", help="folder of records (default: the profile's own)")
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument(
        "--precision", metavar="NAME", help="auto, fp32, bf16 or fp16 (default: the profile's, which is auto)"
    )
    parser.add_argument(
        "--threads", metavar="N", help="threads on a CPU, or auto: measured while training (default: auto)"
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        default=None,
        help="let torch.compile write kernels: slow start, fast steps",
    )
    parser.add_argument(
        "--engine", metavar="NAME",
        help="how steps are launched on CUDA: auto (a CUDA graph, kernel by kernel where that fails), eager, or graph "
        "(or nothing); default: $RKD_ENGINE, else auto",
    )  # fmt: skip
    parser.add_argument(
        "-s", "--set", action="append", default=[], metavar="NAME=VALUE",
        help="any parameter of the chapters, as YAML: --set epochs=5 --set 'seeds=[0, 1]'; may be repeated",
    )  # fmt: skip


def add_tensorboard(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tensorboard", metavar="DIR", help="write each epoch's curves for TensorBoard, under DIR/RUN"
    )


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """What --recipe, --data-root, --results, --device, --precision, --threads, --compile, --engine and --set say, by
    name.

    Raises:
        ConfigError: a --set that is not NAME=VALUE with a YAML value.
    """
    from rkd.experiments.settings import assignments

    named = ("recipe", "data_root", "results", "device", "precision", "threads", "compile", "engine")
    given = {name: getattr(options, name) for name in named if getattr(options, name) is not None}
    return given | assignments(options.set)
