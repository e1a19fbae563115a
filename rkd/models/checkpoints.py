"""Weights from files: the package's own and those of ReviewKD, RepDistiller, mdistiller and other codes."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rkd import files
from rkd.errors import RecordError

# Entries under which files keep the network's state dict: this package; RepDistiller and mdistiller; and the
# KnowledgeDistillation code of hankyul2.
_WRAPPERS = ("student", "model", "weight")
_COUNTER = "num_batches_tracked"
_SHOWN = 3

# Accuracies are often saved as numpy scalars: plain data, under the old and the new name of one function.
_SCALAR = np.float32(0).__reduce__()[0]
_SAFE = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
]


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Fill `network` with the weights of a file, on whatever device it is. Nothing in the file is executed.

    Read are: a bare state dict (ReviewKD); one of a student with its fusion modules, keys "student." and
    "abfs." (the student's part is taken); a dict with the state dict under "student" (this package), "model"
    (RepDistiller, mdistiller) or "weight" (hankyul2's KnowledgeDistillation); any of them with the prefix
    "module." of DataParallel. Only BatchNorm's batch counters may be missing, as in files older than torch
    0.4.1.

    Args:
        network: keeps its own weights if the file is refused.
        path: of the file.

    Raises:
        RecordError: the file cannot be read, needs code to be executed, holds no state dict, or that of
            another network or number of classes.
    """
    path = Path(path)
    state = _fit(network, _state_dict(_read(path), path))
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in state and not key.endswith(_COUNTER)]
    unexpected = [key for key in state if key not in wanted]
    if missing or unexpected:
        found = [f"{what} {_few(keys)}" for what, keys in (("lacks", missing), ("adds", unexpected)) if keys]
        raise RecordError(f"{path}: the weights are not those of this network: it {' and '.join(found)}")
    _check_shapes(network, state, wanted, path)
    network.load_state_dict(state, strict=False)


def checkpoint_header(path: str | Path) -> dict[str, object]:
    """What a checkpoint says in plain values beside its weights: epoch, accuracy, names; empty for a bare state dict.
    Nothing in the file is executed.

    Raises:
        RecordError: the file cannot be read, needs code to be executed, or holds no dictionary.
    """
    path = Path(path)
    content = _read(path)
    if not isinstance(content, Mapping):
        raise RecordError(f"{path}: holds a {type(content).__name__}, not a state dict")
    return {str(key): value for key, value in content.items() if _is_plain(value)}


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(_is_plain(part) for part in value.values())
    if isinstance(value, list | tuple):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, str | int | float)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits.

    Raises:
        RecordError: the file cannot be read.
    """
    try:
        return files.sha256(path)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read(path: Path) -> object:
    try:
        with torch.serialization.safe_globals(_SAFE):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror or error}") from error
    # A damaged file can fail anywhere in the unpickler, with any type of error.
    except Exception as error:
        text = str(error)
        if "argparse.Namespace" in text:
            raise RecordError(
                f"{path}: holds pickled command-line options (argparse.Namespace), as RepDistiller's *_last "
                "files do, and reading them means executing code from the file; take the ckpt_epoch_* "
                "or *_best file of that run, or, if you trust this one, load it with weights_only=False and "
                "save its 'model' entry alone"
            ) from error
        if blocked := re.search(r"GLOBAL (\S+)", text):
            raise RecordError(
                f"{path}: holds a pickled {blocked[1]}, and reading it means executing code from the file; "
                "save the state dict alone"
            ) from error
        raise RecordError(
            f"{path}: is not a checkpoint, or is damaged ({type(error).__name__} while reading)"
        ) from error


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """The state dict within one of the known forms of file."""
    if not isinstance(content, Mapping):
        raise RecordError(f"{path}: holds a {type(content).__name__}, not a state dict")
    inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    if not inner or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in inner.items()):
        allowed = ", ".join(map(repr, _WRAPPERS))
        raise RecordError(
            f"{path}: holds no state dict, neither bare nor under {allowed}, "
            f"but entries {_few(map(str, inner))}"
        )
    return dict(inner)


def _readings(state: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The state dict as it is, and without the prefixes of wrappers around the network."""
    yield state
    if all(key.startswith("module.") for key in state):
        yield from _readings({key.removeprefix("module."): value for key, value in state.items()})
    elif all(key.startswith(("student.", "abfs.")) for key in state):
        student = {k.removeprefix("student."): v for k, v in state.items() if k.startswith("student.")}
        if student:
            yield from _readings(student)


def _fit(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reading that shares most keys with the network."""
    wanted = network.state_dict().keys()
    return max(_readings(state), key=lambda reading: len(wanted & reading.keys()))


def _check_shapes(
    network: nn.Module, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path
) -> None:
    wrong = [key for key, value in state.items() if value.shape != wanted[key].shape]
    if not wrong:
        return
    owner = wrong[0].rpartition(".")[0]
    is_linear = isinstance(network.get_submodule(owner), nn.Linear)
    if is_linear and all(
        key.rpartition(".")[0] == owner and state[key].shape[1:] == wanted[key].shape[1:] for key in wrong
    ):
        raise RecordError(
            f"{path}: the weights are for {len(state[wrong[0]])} classes, "
            f"the network has {len(wanted[wrong[0]])}"
        )
    shapes = [f"{key} {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}" for key in wrong]
    raise RecordError(f"{path}: the weights have other shapes than this network: {_few(shapes)}")


def _few(items) -> str:
    items = list(items)
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more if items else "none"
