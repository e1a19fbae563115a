"""What one step does, counted while it runs: operations, host reads, bytes, floating-point operations, memory."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

_aten = torch.ops.aten
# Neither compute nor touch memory, beyond what their schema says of itself (see `_is_view`).
_FREE = {
    _aten.empty, _aten.empty_like, _aten.empty_strided, _aten.empty_permuted, _aten.new_empty,
    _aten.new_empty_strided, _aten._unsafe_view,
}  # fmt: skip
_HOST_READS = {_aten._local_scalar_dense, _aten.equal, _aten.is_nonzero}
_WRITE_ONLY = {_aten.copy_, _aten.fill_, _aten.zero_}  # what they change they do not read
_CONVOLUTIONS = {_aten.convolution, _aten.convolution_backward}
_PRODUCTS = {*_CONVOLUTIONS, _aten.mm, _aten.addmm, _aten.bmm, _aten.baddbmm}


@dataclass(frozen=True)
class Counts:
    """One step in numbers.

    Attributes:
        ops: operations that compute or move data, forward, backward and optimiser; views and allocations are none.
            Each is a kernel or a few.
        host_reads: times the host waited for a value.
        bytes: that these operations read and write, each by itself, whether memory or a cache serves them.
        product_bytes: of them, those of convolutions and matrix products: what is left if everything else were done on
            the way.
        flops: floating-point operations of convolutions and matrix products, a multiply-add being two.
        convolution_flops: of them, those of convolutions larger than 1x1, by output channels.
        memory_mb: tensors alive at once, at most, beyond those alive before the step, in MB.
    """

    ops: int
    host_reads: int
    bytes: int
    product_bytes: int
    flops: int
    convolution_flops: dict[int, int] = field(default_factory=dict)
    memory_mb: float = 0.0


def count(step: Callable[[], object]) -> Counts:
    """Run `step` once, eagerly, and count. Compiled code runs as if it were not compiled."""
    operations = _Operations()
    with FlopCounterMode(display=False) as flops, operations:
        step()
    return Counts(
        operations.ops,
        operations.host_reads,
        operations.bytes,
        operations.product_bytes,
        flops.get_total_flops(),
        dict(sorted(operations.convolution_flops.items())),
        operations.most_alive / 1e6,
    )


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.ops = self.host_reads = self.bytes = self.product_bytes = 0
        self.convolution_flops: Counter[int] = Counter()
        self.most_alive = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        result = func(*args, **kwargs)
        packet = func.overloadpacket
        inputs, outputs = list(_tensors((args, kwargs))), list(_tensors(result))
        self._follow(inputs, outputs)
        changed = list(_changed(func, args, kwargs))
        if packet in _HOST_READS:
            self.host_reads += 1
        elif not func.is_view and packet not in _FREE and (outputs or changed):
            self.ops += 1
            read = [] if packet in _WRITE_ONLY else changed
            kept = {id(t) for t in changed}
            read = [*read, *(t for t in inputs if id(t) not in kept)]
            written = [*changed, *(t for t in outputs if id(t) not in kept)]
            moved = sum(_size(t) for part in (read, written) for t in {id(t): t for t in part}.values())
            self.bytes += moved
            if packet in _PRODUCTS:
                self.product_bytes += moved
            if packet in _CONVOLUTIONS:
                self._convolution(packet, args, kwargs, result)
        return result

    def _convolution(self, packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        weight = args[1] if packet is _aten.convolution else args[2]
        if weight.shape[2] * weight.shape[3] > 1:
            flops = flop_registry[packet](*args, **kwargs, out_val=result)
            self.convolution_flops[weight.shape[0]] += flops

    def _follow(self, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        """Note storages that came into being; each takes itself off when it goes."""
        known = {t.untyped_storage().data_ptr() for t in inputs}
        for tensor in outputs:
            storage = tensor.untyped_storage()
            place, size = storage.data_ptr(), storage.nbytes()
            if size and place not in known and place not in self._alive:
                self._alive[place] = size
                weakref.finalize(storage, self._alive.pop, place, None).atexit = False
        self.most_alive = max(self.most_alive, sum(self._alive.values()))


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _changed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """Arguments that the schema says are written to."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = kwargs.get(argument.name) if argument.kwarg_only or place >= len(args) else args[place]
            yield from _tensors(value)


def _size(tensor: Tensor) -> int:
    """Bytes of a tensor's elements; an expanded one has fewer of them than its shape says."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
