"""The small world as files: PNG, WAV, PLY and TXT, and the tables that say which belong together.

The memory's files are numbered as they were drawn, each modality on its own, so that no two names tell of one number.
The test's files are called by their number, so that a hit can be read off its name; no encoder sees a name.
"""

from __future__ import annotations

import csv
import wave
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isthmus.core.runtime import numpy_generator
from isthmus.demo import world

MEMORY: Final = {"image": 1100, "audio": 1100, "point_cloud": 1100, "text": 1540}
"""Items of each unpaired memory, numbers drawn at random from the 220 of the split, each modality by itself."""

SUFFIXES: Final = {"image": ".png", "audio": ".wav", "point_cloud": ".ply"}
TASKS: Final = (("audio", "image"), ("point_cloud", "audio"), ("point_cloud", "text"))
"""What the demo asks: query and gallery."""

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Drawn:
    """Part of the demo's world as it was written to disk.

    Attributes:
        folder: Where the files lie: a folder a modality, and `texts.txt`.
        numbers: By modality, the number that each item shows.
        ids: By modality, the ids that encoding gives the items.
    """

    folder: Path
    numbers: Mapping[str, Numbers]
    ids: Mapping[str, list[str]]

    def source(self, modality: str) -> Path:
        """Raw files or texts of a modality, to be encoded."""
        return self.folder / ("texts.txt" if modality == "text" else modality)


def write_memory(folder: Path, *, seed: int, sizes: Mapping[str, int] = MEMORY) -> Drawn:
    """Draw the unpaired memories: every modality picks its own numbers, so that nothing pairs them but chance."""
    split = world.SPLITS["memory"]
    numbers = {
        modality: numpy_generator(seed, 1, place).choice(split.numbers, size=size)
        for place, (modality, size) in enumerate(sizes.items())
    }
    names = {modality: [f"{row:04d}" for row in range(len(chosen))] for modality, chosen in numbers.items()}
    return _write(folder, split, numbers, names, seed=seed)


def write_test(folder: Path, *, seed: int, count: int | None = None) -> Drawn:
    """Draw the evaluation: one image, sound, point cloud and text of each of `count` numbers that nothing has seen."""
    split = world.SPLITS["test"]
    every = len(split.numbers) / (count or len(split.numbers))
    chosen = np.array([split.numbers[int(place * every)] for place in range(count or len(split.numbers))])
    numbers = dict.fromkeys(MEMORY, chosen)
    names = {modality: [f"{number:03d}" for number in chosen] for modality in MEMORY}
    return _write(folder, split, numbers, names, seed=seed + 1_000_000)


def _write(
    folder: Path, split: world.Split, numbers: Mapping[str, Numbers], names: Mapping[str, Sequence[str]], *, seed: int
) -> Drawn:
    """Write the raw files of one split of the demo's world."""
    ids = {}
    for place, (modality, chosen) in enumerate(numbers.items()):
        rng = numpy_generator(seed, 2, place)
        if modality == "text":
            folder.mkdir(parents=True, exist_ok=True)
            lines = "".join(world.say(int(number), rng) + "\n" for number in chosen)
            (folder / "texts.txt").write_text(lines, encoding="utf-8")
            ids[modality] = [f"texts.txt:{line}" for line in range(1, len(chosen) + 1)]
            continue
        files = [name + SUFFIXES[modality] for name in names[modality]]
        write_items(folder / modality, modality, files, chosen, split, rng)
        ids[modality] = files
    return Drawn(folder, dict(numbers), ids)


def write_items(
    folder: Path, modality: str, files: Sequence[str], numbers: Numbers, split: world.Split, rng: np.random.Generator
) -> None:
    """Draw one item a number and write each to its file."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / file for file in files]
    if modality == "image":
        for path, pixels in zip(paths, world.draw_images(numbers, split.image_writers, rng), strict=True):
            write_png(path, pixels)
    elif modality == "audio":
        for path, number in zip(paths, numbers, strict=True):
            write_wav(path, world.dial(int(number), rng))
    else:
        for path, points in zip(paths, world.draw_clouds(numbers, split.cloud_writers, rng), strict=True):
            write_ply(path, points)


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write (height, width) grey bytes."""
    from PIL import Image

    Image.fromarray(pixels).save(path)


def write_wav(path: Path, samples: world.Floats) -> None:
    """Write (samples,) in [-1, 1] as 16-bit mono."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(world.RATE)
        file.writeframes(np.asarray(np.rint(samples * 32767), dtype="<i2").tobytes())


def write_ply(path: Path, points: world.Floats) -> None:
    """Write (n, 3) points as binary PLY."""
    axes = "".join(f"property float {axis}\n" for axis in "xyz")
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{axes}end_header\n"
    path.write_bytes(header.encode("ascii") + np.asarray(points, dtype="<f4").tobytes())


def write_pairs(path: Path, drawn: Drawn, query: str, gallery: str, *, each: int | None = None) -> int:
    """Write which items of two modalities show one number, as `query_id,gallery_id`; returns the number of rows.

    Args:
        path: The CSV file.
        drawn: The items.
        query: Modality of the first column.
        gallery: Modality of the second column.
        each: Most pairs of one query; None is all.
    """
    rows = pair_rows(drawn.numbers[query], drawn.numbers[gallery], each=each)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["query_id", "gallery_id"])
        writer.writerows((drawn.ids[query][q], drawn.ids[gallery][g]) for q, g in rows)
    return len(rows)


def pair_rows(first: Iterable[int], second: Numbers, *, each: int | None = None) -> list[tuple[int, int]]:
    """Rows of two lists of numbers that show the same number."""
    return [(i, int(j)) for i, number in enumerate(first) for j in np.flatnonzero(second == number)[:each]]
