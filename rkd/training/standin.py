"""Training steps on stand-ins for GPU tensors (shapes, types and devices without values), on any machine.

A step that is captured as a CUDA graph and replayed cannot do everything that an ordinary step can; here each of its
operations is inspected, which needs no GPU.
"""

import linecache
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rkd.errors import RkdError

GPU = torch.device("cuda", 0)

READ = "reads a value back to the host, for which a replay cannot wait; keep it a tensor, and choose with torch.where"
MIXED = (
    "brings a CPU tensor into an operation on the GPU, where a replay would keep its first value; register it as a "
    "buffer, or make it on the device of its partner"
)
COPIED = "copies between host and GPU in every step; register what is constant as a buffer, and leave the rest in place"
SIZED = "gives a result whose size depends on values, which the host must read; choose with torch.where, or multiply"
DRAWN = (
    "draws random numbers within the step, which a resumed run would draw anew; draw them in begin_epoch, from "
    "rkd.data.stream_seed"
)
DECOMPOSED = "decomposes a matrix, whose outcome is checked on the host; make do with products, as kdsvd does"

REPLACED = (
    "is replaced by another tensor in a step, but a replay goes on with the old one; change it in place"
)
COUNTED = "is a Python value that a step changes, but a replay runs no Python; keep it in a buffer, changed in place"

_TORCH = str(Path(torch.__file__).parent)
_NO_DECOMPOSITION = {"linalg_vector_norm", "linalg_cross"}
_DECOMPOSITIONS = {"geqrf", "ormqr", "cholesky", "cholesky_inverse", "cholesky_solve", "triangular_solve"}
_aten = torch.ops.aten


