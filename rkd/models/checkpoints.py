"""Load weights from the package's own files and from those of other codes, however these wrap and spell them."""

import argparse
import collections
import io
import pathlib
import pickle
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rkd.errors import RecordError, one_line
from rkd.files import check_regular, check_stored_zip

# Plain containers and numbers that files hold beside tensors, none of which executes anything from the file: options as
# argparse keeps them, paths in those, numpy's scalars under the old and the new name of one function.
_SCALAR = np.float32(0).__reduce__()[0]
_SAFE = [
    argparse.Namespace,
    collections.defaultdict,
    pathlib.PosixPath,
    pathlib.WindowsPath,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in "?bhilqBHILQefd"),
]
DEPTH = 4  # how deep mappings within mappings are searched
# Different names of the same layer: of projections, and of the last linear layer.
_SYNONYMS = (("downsample", "shortcut", "skip"), ("fc", "linear", "classifier", "head"))
# Keys under which files state an accuracy of the network itself.
_STATED = re.compile(r"(best_|test_|val_)*(acc(uracy)?|prec|top)_?1?(_acc)?", re.IGNORECASE)


@dataclass(frozen=True)
class Reading:
    """One way to read a file as a network's weights.

    Attributes:
        place: entries that lead to the weights, and the prefix of their keys, joined by dots: "model.module.student";
            "" for a bare state dict.
        notes: what was rewritten, in words.
        wrong: how it differs from the network's weights; "" if it fits.
        shared: number of keys that the network has too.
    """

    place: str
    state: dict[str, Tensor]
    notes: list[str]
    wrong: str
    shared: int

    def __str__(self) -> str:
        return "; ".join([f"weights from {self.place!r}" if self.place else "", *self.notes]).strip("; ")


def load_weights(
    network: nn.Module,
    path: str | Path,
    entry: str | None = None,
    head: Collection[str] = (),
    finite: bool = False,
) -> str:
    """Load the weights in a file into `network`, whatever its device. Nothing in the file is executed.

    The file is a state dict, as torch or safetensors write it, or holds exactly one that fits the network, in mappings
    under any names (`state_dict`, `net`, `model_state_dict`, ...) and with any prefix of its keys (`module.`,
    `_orig_mod.`, `module.student.`, ...), or without the prefix that the network's own keys have (see `from_module`).
    Other codes' names for the same layer are translated (`shortcut` for `downsample`, `linear` for `fc`), and a bias
    between a convolution and its BatchNorm is moved into the BatchNorm's running mean, which is exact. BatchNorm's
    batch counters may be missing, as in files older than torch 0.4.1.

    Args:
        entry: which state dict to take if several fit, by the name that the error gives it.
        head: keys of tensors that the network keeps if the file's have another shape, or are missing.
        finite: refuse weights that hold NaN or infinity, as none can be trained with them.

    Returns:
        What was taken and rewritten, in words; "" for a state dict taken as it is.

    Raises:
        RecordError: the file cannot be read, needs code to be executed, or holds no state dict, one of another network
            or number of classes, several that fit, or what `finite` refuses; `network` then keeps its own weights.
    """
    with _reading(path) as content:
        found = _choice(list(_readings(network, content, head)), entry, content)
        if finite and (bad := not_finite(found.state)):
            raise RecordError(f"{len(bad)} of its tensors hold NaN or infinity, {bad[0]} first")
        network.load_state_dict(found.state, strict=False)
        return str(found)


def stated_accuracy(path: str | Path) -> float | None:
    """Return the accuracy in percent that a checkpoint states for its weights (`accuracy`, `best_acc`, `top1_acc`, ...;
    0.72 is 72 %); None if it states none, or several that differ. Raise RecordError if the file cannot be read, needs
    code to be executed, or holds no dictionary."""
    with _reading(path) as content:
        said = {
            float(value)
            for key, value in content.items()
            if isinstance(key, str) and _STATED.fullmatch(key) and _is_number(value)
        }
        most = 0 if "run" in content else 1  # the package's own are in percent, however small
    found = {100 * value if value <= most else value for value in said if 0 < value <= 100}
    return found.pop() if len(found) == 1 else None


