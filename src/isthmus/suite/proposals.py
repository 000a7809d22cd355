"""Which parts of a picture a sound may come from: boxes of any detector, or windows that slide over the picture.

The papers do not say which detector proposed theirs, so boxes come as a table. A proposed part is encoded as an item
with a box: nothing is cut out on disk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isthmus.benchmarks.task import Box, Localization, Side
from isthmus.decoding.image import open_image
from isthmus.errors import EvaluationError, FormatError
from isthmus.files import read_table
from isthmus.items import Item, Rejected

if TYPE_CHECKING:
    import pyarrow as pa

SCALES = (1.0, 0.75, 0.5, 0.35)
"""Sides of the sliding windows, as shares of the picture's."""

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_UNITS = ("fraction", "pixel")

Proposals = Mapping[str, Sequence[Box]]
"""By picture, boxes as fractions, best first."""


def sliding_windows(scales: Sequence[float] = SCALES) -> list[Box]:
    """Boxes of the picture's own shape that slide over it, half a side at most from one to the next.

    Args:
        scales: Sides, as shares of the picture's, each above 0 and at most 1.

    Raises:
        EvaluationError: A scale is out of range.
    """
    boxes: list[Box] = []
    for scale in scales:
        if not 0.0 < scale <= 1.0:
            raise EvaluationError(f"a window of {scale} of the picture's side. Expected scales above 0 and at most 1.")
        steps = math.ceil((1.0 - scale) / (scale / 2) - 1e-9)
        starts = [(1.0 - scale) * i / max(steps, 1) for i in range(steps + 1)]
        spans = [*((start, start + scale) for start in starts[:-1]), (starts[-1], 1.0)]
        boxes += [(left, top, right, low) for top, low in spans for left, right in spans]
    return boxes


def windows_of(task: Localization, scales: Sequence[float] = SCALES) -> dict[str, Sequence[Box]]:
    """The same sliding windows for every picture of a task."""
    windows = sliding_windows(scales)
    return dict.fromkeys(task.image.ids, windows)


def read_proposals(path: str | Path, task: Localization, *, most: int | None = None) -> dict[str, Sequence[Box]]:
    """Boxes that a detector proposed.

    Args:
        path: A table (.parquet, .csv, .tsv, .jsonl) with a row a box: `image` (id of the picture, a file name with its
            suffix serves too), the corners in a list `box` or in `xmin`, `ymin`, `xmax`, `ymax`, and if there are
            `score` (higher is better) and `unit`: "fraction" of the upright picture's width and height, as without
            it, or "pixel" of it.
        task: Whose pictures; boxes of others are passed over.
        most: Boxes a picture at most, those of the best score; None takes all.

    Returns:
        By picture, its boxes, best score first. Pictures without one are left out.

    Raises:
        FormatError: The table lacks a column, a box is not as said, or none is of a picture of the task.
    """
    path = Path(path)
    table = read_table(path)
    names = _names(table, path)
    corners, pixels = _corners(table, path), _in_pixels(table, path)
    scores = _floats(table, "score", path) if "score" in table.column_names else np.zeros(len(names))
    pictures = {item.id: item for item in task.image.items}
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        known = name if name in pictures else Path(name).stem
        if known in pictures:
            rows.setdefault(known, []).append(row)
    if not rows:
        some = next(iter(pictures), "no picture")
        raise FormatError(
            f"{path}: names no picture of the benchmark (image {names[0]!r}, expected ids like {some!r})."
        )
    found: dict[str, Sequence[Box]] = {}
    for name, listed in rows.items():
        listed.sort(key=lambda row: -scores[row])
        width, height = _picture_size(pictures[name]) if pixels[listed].any() else (1, 1)
        scale = np.where(pixels[listed][:, None], np.array([width, height, width, height], dtype=float), 1.0)
        boxes = [
            _checked(box, f"{path}: row {row + 1}") for row, box in zip(listed, corners[listed] / scale, strict=True)
        ]
        found[name] = boxes[:most]
    return found


