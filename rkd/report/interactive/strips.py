"""Arrays as small PNG pictures: one file holds a column of maps, one colour per value, no text.

What is written around them is HTML, so that it keeps its size on a phone and follows the theme.
"""

import base64
import functools
import io
from html import escape

import matplotlib
import numpy as np
from PIL import Image

CELL, GAP = 128, 8  # pixels: edge of one map, distance of two
LEVELS = 255  # colours of a map; the last entry of a palette of 256 is transparent


def column(maps: np.ndarray, colour_map: str, low: float, high: float) -> bytes:
    """PNG of maps below one another; equal values have equal colours, whatever the size of a map.

    Args:
        maps: (N, h, w); every value fills a block of equal pixels.
        colour_map: name of a matplotlib colour map.
        low, high: values of its two ends; values beyond are drawn as the ends.

    Raises:
        ValueError: a value is not finite, or low is not below high.
    """
    if not np.isfinite(maps).all() or not low < high:
        raise ValueError(f"maps from {maps.min()} to {maps.max()} cannot be drawn between {low} and {high}")
    share = (np.clip(maps.astype(np.float64), low, high) - low) / (high - low)
    return _png(_stack(np.rint(share * (LEVELS - 1)).astype(np.uint8)), palette(colour_map))


def photos(images: np.ndarray) -> bytes:
    """PNG of images below one another, laid out as `column` does, in at most 255 colours.

    Args:
        images: (N, H, W, 3) uint8.
    """
    count, height, width, _ = images.shape
    flat = Image.fromarray(images.reshape(count * height, width, 3)).quantize(LEVELS, method=Image.MEDIANCUT)
    indices = np.asarray(flat, dtype=np.uint8).reshape(count, height, width)
    colours = np.array(flat.getpalette(), dtype=np.uint8).reshape(-1, 3)
    full = np.zeros((256, 3), dtype=np.uint8)
    full[: len(colours)] = colours
    return _png(_stack(indices), full)


def bar(colour_map: str) -> bytes:
    """PNG of a colour map from its low end, left, to its high end."""
    return _png(np.arange(LEVELS, dtype=np.uint8)[None], palette(colour_map))


@functools.cache
def palette(colour_map: str) -> np.ndarray:
    """(256, 3) uint8: LEVELS colours, and one that is never seen."""
    colours = matplotlib.colormaps[colour_map](np.linspace(0, 1, LEVELS))[:, :3]
    return np.vstack([np.rint(colours * 255), [[0, 0, 0]]]).astype(np.uint8)


def img(png: bytes, alt: str, kind: str = "") -> str:
    """A picture as HTML, with its CSS class if any."""
    width, height = Image.open(io.BytesIO(png)).size
    data = base64.b64encode(png).decode()
    attribute = f' class="{kind}"' if kind else ""
    return (
        f'<img alt="{escape(alt, quote=True)}" width="{width}" height="{height}"{attribute} '
        f'src="data:image/png;base64,{data}">'
    )


def scale(colour_map: str, ticks: tuple[str, str, str], said: str) -> str:
    """A colour bar with what stands at its left end, middle and right end, and a sentence about it."""
    marks = "".join(f"<span>{escape(tick)}</span>" for tick in ticks)
    drawn = img(bar(colour_map), f"colour bar from {ticks[0]} to {ticks[2]}")
    return f'<div class="rkd-scale">{drawn}<div>{marks}</div><p>{escape(said)}</p></div>'


def _stack(indices: np.ndarray) -> np.ndarray:
    """(N, h, w) palette entries -> one array: each entry a block, maps parted by the transparent entry."""
    count, height, width = indices.shape
    times = max(1, CELL // max(height, width))
    cells = indices.repeat(times, axis=1).repeat(times, axis=2)
    gap = max(1, round(GAP * height * times / CELL))
    parted = np.full((count, height * times + gap, width * times), LEVELS, dtype=np.uint8)
    parted[:, : height * times] = cells
    return parted.reshape(-1, width * times)[:-gap]


def _png(indices: np.ndarray, colours: np.ndarray) -> bytes:
    picture = Image.fromarray(indices)
    picture.putpalette(colours.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, format="png", optimize=True, transparency=LEVELS)
    return buffer.getvalue()