def _is_number(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1
    return isinstance(value, Real) and not isinstance(value, bool)


def safe_unpickle(file: str | Path | io.BytesIO, legacy: bool = False) -> Any:
    """Load what torch saved, onto the CPU; nothing in it is executed. Its checksums are verified first, and no tensor
    may claim more than the file holds.

    Args:
        legacy: also accept files written by torch before 1.6, which have no checksums.

    Raises:
        RecordError: it holds more than tensors and plain values.
        Exception: of any type, if the file is damaged or of another kind.
    """
    if not isinstance(file, io.BytesIO):
        check_regular(file)
    with nullcontext(file) if isinstance(file, io.BytesIO) else open(file, "rb") as opened:
        if not legacy or opened.read(2) == b"PK":
            check_stored_zip(opened)
        opened.seek(0)
        try:
            # torch's warnings about an odd file ask to report it; our own error says what it is.
            with torch.serialization.safe_globals(_SAFE), warnings.catch_warnings(action="ignore"):
                content = torch.load(opened, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # whose message advises to execute it
            if blocked := re.search(r"GLOBAL (\S+)", str(error)):
                raise RecordError(
                    f"holds a pickled {blocked[1]}, and reading it means executing code from the file"
                ) from error
            raise ValueError("no file of torch's") from error
    for tensor in tensors_in(content):
        whole = tensor.device.type == "cpu" and tensor.layout == torch.strided
        if not whole or tensor.nbytes > max(2**20, tensor.untyped_storage().nbytes()):
            raise ValueError(f"a tensor of shape {tuple(tensor.shape)} claims more than the file holds")
    return content


def tensors_in(content: Any) -> Iterator[Tensor]:
    """Yield all tensors in nested mappings, lists and tuples."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping | list | tuple):
        for part in content.values() if isinstance(content, Mapping) else content:
            yield from tensors_in(part)


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold NaN or infinities."""
    return [name for name, tensor in state.items() if not tensor.isfinite().all()]


@contextmanager
def _reading(path: str | Path) -> Iterator[Mapping[Any, Any]]:
    """Yield what a file holds; errors, also those raised in the `with` block, name the file."""
    try:
        check_regular(path)
        content = load_file(path) if str(path).endswith(".safetensors") else safe_unpickle(path, legacy=True)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror or error}") from error
    except RecordError as error:
        raise RecordError(
            f"{path}: {error}; take one without (of RepDistiller: ckpt_epoch_* or *_best), or, if you trust this one, "
            "load it with weights_only=False and save its state dict alone"
        ) from error
    except Exception as error:  # a damaged file can fail anywhere in the unpickler, with any type of error
        said = f"{type(error).__name__}: {one_line(error, 100)}"
        raise RecordError(f"{path}: is not a checkpoint, or is damaged ({said})") from error
    try:
        if not isinstance(content, Mapping):
            raise RecordError(f"holds a {type(content).__name__}, not a state dict")
        yield content
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from None


def _choice(readings: list[Reading], entry: str | None, content: Mapping[Any, Any]) -> Reading:
    """Return the only reading that fits. Of several with the same tensors, and in the package's own checkpoints, which
    keep the best weights further in, return the outermost."""
    if not readings:
        raise RecordError(f"holds no state dict, but entries {_few(map(str, content))}")
    fitting = {reading.place: reading for reading in readings if not reading.wrong}
    if entry is not None:
        if entry not in fitting:
            names = ", ".join(map(repr, fitting)) or "none"
            raise RecordError(f"holds no weights of this network under {entry!r}; those that fit: {names}")
        return fitting[entry]
    if not fitting:
        nearest = max(readings, key=lambda reading: reading.shared)
        where = f" under {nearest.place!r}" if nearest.place else ""
        another = " lacks " in f" {nearest.wrong}" and " adds " in nearest.wrong
        hint = "; name a network of your own as package.module:function" if another else ""
        raise RecordError(f"the weights{where} are not those of this network: it {nearest.wrong}{hint}")
    first, *others = sorted(fitting.values(), key=lambda reading: reading.place.count("."))
    pairs = ((value, other.state.get(key, value)) for other in others for key, value in first.state.items())
    if "run" not in content and not all(torch.equal(*pair) for pair in pairs):
        names = ", ".join(map(repr, fitting))
        raise RecordError(f"holds several state dicts that fit: {names}; say which one is meant (--entry)")
    return first


def _readings(network: nn.Module, content: Mapping[Any, Any], head: Collection[str]) -> Iterator[Reading]:
    """Yield a reading of every state dict in a file, for each prefix that the network's keys may have there; tensors of
    the head that do not fit are left out."""
    wanted = network.state_dict()
    tops = {key.partition(".")[0] for key in wanted}
    own = f"{tops.pop()}." if len(tops) == 1 else ""  # a network within a module, see from_module
    for place, found in _state_dicts(content):
        translated, renamed = _translated(found, wanted)
        for prefix in _prefixes(translated, wanted, own):
            state = {k.removeprefix(prefix): v for k, v in translated.items() if k.startswith(prefix)}
            if own and not any(key.startswith(own) for key in state):
                state = {own + key: value for key, value in state.items()}
            folded = _fold_biases(state, wanted)
            kept = {key for key in head if key not in state or state[key].shape != wanted[key].shape}
            out = [f"{key} {tuple(value.shape)}" for key, value in state.items() if key in kept]
            out += [f"{key}, which it lacks" for key in sorted(kept - state.keys())]
            notes = [*renamed, *folded, *([f"without {', '.join(out)}"] if out else [])]
            taken, asked = ({k: v for k, v in each.items() if k not in kept} for each in (state, wanted))
            shared = len(wanted.keys() & taken)
            yield Reading(f"{place}.{prefix}".strip("."), taken, notes, _wrong(taken, asked), shared)


def _prefixes(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], own: str) -> list[str]:
    """Return the prefixes under which the network's first tensor is found, since the others must be there too; "" if it
    is not found. `own` is the prefix of the network's own keys."""
    probe = next(iter(wanted)).removeprefix(own)
    found = {f".{key}".removesuffix(f".{probe}") for key in state if f".{key}".endswith(f".{probe}")}
    return sorted({f"{prefix}.".removeprefix(".").removesuffix(own) for prefix in found} or {""})


