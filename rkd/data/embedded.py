"""The embedded set: 100 classes of generated images, made on the spot from a seed, so that everything runs without a
download. It says nothing about accuracies on photographs.

20 superclasses of 5 classes; 32 x 32 RGB; 10,000 training and 2,000 test images. All arithmetic is on whole numbers,
from the raw output of PCG64, which NumPy keeps the same for ever: every machine makes the same bytes.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from rkd.data.sources import DataConfig, Reader, Source, register_source
from rkd.data.streams import stream_seed

SIZE = 32
IMAGES = {"train": 10_000, "test": 2_000}
SHAPES = ("disc", "square", "diamond", "ring", "cross")
TEXTURES = ("banded", "striped", "checked", "nested")
PERIODS = (4, 6, 8, 11, 15)  # in pixels
CLASS_NAMES = tuple(f"{texture} {shape}/{n}" for shape in SHAPES for texture in TEXTURES for n in PERIODS)
_Y, _X = np.mgrid[:SIZE, :SIZE] - SIZE // 2
_HUES = (np.random.PCG64(0).random_raw((20, 3)) % 100).astype(np.int64)  # of the superclasses


@lru_cache(maxsize=2 * sum(IMAGES.values()))
def image(seed: int, split: str, label: int, number: int) -> np.ndarray:
    """Return image `number` of class `label`, (32, 32, 3) uint8, a function of the arguments alone.

    A class is a shape with stripes of one texture and period. Place, size, phase, light and noise are random, and so
    are the stripes of the background, which carry no information. The hue leans towards one set by the superclass: a
    cue that is quickly learned.
    """
    bits = np.random.PCG64(stream_seed(seed, "embedded", split, label, number))

    def draw(low: int, high: int) -> int:
        return low + bits.random_raw() % (high - low + 1)

    def colour(base: np.ndarray, spread: int) -> np.ndarray:
        return base + [draw(-spread, spread) for _ in range(3)]

    x, y, radius = _X - draw(-5, 5), _Y - draw(-5, 5), draw(8, 12)
    shape = _shape(SHAPES[label // 20], np.abs(x), np.abs(y), radius)
    figure = _stripes(TEXTURES[label // 5 % 4], x, y, draw(0, 99), PERIODS[label % 5])
    ground = _stripes(TEXTURES[draw(0, 3)], _X, _Y, draw(0, 99), draw(4, 15))
    ink = colour(110 + _HUES[label // 5], 40) - draw(50, 90) * figure[..., None]
    paper = colour(np.full(3, 60), 40) + draw(0, 40) * ground[..., None]
    canvas = np.where(shape[..., None], ink, paper)
    noise = (
        bits.random_raw(canvas.size // 8).astype("<u8").view(np.uint8).astype(np.int64).reshape(canvas.shape)
    )
    return np.clip(canvas + draw(-20, 20) + (noise - 128) * draw(1, 8) // 16, 0, 255).astype(np.uint8)


def _shape(name: str, x: np.ndarray, y: np.ndarray, radius: int) -> np.ndarray:
    """Return the mask of a figure, given the pixels' distances from its centre."""
    round_, far, near = x**2 + y**2, np.maximum(x, y), np.minimum(x, y)
    return {
        "disc": round_ <= radius**2,
        "square": far < radius,
        "diamond": x + y <= radius + 2,
        "ring": (round_ <= (radius + 1) ** 2) & (round_ > (radius // 2) ** 2),
        "cross": (near <= radius // 3) & (far <= radius + 1),
    }[name]


def _stripes(texture: str, x: np.ndarray, y: np.ndarray, phase: int, period: int) -> np.ndarray:
    """Return the mask of the stripes: True and False for half a period each."""
    down, across, out = (2 * ((t + phase) % period) < period for t in (y, x, np.abs(x) + np.abs(y)))
    return {"banded": down, "striped": across, "checked": across ^ down, "nested": out}[texture]


@register_source("embedded")
class Embedded(Reader):
    """The embedded set: only the images that are asked for are made, and they are cached in memory."""

    def open(self, config: DataConfig, root: Path, download: bool) -> Source:
        def pixels(split: str, indices: np.ndarray) -> np.ndarray:
            made = [image(config.seed, split, index % 100, index // 100) for index in indices.tolist()]
            return np.array(made, dtype=np.uint8).reshape(-1, SIZE, SIZE, 3)

        train, test = (np.arange(count) % 100 for count in IMAGES.values())
        return Source(train, test, pixels, CLASS_NAMES)
