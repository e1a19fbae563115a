"""Any torch module as a network with taps: torchvision, timm or the user's own."""

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rkd.errors import ConfigError
from rkd.models.taps import Taps


def from_module(
    module: nn.Module,
    *,
    stages: Sequence[str],
    pooled: str,
    stem: str | None = None,
    stages_pre: Sequence[str] | None = None,
) -> nn.Module:
    """Wrap `module` so that it can be distilled; its taps are the outputs of submodules, by dotted path.

    The wrapper holds `module` itself, not a copy, and switches off the `inplace` flag of all its submodules,
    since an in-place ReLU would overwrite the map before it.

    Args:
        module: gives logits (B, classes) for images.
        stages: paths of the stage maps (B, C, H, W), shallow to deep.
        pooled: path of the vector before the classifier, (B, C); a map (B, C, H, W) is averaged over its
            positions, so that (B, C, 1, 1) is flattened.
        stem: path of the first map; default `stages[0]`.
        stages_pre: paths of the maps before each stage's final ReLU; default `stages`.

    Returns:
        A module with `forward(x) -> logits` and `taps(x) -> Taps`, whose state dict has the keys of `module`
        under the prefix "module.".

    Raises:
        ConfigError: a path that does not exist. In `taps`: a tap that was not called, was called more than
            once, was overwritten later in the same forward, or is not of the form above.

    Example, for `model: my_models:resnet18` in a run's config:
        >>> import torchvision
        >>> def resnet18(num_classes):
        ...     net = torchvision.models.resnet18(num_classes=num_classes)
        ...     return from_module(
        ...         net, stem="relu", stages=["layer1", "layer2", "layer3", "layer4"], pooled="avgpool"
        ...     )
        >>> [tuple(s.shape[1:]) for s in resnet18(100).taps(torch.zeros(1, 3, 64, 64)).stages]
        [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]
    """
    return ExternalNet(module, stages=stages, pooled=pooled, stem=stem, stages_pre=stages_pre)


class ExternalNet(nn.Module):
    """What `from_module` returns."""

    def __init__(
        self,
        module: nn.Module,
        *,
        stages: Sequence[str],
        pooled: str,
        stem: str | None,
        stages_pre: Sequence[str] | None,
    ) -> None:
        super().__init__()
        self.stages = _paths("stages", stages)
        self.stages_pre = self.stages if stages_pre is None else _paths("stages_pre", stages_pre)
        if len(self.stages_pre) != len(self.stages):
            raise ConfigError(
                f"stages_pre names {len(self.stages_pre)} maps and stages {len(self.stages)}: "
                "they must be as many"
            )
        self.pooled = pooled
        self.stem = self.stages[0] if stem is None else stem
        known = {path for path, _ in module.named_modules(remove_duplicate=False) if path}
        for path in self._all_paths():
            if path not in known:
                raise _unknown_path(path, module, known)
        self.module = module
        for submodule in module.modules():
            if getattr(submodule, "inplace", False) is True:
                submodule.inplace = False

    def forward(self, x: Tensor) -> Tensor:
        """Images -> logits, without any hook."""
        return self.module(x)

    def taps(self, x: Tensor) -> Taps:
        """One forward pass of the wrapped module, with its taps."""
        if torch.is_inference_mode_enabled() or x.is_inference():
            # Inference tensors carry no version counter, without which overwriting would pass unseen.
            with torch.inference_mode(False), torch.no_grad():
                return self._taps(x.clone())
        return self._taps(x)

    def _taps(self, x: Tensor) -> Taps:
        captured: dict[str, list[tuple[object, int]]] = {path: [] for path in self._all_paths()}
        handles = []
        # Hooks live for this one pass: nothing outlives it, and copies of the network need no repair.
        try:
            for path, outputs in captured.items():
                handles.append(self.module.get_submodule(path).register_forward_hook(_capture(outputs)))
            logits = self.module(x)
        finally:
            for handle in handles:
                handle.remove()
        maps = {path: _checked(path, outputs) for path, outputs in captured.items()}
        if not (isinstance(logits, Tensor) and logits.ndim == 2):
            raise ConfigError(
                f"{self._name()} must return logits (B, classes), but returns {_describe(logits)}"
            )
        for path in (self.stem, *self.stages, *self.stages_pre):
            if maps[path].ndim != 4:
                raise ConfigError(
                    f"tap {path!r} must give a map (B, C, H, W), but gives {_describe(maps[path])}"
                )
        pooled = maps[self.pooled]
        if pooled.ndim not in (2, 4):
            raise ConfigError(
                f"tap {self.pooled!r} must give (B, C) or (B, C, H, W), but gives {_describe(pooled)}"
            )
        return Taps(
            stem=maps[self.stem],
            stages=tuple(maps[path] for path in self.stages),
            stages_pre=tuple(maps[path] for path in self.stages_pre),
            pooled=pooled.mean((2, 3)) if pooled.ndim == 4 else pooled,
            logits=logits,
        )

    def _all_paths(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.stem, *self.stages, *self.stages_pre, self.pooled)))

    def _name(self) -> str:
        return type(self.module).__name__


def _paths(what: str, paths: Sequence[str]) -> tuple[str, ...]:
    if isinstance(paths, str) or not paths:
        raise ConfigError(f"{what} must be a list of at least one module path, not {paths!r}")
    return tuple(paths)


def _unknown_path(path: object, module: nn.Module, known: set[str]) -> ConfigError:
    near = difflib.get_close_matches(str(path), sorted(known), n=3, cutoff=0.5)
    offer = near or [name for name, _ in module.named_children()]
    lead = "nearest" if near else "its children are"
    return ConfigError(
        f"{type(module).__name__} has no submodule {path!r}; {lead}: {', '.join(offer) or 'none'}"
    )


def _capture(outputs: list[tuple[object, int]]):
    def hook(module: nn.Module, args: tuple, output: object) -> None:
        outputs.append((output, output._version if isinstance(output, Tensor) else 0))

    return hook


def _checked(path: str, outputs: list[tuple[object, int]]) -> Tensor:
    """The one tensor captured at `path`, untouched since."""
    if not outputs:
        raise ConfigError(f"tap {path!r} was not called in the forward pass")
    if len(outputs) > 1:
        raise ConfigError(
            f"tap {path!r} was called {len(outputs)} times in one forward pass; name one called once"
        )
    output, version = outputs[0]
    if not isinstance(output, Tensor):
        raise ConfigError(f"tap {path!r} must give a tensor, but gives {_describe(output)}")
    if output._version != version:
        raise ConfigError(
            f"tap {path!r} was overwritten in place later in the forward pass; replace that in-place "
            "operation (a functional relu with inplace=True, or +=) or name another tap"
        )
    return output


def _describe(value: object) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
