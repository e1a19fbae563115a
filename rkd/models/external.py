"""Wrap any torch module (from torchvision, timm or the user's own code) as a network with taps."""

import difflib
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import pairwise

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
        module: returns logits (B, classes) for images.
        stages: paths of the stage maps (B, C, H, W), shallow to deep.
        pooled: path of the vector before the classifier, (B, C); a map (B, C, H, W) is averaged over its
            positions, so that (B, C, 1, 1) is flattened.
        stem: path of the first map; default `stages[0]`.
        stages_pre: paths of the maps before each stage's final ReLU; default `stages`.

    Returns:
        A module with `forward(x) -> logits` and `taps(x) -> Taps`, whose state dict has the keys of `module`
        under the prefix "module.".

    Raises:
        ConfigError: not a module, a path that does not exist, or a stage named twice. From `taps`: a tap that was not
            called, was called more than once or before a shallower one, was overwritten later in the same forward
            pass, or does not have the shape above.

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
    if not isinstance(module, nn.Module):
        raise ConfigError(f"from_module wraps a torch module, not {module!r:.80}")
    stages_pre = stages if stages_pre is None else stages_pre
    listed = all(isinstance(paths, list | tuple) for paths in (stages, stages_pre))
    if not listed or not stages or len(stages_pre) != len(stages):
        raise ConfigError(
            "stages must be a list of at least one module path, and stages_pre as long a one, not "
            f"{stages!r} and {stages_pre!r}"
        )
    known = [path for path, _ in module.named_modules(remove_duplicate=False) if path]
    paths = [stages[0] if stem is None else stem, *stages, *stages_pre, pooled]
    for path in paths:
        if path not in known:
            near = difflib.get_close_matches(str(path), known, cutoff=0)
            said = f"no submodule {path!r}; nearest: {', '.join(near) or 'none'}"
            raise ConfigError(f"{type(module).__name__} has {said}")
    for name, maps in (("stages", stages), ("stages_pre", stages_pre)):
        if len(set(maps)) < len(maps):
            raise ConfigError(f"{name} names a path twice: {list(maps)}")
    return ExternalNet(module, paths)


class ExternalNet(nn.Module):
    """What `from_module` returns; `paths` name the stem, n stages, the n maps before their ReLUs, and the pooled
    vector."""

    def __init__(self, module: nn.Module, paths: Sequence[str]) -> None:
        super().__init__()
        self.paths, self.module = tuple(paths), module
        for submodule in module.modules():
            if getattr(submodule, "inplace", False) is True:
                submodule.inplace = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images, without any hook."""
        return self.module(x)

    def taps(self, x: Tensor) -> Taps:
        """Return the taps of one forward pass of the wrapped module."""
        if torch.is_inference_mode_enabled() or x.is_inference():
            # Inference tensors have no version counter, without which overwriting would go unnoticed.
            with torch.inference_mode(False), torch.no_grad():
                return self._taps(x.clone())
        return self._taps(x)

    def _taps(self, x: Tensor) -> Taps:
        seen: dict[str, tuple[Tensor, int]] = {}

        def see(path: str, module: nn.Module, inputs: tuple, output: object) -> None:
            if path in seen:
                raise ConfigError(f"tap {path!r} was called twice in one forward pass; name one called once")
            forms = (4,) if path in self.paths[:-1] else (2, 4)
            tap = _checked(f"tap {path!r} must give", output, forms)
            seen[path] = tap, tap._version

        # Hooks live for this one pass only: copies of the network never carry stale ones.
        with ExitStack() as hooks:
            for path in dict.fromkeys(self.paths):
                hook = self.module.get_submodule(path).register_forward_hook(partial(see, path))
                hooks.callback(hook.remove)
            logits = _checked(f"{type(self.module).__name__} must return logits", self.module(x), (2,))
        for path in self.paths:
            if path not in seen:
                raise ConfigError(f"tap {path!r} was not called in the forward pass")
            if seen[path][0]._version != seen[path][1]:
                raise ConfigError(
                    f"tap {path!r} was overwritten in place later in the forward pass; replace that in-place "
                    "operation (a functional relu with inplace=True, or +=) or name another tap"
                )
        called, n = list(seen), len(self.paths) // 2
        # In the order of the forward pass: stem, stages, pooled vector; and the maps before the stages' ReLUs.
        for row in ((*self.paths[:n], self.paths[-1]), self.paths[n:-1]):
            for before, after in pairwise(row):
                if called.index(before) > called.index(after):
                    raise ConfigError(
                        f"tap {after!r} is computed before tap {before!r}; name stem, stages and pooled in the order "
                        "of the forward pass, shallow to deep"
                    )
        *maps, pooled = (seen[path][0] for path in self.paths)
        return Taps.of([*maps, pooled.mean((2, 3)) if pooled.ndim == 4 else pooled, logits])


def _checked(what: str, output: object, dimensions: tuple[int, ...]) -> Tensor:
    if isinstance(output, Tensor) and output.ndim in dimensions:
        return output
    wanted = " or ".join({2: "(B, C)", 4: "(B, C, H, W)"}[n] for n in dimensions)
    found = f"a tensor {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
    raise ConfigError(f"{what} {wanted}, but gives {found}")
