"""All options of ReviewKD, each independent of the others, with the released CIFAR code's values as defaults."""

import re
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BeforeValidator

from rkd.config import Count, Flag, Natural, Weight, frozen
from rkd.errors import ConfigError
from rkd.methods.base import Options

_LEVEL = re.compile(r"^h(?:([/-])([1-9]\d*))?$")


def level_size(level: int | str, h: int) -> int:
    """Return the size that a level stands for on maps of height h; it may be below 1 or above h.

    >>> [level_size(level, 8) for level in ("h", "h/2", "h-3", 4)]
    [8, 4, 5, 4]
    """
    if isinstance(level, int) and not isinstance(level, bool) and level >= 1:
        return level
    match = _LEVEL.match(level) if isinstance(level, str) else None
    if not match:
        raise ConfigError(f"hcl level {level!r} is not a size; allowed: integers >= 1, h, h/2, h-1 and so on")
    operator, number = match[1], int(match[2] or 0)
    return h // number if operator == "/" else h - number


def _checked(level: int | str) -> int | str:
    level_size(level, 32)
    return level


Level = Annotated[int | str, BeforeValidator(_checked)]


@frozen
class ReviewOptions(Options):
    """Options of ReviewKD (Chen et al., CVPR 2021) and of its ablations in the [Re] report.

    Attributes:
        loss_weight: weight of the review loss against cross-entropy (the papers' lambda).
        warmup_epochs: the weight rises linearly from 0 over this many epochs (authors 20, [Re] code 0).
        connector: how student maps are turned into maps to compare with the teacher's.
            "residual": the recursive framework, fusing deep to shallow (RM + RLF, paper Figure 3);
            "mechanism": per level, all deeper maps projected and summed (RM alone, [Re] Table 3 row 2);
            "none": same-level comparison ([Re] Table 3 row 1).
        attention: fuse by attention maps (ABF); False adds the two maps.
        residual: what a level passes on to the next shallower one. "mid": the fused mid-channel map (both
            codes); "output": the level's output, brought to the mid width by a 1x1 convolution and BN (the
            paper's Figure 3 and the [Re] text of Table 6); "output_direct": the [Re] code's block for that row,
            whose fused map is output and residual at once, with its channel mismatch mended.
        mid_channels: width of the fused maps; None: min(512, channels of the student's pooled vector).
        attention_init: "default" (PyTorch's, authors) or "kaiming" (uniform, a=1, [Re] code).
        projection: for connector "none": a 1x1 convolution + BN only where channel counts differ ("needed", the
            text) or at every level ("always", the [Re] code).
        train_connectors: False freezes all projections, as the [Re] code did by accident in Table 3 rows 1-2.
        stem: also compare the stem map (five levels, [Re] Table 3 rows 1-2).
        student_tap, teacher_tap: maps before ("pre") or after ("post") the final ReLU of each stage.
        loss: "hcl", or "l2" for the mean squared error of the full maps alone.
        hcl_levels: sizes at which maps are compared: integers or "h", "h/2", "h-1" for maps of height h. Sizes
            below 1 or above h are skipped; each must fit some map of the pair.
        hcl_weights: one weight per level.
        hcl_assign: "used": the k-th size that is used takes the k-th weight (authors); "position": every listed
            size keeps its own weight ([Re] code).
        hcl_duplicates: a size that occurs again is skipped ("skip", authors) or counted again ("count", [Re]).
        hcl_normaliser: divide by the sum of the used weights (authors) or of all weights ([Re] code).
        hcl_pooling: adaptive "average" pooling (both codes) or "max" (the [Re] text).
    """

    warmup_epochs: Natural = 20
    connector: Literal["residual", "mechanism", "none"] = "residual"
    attention: Flag = True
    residual: Literal["mid", "output", "output_direct"] = "mid"
    mid_channels: Count | None = None
    attention_init: Literal["default", "kaiming"] = "default"
    projection: Literal["needed", "always"] = "needed"
    train_connectors: Flag = True
    stem: Flag = False
    student_tap: Literal["post", "pre"] = "post"
    teacher_tap: Literal["pre", "post"] = "pre"
    loss: Literal["hcl", "l2"] = "hcl"
    hcl_levels: tuple[Level, ...] = ("h", 4, 2, 1)
    hcl_weights: tuple[Weight, ...] = (1.0, 0.5, 0.25, 0.125)
    hcl_assign: Literal["used", "position"] = "used"
    hcl_duplicates: Literal["skip", "count"] = "skip"
    hcl_normaliser: Literal["used", "all"] = "used"
    hcl_pooling: Literal["average", "max"] = "average"

    def __post_init__(self) -> None:
        if not self.hcl_levels:
            raise ConfigError("hcl_levels is empty; name at least one size, for example [h, 4, 2, 1]")
        if len(self.hcl_levels) != len(self.hcl_weights):
            raise ConfigError(
                f"hcl_levels names {len(self.hcl_levels)} sizes {list(self.hcl_levels)} but hcl_weights has "
                f"{len(self.hcl_weights)} values {list(self.hcl_weights)}; give one weight per size"
            )
        if not any(self.hcl_weights):
            raise ConfigError(f"hcl_weights is {list(self.hcl_weights)}; weights must not all be zero")

    def unread(self) -> set[str]:
        names: set[str] = set()
        if self.loss == "l2":
            names |= {name for name in self.__dataclass_fields__ if name.startswith("hcl_")}
        if self.connector != "residual":
            names |= {"attention", "residual", "mid_channels", "attention_init"}
        if self.connector != "none":
            names.add("projection")
        if not self.attention:
            names.add("attention_init")
        if self.residual == "output_direct":
            names.add("mid_channels")
        return names


def check_levels(heights: Iterable[int], options: ReviewOptions) -> None:
    """Raise ConfigError if one of the HCL sizes fits none of the maps to compare, whose heights are given; the authors'
    default sizes are always accepted."""
    heights, chosen = sorted(set(heights), reverse=True), options.loss == "hcl" and options.hcl_levels
    for level in chosen if chosen and chosen != ReviewOptions.hcl_levels else ():
        if not any(1 <= level_size(level, h) <= h for h in heights):
            maps = ", ".join(f"{h} x {h}" for h in heights)
            raise ConfigError(
                f"hcl_levels has {level!r}, which fits none of the maps that are compared ({maps})"
            )


def level_weights(h: int, options: ReviewOptions) -> tuple[list[tuple[int, float]], float]:
    """Return the sizes the loss uses on maps of height h, each with its weight, and the normaliser; for "l2" only h.

    >>> level_weights(4, ReviewOptions())  # the authors' rule: 4 is the full size, 2 and 1 follow
    ([(4, 1.0), (2, 0.5), (1, 0.25)], 1.75)
    """
    if options.loss == "l2":
        return [(h, 1.0)], 1.0
    used: list[tuple[int, float]] = []
    for level, weight in zip(options.hcl_levels, options.hcl_weights, strict=True):
        size = level_size(level, h)
        repeated = options.hcl_duplicates == "skip" and size in [s for s, _ in used]
        if 1 <= size <= h and not repeated:
            used.append((size, options.hcl_weights[len(used)] if options.hcl_assign == "used" else weight))
    normaliser = sum(options.hcl_weights) if options.hcl_normaliser == "all" else sum(w for _, w in used)
    return used, normaliser
