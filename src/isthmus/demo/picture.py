"""The demo's picture: sounds with the images they find, and two modalities before and after the bridge."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import Array, modality_gap
from isthmus.items.decoding import require

INK: Final = "#1d2733"
SOFT: Final = "#8a96a3"
HIT: Final = "#1a9e5c"
COLOURS: Final = {"image": "#2f6fde", "audio": "#d9480f"}
MARKERS: Final = {"image": "o", "audio": "^", "point_cloud": "s"}
HUNDREDS: Final = {1: "#2f6fde", 4: "#e8590c", 7: "#8e44ad"}
"""Hundreds that the 2D view shows, with their colours: three, since three means lie in a plane without loss."""
TITLE: Final = "Sounds find images they were never paired with: numbers that no training saw"
WORDS: Final = {"image": "images", "audio": "sounds", "point_cloud": "point clouds"}


@dataclass(frozen=True)
class Scene:
    """Content of the demo's picture.

    Attributes:
        sounds: Files of the sounds, row by row.
        images: Files of the images, row by row; row i of both shows one number.
        numbers: (n,) the numbers.
        before: By modality, (n, d) unit embeddings as each encoder gave them.
        after: By modality, (n, dim) unit embeddings in the unified space.
    """

    sounds: Sequence[Path]
    images: Sequence[Path]
    numbers: NDArray[np.int64]
    before: dict[str, Array]
    after: dict[str, Array]


def draw(path: Path, scene: Scene, *, title: str = TITLE, seed: int = 0, rows: int = 8, hits: int = 5) -> None:
    """Draw the picture to a PNG.

    Args:
        path: The file.
        scene: What to show.
        title: The line on top.
        seed: Chooses which sounds are shown: a plain draw, hits and misses alike.
        rows: Sounds shown.
        hits: Images shown for each.

    Raises:
        DependencyError: matplotlib or Pillow is not installed.
    """
    require("matplotlib", extra="demo", purpose="the demo's picture").use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"font.size": 10, "font.family": "sans-serif", "text.color": INK, "axes.titlecolor": INK}):
        figure = plt.figure(figsize=(15, 8.4), dpi=110, facecolor="white")
        figure.suptitle(title, x=0.025, y=0.975, ha="left", fontsize=15, fontweight="bold")
        left = figure.add_gridspec(
            rows, hits + 1, left=0.025, right=0.58, top=0.865, bottom=0.025, wspace=0.07, hspace=0.3,
            width_ratios=[1.25] + [1] * hits,
        )  # fmt: skip
        right = figure.add_gridspec(2, 2, left=0.63, right=0.988, top=0.865, bottom=0.035, wspace=0.1, hspace=0.24)
        _gallery(figure, left, scene, np.random.default_rng(seed).permutation(len(scene.numbers))[:rows], hits)
        for column, (when, embeddings) in enumerate((("before", scene.before), ("after", scene.after))):
            _cosines(figure.add_subplot(right[0, column]), scene, embeddings, when)
            _view(figure.add_subplot(right[1, column]), scene, embeddings, when, legend=column == 0)
        figure.savefig(path)
        plt.close(figure)


def _gallery(figure: Any, grid: Any, scene: Scene, chosen: NDArray[np.int64], hits: int) -> None:
    """Part of the demo's picture with sounds and the images nearest to them."""
    from PIL import Image

    figure.text(0.025, 0.905, "a sound is heard ...", fontsize=11, color=SOFT)
    figure.text(
        0.153, 0.905, "... and these images are nearest, best first (framed: the same number)", fontsize=11, color=SOFT
    )
    order = np.argsort(-(scene.after["audio"][chosen] @ scene.after["image"].T), axis=1, kind="stable")
    for line, query in enumerate(chosen):
        axes = figure.add_subplot(grid[line, 0])
        axes.imshow(
            _spectrogram(scene.sounds[query]), aspect="auto", origin="lower", cmap="magma", interpolation="bilinear"
        )
        _bare(axes)
        axes.set_title(f"{scene.numbers[query]:03d} dialled", fontsize=9, loc="left", pad=2, color=COLOURS["audio"])
        for place, row in enumerate(order[line, :hits]):
            axes = figure.add_subplot(grid[line, place + 1])
            axes.imshow(
                np.asarray(Image.open(scene.images[row])), cmap="gray", vmin=0, vmax=255, interpolation="bicubic"
            )
            _bare(axes)
            right = row == query
            for spine in axes.spines.values():
                spine.set(visible=True, color=HIT if right else "#d5dae0", linewidth=3.2 if right else 0.8)


