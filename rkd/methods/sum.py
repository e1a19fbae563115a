"""Methods by name, including sums such as "at+kd", which have every part's losses with its own weights."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from rkd.config import frozen
from rkd.errors import ConfigError, unknown
from rkd.methods.base import Batch, Context, Method, MethodEntry, Options, Stage, get_single
from rkd.models.taps import Taps


@frozen
class Part:
    """One method of a sum, and its options."""

    method: str
    options: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", get_single(self.method).checked(self.options))


@frozen
class SumOptions(Options):
    """Options of a sum of methods.

    Attributes:
        loss_weight: multiplies every part's weights.
        parts: the methods with their options, also as mappings {"method": ..., "options": {...}}: at least two, none
            of them twice.
    """

    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        names = [part.method for part in self.parts]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ConfigError(f"a sum joins at least two different methods; this one names {names}")

    @property
    def name(self) -> str:
        """Name of the sum, such as "at+kd"."""
        return "+".join(part.method for part in self.parts)

    def stages(self) -> tuple[Stage, ...]:
        return tuple(stage for part in self.parts for stage in part.options.stages())


class Sum(Method):
    """Several methods at once; each owns its modules under `parts.<method>`."""

    def __init__(self, context: Context, options: SumOptions) -> None:
        super().__init__(context, options)
        self.parts = nn.ModuleDict(
            {part.method: get_single(part.method).build(context, part.options) for part in options.parts}
        )
        heard = [
            n for n, m in self.parts.items() if getattr(type(m), "classified", None) is not Method.classified
        ]
        if len(heard) > 1:
            raise ConfigError(f"{' and '.join(heard)} each change what cross-entropy sees; take one of them")
        self._heard = heard[0] if heard else options.parts[0].method
        found = Counter(loss for m in self.parts.values() for loss in m.weights(0))
        self._repeated = {loss for loss, count in found.items() if count > 1}

    def _each(self, what: str, *args: Any) -> dict[str, Any]:
        """Return the result of calling `what` on each part, by part."""
        return {name: getattr(m, what)(*args) for name, m in self.parts.items()}

    def _joined(self, what: str, *args: Any) -> dict[str, Any]:
        """Return the results by their inner names; a name that several losses have is prefixed with its method's."""
        return {
            f"{part}_{name}" if name in self._repeated else name: value
            for part, found in self._each(what, *args).items()
            for name, value in found.items()
        }

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return self._joined("losses", batch)

    def weights(self, epoch: int) -> dict[str, float]:
        return {loss: self.options.loss_weight * w for loss, w in self._joined("weights", epoch).items()}

    def stage_losses(self, stage: str, batch: Batch) -> Mapping[str, Tensor]:
        owner = next(p.method for p in self.options.parts if stage in {s.name for s in p.options.stages()})
        return self.parts[owner].stage_losses(stage, batch)

    def classified(self, taps: Taps) -> Tensor:
        return self.parts[self._heard].classified(taps)

    def begin_epoch(self, epoch: int) -> None:
        self._each("begin_epoch", epoch)

    def after_step(self, made: Tensor) -> None:
        self._each("after_step", made)

    def end_epoch(self, student: nn.Module) -> None:
        self._each("end_epoch", student)

    def networks(self, student: nn.Module) -> dict[str, nn.Module]:
        return self._joined("networks", student)

    def report(self) -> dict[str, float]:
        return self._joined("report")

    def rates(self, epoch: int, lr: float) -> dict[str, float]:
        return {
            f"parts.{name}.{prefix}": rate
            for name, found in self._each("rates", epoch, lr).items()
            for prefix, rate in found.items()
        }


def get_method(name: str) -> MethodEntry:
    """Return the entry of a registered method, or of a sum such as "at+kd"; ConfigError for an unknown name."""
    if "+" not in name:
        return get_single(name)
    return MethodEntry(SumOptions, Sum, " + ".join(get_single(part).display for part in name.split("+")))


def make_options(name: str, given: Any) -> Any:
    """Return a method's options from plain values (for a sum by method, or as in `SumOptions`), or from options already
    made. ConfigError for options of another method, and for a value that is not allowed."""
    names = name.split("+")
    if len(names) > 1 and isinstance(given, Mapping) and "parts" not in given:
        for part in given:
            if part not in names:
                raise unknown(f"part of {name}", part, names)
        given = {"parts": [{"method": n, "options": given.get(n, {})} for n in names]}
    made = get_method(name).checked(given)
    if len(names) > 1 and made.name != name:
        raise ConfigError(f"method {name!r} has options of {made.name!r}")
    return made
