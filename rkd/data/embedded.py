"""The embedded set: 100 classes of drawn figures, made on the spot, the same on every machine."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rkd.data.figures import FAMILIES, VARIANTS, Frame
from rkd.data.sources import Reader, Source, Split, register_source
from rkd.data.streams import stream_seed

if TYPE_CHECKING:
    from rkd.data.config import DataConfig

SIZE = 32
TRAIN_IMAGES = 10_000
TEST_IMAGES = 2_000
CLASSES = len(FAMILIES) * VARIANTS


def superclass(label: int) -> int:
    """The superclass, 0..19, of a class, 0..99; works on arrays and tensors too."""
    return label // VARIANTS


CLASS_NAMES = tuple(f"{family}/{variant}" for family in FAMILIES for variant in range(VARIANTS))


@register_source("embedded")
class Embedded(Reader):
    """Makes only the images that are asked for, and keeps them in memory for the next who asks."""

    def open(self, config: "DataConfig", root: Path, download: bool, progress: bool) -> Source:
        return Source(
            _split("train", TRAIN_IMAGES, config.seed), _split("test", TEST_IMAGES, config.seed), CLASS_NAMES
        )


def _split(name: str, images: int, seed: int) -> Split:
    labels = np.arange(images, dtype=np.int64) % CLASSES

    def pixels(indices: np.ndarray) -> np.ndarray:
        out = np.empty((len(indices), SIZE, SIZE, 3), dtype=np.uint8)
        for place, index in enumerate(indices.tolist()):
            out[place] = image(seed, name, index % CLASSES, index // CLASSES)
        return out

    return Split(labels, pixels)


class _Draws:
    """Numbers from raw PCG64 output, which NumPy keeps the same for ever, unlike its distributions."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * (self._bits.random_raw() >> 11) * 2.0**-53

    def below(self, n: int) -> int:
        return int(self.uniform() * n)

    def colour(self) -> np.ndarray:
        return np.array([self.uniform(), self.uniform(), self.uniform()])

    def noise(self, shape: tuple[int, ...]) -> np.ndarray:
        """About normal, mean 0, standard deviation 1: a sum of four bytes, the same everywhere."""
        count = int(np.prod(shape))
        raw = self._bits.random_raw(count // 2).astype("<u8").view(np.uint8).reshape(count, 4)
        return ((raw.sum(1, dtype=np.int64) - 510) / 147.8).reshape(shape)


_Y, _X = np.meshgrid(
    (np.arange(SIZE) + 0.5) / SIZE * 2 - 1, (np.arange(SIZE) + 0.5) / SIZE * 2 - 1, indexing="ij"
)


@lru_cache(maxsize=2 * (TRAIN_IMAGES + TEST_IMAGES))
def image(seed: int, split: str, label: int, number: int) -> np.ndarray:
    """Image `number` of class `label`: (32, 32, 3) uint8, a function of the arguments alone.

    The class decides the figure. Chance decides its place, size, slant, stretch, colours and filling;
    background, clutter, an occluding bar, light and noise.
    """
    draw = _Draws(stream_seed(seed, "embedded", split, label, number))
    family = list(FAMILIES)[superclass(label)]
    paper, ink = _two_colours(draw)
    canvas = _background(draw, paper)
    for _ in range(2 + draw.below(3)):
        _blend(canvas, _stroke(draw), paper + draw.uniform(0.2, 0.5) * (draw.colour() - paper))
    frame = _frame(draw)
    mask = FAMILIES[family](frame, label % VARIANTS)
    _blend(canvas, mask * draw.uniform(0.8, 1.0), _filling(draw, ink))
    if draw.uniform() < 0.5:
        _blend(canvas, _stroke(draw), draw.colour())
    canvas = 0.5 + (canvas - 0.5) * draw.uniform(0.7, 1.1) + draw.uniform(-0.1, 0.1)
    canvas += draw.uniform(0.02, 0.06) * draw.noise(canvas.shape)
    return np.clip(np.rint(canvas * 255), 0, 255).astype(np.uint8)


def _two_colours(draw: _Draws) -> tuple[np.ndarray, np.ndarray]:
    """Two colours far enough apart to tell the figure from the background, neither always the lighter."""
    a, b = draw.colour(), draw.colour()
    gap = (b - a).mean()
    least = 0.35
    if abs(gap) < least:
        push = (least - abs(gap)) / 2 * (1 if gap >= 0 else -1)
        a, b = a - push, b + push
    return np.clip(a, 0, 1), np.clip(b, 0, 1)


def _background(draw: _Draws, paper: np.ndarray) -> np.ndarray:
    """Paper under a slow wave of another tint: (32, 32, 3)."""
    angle, beats, phase = draw.uniform(0, 2 * np.pi), draw.uniform(0.5, 2.5), draw.uniform(0, 2 * np.pi)
    wave = 0.5 + 0.5 * np.sin(beats * np.pi * (np.cos(angle) * _X + np.sin(angle) * _Y) + phase)
    tint = paper + 0.3 * (draw.colour() - 0.5)
    return paper + wave[..., None] * (tint - paper)


def _filling(draw: _Draws, ink: np.ndarray) -> np.ndarray:
    """Ink that runs into a near colour across the image: (32, 32, 3)."""
    angle = draw.uniform(0, 2 * np.pi)
    ramp = 0.5 + 0.5 * (np.cos(angle) * _X + np.sin(angle) * _Y)
    return ink + 0.3 * ramp[..., None] * (draw.colour() - 0.5)


def _stroke(draw: _Draws) -> np.ndarray:
    """Mask of a straight stroke somewhere: (32, 32)."""
    angle, x, y = draw.uniform(0, np.pi), draw.uniform(-0.9, 0.9), draw.uniform(-0.9, 0.9)
    length, width = draw.uniform(0.15, 0.6), draw.uniform(0.04, 0.12)
    along = np.cos(angle) * (_X - x) + np.sin(angle) * (_Y - y)
    across = np.cos(angle) * (_Y - y) - np.sin(angle) * (_X - x)
    distance = np.maximum(np.abs(along) - length, np.abs(across) - width)
    return np.clip(0.5 - distance * SIZE / 2, 0, 1)


def _frame(draw: _Draws) -> Frame:
    """The figure's coordinates: shifted, scaled, slanted and stretched."""
    angle = draw.uniform(-0.4, 0.4)
    scale, stretch = draw.uniform(0.6, 0.9), draw.uniform(0.85, 1.18)
    x, y = _X - draw.uniform(-0.25, 0.25), _Y - draw.uniform(-0.25, 0.25)
    hand = 1 if draw.uniform() < 0.5 else -1  # classes must survive mirroring, which trains every network
    u = hand * (np.cos(angle) * x + np.sin(angle) * y) / (scale * stretch)
    v = (np.cos(angle) * y - np.sin(angle) * x) / (scale / stretch)
    return Frame(u, v, pixel=2 / SIZE / scale)


def _blend(canvas: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> None:
    canvas += mask[..., None] * (colour - canvas)
