"""Arrays as small PNG pictures: one file holds a column of maps, equal pixels for equal values, no text.

The text around them is HTML, so that it keeps its size on a phone and follows the theme.
"""

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from PIL import Image

from rkd.experiments.snapshots import Snapshots
from rkd.report.interactive.markup import Html, join, picture, tag

CELL, GAP = 128, 8  # pixels: edge of one map, distance between two
WEIGHTS = ("z₁ student map", "z₂ residual")  # of a fusion block


def map_column(maps: np.ndarray, colour_map: str, low: float, high: float) -> bytes:
    """Return a PNG of maps, (N, h, w), one below another. Every value fills a block of equal pixels; equal values have
    equal colours, whatever the size of a map; values beyond low and high are clipped to these.

    Raises:
        ValueError: a value is not finite, or low is not below high.
    """
    if not np.isfinite(maps).all() or not low < high:
        raise ValueError(f"maps from {maps.min()} to {maps.max()} cannot be drawn between {low} and {high}")
    share = (maps.astype(np.float64) - low) / (high - low)
    return photo_column(matplotlib.colormaps[colour_map](share.clip(0, 1), bytes=True))


def photo_column(images: np.ndarray) -> bytes:
    """Return a PNG of images, (N, H, W, 3 or 4) uint8, one below another, separated by transparent gaps."""
    times = max(1, CELL // max(images.shape[1:3]))
    cells = images.repeat(times, axis=1).repeat(times, axis=2)
    cells = np.concatenate([cells, np.full((*cells.shape[:3], 4 - cells.shape[3]), 255, np.uint8)], axis=3)
    gap = max(1, round(GAP * cells.shape[1] / CELL))
    parted = np.pad(cells, ((0, 0), (0, gap), (0, 0), (0, 0))).reshape(-1, *cells.shape[2:])[:-gap]
    buffer = io.BytesIO()
    Image.fromarray(parted).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def map_image(png: bytes, alt: str, kind: str | None = None) -> Html:
    """Return a picture as HTML, with its CSS class if any."""
    width, height = Image.open(io.BytesIO(png)).size
    return picture(png, alt, width=width, height=height, class_=kind)


def colour_scale(colour_map: str, ticks: tuple[str, str, str], said: str) -> Html:
    """Return a colour bar with labels at its left end, middle and right end, and a sentence about it."""
    png = map_column(np.linspace(0, 1, 128)[None, None], colour_map, 0, 1)
    marks = tag("div", *(tag("span", tick) for tick in ticks))
    bar = map_image(png, f"colours from {ticks[0]} to {ticks[2]}")
    return tag("div", bar, marks, tag("p", said), class_="rkd-scale")


def tile_columns(*rows: Sequence[object]) -> Html:
    """Return rows of heads, pictures and the like in columns of equal width."""
    cells = (tag("div", cell) for row in rows for cell in row)
    columns = f"grid-template-columns:repeat({len(rows[0])},minmax(0,1fr))"
    return tag("div", *cells, class_="rkd-tiles", style=columns)


def attention_tiles(maps: Snapshots, epoch: int) -> Html | None:
    """Return the weights after an epoch with snapshots: a column of images if they are here, then two of maps for every
    level that fuses by attention, deep to shallow; None if no level does."""
    heads, columns = [], []
    for level in maps.levels:
        if (found := maps.attention(epoch, level)) is None:
            continue
        for z, name in zip(found.swapaxes(0, 1), WEIGHTS, strict=True):
            size, mean = f"{z.shape[1]} × {z.shape[2]}", f"mean {z.mean():.2f}"
            heads.append(join(tag("b", level), *(tag("div", line) for line in (size, name, mean))))
            said = f"weight {name} at {level} ({size}) after epoch {epoch}, {mean}"
            columns.append(map_image(map_column(z, "viridis", 0, 1), said))
    if heads and maps.pictured:
        heads.insert(0, "image")
        columns.insert(0, map_image(photo_column(maps.images), f"images of {', '.join(maps.classes)}"))
    return tile_columns(heads, columns) if heads else None
