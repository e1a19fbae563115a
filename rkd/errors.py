"""The errors a user can cause, each with one clear sentence."""

import difflib
import functools
import sys
from collections.abc import Iterable


class RkdError(Exception):
    """Base of all errors that the caller can fix; the command line and notebooks show them without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows (and papermill prints) in place of the stack trace."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(RkdError, ValueError):
    """A setting has a value that is not allowed, or contradicts another."""


class DataError(RkdError):
    """A data set is missing, damaged, or not in the requested form."""


class RecordError(RkdError):
    """A record or checkpoint is damaged, foreign, or contradicts its file name."""


@functools.cache
def say_once(text: str) -> None:
    """Print a text to stderr, unless this process has already printed it."""
    print(text, file=sys.stderr, flush=True)


def one_line(error: BaseException, most: int = 300) -> str:
    """Return an error's message on one line of printable characters; it may quote anything from a foreign file.

    >>> one_line(ValueError("one\\n  two\\x1b[2J"))
    'one two?[2J'
    """
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, RecursionError):
        said = "it is nested too deeply"
    said = "".join(letter if letter.isprintable() else "?" for letter in said)
    return said if len(said) <= most else f"{said[:most]}..."


def unknown(kind: str, name: object, allowed: Iterable[str]) -> ConfigError:
    """Return the error for a name outside a closed list; it gives the bad name, the nearest good one and all allowed.

    >>> str(unknown("model", "resnet21", ["resnet20", "resnet56"]))
    "unknown model 'resnet21' (did you mean 'resnet20'?); allowed: resnet20, resnet56"
    """
    allowed = sorted(map(str, allowed))
    near = difflib.get_close_matches(str(name)[:100], allowed, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return ConfigError(f"unknown {kind} {name!r:.100}{hint}; allowed: {', '.join(allowed)}")
