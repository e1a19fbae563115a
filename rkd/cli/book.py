"""Execute the chapters with papermill, each in a process of its own, and build the HTML book. Runs that are recorded
are loaded, not trained again."""

import argparse

from rkd.cli.common import add_profile, add_settings, given_settings

EPILOG = """examples:
  rkd book
  rkd book --profile mini --only table3 --data-root ~/cifar
  rkd book --profile paper --jobs 1 --timeout 24h
  rkd book --only figure6 --set 'loss_weights=[0.2, 0.4, 0.8]'"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    parser.add_argument("--only", metavar="A,B", help="chapters to execute; the others keep their last copy")
    parser.add_argument(
        "--jobs", type=int, default=None, metavar="N", help="chapters at once (default: 2, on a GPU 1)"
    )
    parser.add_argument(
        "--timeout",
        metavar="TIME",
        help="limit of one chapter: 90s, 30m, 24h, 7d (default: 30m for smoke, else 7d)",
    )
    parser.add_argument("--no-html", action="store_true", help="execute and stage, do not build the HTML")
    add_settings(parser)


def call(options: argparse.Namespace) -> int:
    from rkd import paths
    from rkd.experiments.budget import parse_duration
    from rkd.experiments.settings import profile_path
    from rkd.report.book import build_book

    home = paths.home()
    result = build_book(
        options.profile,
        book_dir=home / "book",
        config=home / "_config.yml",
        build_dir=paths.build(),
        params_file=profile_path(options.profile),
        only=[name.strip() for name in options.only.split(",")] if options.only else (),
        jobs=options.jobs if options.jobs is not None else _default_jobs(options),
        timeout_s=parse_duration(options.timeout or ("30m" if options.profile == "smoke" else "7d")),
        parameters=given_settings(options),
        environment={"RKD_HOME": str(home)},
        html=not options.no_html,
    )
    return 0 if result.ok else 1


def _default_jobs(options: argparse.Namespace) -> int:
    import torch

    return 1 if torch.cuda.is_available() and options.device != "cpu" else 2
