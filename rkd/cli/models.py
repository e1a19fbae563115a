"""List the networks rkd builds, or show one: parameters, multiply-adds, taps."""

import argparse

EPILOG = """examples:
  rkd models
  rkd models wrn_40_2
  rkd models shufflenetv1 --teacher resnet32x4      what ReviewKD adds to the pair"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="a network (any WRN: wrn_DEPTH_WIDTH)")
    parser.add_argument("--classes", type=int, default=100, help="number of classes (default 100)")
    parser.add_argument("--teacher", metavar="NAME", help="show the review levels of the pair")


def call(options: argparse.Namespace) -> int:
    from rkd import models

    if options.name is None:
        print(
            f"{'name':15}{'parameters':>12}{'M multiply-adds':>17}   ({options.classes} classes, 32x32 images)"
        )
        for name in models.names():
            net = models.build(name, options.classes)
            print(f"{name:15}{models.parameter_count(net):>12,}{models.macs(net) / 1e6:>17.2f}")
        return 0
    net = models.build(options.name, options.classes)
    shapes = models.tap_shapes(net)
    print(
        f"{models.display_name(options.name)}: {models.parameter_count(net):,} parameters, "
        f"{models.macs(net):,} multiply-adds"
    )
    print(f"  stem    {_shape(shapes.stem)}")
    for i, shape in enumerate(shapes.stages, 1):
        print(f"  stage {i} {_shape(shape)}")
    print(f"  pooled  {shapes.pooled}")
    if options.teacher:
        _pair(net, options)
    return 0


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
