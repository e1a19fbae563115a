"""HCL's comparison, seen: one channel of the student's fused map and of the teacher's, and their difference, at every
size of the pyramid (ReviewKD section 3.3)."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from rkd.errors import ConfigError
from rkd.experiments.snapshots import Snapshots
from rkd.report.interactive.attention import unseen
from rkd.report.interactive.markup import Html, join, number, quiet, table, tag
from rkd.report.interactive.stack import Stack
from rkd.report.interactive.strips import column, img, photos, scale, tiles
from rkd.report.tables import scrolling
from rkd.review import ReviewOptions, level_weights

COLOUR_MAP = "RdBu_r"  # blue below zero, white at zero, red above: apart for colour-blind readers too
ROWS = ("student", "teacher", "difference")


@dataclass(frozen=True)
class Comparison:
    """One channel of N images at one size of the pyramid.

    Attributes:
        size: height and width k of the pooled maps.
        weight: w_k divided by the level's normaliser: what HCL multiplies the mean squared error by.
        listed: w_k as the options list it.
        student, teacher, difference: (N, k, k), after pooling.
    """

    size: int
    weight: float
    listed: float
    student: np.ndarray
    teacher: np.ndarray
    difference: np.ndarray

    def maps(self, image: int) -> np.ndarray:
        """(3, k, k): student, teacher and difference of one image."""
        return np.stack([self.student[image], self.teacher[image], self.difference[image]])

    def mse(self, image: int | None = None) -> float:
        """Mean of the squared difference, of one image or of all."""
        part = self.difference if image is None else self.difference[image]
        return float(np.square(part, dtype=np.float64).mean())


def comparisons(snapshots: Snapshots, level: str, options: ReviewOptions) -> list[Comparison]:
    """What HCL compares at a level, in its order; under L2 the full map alone.

    Args:
        snapshots: of a run.
        level: one of `snapshots.levels`.
        options: of the run: sizes, weights and pooling.
    """
    student, teacher = snapshots.pair(level)
    height = student.shape[-2]
    used, normaliser = ([(height, 1.0)], 1.0) if options.loss == "l2" else level_weights(height, options)
    found = []
    for size, weight in used:
        ours, theirs = (_pooled(maps, size, options.hcl_pooling) for maps in (student, teacher))
        share = weight / normaliser if normaliser else 0.0  # no weight left: the level adds nothing
        found.append(Comparison(size, share, weight, ours, theirs, ours - theirs))
    return found


def _pooled(maps: np.ndarray, size: int, pooling: str) -> np.ndarray:
    """(N, h, w) -> (N, size, size)."""
    if size == maps.shape[-2]:
        return maps
    pool = F.adaptive_avg_pool2d if pooling == "average" else F.adaptive_max_pool2d
    return pool(torch.from_numpy(np.ascontiguousarray(maps)), size).numpy()


def pyramid_stack(snapshots: Snapshots, options: ReviewOptions, image: int = 0) -> Stack:
    """Maps of one image at every size; the slider goes through the review levels, deep to shallow.

    Args:
        snapshots: of a run.
        options: of the run.
        image: place of the image among those of the snapshots.

    Raises:
        ConfigError: there is no such image.
    """
    if not 0 <= image < len(snapshots.images):
        raise ConfigError(f"image is {image}; the run keeps maps of images 0 to {len(snapshots.images) - 1}")
    named = snapshots.classes[image]
    photo = (
        img(photos(snapshots.images[image : image + 1]), f"image of {named}") if snapshots.pictured else ""
    )
    pages = {}
    for level in snapshots.levels:
        h, w = snapshots.pair(level)[0].shape[-2:]
        pages[f"{level}, {h} × {w}"] = _page(comparisons(snapshots, level, options), level, image)
    said = tag("p", f"Image {image}: {named}.{unseen(snapshots)}")
    above = tag("div", photo, said, class_="rkd-photo")
    return Stack(pages, "level", slider=True, start=len(pages) - 1, above=above)


def _page(parts: list[Comparison], level: str, image: int) -> Html:
    """One level: a column per size; student, teacher and difference below one another."""
    if not parts:
        return tag("p", "No size of the pyramid fits this level: it adds nothing to the loss.")
    # The scale's ends. Not 0, so that equal maps can be drawn.
    bound = max(float(np.abs(p.maps(image)).max()) for p in parts) or 1.0
    heads, cells, feet = [""], [tag("div", *(tag("span", name) for name in ROWS), class_="rkd-side")], [""]
    for p in parts:
        mse = f"MSE {p.mse(image):.3g}"
        said = f"{', '.join(ROWS)} at {level} pooled to {p.size} × {p.size}, {mse}"
        heads.append(tag("b", f"{p.size} × {p.size}"))
        cells.append(img(column(p.maps(image), COLOUR_MAP, -bound, bound), said, "rkd-framed"))
        feet.append(join(mse, tag("br"), f"weight {p.listed:g}"))
    total = sum(p.weight * p.mse(image) for p in parts)
    words = " + ".join(f"{p.weight:.3g} · {p.mse(image):.3g}" for p in parts)
    said = f"One scale for all maps of this level. HCL of this channel and image: {words} = {total:.3g}."
    return join(tiles(heads, cells, feet), scale(COLOUR_MAP, (f"−{bound:.2g}", "0", f"{bound:.2g}"), said))


def pyramid_table(snapshots: Snapshots, options: ReviewOptions) -> Html:
    """Mean squared error, weight and share of HCL at every size of every level, over all images kept."""
    compared = {level: comparisons(snapshots, level, options) for level in snapshots.levels}
    most = max(len(parts) for parts in compared.values())
    rows = []
    for level, parts in compared.items():
        total = sum(p.weight * p.mse() for p in parts)
        cells = []
        for p in parts:
            share = f", {100 * p.weight * p.mse() / total:.0f} %" if total else ""
            below = quiet(f" weight {p.listed:g}{share}")
            cells.append(join(quiet(f"{p.size} × {p.size} "), number(f"{p.mse():.3g}"), below))
        rows.append((level, *cells, *[""] * (most - len(parts)), tag("strong", f"{total:.3g}")))
    note = (
        f"Of one channel, the one in which the teacher varies most, over {len(snapshots.images)} images, after the "
        "last epoch, networks in evaluation mode; training averages over all channels and the images of a batch. "
        "HCL is their sum, each times its weight and divided by the normaliser; the percentage is a size's share of it."
    )
    heads = ("level", *(f"MSE, size {i + 1}" for i in range(most)), "HCL")
    return join(Html(scrolling(table(rows, heads))), tag("p", note, class_="rkd-note"))


def pyramid_sentence(snapshots: Snapshots, options: ReviewOptions) -> str:
    """What pooling does to the difference, in words made from the numbers alone."""
    said = []
    for level in snapshots.levels:
        parts = sorted(comparisons(snapshots, level, options), key=lambda p: p.size)
        if not parts or parts[0].size == parts[-1].size or not parts[-1].mse():
            continue
        small, large = parts[0], parts[-1]
        share = 100 * small.mse() / large.mse()
        said.append(f"{share:.0f} % at {level} ({large.size} × {large.size} to {small.size} × {small.size})")
    if not said:
        return "At no level are two sizes compared."
    return (
        f"Pooling to the smallest size leaves, of the largest one's mean squared error, {', '.join(said)}; the rest "
        "only the larger sizes see."
    )
