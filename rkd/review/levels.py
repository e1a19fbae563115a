"""Which student map meets which teacher map."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rkd.models.taps import Taps


def level_maps(taps: Taps, tap: str, stem: bool) -> list[Tensor]:
    """The maps of one network that take part, shallow to deep; the last is the pooled vector as (B, C, 1, 1).

    Args:
        taps: of one forward pass.
        tap: "pre" or "post", before or after the final ReLU of each stage.
        stem: whether the stem map is level 0.
    """
    stages = taps.stages_pre if tap == "pre" else taps.stages
    return [*([taps.stem] if stem else []), *stages, taps.pooled[:, :, None, None]]


@dataclass(frozen=True)
class LevelShape:
    """Shapes of one pair of maps: (channels, height, width) of student and teacher."""

    student: tuple[int, int, int]
    teacher: tuple[int, int, int]


def dry_taps(network: nn.Module, image_size: int) -> Taps:
    """Taps of one zero image; training flags, buffers and random streams stay as they are."""
    parameter = next(network.parameters())
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            image = torch.zeros(1, 3, image_size, image_size, device=parameter.device, dtype=parameter.dtype)
            return network.taps(image)
    finally:
        for module, training in modes:
            module.training = training


def match_levels(student: Taps, teacher: Taps, student_tap: str, teacher_tap: str, stem: bool) -> list[LevelShape]:
    """Pairs the maps of two networks from the deepest up, listed shallow to deep. Where one network has more stages,
    its shallowest maps stay without partner."""
    ours = level_maps(student, student_tap, stem)
    theirs = level_maps(teacher, teacher_tap, stem)
    count = min(len(ours), len(theirs))
    return [
        LevelShape(tuple(s.shape[1:]), tuple(t.shape[1:]))
        for s, t in zip(ours[-count:], theirs[-count:], strict=True)
    ]
