"""Weights from files: the package's own and those of ReviewKD, RepDistiller, mdistiller and other codes."""

import io
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rkd.errors import RecordError, in_a_line
from rkd.files import check_regular, check_stored_zip

# Entries under which files keep the network's state dict: this package; RepDistiller and mdistiller; and the
# KnowledgeDistillation code of hankyul2.
_WRAPPERS = ("student", "model", "weight")
# Prefixes of wrappers around the network, and what may stand beside it: DataParallel; a student with fusion modules.
_PREFIXES = {"module.": (), "student.": ("abfs.",)}

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

    Raises:
        RecordError: the file cannot be read, needs code to be executed, holds no state dict, or that of another network
            or number of classes; `network` then keeps its own weights.
    """
    with _reading(path) as content:
        wanted = network.state_dict()
        state = max(_readings(_state_dict(content)), key=lambda found: len(wanted.keys() & found.keys()))
        missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
        shapes = [
            f"{key} {tuple(value.shape)} instead of {tuple(wanted[key].shape)}"
            for key, value in state.items()
            if key in wanted and value.shape != wanted[key].shape
        ]
        wrong = {"lacks": missing, "adds": [key for key in state if key not in wanted], "has": shapes}
        if said := [f"{what} {_few(keys)}" for what, keys in wrong.items() if keys]:
            raise RecordError(f"the weights are not those of this network: it {' and '.join(said)}")
        network.load_state_dict(state, strict=False)


def checkpoint_header(path: str | Path) -> dict[str, object]:
    """What a checkpoint says in plain values beside its weights: epoch, accuracy, names; empty for a bare state dict.
    Nothing in the file is executed.

    Raises:
        RecordError: the file cannot be read, needs code to be executed, or holds no dictionary.
    """
    with _reading(path) as content:
        return {str(key): value for key, value in content.items() if _is_plain(value)}


def stated_accuracy(path: str | Path) -> float | None:
    """The test accuracy in percent that a checkpoint states beside its weights; None where it states none. Raises as
    `checkpoint_header`."""
    with _reading(path) as content:
        for value in map(content.get, ("accuracy", "best_acc", "top1_acc")):
            if isinstance(value, int | float | np.number) or (
                isinstance(value, Tensor) and value.numel() == 1
            ):
                return float(value) if 0 <= float(value) <= 100 else None
    return None


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping | list | tuple):
        return all(map(_is_plain, value.values() if isinstance(value, Mapping) else value))
    return value is None or isinstance(value, str | int | float)


class CodeInFile(ValueError):
    """A file holds more than tensors and plain values."""

    def __init__(self, name: str) -> None:
        super().__init__(f"holds a pickled {name}, and reading it means executing code from the file")


def unpickled(file: str | Path | io.BytesIO, legacy: bool = False) -> Any:
    """What torch saved, on the CPU; nothing in it is executed. Its checksums are compared first, and no tensor claims
    more than the file holds.

    Args:
        legacy: take files of torch before 1.6 too, which have no checksums.

    Raises:
        Exception: of any type, where the file is damaged or of another kind.
    """
    if not isinstance(file, io.BytesIO):
        check_regular(file)
    with nullcontext(file) if isinstance(file, io.BytesIO) else open(file, "rb") as opened:
        if not legacy or opened.read(2) == b"PK":
            check_stored_zip(opened)
        opened.seek(0)
        try:
            with torch.serialization.safe_globals(_SAFE):
                content = torch.load(opened, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # whose advice is to execute it
            if blocked := re.search(r"GLOBAL (\S+)", str(error)):
                raise CodeInFile(blocked[1]) from error
            raise ValueError("no file of torch's") from error
    for tensor in tensors_in(content):
        whole = tensor.device.type == "cpu" and tensor.layout == torch.strided
        if not whole or tensor.nbytes > max(2**20, tensor.untyped_storage().nbytes()):
            raise ValueError(f"a tensor of shape {tuple(tensor.shape)} claims more than the file holds")
    return content


def tensors_in(content: Any) -> Iterator[Tensor]:
    """All tensors in nested mappings and lists."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping | list | tuple):
        for part in content.values() if isinstance(content, Mapping) else content:
            yield from tensors_in(part)


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinities."""
    return [name for name, tensor in state.items() if not tensor.isfinite().all()]


@contextmanager
def _reading(path: str | Path) -> Iterator[Mapping[Any, Any]]:
    """What a file holds; errors name the file."""
    try:
        content = unpickled(path, legacy=True)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged file can fail anywhere in the unpickler, with any type of error
        said = f"is not a checkpoint, or is damaged ({type(error).__name__}: {in_a_line(error, 100)})"
        if isinstance(error, CodeInFile):
            said = (
                f"{error}; take one without (of RepDistiller: ckpt_epoch_* or *_best), or, if you trust this one, load "
                "it with weights_only=False and save its state dict alone"
            )
        raise RecordError(f"{path}: {said}") from error
    try:
        if not isinstance(content, Mapping):
            raise RecordError(f"holds a {type(content).__name__}, not a state dict")
        yield content
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from None


def _state_dict(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The state dict within one of the known forms of file."""
    inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    if not inner or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in inner.items()):
        allowed = ", ".join(map(repr, _WRAPPERS))
        raise RecordError(
            f"holds no state dict, neither bare nor under {allowed}, but entries {_few(map(str, inner))}"
        )
    return dict(inner)


def _readings(state: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The state dict as it is, and without the prefixes of wrappers around the network."""
    yield state
    for prefix, others in _PREFIXES.items():
        inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if inner and all(key.startswith((prefix, *others)) for key in state):
            yield from _readings(inner)


def _few(items: Iterable[str], most: int = 3) -> str:
    items = list(items)
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more if items else "none"
