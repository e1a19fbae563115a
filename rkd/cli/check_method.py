"""Say whether a method's steps can be captured as a CUDA graph, before a GPU is at hand: steps of every stage, of the
first and the last epoch, with a whole batch and a short one, are followed on stand-ins for a GPU's tensors."""

import argparse

EPILOG = """examples:
  rkd check-method crd
  rkd check-method at+kd --teacher resnet110 --student resnet20 --set 'kd={temperature: 2}'
  rkd check-method my_methods:Cosine --set loss_weight=0.5      a builder, in my_methods.py

Exit status: 0 it can, 1 it cannot (one sentence per problem), 2 wrong call."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "method", help='a method, a sum such as "at+kd", or package.module:function naming a builder'
    )
    parser.add_argument(
        "--teacher", default="resnet56", metavar="NAME", help="network to learn from (default resnet56)"
    )
    parser.add_argument(
        "--student", default="resnet20", metavar="NAME", help="network that learns (default resnet20)"
    )
    parser.add_argument(
        "-s", "--set", action="append", default=[], metavar="NAME=VALUE",
        help="an option of the method, as YAML; of a sum, a part's: --set 'kd={temperature: 2}'; may be repeated",
    )  # fmt: skip


def call(options: argparse.Namespace) -> int:
    from rkd.experiments.settings import assignments
    from rkd.training import check_method

    found = check_method(
        options.method, assignments(options.set), teacher=options.teacher, student=options.student
    )
    print(found)
    return 1 if found.problems else 0
