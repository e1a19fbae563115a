"""List the networks rkd builds, or show one: parameters, multiply-adds, taps."""

import argparse
import csv
from importlib import resources

EPILOG = """examples:
  rkd models
  rkd models wrn_40_2
  rkd models represnet20                            as trained, and with its branches merged
  rkd models shufflenetv1 --teacher resnet32x4      what ReviewKD adds to the pair"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="a network (any WRN: wrn_DEPTH_WIDTH)")
    parser.add_argument("--classes", type=int, default=100, help="number of classes (default 100)")
    parser.add_argument("--teacher", metavar="NAME", help="show the review levels of the pair")


def call(options: argparse.Namespace) -> int:
    if options.name is None:
        _list(options.classes)
        return 0
    from rkd import models

    net = models.build(options.name, options.classes)
    shapes = models.tap_shapes(net)
    print(f"{models.display_name(options.name)}: {_cost(net)}")
    if models.is_reparameterised(net):
        print(f"  merged  {_cost(models.deploy(net))} (`rkd convert`)")
    print(f"  stem    {_shape(shapes.stem)}")
    for i, shape in enumerate(shapes.stages, 1):
        print(f"  stage {i} {_shape(shape)}")
    print(f"  pooled  {shapes.pooled}")
    if options.teacher:
        _pair(net, options)
    return 0


def _list(classes: int) -> None:
    """All registered networks by group, from a file of their sizes: importing torch would take longer than that."""
    print(f"{'name':19}{'parameters':>12}{'M multiply-adds':>17}   ({classes} classes, 32x32 images)")
    shown = None
    with resources.files("rkd").joinpath("models/sizes.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["group"] != shown:
                print(shown := row["group"])
            merged = f"   merged:{_row(row, 'merged_', classes)}" if row["merged_parameters"] else ""
            print(f"  {row['name']:17}{_row(row, '', classes)}{merged}")
    print("and any wrn_DEPTH_WIDTH, any package.module:function")


def _row(sizes: dict[str, str], form: str, classes: int) -> str:
    """Parameters and millions of multiply-adds: of the body, and of a linear classifier with bias."""
    width = int(sizes["width"])
    parameters = int(sizes[f"{form}parameters"]) + (width + 1) * classes
    return f"{parameters:>12,}{(int(sizes[f'{form}multiply_adds']) + width * classes) / 1e6:>17.2f}"


def _cost(net) -> str:
    from rkd import models

    return f"{models.parameter_count(net):,} parameters, {models.macs(net):,} multiply-adds"


def _pair(student, options: argparse.Namespace) -> None:
    from rkd import models
    from rkd.review import ReviewKD

    review = ReviewKD(student, models.build(options.teacher, options.classes))
    print(f"learning from {models.display_name(options.teacher)}, deep to shallow:")
    for row in review.describe():
        ours = f"{row['student_channels']} x {row['student_size']}²"
        theirs = f"{row['teacher_channels']} x {row['teacher_size']}²"
        print(f"  {row['level']:8} {ours:>11} -> {theirs:>11}   {row['parameters']:>10,} fusion parameters")
    print(f"  {models.parameter_count(review):,} fusion parameters in all")


def _shape(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{channels} x {height} x {width}"
