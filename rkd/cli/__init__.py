"""The command line: `rkd COMMAND`, also `python -m rkd COMMAND`.

Exit status: 0 done; 1 something asked for did not come out (a failed chapter, a diverged run, runs missing); 2 the
call itself was wrong (unknown name, contradictory values, missing data).
"""

import argparse
import importlib
import keyword
import sys
from collections.abc import Sequence

from rkd import __version__
from rkd.errors import RkdError

# Modules are imported when their command is called, so that `rkd --help` does not wait for torch.
COMMANDS = {
    "run": "train one network, with or without a teacher, and record it",
    "sweep": "train all missing runs of chapters",
    "book": "execute chapters and build the HTML book",
    "status": "list recorded, running and missing runs of a profile",
    "export": "write records, checkpoints and weights as numbered parts, to be merged elsewhere",
    "pack": "write all that training needs on a machine without network, as pieces of a tar file",
    "import": "merge what export wrote into the results here",
    "evaluate": "measure a recorded run's weights, or a checkpoint file, again",
    "convert": "merge a reparameterised student into its deploy form, and measure both",
    "bench": "measure the speed of training steps, ours and conventional ones in turn",
    "models": "list networks, or show one's sizes and taps",
    "check-method": "say whether a method's steps can be captured as a CUDA graph",
    "data": "fetch, check and describe a data set",
    "summary": "print mean accuracies per configuration, or write them as CSV",
    "claims": "print published figures",
    "verdicts": "judge the declared claims by the recorded runs",
}

EPILOG = """examples:
  rkd book                                    execute every chapter on the embedded data set, build the HTML
  rkd book --profile paper --only table3      the real thing, one chapter
  rkd sweep params/paper.yaml --chapters table3,table4
  rkd run --student resnet20 --teacher resnet56 --profile smoke --set loss_weight=0.9
  rkd status --profile paper
  rkd export --out parts --profile paper      carry finished and unfinished runs to another machine ...
  rkd import parts --profile paper            ... and merge them there
  rkd pack --out pack --profile paper         all that a GPU machine without network needs to train
  rkd models wrn_40_2
  rkd check-method crd+kd                     can its steps be captured as a CUDA graph? asked without one
  rkd claims --table "Table 3"
  rkd verdicts --chapter table3               what the recorded runs say of the claims

`rkd COMMAND --help` explains each command. Exit status: 0 done, 1 something did not come out, 2 wrong call."""


def parser(commands: Sequence[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The parser; `commands` limits which commands' own options are loaded."""
    top = argparse.ArgumentParser(
        prog="rkd",
        description="Knowledge distillation by knowledge review, and the report that measures it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"rkd {__version__}")
    subparsers = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        # No module can be named like a keyword: that of `rkd import` is import_, and that of `rkd a-b` is a_b.
        file = f"{name}_" if keyword.iskeyword(name) else name.replace("-", "_")
        module = importlib.import_module(f"rkd.cli.{file}") if name in commands else None
        sub = subparsers.add_parser(
            name,
            help=summary,
            description=module.__doc__ if module else summary,
            epilog=module.EPILOG if module else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if module:
            module.add_arguments(sub)
            sub.set_defaults(call=module.call)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if "" not in sys.path:  # networks and methods of one's own lie here, as for `python -m rkd`
        sys.path.append("")
    named = [a for a in arguments[:1] if a in COMMANDS]
    options = parser(named).parse_args(arguments)
    try:
        return options.call(options)
    except RkdError as error:
        print(f"rkd {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"rkd {options.command}: interrupted; finished epochs are kept and the next call resumes",
            file=sys.stderr,
        )
        return 1
    except BrokenPipeError:  # `rkd claims | head`
        sys.stderr.close()
        return 1
