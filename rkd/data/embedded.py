"""The embedded set: 100 classes of drawn figures, made on the spot from a seed, the same on every machine.

20 superclasses (families of figures) of 5 classes (variants); 32 x 32 RGB; 10,000 training and 2,000 test
images. It is there so that everything runs without a download, and it is built to tell networks apart by
depth. It says nothing about accuracies on photographs.
"""

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
_FIGURES = tuple(FAMILIES.values())


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
    background, clutter, occluding strokes, light and noise. How much of these an image has varies from nearly
    none to so much that the figure is hard to make out: the first are soon learned, the last keep any network
    from 100 %.
    """
    draw = _Draws(stream_seed(seed, "embedded", split, label, number))
    figure = _FIGURES[label // VARIANTS]
    luck = draw.uniform()
    trouble = luck * np.sqrt(luck)  # more easy images than hard ones
    paper, ink = _two_colours(draw, label // VARIANTS)
    canvas = _background(draw, paper)
    for _ in range(_strokes(draw, trouble)):
        _blend(canvas, _stroke(draw), paper + draw.uniform(0.2, 0.6) * (draw.colour() - paper))
    mask = figure(_frame(draw, trouble), label % VARIANTS)
    _blend(canvas, mask * (1 - 0.6 * trouble * draw.uniform()), _filling(draw, ink))
    for _ in range(_strokes(draw, trouble)):
        _blend(canvas, _stroke(draw), draw.colour())
    canvas = 0.5 + (canvas - 0.5) * draw.uniform(0.8, 1.1) + draw.uniform(-0.1, 0.1)
    canvas += (0.01 + 0.07 * trouble) * draw.noise(canvas.shape)
    return np.clip(np.rint(canvas * 255), 0, 255).astype(np.uint8)


def _strokes(draw: _Draws, trouble: float) -> int:
    """How many: 0 to 3."""
    return int(3 * trouble + draw.uniform())


def _two_colours(draw: _Draws, family: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours of background and figure, the figure's the lighter.

    Their hues lean towards one of four and one of five that the superclass sets: a cue that is soon learned,
    as the blue of sea and sky is in photographs, but a weak one, that says nothing of the class within the
    superclass.
    """
    spread = 0.2
    paper = _colour(
        hue=family // 5 / 4 + draw.uniform(-spread, spread),
        saturation=draw.uniform(0.2, 0.9),
        value=draw.uniform(0.1, 0.5),
    )
    ink = _colour(
        hue=family % 5 / 5 + draw.uniform(-spread, spread),
        saturation=draw.uniform(0.1, 0.8),
        value=draw.uniform(0.6, 1.0),
    )
    return paper, ink


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """(3,) red, green, blue; `hue` in turns."""
    wheel = 0.5 + 0.5 * np.cos(2 * np.pi * (hue - np.arange(3) / 3))
    return value * (1 - saturation * (1 - wheel))


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


def _frame(draw: _Draws, trouble: float) -> Frame:
    """The figure's coordinates: shifted, scaled, slanted, stretched, and mirrored or not."""
    angle, stretch = 0.2 + 0.3 * trouble, 0.05 + 0.2 * trouble
    angle, stretch = draw.uniform(-angle, angle), 1 + draw.uniform(-stretch, stretch)
    scale = draw.uniform(0.55, 0.8)
    # Far enough that no pixel stands for a class: what a linear model could learn.
    x, y = _X - draw.uniform(-0.4, 0.4), _Y - draw.uniform(-0.4, 0.4)
    hand = 1 if draw.uniform() < 0.5 else -1  # classes must survive mirroring, which trains every network
    u = hand * (np.cos(angle) * x + np.sin(angle) * y) / (scale * stretch)
    v = (np.cos(angle) * y - np.sin(angle) * x) / (scale / stretch)
    return Frame(u, v, pixel=2 / SIZE / scale)


def _blend(canvas: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> None:
    canvas += mask[..., None] * (colour - canvas)
