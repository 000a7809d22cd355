"""The small world of the demo: the numbers 000 to 999, seen, heard, felt and read.

One number gives an image (three handwritten digits), a sound (three telephone keys), a point cloud (the strokes of
another writer's digits, extruded) and texts (words, digits, other phrasings). The digits are the 1,797 of scikit-learn
(UCI Optical Recognition of Handwritten Digits, 8 x 8 pixels). They come in the order of the forms that people
filled in, taken here as one writer each: a form opens with 0123456789 three times, which is how `FORMS` was found.

Everything is split before anything is drawn: `SPLITS` gives each encoder's training, the bridge's memories and the
evaluation their own numbers and their own writers, with nothing shared (a test says so). Writer 10 is in none of them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

HEIGHT: Final = 28
WIDTH: Final = 72
RATE: Final = 8000
POINTS: Final = 1024
GLYPH: Final = 20

FORMS: Final = (0, 130, 256, 386, 516, 646, 776, 905, 1029, 1157, 1287, 1415, 1545, 1667, 1797)
"""Where each writer's form starts among scikit-learn's digits; the last entry is the end."""


@dataclass(frozen=True)
class Split:
    """The numbers one part of the demo may use, and the writers (forms) of its images and of its point clouds."""

    numbers: tuple[int, ...]
    image_writers: tuple[int, ...] = ()
    cloud_writers: tuple[int, ...] = ()


def _splits() -> dict[str, Split]:
    """Numbers of the demo's world that each space is trained on, and those of the test."""
    order = [int(n) for n in np.random.default_rng(2305).permutation(1000)]
    return {
        "picture": Split(tuple(sorted(order[:180])), image_writers=(0, 1, 2, 3)),
        "sound": Split(tuple(sorted(order[180:360]))),
        "shape": Split(tuple(sorted(order[360:540])), image_writers=(4, 5, 6), cloud_writers=(7, 8)),
        "memory": Split(tuple(sorted(order[540:760])), image_writers=(9,), cloud_writers=(11,)),
        "test": Split(tuple(sorted(order[760:])), image_writers=(12,), cloud_writers=(13,)),
    }


SPLITS: Final = _splits()


def digits_of(number: int) -> tuple[int, int, int]:
    """The three digits of a number from 0 to 999, the hundreds first."""
    return number // 100, number // 10 % 10, number % 10


# -------------------------------------------------------------------------------------------------------------- strokes


@functools.cache
def _handwriting() -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """All digits drawn larger by cubic splines, (1797, 40, 40) in [0, 1]; their classes; their writers."""
    from scipy import ndimage
    from sklearn.datasets import load_digits

    data = load_digits()
    small = np.pad(np.asarray(data.images, dtype=np.float32) / 16.0, ((0, 0), (1, 1), (1, 1)))
    large = np.clip(ndimage.zoom(small, (1, 4, 4), order=3, grid_mode=True, mode="grid-constant"), 0.0, 1.0)
    writer = np.searchsorted(np.asarray(FORMS), np.arange(len(large)), side="right") - 1
    return large.astype(np.float32), np.asarray(data.target, dtype=np.int64), writer.astype(np.int64)


def _pick(digits: NDArray[np.int64], writers: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.int64]:
    """For each digit a row of the handwriting: some sample of that digit by one of the writers."""
    _, target, writer = _handwriting()
    allowed = np.isin(writer, writers)
    rows = np.empty(digits.shape, dtype=np.int64)
    for digit in range(10):
        here = digits == digit
        rows[here] = rng.choice(np.flatnonzero(allowed & (target == digit)), size=int(here.sum()))
    return rows


def draw_glyphs(
    digits: NDArray[np.int64], writers: tuple[int, ...], rng: np.random.Generator, *, strength: float = 1.0
) -> Floats:
    """Draw digits in these writers' hands, each turned, slanted and stretched a little.

    Args:
        digits: (n,) classes 0 to 9.
        writers: Forms to take samples from.
        rng: Source of samples and jitter.
        strength: How much the strokes are bent; 1 is the world's own, training may ask for more.

    Returns:
        (n, 20, 20) ink from 0 to 1.
    """
    large, _, _ = _handwriting()
    n, source = len(digits), large[_pick(digits, writers, rng)]
    angle, shear = rng.normal(0, 0.10 * strength, n), rng.normal(0, 0.12 * strength, n)
    sx, sy = np.exp(rng.normal(0, 0.08 * strength, (2, n)))
    grid = (np.arange(GLYPH) + 0.5) / GLYPH * 2 - 1
    y, x = np.meshgrid(grid, grid, indexing="ij")
    x, y = x[None] + shear[:, None, None] * y, np.broadcast_to(y, (n, GLYPH, GLYPH))
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    u, v = (cos * x - sin * y) * sx[:, None, None], (sin * x + cos * y) * sy[:, None, None]
    return _bilinear(source, (v + 1) * 20 - 0.5, (u + 1) * 20 - 0.5)


