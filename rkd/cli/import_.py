"""Merge what `rkd export` wrote into the results here: what is missing is added, what is here stays, and what is
damaged or contradicts what is here is refused by name. Of two checkpoints of a run the one further on stays. Doing it
twice changes nothing."""

import argparse
from pathlib import Path

from rkd.cli.common import add_profile

EPILOG = """examples:
  rkd import ~/carry --profile paper
  rkd import parts --results own/results

Exit status: 0 all of it is here now, 1 something was refused, 2 wrong call or no export."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder that rkd export wrote")
    add_profile(parser)
    parser.add_argument("--results", metavar="DIR", help="folder of records (default: the profile's own)")


def call(options: argparse.Namespace) -> int:
    from rkd.cli.export import PLURALS
    from rkd.experiments.settings import resolve
    from rkd.experiments.workspace import store_of
    from rkd.records import transfer

    store = store_of(resolve("import", {"profile": options.profile, "results": options.results}))
    outcomes = transfer.merge(store, options.folder)
    states = {"added": "added", "here": "already here", "refused": "refused"}
    print(f"{'':11}" + "".join(f"{name:>14}" for name in states.values()))
    for kind, name in PLURALS.items():
        own = [outcome.state for outcome in outcomes if outcome.kind == kind]
        print(f"{name:11}" + "".join(f"{own.count(state):>14}" for state in states))
    refused = [outcome for outcome in outcomes if outcome.state == "refused"]
    for outcome in refused:
        print(f"refused {outcome.path}: {outcome.why}")
    if not any(outcome.state == "added" for outcome in outcomes):
        print("nothing was changed" if refused else "nothing was changed: all of it is here already")
    print(f"records: {store.records}")
    return 1 if refused else 0
