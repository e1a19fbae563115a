"""Committed teachers: a finished run's weights in half precision, small enough to be committed beside the records."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from rkd.errors import RecordError
from rkd.files import check_regular, write_atomic
from rkd.records.store import Store

FORMAT = "rkd teacher 1"


def teacher_file(store: Store, run: str, which: str) -> Path:
    """Return the path of a committed teacher, in teachers/ beside the folder of records, whatever the profile."""
    return store.records.parent / "teachers" / f"{run}-{which}.safetensors"


def to_half(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights as `save_teacher` stores them: floating-point tensors in float16, others (BatchNorm's batch
    counters) unchanged, all contiguous and on the CPU.

    Raises:
        RecordError: a value is not finite, or is beyond float16's 65504; the message names the tensor.
    """
    kept = {}
    for name, tensor in weights.items():
        kept[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        if tensor.is_floating_point():
            kept[name] = kept[name].half()
            if not torch.isfinite(kept[name]).all():
                raise RecordError(f"{name} holds what float16 cannot hold (its largest number is 65504)")
    return kept


def save_teacher(path: Path, weights: Mapping[str, Tensor], header: Mapping[str, str | int | float]) -> None:
    """Write a committed teacher atomically, as a safetensors file. The same teacher always gives the same bytes.

    Args:
        weights: state dict, stored as `to_half` returns it.
        header: describes the weights; every value is written as text: run (id of its record), network, weights ("best"
            or "last"), accuracy (test accuracy in percent of the weights as trained), accuracy_fp16 (that of the
            rounded weights), data (name of the data set), normalisation (name of the preset), and more.

    Raises:
        RecordError: float16 cannot hold a tensor; nothing is written.
    """
    text = {name: str(value) for name, value in header.items()} | {"format": FORMAT}
    kept = to_half(weights)
    text["sha256"] = weights_digest(kept, text)
    write_atomic(path, _sorted_header(safetensors.torch.save(kept, text)))


def load_teacher(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a teacher that `save_teacher` wrote.

    Returns:
        The state dict on the CPU, its floating-point tensors as float32; and the header, all its values text.

    Raises:
        RecordError: the file cannot be read, is damaged (its checksum covers header and tensors), or is not a
            committed teacher.
    """
    try:
        check_regular(path)
        data = path.read_bytes()
        kept = safetensors.torch.load(data)
        header = _header(data)[0].get("__metadata__") or {}
    except Exception as error:  # what the library raises for a damaged file differs from version to version
        raise RecordError(f"teacher {path} cannot be read, or is damaged ({error})") from error
    if (form := header.get("format")) != FORMAT:
        raise RecordError(f"{path} is no committed teacher: its header has format {form!r}, not {FORMAT!r}")
    if header.pop("sha256", None) != weights_digest(kept, header):
        raise RecordError(f"teacher {path} is damaged: its content does not match its checksum")
    del header["format"]
    return {name: t.float() if t.is_floating_point() else t for name, t in kept.items()}, header


def weights_digest(weights: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> str:
    """Return the SHA-256 of a header and all bits of the tensors: safetensors itself would not notice a flipped bit."""
    found = hashlib.sha256(json.dumps(dict(header or {}), sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        found.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _header(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Split a safetensors file (8 bytes of header length, JSON header, tensors) into header and tensor bytes."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def _sorted_header(data: bytes) -> bytes:
    """Return a safetensors file with its metadata sorted: the library's order changes from call to call, and a
    committed file should not."""
    header, tensors = _header(data)
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors stay aligned to 8 bytes
    return len(text).to_bytes(8, "little") + text + tensors
