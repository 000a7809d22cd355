"""Tables of plain text: columns aligned, numbers to the right, words to the left."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from isthmus.core.terminal import one_cell


def aligned(lines: Sequence[Sequence[str]], *, left: Collection[int] = (0,)) -> list[str]:
    """Lay out cells in columns, two blanks apart.

    Args:
        lines: Rows of cells. A row shorter than the first one is a label and a sentence, which takes no part in the
            widths but for the label's.
        left: Columns whose cells begin at one place; the others end at one place.
    """
    count = len(lines[0]) if lines else 0
    widths = [max(len(line[i]) for line in lines if i == 0 or len(line) == count) for i in range(count)]
    return ["  ".join(_padded(line, widths, left)).rstrip() for line in lines]


def _padded(line: Sequence[str], widths: Sequence[int], left: Collection[int]) -> list[str]:
    if len(line) < len(widths):
        return [line[0].ljust(widths[0]), *line[1:]]
    return [
        cell.ljust(width) if i in left else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]


def show(value: Any) -> str:
    """Write one value of a table: counts with separators, fractions with four significant digits."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "-"
    return str(value)


def value_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Lay out rows of values under a header and a line; columns of numbers end at one place."""
    words = [
        i
        for i in range(len(header))
        if not rows or not all(isinstance(row[i], (int, float)) or row[i] is None for row in rows)
    ]
    cells = [list(header), *([one_cell(show(value)) for value in row] for row in rows)]
    rule = ["-" * max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(aligned([cells[0], rule, *cells[1:]], left=words))


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown writes it, ended by a line break."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def interval(ends: Sequence[float] | None) -> str:
    """The two ends of an interval, or nothing."""
    return f"{ends[0]:.3f} - {ends[1]:.3f}" if ends else ""


def figure(name: str, value: float | None, spread: float | None = None, *, absent: str = "") -> str:
    """A figure with its deviation: medians are ranks and get one digit, all others are fractions and get three."""
    if value is None:
        return absent
    text = f"{value:.1f}" if name.startswith("median") else f"{value:.3f}"
    return text if spread is None else f"{text} ± {spread:.3f}"
