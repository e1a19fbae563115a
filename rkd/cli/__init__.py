"""The command line: `rkd COMMAND`, also `python -m rkd COMMAND`.

Exit status: 0 done; 1 part of what was asked for failed or is missing (a failed chapter, a diverged run, missing runs);
2 the call itself was wrong (unknown name, contradictory values, missing data).
"""

import argparse
import difflib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from rkd import __version__
from rkd.cli import declare
from rkd.errors import ConfigError, RkdError, one_line, unknown

# Where each command's function is, and what it does. A module is imported only if its command is called, so that
# `rkd --help` does not wait for torch.
COMMANDS = {
    "run": ("train.run", "train one network, with or without a teacher, and record it"),
    "sweep": ("sweep.sweep", "train all missing runs of chapters"),
    "book": ("book.book", "execute chapters and build the HTML book"),
    "status": ("status.status", "list recorded, running and missing runs of a profile"),
    "verdicts": ("verdicts.verdicts", "judge the declared claims by the recorded runs"),
    "show models": ("show.models", "list networks, or show one's sizes and taps"),
    "show method": ("show.method", "say whether a method's steps can be captured as a CUDA graph"),
    "show data": ("show.data", "fetch, check and describe a data set"),
    "show figures": ("show.figures", "print published figures, and what answers them"),
    "show records": ("show.records", "print mean accuracies per configuration, or write them as CSV"),
    "model evaluate": (
        "evaluate.evaluate",
        "measure a recorded run's weights, or a checkpoint file, again; merge branches",
    ),
    "model export": (
        "evaluate.export_model",
        "write a run's network as safetensors, TorchScript, torch.export or ONNX",
    ),
    "model features": ("evaluate.features", "write what a run's network makes of its images, as npz"),
    "records check": ("status.check_records", "name what is damaged among a profile's records and weights"),
    "records export": ("carry.export", "write records, checkpoints and weights, to be merged elsewhere"),
    "records import": ("carry.import_", "merge what export wrote into the results here"),
    "records import-logs": (
        "logs.import_logs",
        "take own runs made with another system, as evidence of grade B",
    ),
    "bench speed": ("bench.bench", "measure the speed of training steps, ours and conventional ones in turn"),
    "bench gate": ("bench.gate", "measure whether a quicker arithmetic costs accuracy"),
    "cluster pack": ("pack.pack", "write all that training needs on a machine without network"),
    "cluster plan": ("cluster.plan", "simulate a sweep of all runs on so many GPUs"),
    "cluster slurm": ("cluster.slurm", "write a Slurm job that sweeps on all its nodes"),
}
GROUPS = {
    "show": "networks, methods, data sets, published figures, records",
    "model": "a run's or a checkpoint's network: measure, export, features",
    "records": "check records and weights; carry them to other machines and back; import logs",
    "bench": "speed of training steps; what quicker arithmetic costs in accuracy",
    "cluster": "sweeps beyond one machine",
}
# Former spellings.
ALIASES = {
    "evaluate": "model evaluate",
    "export-model": "model export",
    "convert": "model export",
    "features": "model features",
    "export": "records export",
    "import": "records import",
    "import-logs": "records import-logs",
    "bench": "bench speed",
    "gate": "bench gate",
    "pack": "cluster pack",
    "models": "show models",
    "check-method": "show method",
    "data": "show data",
    "claims": "show figures",
    "summary": "show records",
}

EPILOG = """examples:
  rkd book                                    execute every chapter on the embedded data set, build the HTML
  rkd run --student resnet20 --teacher resnet56 --profile smoke --loss-weight 0.9
  rkd sweep params/paper.yaml --chapters table3,table4
  rkd verdicts --chapter table3               what the evidence says of the claims

Paths that you type start in the folder you stand in; those within a profile or a recipe, at the project's top.
`rkd COMMAND --help` explains each command. Exit status: 0 done, 1 something did not come out, 2 wrong call."""


class _Parser(argparse.ArgumentParser):
    """A parser that reports a wrong call in one line, whatever text the message quotes."""

    def error(self, message: str) -> NoReturn:
        super().error(one_line(ValueError(message), 1000))


def current_spelling(arguments: Sequence[str]) -> list[str]:
    """Return a call's words with a former name of a command replaced by its present one: `bench --seconds 9` is
    `bench speed --seconds 9`; `bench gate`, `bench --help` and a `bench gat` that is neither stand as they are."""
    first = arguments[0] if arguments else ""
    second = arguments[1] if len(arguments) > 1 else "-"
    present = first in GROUPS and (not second.startswith("-") or second in ("-h", "--help"))
    if first in ALIASES and not present:
        return [*ALIASES[first].split(), *arguments[1:]]
    return list(arguments)


def _command_name(words: Sequence[str]) -> str:
    """Return the one or two words that name a command; "" for words that name none."""
    return next((name for n in (1, 2) if (name := " ".join(words[:n])) in COMMANDS), "")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a call's arguments; of the command modules, only that of the command called is imported. A group alone
    stands for its help.

    Raises:
        ConfigError: there is no such command, or it has no such option or argument.
    """
    words = current_spelling(arguments)
    called, first = _command_name(words), {name.split()[0] for name in COMMANDS}
    if not words:
        raise ConfigError(f"name a command: {', '.join(sorted(first))}; `rkd --help` explains each")
    if words[0] in GROUPS:
        words[1:] = words[1:] or ["--help"]
        if not called and not words[1].startswith("-"):
            within = [name.split()[1] for name in COMMANDS if name.startswith(f"{words[0]} ")]
            raise unknown(f"'rkd {words[0]}' command", words[1], within)
    elif words[0] not in first and not words[0].startswith("-"):
        raise unknown("command", words[0], {*first, *difflib.get_close_matches(words[0], ALIASES, n=1)})
    top = asked = _Parser(
        prog="rkd",
        description="Knowledge distillation by knowledge review, and the report that measures it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"rkd {__version__}")
    commands = {"": top.add_subparsers(dest="command", metavar="COMMAND", required=True)}
    for name, (place, summary) in COMMANDS.items():
        group, _, last = name.rpartition(" ")
        if group not in commands:
            parser = commands[""].add_parser(group, help=GROUPS[group])
            commands[group] = parser.add_subparsers(dest="command", metavar="WHAT", required=True)
        if name != called:
            commands[group].add_parser(last, help=summary)
            continue
        module, _, function = place.partition(".")
        command = getattr(importlib.import_module(f"rkd.cli.{module}"), function)
        asked = declare.add_command(commands[group], last, command, summary)
    options, left = top.parse_known_args(words)
    if left:
        near = difflib.get_close_matches(left[0].partition("=")[0], asked._option_string_actions, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        kind = "option" if left[0].startswith("-") else "argument"
        raise ConfigError(f"unknown {kind} {left[0]!r:.100}{hint}; `{asked.prog} --help` lists what it takes")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, run the command and return the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may hold characters that the terminal lacks
            stream.reconfigure(errors="replace")
    name = f"rkd {_command_name(current_spelling(arguments))}".rstrip()
    try:
        status = declare.call(parse(arguments))
        sys.stdout.flush()
        return status
    except RkdError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `rkd show figures | head`
        sys.stderr.close()
        return 1
    except OSError as error:  # a full disk, a folder that cannot be written to
        place = f"{error.filename}: " if error.filename else ""
        print(f"{name}: {place}{error.strerror or error}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:  # stdout itself cannot be written to; Python would try again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted; finished epochs are kept and the next call resumes", file=sys.stderr)
        return 1
