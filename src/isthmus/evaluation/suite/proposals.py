"""Which parts of a picture a sound may come from: boxes of any detector, or windows that slide over the picture.

The papers do not say which detector proposed theirs, so boxes come as a table. A proposed part is encoded as an item
with a box: nothing is cut out on disk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from isthmus.errors import EvaluationError, FormatError
from isthmus.evaluation.benchmarks.readers.shared.box_tables import BoxTable
from isthmus.evaluation.benchmarks.task import Box, ItemSet, Localization
from isthmus.items import Item

SCALES = (1.0, 0.75, 0.5, 0.35)
"""Sides of the sliding windows, as shares of the picture's."""

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
        path: A table with a row a box: `image` (id of the picture; its file name serves too), the corners and if there
            is `unit` (see `isthmus.evaluation.benchmarks.readers.shared.box_tables`), and if there is `score`, higher
            is better.
        task: Whose pictures; boxes of others are passed over.
        most: Boxes a picture at most, those of the best score; None takes all.

    Returns:
        By picture, its boxes, best score first. Pictures without one are left out.

    Raises:
        FormatError: The table lacks a column, a box is not as said, or none is of a picture of the task.
    """
    path = Path(path)
    table = BoxTable(path, ("image",))
    scores = table.numbers("score") if "score" in table.columns else [0.0] * len(table.boxes)
    pictures = {item.id: item for item in task.image.items}
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(table.columns["image"]):
        known = str(name) if str(name) in pictures else Path(str(name)).stem
        if known in pictures:
            rows.setdefault(known, []).append(row)
    if not rows:
        some = next(iter(pictures), "no picture")
        raise FormatError(
            f"{path}: names no picture of the benchmark (image {table.columns['image'][0]!r}, expected ids like "
            f"{some!r})."
        )
    proposals: dict[str, Sequence[Box]] = {}
    for name, listed in rows.items():
        listed.sort(key=lambda row: -scores[row])
        proposals[name] = [table.box(row, pictures[name]) for row in listed][:most]
    return proposals


def crop_id(image: str, box: Box) -> str:
    """The id of a part of a picture; equal boxes of equal pictures have equal ids, whoever proposed them."""
    return "{}#{:.6g},{:.6g},{:.6g},{:.6g}".format(image, *box)


def crops(task: Localization, proposals: Proposals) -> ItemSet:
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
    return ItemSet(task.image.modality, list(items.values()))
