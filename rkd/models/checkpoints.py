"""Weights from files: the package's own and those of ReviewKD, RepDistiller, mdistiller and other codes."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rkd.errors import RecordError

# Entries under which files keep the network's state dict: this package; RepDistiller and mdistiller; and the
# KnowledgeDistillation code of hankyul2.
_WRAPPERS = ("student", "model", "weight")

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


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Errors name the file."""
    try:
        yield
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror or error}") from error
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error.__cause__


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
    with _naming(path):
        wanted = network.state_dict()
        state = max(_readings(_state_dict(_read(path))), key=lambda found: len(wanted.keys() & found.keys()))
        missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
        unexpected = [key for key in state if key not in wanted]
        if missing or unexpected:
            found = [
                f"{what} {_few(keys)}" for what, keys in (("lacks", missing), ("adds", unexpected)) if keys
            ]
            raise RecordError(f"the weights are not those of this network: it {' and '.join(found)}")
        if wrong := [key for key, value in state.items() if value.shape != wanted[key].shape]:
            raise RecordError(_other_shapes(network, {key: (state[key], wanted[key]) for key in wrong}))
        network.load_state_dict(state, strict=False)


def checkpoint_header(path: str | Path) -> dict[str, object]:
    """What a checkpoint says in plain values beside its weights: epoch, accuracy, names; empty for a bare state dict.
    Nothing in the file is executed.

    Raises:
        RecordError: the file cannot be read, needs code to be executed, or holds no dictionary.
    """
    with _naming(path):
        return {str(key): value for key, value in _mapping(_read(path)).items() if _is_plain(value)}


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping | list | tuple):
        return all(map(_is_plain, value.values() if isinstance(value, Mapping) else value))
    return value is None or isinstance(value, str | int | float)


def _read(path: str | Path) -> object:
    try:
        with torch.serialization.safe_globals(_SAFE):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file can fail anywhere in the unpickler, with any type of error
        if "argparse.Namespace" in str(error):
            said = (
                "holds pickled command-line options (argparse.Namespace), as RepDistiller's *_last files do, and "
                "reading them means executing code from the file; take the ckpt_epoch_* or *_best file of that run, "
                "or, if you trust this one, load it with weights_only=False and save its 'model' entry alone"
            )
        elif blocked := re.search(r"GLOBAL (\S+)", str(error)):
            said = (
                f"holds a pickled {blocked[1]}, and reading it means executing code from the file; "
                "save the state dict alone"
            )
        else:
            said = f"is not a checkpoint, or is damaged ({type(error).__name__} while reading)"
        raise RecordError(said) from error


def _mapping(content: object) -> Mapping:
    if not isinstance(content, Mapping):
        raise RecordError(f"holds a {type(content).__name__}, not a state dict")
    return content


def _state_dict(content: object) -> dict[str, Tensor]:
    """The state dict within one of the known forms of file."""
    content = _mapping(content)
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
    for prefix, others in (("module.", ()), ("student.", ("abfs.",))):
        inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if inner and all(key.startswith((prefix, *others)) for key in state):
            yield from _readings(inner)


def _other_shapes(network: nn.Module, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> str:
    """What is wrong with weights of these names: those of the file, and those that are needed."""
    owners = {network.get_submodule(key.rpartition(".")[0]) for key in pairs}
    found, needed = next(iter(pairs.values()))
    if all(isinstance(o, nn.Linear) for o in owners) and all(
        a.shape[1:] == b.shape[1:] for a, b in pairs.values()
    ):
        return f"the weights are for {len(found)} classes, the network has {len(needed)}"
    shapes = [f"{key} {tuple(a.shape)} instead of {tuple(b.shape)}" for key, (a, b) in pairs.items()]
    return f"the weights have other shapes than this network: {_few(shapes)}"


def _few(items: Iterable[str], most: int = 3) -> str:
    items = list(items)
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more if items else "none"
