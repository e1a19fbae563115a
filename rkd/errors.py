"""The errors a user can cause, each with one clear sentence."""

import difflib
from collections.abc import Iterable


class RkdError(Exception):
    """Base of all errors that are the caller's to mend; command line and notebooks show them without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows (and papermill prints) in place of the stack."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(RkdError, ValueError):
    """A setting has a value that is not allowed, or contradicts another."""


class DataError(RkdError):
    """A data set is missing, damaged, or not of the form asked for."""


class RecordError(RkdError):
    """A record or checkpoint is damaged, foreign, or contradicts its file name."""


def unknown(kind: str, name: object, allowed: Iterable[str]) -> ConfigError:
    """The error for a name outside a closed list: names the bad value, the nearest good one and all allowed.

    >>> str(unknown("model", "resnet21", ["resnet20", "resnet56"]))
    "unknown model 'resnet21' (did you mean 'resnet20'?); allowed: resnet20, resnet56"
    """
    allowed = sorted(map(str, allowed))
    near = difflib.get_close_matches(str(name), allowed, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return ConfigError(f"unknown {kind} {name!r}{hint}; allowed: {', '.join(allowed)}")
