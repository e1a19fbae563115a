"""Which student map meets which teacher map."""

from dataclasses import dataclass

from torch import Tensor

from rkd.methods.numeric import Shape, paired
from rkd.models.taps import Taps, TapShapes


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

    student: Shape
    teacher: Shape


def match_levels(
    student: TapShapes, teacher: TapShapes, student_tap: str, teacher_tap: str, stem: bool
) -> list[LevelShape]:
    """Pairs the maps of two networks from the deepest up, listed shallow to deep. Where one network has more stages,
    its shallowest maps stay without partner."""
    ours, theirs = _shapes(student, student_tap, stem), _shapes(teacher, teacher_tap, stem)
    return [LevelShape(s, t) for s, t in paired(ours, theirs)]


def _shapes(shapes: TapShapes, tap: str, stem: bool) -> list[Shape]:
    stages = shapes.stages_pre if tap == "pre" else shapes.stages
    return [*([shapes.stem] if stem else []), *stages, (shapes.pooled, 1, 1)]
