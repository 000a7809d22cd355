"""Tables of boxes: true places of what sounds, or parts of pictures that a detector proposes.

A row a box. The corners stand in a list `box` (xmin, ymin, xmax, ymax) or in columns of these names; a column `unit`
says "fraction" of the upright picture's width and height, as without it, or "pixel" of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isthmus.core.table_files import read_table
from isthmus.errors import FormatError
from isthmus.evaluation.benchmarks.task import Box
from isthmus.items import Item, Rejected
from isthmus.items.decoding.image import open_image

CORNERS = ("xmin", "ymin", "xmax", "ymax")
UNITS = ("fraction", "pixel")

_FAR = 1e30
"""What no corner reaches, not even the -2.88e+16 that VGGSS has published; infinity and NaN are not below it."""


def check_box(values: Any, where: str) -> Box:
    """Four finite numbers, brought into the picture. A box may end without area; it then covers nothing.

    Raises:
        FormatError: It is something else.
    """
    numbers = list(values) if isinstance(values, list | tuple) else []
    if len(numbers) != 4 or not all(isinstance(v, int | float) and abs(v) < _FAR for v in numbers):
        raise FormatError(f"{where}: a box is {values!r}. Expected four numbers: xmin, ymin, xmax, ymax.")
    xmin, ymin, xmax, ymax = (min(max(float(v), 0.0), 1.0) for v in numbers)
    return xmin, ymin, xmax, ymax


def has_area(box: Box) -> bool:
    """Whether a box covers any of its picture."""
    return box[2] > box[0] and box[3] > box[1]


class BoxTable:
    """A table of boxes (.parquet, .csv, .tsv, .jsonl).

    Args:
        path: The file.
        names: Columns that it must have besides those of a box.

    Attributes:
        columns: By name, the values of each column.
        boxes: The four values of each row; None in a row without a box.

    Raises:
        FormatError: It cannot be read, holds no row, lacks a column, or a box is not four numbers.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        table = read_table(path)
        self.path = path
        self.columns: dict[str, list[Any]] = {name: table.column(name).to_pylist() for name in table.column_names}
        wanted = [*names, *(() if "box" in self.columns else CORNERS)]
        if lacking := [name for name in wanted if name not in self.columns]:
            raise FormatError(
                f"{path}: has no column {lacking[0]!r}. It has: {', '.join(self.columns)}. Expected "
                f"{', '.join(names)}, box (or {', '.join(CORNERS)}), and if there is unit."
            )
        if not table.num_rows:
            raise FormatError(f"{path}: holds no row. Expected a row a box.")
        rows = self.columns.get("box") or zip(*(self.columns[name] for name in CORNERS), strict=True)
        self.boxes = [self._corners(row, values) for row, values in enumerate(rows, 1)]
        self._units = self.columns.get("unit") or ["fraction"] * table.num_rows
        if unknown := [unit for unit in self._units if unit not in (*UNITS, None, "")]:
            raise FormatError(f"{path}: the column 'unit' holds {unknown[0]!r}. Expected {' or '.join(UNITS)}.")
        self._sizes: dict[str | None, tuple[int, int]] = {}

    def _corners(self, row: int, values: Any) -> tuple[float, float, float, float] | None:
        """Corners of a box in a row of a table, or None where it has none."""
        if values is None or (isinstance(values, tuple) and all(value in (None, "") for value in values)):
            return None
        try:
            xmin, ymin, xmax, ymax = (float(value) for value in values)
        except (TypeError, ValueError) as error:
            raise FormatError(
                f"{self.path}: row {row}: the box is {values!r}. Expected xmin, ymin, xmax, ymax."
            ) from error
        return xmin, ymin, xmax, ymax

    def numbers(self, name: str) -> list[float]:
        """A column of numbers.

        Raises:
            FormatError: It holds something else.
        """
        try:
            values = [float(value) for value in self.columns[name]]
        except (TypeError, ValueError):
            values = [math.nan]
        if not all(math.isfinite(value) for value in values):
            raise FormatError(f"{self.path}: the column {name!r} holds something else than finite numbers. Fill it in.")
        return values

    def box(self, row: int, picture: Item) -> Box:
        """The box of a row in fractions of its picture, clipped to it: detectors reach over its edge by a little.

        Args:
            row: Counted from 0.
            picture: Its picture, whose size is read where the box is in pixels.

        Raises:
            FormatError: There is none, or it lies outside the picture or covers nothing of it.
        """
        where, box = f"{self.path}: row {row + 1}", self.boxes[row]
        if box is None:
            raise FormatError(f"{where}: has no box. Expected xmin, ymin, xmax, ymax.")
        width, height = self._size(picture) if self._units[row] == "pixel" else (1, 1)
        xmin, ymin, xmax, ymax = box[0] / width, box[1] / height, box[2] / width, box[3] / height
        said = f"{where}: the box {', '.join(f'{value:g}' for value in box)}"
        if not all(-0.5 <= value <= 1.5 for value in (xmin, ymin, xmax, ymax)):
            raise FormatError(
                f"{said} lies outside the picture. Expected fractions of its width and height; boxes in pixels need a "
                "column unit that says pixel."
            )
        inside = check_box([xmin, ymin, xmax, ymax], where)
        if not has_area(inside):
            raise FormatError(
                f"{said} covers nothing of the picture. Expected two corners, xmin below xmax and ymin below ymax, not "
                "a corner with width and height."
            )
        return inside

    def _size(self, picture: Item) -> tuple[int, int]:
        """Width and height of a picture, for boxes in pixels."""
        if picture.path not in self._sizes:
            try:
                width, height = open_image(picture).size
            except Rejected as fault:
                raise FormatError(
                    f"{picture.place}: its size is needed for boxes in pixels, but it is rejected: {fault.reason}."
                ) from fault
            self._sizes[picture.path] = (width, height)
        return self._sizes[picture.path]
