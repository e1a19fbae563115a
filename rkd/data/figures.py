"""The figures of the embedded set: 20 families (superclasses) of 5 variants (classes)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

VARIANTS = 5
TURN = 2 * np.pi


@dataclass(frozen=True)
class Frame:
    """The figure's own coordinates at every pixel; the figure fills about [-1, 1] x [-1, 1].

    Attributes:
        u: (H, W), to the right.
        v: (H, W), downwards.
        pixel: width of a pixel in these units.
    """

    u: np.ndarray
    v: np.ndarray
    pixel: float

    @cached_property
    def radius(self) -> np.ndarray:
        return np.sqrt(self.u**2 + self.v**2)

    @cached_property
    def angle(self) -> np.ndarray:
        """Clockwise from "up", -pi..pi."""
        return np.arctan2(self.u, -self.v)

    def inside(self, distance: np.ndarray) -> np.ndarray:
        """Mask of where a signed distance is negative, its edge a pixel wide."""
        return np.clip(0.5 - distance / self.pixel, 0, 1)

    def disc(self, x: float, y: float, radius: float) -> np.ndarray:
        return self.inside(np.sqrt((self.u - x) ** 2 + (self.v - y) ** 2) - radius)

    def box(self, x: float, y: float, width: float, height: float) -> np.ndarray:
        """`width` and `height` are halves."""
        return self.inside(np.maximum(np.abs(self.u - x) - width, np.abs(self.v - y) - height))

    def triangle(self, x: float, y: float, radius: float) -> np.ndarray:
        u, v = np.abs(self.u - x), self.v - y
        return self.inside(np.maximum(0.866 * u - 0.5 * v, v) - radius / 2)

    def polygon(self, sides: int, radius: float) -> np.ndarray:
        sector = TURN / sides
        return self.inside(self.radius * np.cos((self.angle % sector) - sector / 2) - radius)


Figure = Callable[[Frame, int], np.ndarray]
FAMILIES: dict[str, Figure] = {}


def _family(figure: Figure) -> Figure:
    """Decorator: a function (frame, variant 0..4) -> mask (H, W) in 0..1 becomes a superclass of its name."""
    FAMILIES[figure.__name__] = figure
    return figure


def _wave(phase: np.ndarray, sharpness: float = 1.5) -> np.ndarray:
    return np.clip(0.5 + sharpness * np.sin(phase), 0, 1)


@_family
def rings(f: Frame, k: int) -> np.ndarray:
    """1 to 5 concentric rings."""
    return f.inside(f.radius - 1) * _wave(TURN * (f.radius * (k + 1) - 0.25))


@_family
def stripes(f: Frame, k: int) -> np.ndarray:
    """A disc of 1 to 5 upright bars."""
    return f.inside(f.radius - 1) * _wave((k + 1) * np.pi * f.u + np.pi / 2 * (1 - k % 2))


@_family
def polygon(f: Frame, k: int) -> np.ndarray:
    """Outline of 3 to 7 sides."""
    return f.polygon(k + 3, 0.8) - f.polygon(k + 3, 0.5)


@_family
def star(f: Frame, k: int) -> np.ndarray:
    """Filled, of 3 to 7 points."""
    points = k + 3
    return f.inside(f.radius - 0.3 - 0.7 * np.abs(((f.angle * points / TURN) % 1) - 0.5) * 2)


@_family
def flower(f: Frame, k: int) -> np.ndarray:
    """3 to 7 petals round a hole."""
    return f.inside(f.radius - 0.65 - 0.3 * np.cos((k + 3) * f.angle)) * f.inside(0.25 - f.radius)


@_family
def spiral(f: Frame, k: int) -> np.ndarray:
    """1 to 5 arms."""
    return f.inside(f.radius - 1) * _wave((k + 1) * f.angle + 7 * f.radius)


@_family
def checker(f: Frame, k: int) -> np.ndarray:
    """A board of 2 to 6 half-waves."""
    n = k + 2
    board = 0.5 + 3 * np.sin(np.pi * n * (f.u + 1) / 2) * np.sin(np.pi * n * (f.v + 1) / 2)
    return f.box(0, 0, 1, 1) * np.clip(board, 0, 1)


@_family
def wheel(f: Frame, k: int) -> np.ndarray:
    """A rim with 2 to 6 spokes."""
    spokes = k + 2
    across = np.abs(np.sin((((f.angle * spokes / TURN + 0.5) % 1) - 0.5) * TURN / spokes)) * f.radius
    return np.maximum(
        f.inside(np.abs(f.radius - 0.85) - 0.12), f.inside(f.radius - 0.85) * f.inside(across - 0.1)
    )


@_family
def beads(f: Frame, k: int) -> np.ndarray:
    """3 to 7 dots on a circle."""
    n = k + 3
    turns = np.arange(n) * TURN / n
    return np.max([f.disc(0.75 * np.sin(t), -0.75 * np.cos(t), 0.22) for t in turns], axis=0)


@_family
def dice(f: Frame, k: int) -> np.ndarray:
    """A plate with 1 to 5 holes."""
    places = {
        0: [(0, 0)],
        1: [(-0.5, -0.5), (0.5, 0.5)],
        2: [(-0.5, 0.5), (0, 0), (0.5, -0.5)],
        3: [(-0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (0.5, -0.5)],
        4: [(-0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (0.5, -0.5), (0, 0)],
    }[k]
    return f.box(0, 0, 0.95, 0.95) * (1 - np.max([f.disc(x, y, 0.24) for x, y in places], axis=0))


@_family
def moon(f: Frame, k: int) -> np.ndarray:
    """A crescent that opens in five directions, up to down."""
    t = k * np.pi / 4
    return f.disc(0, 0, 0.9) * (1 - f.disc(0.45 * np.sin(t), -0.45 * np.cos(t), 0.75))


@_family
def zigzag(f: Frame, k: int) -> np.ndarray:
    """Three lines with 1 to 5 bends each."""
    bend = np.abs(((f.u * (k + 1) / 2) % 1) - 0.5) * 1.2 / (1 + 0.3 * k)
    return f.box(0, 0, 1, 1) * _wave(9 * (f.v + bend))


@_family
def letter(f: Frame, k: int) -> np.ndarray:
    """L, T, Z, U or H, of straight strokes."""
    left, right, top, bottom, middle, upright = (
        (-0.65, 0, 0.16, 0.9),
        (0.65, 0, 0.16, 0.9),
        (0, -0.75, 0.8, 0.16),
        (0, 0.75, 0.8, 0.16),
        (0, 0, 0.7, 0.16),
        (0, 0, 0.16, 0.9),
    )
    strokes = [
        [left, bottom],
        [top, upright],
        [top, bottom],
        [left, right, bottom],
        [left, right, middle],
    ][k]
    mask = np.max([f.box(*stroke) for stroke in strokes], axis=0)
    if k == 2:
        mask = np.maximum(mask, f.inside(np.maximum(np.abs(f.u + f.v) - 0.22, np.abs(f.v) - 0.75)))
    return mask


@_family
def couple(f: Frame, k: int) -> np.ndarray:
    """A disc and a square: beside, over, under, in the other, or round the other."""
    s = 0.5
    if k == 3:
        return f.disc(0, 0, 0.95) * (1 - f.box(0, 0, 0.5, 0.5))
    if k == 4:
        return f.box(0, 0, 0.95, 0.95) * (1 - f.disc(0, 0, 0.6))
    x, y = [(-s, 0), (0, -s), (0, s)][k]
    return np.maximum(f.disc(x, y, 0.42), f.box(-x, -y, 0.38, 0.38))


@_family
def nest(f: Frame, k: int) -> np.ndarray:
    """A small figure in the window of a large one."""
    outer = [
        f.disc(0, 0, 0.95),
        f.disc(0, 0, 0.95),
        f.box(0, 0, 0.9, 0.9),
        f.box(0, 0, 0.9, 0.9),
        f.triangle(0, 0.3, 1.2),
    ]
    window = [
        f.disc(0, 0, 0.72),
        f.disc(0, 0, 0.72),
        f.box(0, 0, 0.68, 0.68),
        f.box(0, 0, 0.68, 0.68),
        f.triangle(0, 0.3, 0.75),
    ]
    inner = [
        f.box(0, 0, 0.35, 0.35),
        f.triangle(0, 0.1, 0.5),
        f.disc(0, 0, 0.4),
        f.triangle(0, 0.1, 0.5),
        f.disc(0, 0.3, 0.25),
    ]
    return np.maximum(outer[k] * (1 - window[k]), inner[k])


@_family
def arrow(f: Frame, k: int) -> np.ndarray:
    """Pointing in five directions, up to down."""
    t = k * np.pi / 4
    g = Frame(np.cos(t) * f.u + np.sin(t) * f.v, np.cos(t) * f.v - np.sin(t) * f.u, f.pixel)
    return np.maximum(g.box(0, 0.35, 0.16, 0.6), g.triangle(0, -0.35, 0.7))


@_family
def bars(f: Frame, k: int) -> np.ndarray:
    """Four columns: rising, alternating, hill, valley, level."""
    heights = [
        (0.2, 0.45, 0.7, 0.95),
        (0.9, 0.3, 0.9, 0.3),
        (0.3, 0.9, 0.9, 0.3),
        (0.9, 0.3, 0.3, 0.9),
        (0.6, 0.6, 0.6, 0.6),
    ][k]
    return np.max([f.box(-0.75 + 0.5 * i, 1 - h, 0.18, h) for i, h in enumerate(heights)], axis=0)


@_family
def tiles(f: Frame, k: int) -> np.ndarray:
    """Which five of nine fields are filled."""
    fields = [(0, 2, 4, 6, 8), (1, 3, 4, 5, 7), (0, 1, 2, 3, 6), (0, 1, 4, 7, 8), (2, 3, 4, 5, 6)][k]
    return np.max([f.box((i % 3 - 1) * 0.66, (i // 3 - 1) * 0.66, 0.27, 0.27) for i in fields], axis=0)


@_family
def pie(f: Frame, k: int) -> np.ndarray:
    """A disc that lacks 1/6 to 5/6."""
    return f.inside(f.radius - 0.95) * np.clip(
        0.5 + ((k + 1) / 6 * np.pi - np.abs(f.angle)) * f.radius / f.pixel, 0, 1
    )


@_family
def bones(f: Frame, k: int) -> np.ndarray:
    """A trunk with ribs: on one side, above and below on either side, both, by turns, growing."""
    trunk = f.box(0, 0, 0.1, 0.95)
    ribs = []
    for i, y in enumerate((-0.75, -0.25, 0.25, 0.75)):
        left = k in (0, 2, 4) or (k == 1 and i < 2) or (k == 3 and i % 2)
        right = k in (2, 4) or (k == 1 and i >= 2) or (k == 3 and not i % 2)
        length = 0.2 + 0.09 * i if k == 4 else 0.4
        ribs += [f.box(-length, y, length, 0.1)] * bool(left) + [f.box(length, y, length, 0.1)] * bool(right)
    return np.max([trunk, *ribs], axis=0)
