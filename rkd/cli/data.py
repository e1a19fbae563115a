"""Fetch a data set if it is not there (CIFAR by torchvision's download, once), check it, and describe it."""

import argparse

EPILOG = """examples:
  rkd data cifar100 --root data
  rkd data embedded
  rkd data my_images.npz          arrays x_train, y_train, x_test, y_test"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="cifar10, cifar100, embedded, or the path of an npz file")
    parser.add_argument(
        "--root", default=None, metavar="DIR", help="folder of the CIFAR files (default: data)"
    )


def call(options: argparse.Namespace) -> int:
    from rkd import data, paths

    normalisation = "embedded" if options.name == "embedded" else "cifar100"
    facts = data.describe(
        data.DataConfig(options.name, normalisation=normalisation), paths.home() / (options.root or "data")
    )
    for name, value in facts.items():
        print(f"{name:16} {value}")
    return 0
