"""Cast all weights to low precision in one call, instead of one by one.

Autocast casts every weight of a convolution or linear layer in every step, and casts its gradient back: some ninety
kernels in a ReviewKD step on ResNets, each of which moves a few kilobytes. Here copies in low precision replace these
weights during the forward pass; all copies are filled at once, and all gradients are cast back at once. The numbers
are the same to the bit: every weight is rounded once and every gradient is unchanged.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LowWeights:
    """Those weights of some modules that autocast casts; they are found in the first step.

    Which weights these are depends on what a method does with them: a linear layer may be used in full precision. So
    the first step is watched: a weight takes part if it was cast to `low` and read in no other way.

    If `low` is None, nothing is watched. `copies` maps a parameter to its copy; it is None before the first step.
    """

    def __init__(self, modules: Sequence[nn.Module], low: torch.dtype | None) -> None:
        self._modules, self._low = list(modules), low
        self._watch: _Watch | None = None
        self._places: list[tuple[nn.Module, str, nn.Parameter, Tensor]] = []
        self.copies: dict[nn.Parameter, Tensor] | None = None if low is not None else {}

    @property
    def watching(self) -> bool:
        """Whether the first step is in progress, which is watched."""
        return self._watch is not None

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Use the copies in place of the weights in a forward pass run in this `with` block; watch the first one."""
        if self.copies is None:
            self._watch = _Watch(self._low)
            with self._watch:
                yield
            return
        if self.copies:
            with torch.no_grad():
                torch._foreach_copy_([*self.copies.values()], [*self.copies])
        try:
            for part, name, _, copy in self._places:
                part._parameters[name], copy.grad = copy, None  # a step that failed may have left one
            yield
        finally:
            for part, name, parameter, _ in self._places:
                part._parameters[name] = parameter

    def hand_back(self) -> None:
        """Give every weight that the losses reached its gradient; to be called after the backward pass."""
        if self._watch is not None:
            self._find()
            return
        reached = [(p, copy.grad) for p, copy in self.copies.items() if copy.grad is not None]
        for p, _ in reached:
            p.grad = torch.empty_like(p)
        if reached:
            torch._foreach_copy_([p.grad for p, _ in reached], [gradient for _, gradient in reached])

    def _find(self) -> None:
        chosen, self._watch, self.copies = self._watch.cast - self._watch.read, None, {}
        for part in (part for module in self._modules for part in module.modules()):
            for name, p in part._parameters.items():
                if p is not None and id(p) in chosen and p.grad is not None:
                    copy = self.copies.setdefault(p, torch.empty_like(p, dtype=self._low).requires_grad_())
                    self._places.append((part, name, p, copy))


class _Watch(TorchDispatchMode):
    """Collects the ids of tensors that are cast to `low`, and of those that are read in any other way."""

    def __init__(self, low: torch.dtype) -> None:
        super().__init__()
        self._low, self.cast, self.read = low, set(), set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        casts = func is torch.ops.aten._to_copy.default and kwargs.get("dtype") == self._low
        (self.cast if casts else self.read).update(id(value) for value in tree_iter((args, kwargs)))
        return func(*args, **kwargs)