def _names(table: pa.Table, path: Path) -> list[str]:
    if "image" not in table.column_names:
        raise FormatError(
            f"{path}: has no column 'image'. It has: {', '.join(table.column_names)}. Expected image, box (or xmin, "
            "ymin, xmax, ymax), and if there are score and unit."
        )
    names = [str(name) for name in table.column("image").to_pylist()]
    if not names:
        raise FormatError(f"{path}: holds no proposal. Expected a row a box.")
    return names


def _corners(table: pa.Table, path: Path) -> NDArray[np.float64]:
    """(rows, 4) corners, from the column of lists or the four columns."""
    if "box" in table.column_names:
        boxes = table.column("box").to_pylist()
        for row, box in enumerate(boxes, 1):
            if not isinstance(box, list) or len(box) != 4 or None in box:
                raise FormatError(f"{path}: row {row}: the box is {box!r}. Expected xmin, ymin, xmax, ymax.")
        return np.array(boxes, dtype=np.float64)
    if lacking := [name for name in _CORNERS if name not in table.column_names]:
        raise FormatError(
            f"{path}: has no column {lacking[0]!r}. It has: {', '.join(table.column_names)}. Expected box, or "
            f"{', '.join(_CORNERS)}."
        )
    return np.stack([_floats(table, name, path) for name in _CORNERS], axis=1)


def _floats(table: pa.Table, name: str, path: Path) -> NDArray[np.float64]:
    try:
        return np.array([float(value) for value in table.column(name).to_pylist()])
    except (TypeError, ValueError) as error:
        raise FormatError(f"{path}: the column {name!r} holds something else than numbers ({error}).") from error


def _in_pixels(table: pa.Table, path: Path) -> NDArray[np.bool_]:
    if "unit" not in table.column_names:
        return np.zeros(table.num_rows, dtype=bool)
    units = table.column("unit").to_pylist()
    if unknown := [unit for unit in units if unit not in _UNITS]:
        raise FormatError(f"{path}: the column 'unit' holds {unknown[0]!r}. Expected {' or '.join(_UNITS)}.")
    return np.array([unit == "pixel" for unit in units])


def _picture_size(item: Item) -> tuple[int, int]:
    try:
        width, height = open_image(item).size
    except Rejected as fault:
        raise FormatError(f"{item.place}: its size is needed for boxes in pixels, but it {fault.reason}.") from fault
    return width, height


def _checked(box: NDArray[np.float64], where: str) -> Box:
    """A box with an area, clipped to the picture; detectors reach over its edge by a little."""
    xmin, ymin, xmax, ymax = (float(value) for value in box)
    inside = (max(xmin, 0.0), max(ymin, 0.0), min(xmax, 1.0), min(ymax, 1.0))
    if not all(-0.5 <= value <= 1.5 for value in box):
        raise FormatError(
            f"{where}: the box {xmin:g}, {ymin:g}, {xmax:g}, {ymax:g} lies outside the picture. Expected fractions of "
            "its width and height; boxes in pixels need a column unit that says pixel."
        )
    if not (inside[0] < inside[2] and inside[1] < inside[3]):
        raise FormatError(
            f"{where}: the box {xmin:g}, {ymin:g}, {xmax:g}, {ymax:g} covers nothing of the picture. Expected two "
            "corners, xmin below xmax and ymin below ymax, not a corner with width and height."
        )
    return inside


def crop_id(image: str, box: Box) -> str:
    """The id of a part of a picture; equal boxes of equal pictures have equal ids, whoever proposed them."""
    return "{}#{:.6g},{:.6g},{:.6g},{:.6g}".format(image, *box)


def crops(task: Localization, proposals: Proposals) -> Side:
    """The proposed parts of a task's pictures, ready to encode; no file is written.

    Raises:
        EvaluationError: The pictures of the task are embeddings, which cannot be cut.
    """
    if task.image.embeddings is not None:
        raise EvaluationError(
            "the pictures are embeddings and cannot be cut into proposals. Expected picture files: localization needs "
            "a reader that gives items."
        )
    items: dict[str, Item] = {}
    for item in task.image.items:
        for box in proposals.get(item.id, ()):
            name = crop_id(item.id, box)
            items.setdefault(name, Item(name, item.path, member=item.member, box=box))
    return Side(task.image.modality, list(items.values()))
