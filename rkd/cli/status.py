"""List the runs a profile's chapters need: recorded, running now, partly trained, or missing."""

import argparse

from rkd.cli.common import add_profile, add_settings, given_settings

EPILOG = """examples:
  rkd status
  rkd status --profile paper --chapters table3 --verbose"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--chapters", metavar="A,B", help="chapters to look at (default: all)")
    parser.add_argument("-v", "--verbose", action="store_true", help="one line per run")
    add_profile(parser)
    add_settings(parser)


def call(options: argparse.Namespace) -> int:
    from rkd.cli.plan import chosen_chapters, plan
    from rkd.experiments.execute import required
    from rkd.experiments.workspace import store_of

    settings, chapters = plan(options.profile, chosen_chapters(options.chapters), given_settings(options))
    store = store_of(settings)
    states: dict[str, str] = {}
    for run in required(run for configs in chapters.values() for run in configs):
        if store.has(run.id):
            record = store.load(run.id)
            states[run.id] = "recorded" if record.status == "finished" else record.status
        elif store.running(run.id):
            states[run.id] = "running"
        else:
            begun = (store.folder(run.id) / "checkpoint.pt").exists()
            states[run.id] = "begun" if begun else "missing"
        if options.verbose:
            result = f"  {store.load(run.id).accuracy():.2f} %" if store.has(run.id) else ""
            print(f"{states[run.id]:9} {run.id}  {describe(run)}{result}")
    names = ("recorded", "diverged", "running", "begun", "missing")
    print(f"{'chapter':18}" + "".join(f"{name:>10}" for name in names))
    for name, configs in chapters.items():
        own = {run.id for run in required(configs)}
        print(f"{name:18}" + "".join(f"{sum(states[i] == state for i in own):>10}" for state in names))
    everything = list(states.values())
    print(f"{'all, each once':18}" + "".join(f"{everything.count(state):>10}" for state in names))
    print(f"records: {store.records}")
    return 0


def describe(run) -> str:
    """One run in words."""
    from rkd.models import display_name

    words = display_name(run.network)
    if run.teacher is not None:
        words += f" <- {display_name(run.teacher.name)}, {run.method}"
        if run.method == "reviewkd":
            o = run.options
            words += f" ({o.connector}, {o.loss}, attention {'on' if o.attention else 'off'}, weight {o.loss_weight:g})"
    return f"{words}, seed {run.seed}, {run.epochs} epochs of {run.data.name}"