class Recorder(TorchDispatchMode):
    """Inspects every operation, forward and backward, while `recording`.

    Args:
        owners: modules by name; a problem is reported at the innermost line of the call stack that is in a file
            defining one of their methods, if there is one.

    Attributes:
        problems: what a replay could not do, as (place, text, operation), each once; place is "" in the backward pass
            of torch's own operations.
        operations: operations of the step in progress, or of the last one, each as text with its plain arguments.
    """

    def __init__(self, owners: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._owners = owners
        self._files = {
            code.co_filename
            for owner in owners.values()
            for module in owner.modules()
            for kind in type(module).__mro__
            for code in (getattr(value, "__code__", None) for value in vars(kind).values())
            if code is not None and not code.co_filename.startswith(_TORCH)
        }
        self.problems: dict[tuple[str, str, str], None] = {}
        self.operations: list[str] = []
        self._recording = self._noted = False

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Inspect the operations in this `with` block as part of a step, and check that tensors of the owners are only
        changed in place. An error in the inspected code ends the block, and becomes a problem like any other."""
        before = {name: _state(module) for name, module in self._owners.items()}
        self._recording, self._noted, self.operations = True, False, []
        try:
            yield
        except RkdError:
            raise
        except Exception as error:
            if not self._noted:  # otherwise what cannot be followed has already been noted
                reason = str(error).strip().partition("\n")[0]
                self.note(f"cannot be followed without values: {type(error).__name__}: {reason}", "a step")
            return
        finally:
            self._recording = False
        for owner, earlier in before.items():
            now = _state(self._owners[owner])
            for name, value in earlier.items():
                if isinstance(value, Tensor):
                    if now.get(name) is not value:
                        self.note(REPLACED, f"{owner}, tensor {name!r}")
                elif now.get(name) != value:
                    self.note(COUNTED, f"{owner}, attribute {name!r}")

    def note(self, text: str, place: str, operation: str = "") -> None:
        self.problems[place, text, operation] = None
        self._noted = True

    def sentences(self) -> tuple[str, ...]:
        """Return the problems as sentences; one found in both a forward pass and its backward pass counts once."""
        placed = {text for place, text, _ in self.problems if place}
        return tuple(
            f"{place or 'the backward pass'}: {text}{f' ({operation})' if operation else ''}"
            for place, text, operation in self.problems
            if place or text not in placed
        )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.prim.device.default:  # called very often
            return args[0].fake_device if isinstance(args[0], FakeTensor) else args[0].device
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        on_gpu = any(t.device.type == GPU.type for t in tensors)
        if self._recording and (found := _problem(func, args, kwargs, tensors)):
            self.note(found, _place(self._files), str(func))
        if self._recording and func.namespace != "profiler":
            plain = [leaf for leaf in leaves if isinstance(leaf, bool | int | float | str)]
            self.operations.append(" ".join(map(str, (func, *plain))))
        if on_gpu and torch.Tag.data_dependent_output in func.tags:
            return _some(func, tensors[0])
        if func.overloadpacket is _aten._fused_sgd_:  # has no rule for shapes; it only changes its arguments
            return None
        return func(*args, **kwargs)


def _state(module: nn.Module) -> dict[str, Any]:
    """Return parameters, buffers and plain attributes by name."""
    plain = {
        f"{prefix}.{name}".lstrip("."): value
        for prefix, part in module.named_modules()
        for name, value in vars(part).items()
        if isinstance(value, bool | int | float | str)
    }
    return {**plain, **dict(module.named_parameters()), **dict(module.named_buffers())}


def _problem(func: Any, args: Sequence[Any], kwargs: dict[str, Any], tensors: list[Tensor]) -> str | None:
    """Return what is wrong with one operation of a step; None: nothing."""
    devices = {t.device.type for t in tensors}
    name = func.overloadpacket.__name__.lstrip("_")
    if func is _aten._to_copy.default and "device" in kwargs:
        return COPIED if kwargs["device"] and kwargs["device"].type not in devices else None
    if func is _aten.lift_fresh.default:  # torch.tensor(...) on the GPU
        return COPIED if GPU.type in devices else None
    if torch.Tag.nondeterministic_seeded in func.tags:
        return DRAWN
    if GPU.type not in devices:
        return None
    if torch.Tag.data_dependent_output in func.tags:
        return READ
    if "cpu" in devices and not _a_number(func, args):
        return MIXED
    if func.overloadpacket in (_aten.index, _aten.index_put, _aten.index_put_):
        return SIZED if _masked(args[1]) and not _a_number(func, args) else None
    if torch.Tag.dynamic_output_shape in func.tags:
        return SIZED
    if name in _DECOMPOSITIONS or (name.startswith("linalg_") and name not in _NO_DECOMPOSITION):
        return DECOMPOSED
    return None


def _masked(indices: Sequence[Tensor | None]) -> bool:
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)


def _a_number(func: Any, args: Sequence[Any]) -> bool:
    """Whether the only CPU tensor is a wrapped Python number, as in `x[0] = 1` and `x[mask] = 1`."""
    if func is _aten.fill_.Tensor:
        return args[1].ndim == 0
    if func.overloadpacket in (_aten.index_put, _aten.index_put_):
        value = args[2]
        return value.ndim == 0 and value.device.type == "cpu" and len(args[1]) == 1 and _masked(args[1])
    return False


def _some(func: Any, tensor: Tensor) -> bool | int | float | complex:
    """Return a made-up value for one that is read, so that the step can be followed further."""
    if func is not _aten._local_scalar_dense.default or tensor.dtype == torch.bool:
        return False
    return 1.0 if tensor.dtype.is_floating_point else 1


def _place(files: set[str]) -> str:
    """ "my_methods.py, line 12, `x.item()`"; "" in the backward pass of torch's own operations."""
    frames = []
    for frame, number in traceback.walk_stack(sys._getframe()):
        if frame.f_code is backward.__code__:
            break
        frames.append((frame.f_code.co_filename, number))
    ours = [(file, number) for file, number in frames if file in files]
    ours += [(file, n) for file, n in frames if file != __file__ and not file.startswith(_TORCH)]
    if not ours:
        return ""
    file, number = ours[0]
    text = linecache.getline(file, number).strip()
    name = "this notebook" if "ipykernel" in file else Path(file).name  # each cell is a file
    return f"{name}, line {number}{f', `{text}`' if text else ''}"


def backward(loss: Tensor, *_: object, **__: object) -> None:
    """Do what `loss.backward()` does without torch's engine, which asks the GPU driver for streams: compute the same
    derivatives in the same order, latest operation first, and add them up in `grad`."""
    gradients: dict[Any, dict[int, Tensor]] = {loss.grad_fn: {0: torch.ones_like(loss)}}
    with torch.no_grad():
        while gradients:
            node = max(gradients, key=lambda waiting: waiting._sequence_nr())
            found = _derived(node, gradients.pop(node))
            for (following, slot), gradient in zip(node.next_functions, found, strict=True):
                if following is not None and gradient is not None:
                    form = following._input_metadata[slot]
                    fitting = gradient if gradient.shape == form.shape else gradient.sum_to_size(form.shape)
                    slots, fitting = gradients.setdefault(following, {}), fitting.to(form.dtype)
                    slots[slot] = slots[slot] + fitting if slot in slots else fitting


def _derived(node: Any, given: dict[int, Tensor]) -> Sequence[Tensor | None]:
    """Return the gradients of a node's inputs, given those of its outputs."""
    if hasattr(node, "variable"):  # a leaf
        leaf = node.variable
        leaf.grad = given[0] if leaf.grad is None else leaf.grad + given[0]
        return ()
    forms, own = node._input_metadata, isinstance(node, torch.autograd.function.BackwardCFunction)
    if own:  # a user's autograd.Function
        zeros = (torch.zeros(form.shape, dtype=form.dtype, device=form.device) for form in forms)
        inputs = node.apply(*(given.get(slot, zero) for slot, zero in enumerate(zeros)))
    else:
        inputs = node(*(given.get(slot) for slot in range(len(forms))))
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    if not own:
        return inputs
    # It returns a gradient for every argument, tensor or not.
    wanted = (g for g, needed in zip(inputs, node.needs_input_grad, strict=False) if needed)
    return [None if following is None else next(wanted) for following, _ in node.next_functions]


@contextmanager
def standing_in(owners: Mapping[str, nn.Module]) -> Iterator[Recorder]:
    """Make `module.to(GPU)` and `torch.zeros(..., device=GPU)` give stand-ins in this `with` block, and yield its
    recorder; `owners` as for `Recorder`.

    It cannot tell which kernels a GPU has, what fits into its memory, or what cuDNN would choose.
    """
    recorder = Recorder(owners)
    with (
        mock.patch.object(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        mock.patch.object(Tensor, "backward", backward),
        FakeTensorMode(allow_non_fake_inputs=True),
        recorder,
    ):
        yield recorder