def _cosines(axes: Any, scene: Scene, embeddings: dict[str, Array], when: str) -> None:
    """Cosines of every sound with every image, numbers in order: a diagonal where the spaces agree."""
    order = np.argsort(scene.numbers)
    sounds, images = _together(embeddings["audio"][order], embeddings["image"][order])
    axes.imshow(sounds @ images.T, cmap="Blues", vmin=0.0, vmax=0.8, interpolation="nearest")
    _bare(axes)
    axes.set_title(f"cosines {when} the bridge", fontsize=10.5, loc="left")
    axes.set_xlabel("images, 000 to 999", fontsize=8.5, color=COLOURS["image"], labelpad=3)
    axes.set_ylabel("sounds, 000 to 999", fontsize=8.5, color=COLOURS["audio"], labelpad=3)


def _view(axes: Any, scene: Scene, embeddings: dict[str, Array], when: str, *, legend: bool) -> None:
    """Numbers of three hundreds, in the plane through the means of their images: where do the other modalities fall?"""
    names = list(embeddings)
    rows = dict(zip(names, _together(*(embeddings[name] for name in names)), strict=True))
    hundreds = scene.numbers // 100
    if not set(HUNDREDS) <= set(hundreds.tolist()):
        raise ValueError(f"the picture needs numbers of the hundreds {', '.join(map(str, HUNDREDS))}")
    plane, origin = _plane(np.stack([rows["image"][hundreds == digit].mean(axis=0) for digit in HUNDREDS]))
    for name in names:
        flat = (rows[name] - origin) @ plane
        for digit, colour in HUNDREDS.items():
            points = flat[hundreds == digit]
            axes.scatter(*points.T, s=26, marker=MARKERS[name], color=colour, alpha=0.75, linewidths=0)
            if name == "image" and len(points):
                where, way = points.mean(axis=0), points.mean(axis=0) / np.linalg.norm(points.mean(axis=0))
                axes.text(*(where + 0.3 * way), f"{digit}xx", color=colour, fontsize=12, fontweight="bold", ha="center")
        axes.scatter([], [], s=26, marker=MARKERS[name], color=SOFT, label=WORDS[name])
    gap = modality_gap(rows["audio"], rows["image"])
    axes.set_title(f"{when}: sound-image gap {gap:.2f}", fontsize=10.5, loc="left")
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.12)
    _bare(axes)
    if legend:
        axes.legend(loc="lower left", fontsize=8.5, frameon=False, handletextpad=0.1, borderpad=0.0)


def _together(*sides: Array) -> list[Array]:
    """Embeddings of several widths laid over one another: the narrow ones are filled up with zeros."""
    width = max(side.shape[1] for side in sides)
    return [np.pad(side, ((0, 0), (0, width - side.shape[1]))) for side in sides]


def _plane(means: Array) -> tuple[Array, Array]:
    """The plane through three means: (d, 2) orthonormal directions, and (d,) the middle of the three."""
    origin = means.mean(axis=0)
    _, _, directions = np.linalg.svd(means - origin, full_matrices=False)
    return directions[:2].T, origin


def _spectrogram(path: Path) -> NDArray[np.float64]:
    """Decibels of a 16-bit wav up to 1.8 kHz, (frequencies, frames)."""
    with wave.open(str(path), "rb") as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2") / 32768.0
    frames = np.lib.stride_tricks.sliding_window_view(samples, 256)[::64] * np.hanning(256)
    power = np.abs(np.fft.rfft(frames, axis=1)[:, 16:58]) ** 2
    decibels = 10 * np.log10(power.T + 1e-6)
    return np.asarray(decibels.clip(decibels.max() - 45))


def _bare(axes: Any) -> None:
    """Axes without ticks and frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