def _state_dicts(content: Mapping[Any, Any], place: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the tensors of every mapping that holds some by name, after the entries that lead there."""
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    if tensors := {key: value for key, value in named.items() if isinstance(value, Tensor)}:
        yield place, tensors
    for key, value in named.items():
        if isinstance(value, Mapping) and place.count(".") < DEPTH:
            yield from _state_dicts(value, f"{place}.{key}".strip("."))


def _translated(
    state: dict[str, Tensor], wanted: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the state with other codes' layer names replaced by the network's own, and the replacements in words."""
    mine = {part for key in wanted for part in key.split(".")}
    names = {}
    for group in _SYNONYMS:
        if len(ours := [name for name in group if name in mine]) == 1:
            names |= dict.fromkeys({*group} - {*ours}, ours[0])
    theirs = {part for key in state for part in key.split(".")}
    used = {name: names[name] for name in sorted(names.keys() & theirs) if names[name] not in theirs}
    renamed = {".".join(used.get(part, part) for part in key.split(".")): v for key, v in state.items()}
    return renamed, [f"{theirs!r} read as {ours!r}" for theirs, ours in used.items()]


def _fold_biases(state: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Move each bias of a convolution that has none in the network into the running mean of the BatchNorm behind
    it: (Wx + b) - mean = Wx - (mean - b). Return a note of how many."""
    folded = 0
    for key in [key for key in state if key.endswith(".bias") and key not in wanted]:
        layer = key.removesuffix(".bias")
        norm = f"{_norm_behind(layer, wanted)}.running_mean"
        if f"{layer}.weight" in wanted and norm in state and state[norm].shape == state[key].shape:
            state[norm] = state[norm] - state.pop(key)
            folded += 1
    return [f"{folded} biases of convolutions taken into the BatchNorm behind them"] if folded else []


def _norm_behind(layer: str, wanted: Mapping[str, Tensor]) -> str | None:
    """Return the BatchNorm registered right after a convolution (bn1 after conv1, 1 after 0); None if there is none."""
    modules = list(dict.fromkeys(key.rpartition(".")[0] for key in wanted))
    if layer not in modules or modules[-1] == layer:
        return None
    behind = modules[modules.index(layer) + 1]
    parent, _, name = layer.rpartition(".")
    number = re.sub(r"\D", "", name)
    names = {f"bn{number}", f"{int(number or 0) + 1}"} if name != number else {f"{int(number) + 1}"}
    pair = behind.rpartition(".")[0] == parent and behind.rpartition(".")[2] in names
    return behind if pair and f"{behind}.running_mean" in wanted else None


def _wrong(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    shapes = [
        f"{key} {tuple(value.shape)} instead of {tuple(wanted[key].shape)}"
        for key, value in state.items()
        if key in wanted and value.shape != wanted[key].shape
    ]
    found = {"lacks": missing, "adds": [key for key in state if key not in wanted], "has": shapes}
    return " and ".join(f"{what} {_few(keys)}" for what, keys in found.items() if keys)


def _few(items: Iterable[str], most: int = 3) -> str:
    items = list(items)
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more if items else "none"
