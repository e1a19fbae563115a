"""Merge the branches of a recorded reparameterised student into single convolutions, write that deploy form as a
checkpoint, and print what it saves: parameters, multiply-adds and speed of both forms, measured in turn, and how far
their logits and accuracies are apart."""

import argparse
from pathlib import Path

from rkd.cli.common import add_profile, add_settings, given_settings

EPILOG = """examples:
  rkd convert 3f2a91c04b7d --profile smoke
  rkd convert 3f2a91c04b7d --weights best --out student.pt --profile paper
  rkd evaluate --checkpoint student.pt        the file says its network, data set and normalisation

Exit status: 0 the file is written, 1 it is, but the two forms differ in accuracy, 2 wrong call."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="id of a recorded run")
    parser.add_argument(
        "--weights",
        choices=("last", "best"),
        default="last",
        help="which of the run's weights (default last)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="where to write (default: NETWORK-RUN-WEIGHTS.pt here)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=128, metavar="N",
        help="images at a time while speed is measured (default 128)",
    )  # fmt: skip
    add_profile(parser)
    add_settings(parser)


def call(options: argparse.Namespace) -> int:
    from rkd.experiments.deploy import deploy_report, save_deployed
    from rkd.experiments.settings import resolve
    from rkd.experiments.workspace import runner_of
    from rkd.models import deploy_name

    settings = resolve("convert", {**given_settings(options), "profile": options.profile})
    runner = runner_of(settings)
    config = runner.store.load(options.run).config
    report = deploy_report(runner, config, options.weights, batch_size=options.batch_size)
    out = options.out or Path(f"{deploy_name(config.network)}-{config.id}-{options.weights}.pt")
    save_deployed(runner, config, out, options.weights)
    _print(report)
    print(f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB)")
    return 0 if report.trained.accuracy == report.deployed.accuracy else 1


def _print(report) -> None:
    from rkd import models

    forms = (report.trained, report.deployed)
    where = f"{report.threads} threads" if report.device == "cpu" else report.device
    print(f"{models.display_name(report.network)}, run {report.run}, {report.weights} weights")
    print(f"{'':17}{'trained':>14}{'deployed':>14}")
    for name, texts in {
        "parameters": [f"{form.parameters:,}" for form in forms],
        "M multiply-adds": [f"{form.macs / 1e6:.2f}" for form in forms],
        "images/s": [f"{form.images_per_second:,.0f}" for form in forms],
        "accuracy, %": [f"{form.accuracy:.2f}" for form in forms],
    }.items():
        print(f"{name:17}{texts[0]:>14}{texts[1]:>14}")
    print(
        f"speed on {where}, {report.precision}, {report.batch_size} images at a time: "
        f"{report.speedup:.2f} times as many"
    )
    print(
        f"logits of {report.images:,} test images differ by at most {report.logit_difference:.1e} (the largest is "
        f"{report.largest_logit:.1f}); {report.changed_predictions} predictions differ"
    )
