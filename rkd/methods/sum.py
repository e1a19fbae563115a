"""Sums of methods, written "at+kd": every part's losses with its own weights."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from rkd.errors import ConfigError
from rkd.methods.base import Batch, Context, Entry, Method, get_single
from rkd.methods.options import Options, Stage
from rkd.models.taps import Taps
from rkd.typed import build_dataclass


@dataclass(frozen=True)
class Part:
    """One method of a sum, and its options."""

    method: str
    options: Any


@dataclass(frozen=True)
class SumOptions(Options):
    """Options of a sum of methods.

    Attributes:
        loss_weight: multiplies every part's weights.
        parts: the methods with their options; as mappings {"method": ..., "options": {...}} where they are read from
            a file.

    Raises:
        ConfigError: fewer than two parts, a method twice, or options of another method.
    """

    parts: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "parts", tuple(_part(p) for p in self.parts))
        names = [part.method for part in self.parts]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ConfigError(f"a sum joins at least two different methods; this one names {names}")

    @property
    def name(self) -> str:
        """ "at+kd"."""
        return "+".join(part.method for part in self.parts)

    def stages(self) -> tuple[Stage, ...]:
        return tuple(stage for part in self.parts for stage in part.options.stages())


def _part(part: Any) -> Part:
    if isinstance(part, Mapping):
        part = Part(**part)
    kind = get_single(part.method).options
    options = part.options
    if isinstance(options, Mapping):
        options = build_dataclass(kind, options)
    if not isinstance(options, kind):
        raise ConfigError(f"method {part.method!r} takes {kind.__name__}, not {type(options).__name__}")
    return Part(part.method, options)


class Sum(Method):
    """Several methods at once; each owns its modules under `parts.<method>`."""

    def __init__(self, context: Context, options: SumOptions) -> None:
        super().__init__()
        self.options = options
        self.parts = nn.ModuleDict(
            {part.method: get_single(part.method).build(context, part.options) for part in options.parts}
        )
        heard = [name for name, m in self.parts.items() if type(m).classified is not Method.classified]
        if len(heard) > 1:
            raise ConfigError(
                f"{' and '.join(heard)} each change what cross-entropy sees; a sum takes one of them"
            )
        self._heard = heard[0] if heard else options.parts[0].method
        found = Counter(loss for m in self.parts.values() for loss in m.weights(0))
        self._repeated = {loss for loss, count in found.items() if count > 1}

    def _joined(self, values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Values by method and loss, by loss; a loss that several methods have gets its method's name."""
        return {
            f"{method}_{loss}" if loss in self._repeated else loss: value
            for method, losses in values.items()
            for loss, value in losses.items()
        }

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return self._joined({name: m.losses(batch) for name, m in self.parts.items()})

    def weights(self, epoch: int) -> dict[str, float]:
        found = self._joined({name: m.weights(epoch) for name, m in self.parts.items()})
        return {loss: self.options.loss_weight * weight for loss, weight in found.items()}

    def stage_losses(self, stage: str, batch: Batch) -> Mapping[str, Tensor]:
        owner = next(p.method for p in self.options.parts if stage in {s.name for s in p.options.stages()})
        return self.parts[owner].stage_losses(stage, batch)

    def classified(self, taps: Taps) -> Tensor:
        return self.parts[self._heard].classified(taps)

    def begin_epoch(self, epoch: int) -> None:
        for method in self.parts.values():
            method.begin_epoch(epoch)

    def after_step(self) -> None:
        for method in self.parts.values():
            method.after_step()

    def end_epoch(self, student: nn.Module) -> None:
        for method in self.parts.values():
            method.end_epoch(student)

    def networks(self, student: nn.Module) -> dict[str, nn.Module]:
        return {name: n for m in self.parts.values() for name, n in m.networks(student).items()}

    def report(self) -> dict[str, float]:
        return {name: value for m in self.parts.values() for name, value in m.report().items()}

    def rates(self, epoch: int, lr: float) -> dict[str, float]:
        return {
            f"parts.{name}.{prefix}": rate
            for name, m in self.parts.items()
            for prefix, rate in m.rates(epoch, lr).items()
        }


def sum_entry(name: str) -> Entry:
    """What `get_method` gives for "at+kd"."""
    parts = [get_single(part) for part in name.split("+")]
    return Entry(SumOptions, Sum, " + ".join(part.display for part in parts))