def _bilinear(source: Floats, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Floats:
    """Sample (n, s, s) images at fractional places, (n, h, w) each; outside is 0."""
    size = source.shape[1]
    r0, c0 = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    item = np.arange(len(source))[:, None, None]
    out = np.zeros(rows.shape, dtype=np.float32)
    for dr in (0, 1):
        for dc in (0, 1):
            r, c = r0 + dr, c0 + dc
            weight = (1 - np.abs(rows - r)) * (1 - np.abs(columns - c))
            inside = (r >= 0) & (r < size) & (c >= 0) & (c < size)
            out += (source[item, r.clip(0, size - 1), c.clip(0, size - 1)] * weight * inside).astype(np.float32)
    return out


def compose_images(glyphs: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Set three glyphs on grey paper, (n, 3, 20, 20) to (n, 28, 72) bytes: places, ink, paper and grain vary."""
    n = len(glyphs)
    page = np.zeros((n, HEIGHT, WIDTH), dtype=np.float32)
    base_x, base_y = rng.integers(-3, 4, n), rng.integers(-2, 3, n)
    for slot in range(3):
        dx, dy = rng.integers(-2, 3, n), rng.integers(-2, 3, n)
        for i in range(n):
            x, y = 5 + 21 * slot + base_x[i] + dx[i], 4 + base_y[i] + dy[i]
            part = page[i, y : y + GLYPH, x : x + GLYPH]
            np.maximum(part, glyphs[i, slot], out=part)
    paper, ink = rng.uniform(10, 50, (n, 1, 1)), rng.uniform(170, 245, (n, 1, 1))
    image = paper + page * (ink - paper) + rng.normal(0, 7, page.shape)
    return np.asarray(np.clip(np.rint(image), 0, 255), dtype=np.uint8)


def draw_images(numbers: NDArray[np.int64], writers: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Images of numbers, (n,) to (n, 28, 72) grey bytes, bright ink on dark paper."""
    digits = np.array([digits_of(int(n)) for n in numbers]).reshape(-1)
    return compose_images(draw_glyphs(digits, writers, rng).reshape(-1, 3, GLYPH, GLYPH), rng)


# --------------------------------------------------------------------------------------------------------------- solids


def carve_clouds(glyphs: Floats, rng: np.random.Generator, *, points: int = POINTS) -> Floats:
    """Points on the extruded strokes of three glyphs, (n, 3, 20, 20) to (n, points, 3): x right, y up, z to the viewer.

    Pixels are thresholded, sampled with jitter and given a depth; the solid is turned a little about its vertical and
    horizontal axes, scaled into the unit sphere, and its points are shuffled.
    """
    n = len(glyphs)
    ink = np.where(glyphs > 0.4, glyphs**2, 0.0).reshape(n, -1).astype(np.float64)
    ink[ink.sum(1) == 0] = 1.0
    cumulated = np.cumsum(ink, axis=1) / ink.sum(1, keepdims=True)
    draws = rng.random((n, points))
    pixel = np.stack([np.searchsorted(c, d) for c, d in zip(cumulated, draws, strict=True)]).clip(0, ink.shape[1] - 1)
    slot, row, column = pixel // GLYPH**2, pixel // GLYPH % GLYPH, pixel % GLYPH
    dx, dy = rng.normal(0, 1.0, (2, n, 3))
    item = np.arange(n)[:, None]
    x = column + rng.uniform(-0.5, 0.5, pixel.shape) + 21 * slot + dx[item, slot] - 31
    y = -(row + rng.uniform(-0.5, 0.5, pixel.shape) + dy[item, slot] - 10)
    z = rng.uniform(-1, 1, pixel.shape) * rng.uniform(1.0, 3.0, (n, 1))
    yaw, pitch = rng.normal(0, 0.25, (n, 1)), rng.normal(0, 0.10, (n, 1))
    x, z = x * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - x * np.sin(yaw)
    y, z = y * np.cos(pitch) - z * np.sin(pitch), z * np.cos(pitch) + y * np.sin(pitch)
    return to_unit_sphere(np.stack([x, y, z], axis=-1))


def to_unit_sphere(points: NDArray[np.floating]) -> Floats:
    """Centre clouds (..., n, 3) and scale the farthest point of each to radius 1."""
    centred = points - points.mean(axis=-2, keepdims=True)
    radius = np.sqrt((centred**2).sum(axis=-1, keepdims=True).max(axis=-2, keepdims=True))
    return np.asarray(centred / np.maximum(radius, 1e-9), dtype=np.float32)


def draw_clouds(numbers: NDArray[np.int64], writers: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Point clouds of numbers, (n,) to (n, 1024, 3) in the unit sphere."""
    digits = np.array([digits_of(int(n)) for n in numbers]).reshape(-1)
    return carve_clouds(draw_glyphs(digits, writers, rng).reshape(-1, 3, GLYPH, GLYPH), rng)


# --------------------------------------------------------------------------------------------------------------- sounds

_LOW: Final = np.array([941, 697, 697, 697, 770, 770, 770, 852, 852, 852], dtype=np.float64)
_HIGH: Final = np.array([1336, 1209, 1336, 1477, 1209, 1336, 1477, 1209, 1336, 1477], dtype=np.float64)
SECONDS: Final = 1.5
"""No sound of the world is longer."""


def dial(number: int, rng: np.random.Generator) -> Floats:
    """Dial a number on a telephone: (samples,) at 8 kHz in [-1, 1], about a second.

    Each key is its two DTMF tones. Tempo, pauses, loudness, the balance of the tones, detuning, echo and noise vary.
    """
    tempo, detune, tilt = rng.uniform(0.7, 1.35), 1 + rng.normal(0, 0.006), rng.normal(0, 2.5)
    parts = [np.zeros(int(RATE * rng.uniform(0.02, 0.14)))]
    for digit in digits_of(number):
        t = np.arange(int(RATE * tempo * rng.uniform(0.12, 0.22))) / RATE
        level = 10 ** (rng.normal(0, 1.5) / 20)
        low, high = (np.sin(2 * np.pi * (f * detune * t + rng.random())) for f in (_LOW[digit], _HIGH[digit]))
        edge = np.minimum(1.0, np.minimum(t, t[::-1]) / 0.008)
        parts += [
            level * edge * (low + 10 ** (tilt / 20) * high),
            np.zeros(int(RATE * tempo * rng.uniform(0.04, 0.11))),
        ]
    parts.append(np.zeros(int(RATE * rng.uniform(0.02, 0.12))))
    clean = np.concatenate(parts)[: int(SECONDS * RATE)]
    delay, echo = int(RATE * rng.uniform(0.03, 0.12)), rng.uniform(0.0, 0.45)
    sound = clean.copy()
    sound[delay:] += echo * clean[:-delay]
    sound += 10 ** (-rng.uniform(-3, 12) / 20) * rng.normal(0, 1, len(sound)) * 0.7
    return np.asarray(sound / np.abs(sound).max() * rng.uniform(0.4, 0.95), dtype=np.float32)


# ---------------------------------------------------------------------------------------------------------------- texts

# fmt: off
_ONES: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)
_TENS: Final = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
# fmt: on
_FRAMES: Final = (
    "{}",
    "number {}",
    "the number {}",
    "no. {}",
    "dial {}",
    "room {}",
    "extension {}",
    "it says {}",
    "{}, please",
)


def in_words(number: int, *, conjunction: str = " and ") -> str:
    """A number from 0 to 999 in English words: 305 is "three hundred and five"."""
    hundreds, rest = divmod(number, 100)
    below = _ONES[rest] if rest < 20 else _TENS[rest // 10] + (f"-{_ONES[rest % 10]}" if rest % 10 else "")
    if not hundreds:
        return below
    return f"{_ONES[hundreds]} hundred" + (conjunction + below if rest else "")


def phrasings(number: int) -> tuple[str, ...]:
    """The bare ways to say a number: in words, in digits, and digit by digit."""
    a, b, c = digits_of(number)
    one_by_one = f"{_ONES[a]} {_ONES[b]} {_ONES[c]}"
    return (
        in_words(number),
        in_words(number, conjunction=" "),
        f"{number:03d}",
        f"{a} {b} {c}",
        f"{a}-{b}-{c}",
        one_by_one,
        one_by_one.replace("zero", "oh"),
    )


def say(number: int, rng: np.random.Generator) -> str:
    """Say a number in one of its phrasings, inside one of a few frames: "room three oh five"."""
    ways = phrasings(number)
    frame = "{}" if rng.random() < 0.3 else _FRAMES[int(rng.integers(len(_FRAMES)))]
    return frame.format(ways[int(rng.integers(len(ways)))])
