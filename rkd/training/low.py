"""Weights of one network in low precision, by one cast instead of one for each of them.

Autocast casts every weight of a convolution or linear layer in every step, and casts its gradient back: some ninety
kernels of a step of ReviewKD on ResNets, each of which moves a few kilobytes. Here these weights lie in one buffer. A
step casts the buffer, lends its pieces to the layers, and gets one gradient of all pieces back, cast once. The numbers
are the same to the bit: every weight is rounded once and every gradient is what it was.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LowWeights:
    """The weights of some modules that autocast casts, found in their first step.

    Which these are depends on what a method does with them: a linear layer may be used in full precision. So the first
    step is watched. A weight takes part if it was cast to the low precision and read in no other way.

    Args:
        modules: whose parameters; each gets a buffer of its own.
        low: the precision; None: there is nothing to do, and nothing is watched.
    """

    def __init__(self, modules: Sequence[nn.Module], low: torch.dtype | None) -> None:
        self._modules, self._low = list(modules), low
        self._watch: _Watch | None = None
        self._buffers: list[_Buffer] | None = None if low is not None else []

    @property
    def known(self) -> bool:
        """Whether the first step has been watched, or need not be."""
        return self._buffers is not None

    @property
    def watching(self) -> bool:
        """Whether this is the forward pass of the first step."""
        return self._watch is not None

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """For a forward pass."""
        if not self.known:
            self._watch = _Watch({p for m in self._modules for p in m.parameters()}, self._low)
            with self._watch:
                yield
            return
        for buffer in self._buffers:
            buffer.lend()
        try:
            yield
        finally:
            for buffer in self._buffers:
                buffer.take_back()

    def hand_back(self) -> None:
        """After the backward pass: give every weight its gradient."""
        if self._buffers is not None:
            for buffer in self._buffers:
                buffer.hand_back()
            return
        chosen, self._watch = self._watch.chosen(), None
        found = []
        for module in self._modules:
            slots: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
            for part in module.modules():
                for name, parameter in part._parameters.items():
                    if parameter in chosen and parameter.grad is not None and _fits(parameter):
                        slots.setdefault(parameter, []).append((part, name))
            if slots:
                found.append(_Buffer(slots, self._low))
        self._buffers = found


class _Watch(TorchDispatchMode):
    """Notes in which ways parameters are read."""

    def __init__(self, parameters: set[nn.Parameter], low: torch.dtype) -> None:
        super().__init__()
        self._low = low
        self._parameters = {id(p): p for p in parameters}
        self._cast: set[int] = set()
        self._read: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        casts = func is torch.ops.aten._to_copy.default and kwargs.get("dtype") == self._low
        for value in tree_iter((args, kwargs)):
            if id(value) in self._parameters:
                (self._cast if casts else self._read).add(id(value))
        return func(*args, **kwargs)

    def chosen(self) -> set[nn.Parameter]:
        """Parameters that were cast, and nothing else."""
        return {self._parameters[i] for i in self._cast - self._read}


class _Buffer:
    """Parameters side by side in one tensor, each in its own memory order.

    Args:
        slots: parameter -> the (module, name) pairs under which it is found.
        low: the precision they are lent in.
    """

    def __init__(self, slots: dict[nn.Parameter, list[tuple[nn.Module, str]]], low: torch.dtype) -> None:
        self._slots, self._low = slots, low
        first = next(iter(slots))
        self._sizes = [p.numel() for p in slots]
        self._wide = torch.empty(sum(self._sizes), dtype=first.dtype, device=first.device)
        with torch.no_grad():
            for p, piece in zip(slots, self._wide.split(self._sizes), strict=True):
                piece = _shaped(piece, p)
                piece.copy_(p)
                p.data = piece
        self._lent: Tensor | None = None

    def lend(self) -> None:
        """Put the pieces in the parameters' places."""
        self._lent = self._wide.to(self._low).requires_grad_()
        pieces = self._lent.split(self._sizes)
        for (p, places), piece in zip(self._slots.items(), pieces, strict=True):
            piece = _shaped(piece, p)
            for module, name in places:
                module._parameters[name] = piece

    def take_back(self) -> None:
        """Put the parameters in their places again."""
        for p, places in self._slots.items():
            for module, name in places:
                module._parameters[name] = p

    def hand_back(self) -> None:
        """Give each parameter its piece of the gradient; none where a step's losses reached none of them."""
        gradient, self._lent = self._lent.grad, None
        if gradient is None:
            return
        pieces = gradient.to(self._wide.dtype).split(self._sizes)
        for p, piece in zip(self._slots, pieces, strict=True):
            p.grad = _shaped(piece, p)


def _shaped(piece: Tensor, like: Tensor) -> Tensor:
    """A piece of a buffer (numel,) with the shape and memory order of a parameter. Orders that differ only in
    dimensions of size 1 are told apart: kernels are chosen by strides."""
    plain = piece.view(like.shape)
    if plain.stride() == like.stride():
        return plain
    out, channels, height, width = like.shape
    return piece.view(out, height, width, channels).permute(0, 3, 1, 2)


def _fits(parameter: Tensor) -> bool:
    """Whether `_shaped` knows its memory order."""
    if parameter.dim() != 4:
        return parameter.is_contiguous()
    flat = torch.empty(parameter.numel(), device="meta")
    return _shaped(flat, parameter).stride() == parameter.stride()
