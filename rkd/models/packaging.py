"""Write trained networks to files that run or load without this package: safetensors, TorchScript, torch.export, ONNX.

Every file holds as text what its user has to know: class names, input statistics, image size. It is read back and
compared with the network before it is put in place.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from rkd.errors import RecordError, RkdError, one_line, unknown
from rkd.files import check_regular, replacing
from rkd.models.taps import evaluating

Facts = Mapping[str, str]
Logits = Callable[[Tensor], Tensor]
FACTS = "facts.json"  # the entry of torch's own files that holds them


class Form(NamedTuple):
    """A kind of file: how to write it, given normalised images (B, 3, H, W), and read it as a function of images."""

    title: str
    write: Callable[[nn.Module, Tensor, Facts, Path], None]
    read: Callable[[Path, nn.Module], Logits]


def package(network: nn.Module, path: Path, x: Tensor, facts: Facts) -> float:
    """Write a network, atomically, as the kind of file that the suffix of `path` names (see FORMS).

    Args:
        network: on the CPU; written in eval mode, its own mode is restored.
        x: some normalised images (B, 3, H, W), B at least 3, to compare it on.
        facts: what the file is to say about it.

    Returns:
        The largest absolute difference in logits between the network and what was read back, relative to the largest
        logit.

    Raises:
        ConfigError: an unknown suffix.
        RkdError: a package is missing, or what was read back computes something else; nothing is written then.
    """
    if path.suffix not in FORMS:
        raise unknown("kind of file", path.suffix, FORMS)
    form = FORMS[path.suffix]
    try:
        with evaluating(network), torch.no_grad(), warnings.catch_warnings(), replacing(path) as temporary:
            warnings.simplefilter("ignore")  # exporters warn about themselves
            expected = network(x)
            form.write(network, x, facts, temporary)
            # Try another number of images than it was made with: the batch size must stay free.
            found = form.read(temporary, network)(x[:-1])
            apart = ((found - expected[:-1]).abs().max() / expected.abs().max()).item()
            if not apart < 1e-3:
                said = f"read back as {form.title} its logits differ by {apart:.1e}"
                raise RkdError(f"{path} was not written: {said}")
            return apart
    except ModuleNotFoundError as error:
        raise RkdError(f"{form.title} needs the package {error.name}: pip install 'rkd[onnx]'") from error


def facts_in(path: Path) -> Facts:
    """Return the facts in a safetensors file; empty for another kind of file. RecordError if it cannot be read."""
    if path.suffix != ".safetensors":
        return {}
    try:
        check_regular(path)
        with safetensors.safe_open(path, "pt") as file:
            return file.metadata() or {}
    except Exception as error:  # what the library raises for a damaged file differs from version to version
        raise RecordError(f"{path}: cannot be read, or is damaged ({one_line(error, 100)})") from error


def _write_safetensors(network: nn.Module, x: Tensor, facts: Facts, path: Path) -> None:
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    safetensors.torch.save_file(state, path, dict(facts))


def _read_safetensors(path: Path, network: nn.Module) -> Logits:
    state = safetensors.torch.load_file(path)
    return lambda x: torch.func.functional_call(network, state, (x,))


def _write_torchscript(network: nn.Module, x: Tensor, facts: Facts, path: Path) -> None:
    torch.jit.save(torch.jit.trace(network, x), path, _extra_files={FACTS: json.dumps(facts)})


def _write_exported(network: nn.Module, x: Tensor, facts: Facts, path: Path) -> None:
    program = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with open(path, "wb") as file:  # torch.export rejects file names without its suffix
        torch.export.save(program, file, extra_files={FACTS: json.dumps(facts)})


def _read_exported(path: Path, network: nn.Module) -> Logits:
    with open(path, "rb") as file:
        return torch.export.load(file).module()


def _write_onnx(network: nn.Module, x: Tensor, facts: Facts, path: Path) -> None:
    import onnx

    shapes = ({0: torch.export.Dim("batch")},)
    names = {"input_names": ["images"], "output_names": ["logits"]}
    made = torch.onnx.export(network, (x,), dynamo=True, dynamic_shapes=shapes, verbose=False, **names)
    model = made.model_proto
    onnx.helper.set_model_props(model, dict(facts))
    path.write_bytes(model.SerializeToString())


def _read_onnx(path: Path, network: nn.Module) -> Logits:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])


FORMS = {
    ".safetensors": Form("safetensors", _write_safetensors, _read_safetensors),
    ".ts": Form("TorchScript", _write_torchscript, lambda path, network: torch.jit.load(path)),
    ".pt2": Form("torch.export", _write_exported, _read_exported),
    ".onnx": Form("ONNX", _write_onnx, _read_onnx),
}
