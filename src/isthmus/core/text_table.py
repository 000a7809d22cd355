"""Tables of plain text: columns aligned, numbers to the right, words to the left, no wider than the terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Sequence
from typing import Any

from isthmus.core.terminal import one_cell

GAP, NARROWEST, INDENT = 2, 12, 6
"""Blanks between columns, characters that a cut column of words keeps at least, and blanks before a note."""
ROW_NAME = 32
"""The same where the words are names of rows, which are told apart by their ends."""


def aligned(
    lines: Sequence[Sequence[str]],
    *,
    left: Collection[int] = (0,),
    width: int | None = None,
    narrowest: int = NARROWEST,
    notes: Sequence[str | None] = (),
) -> list[str]:
    """Lay out cells in columns, two blanks apart.

    Args:
        lines: Rows of cells. A row shorter than the first one is a label and a sentence, which takes no part in the
            widths but for the label's.
        left: Columns whose cells begin at one place; the others end at one place.
        width: Most characters of a line. Where a table is wider, the widest columns of words are cut, and if that is
            not enough the columns stand in several blocks, each with the first column; None lets lines be as long as
            they are.
        narrowest: Characters that a cut column of words keeps at least; more where words are names of rows.
        notes: By row, a sentence for the lines below it.
    """
    count = len(lines[0]) if lines else 0
    widths = [max(len(line[i]) for line in lines if i == 0 or len(line) == count) for i in range(count)]
    if width is not None:
        widths = _cut_widths(widths, left, width, narrowest)
    out: list[str] = []
    for number, block in enumerate(_blocks(widths, width)):
        out += [""] if number else []
        for line, note in zip(lines, [*notes, *[None] * (len(lines) - len(notes))], strict=True):
            # A sentence, and what is noted of a row, stand in the first block alone.
            out += _line(line, block, widths, left, width) if len(line) == count or not number else []
            out += _wrapped(" " * INDENT, note, width) if note and not number else []
    return out


def _cut_widths(widths: Sequence[int], left: Collection[int], width: int, narrowest: int) -> list[int]:
    """Widths of columns that fit a line, the widest columns of words cut first, none of them below `narrowest`."""
    out = list(widths)
    while sum(out) + GAP * (len(out) - 1) > width:
        wide = [i for i in range(len(out)) if i in left and out[i] > narrowest]
        if not wide:
            break
        out[max(wide, key=lambda i: out[i])] -= 1
    return out


def _blocks(widths: Sequence[int], width: int | None) -> list[list[int]]:
    """Columns that stand side by side: all, or as many as a line holds, the first one always among them."""
    blocks: list[list[int]] = [[0]] if widths else [[]]
    for i in range(1, len(widths)):
        used = sum(widths[j] + GAP for j in blocks[-1])
        if width is not None and used + widths[i] > width and len(blocks[-1]) > 1:
            blocks.append([0])
        blocks[-1].append(i)
    return blocks


def _line(
    line: Sequence[str], block: Sequence[int], widths: Sequence[int], left: Collection[int], width: int | None
) -> list[str]:
    """Lines of a text table for one row, wrapped where it has only a note."""
    if len(line) < len(widths):
        return _wrapped(line[0].ljust(widths[0]) + " " * GAP, "  ".join(line[1:]), width)
    cells = [(cut(line[i], widths[i]), widths[i], i in left) for i in block]
    return ["  ".join(cell.ljust(size) if words else cell.rjust(size) for cell, size, words in cells).rstrip()]


def _wrapped(start: str, sentence: str, width: int | None) -> list[str]:
    """A sentence after some text, its further lines below its first one."""
    if width is None or len(start) + len(sentence) <= width:
        return [(start + sentence).rstrip()]
    room = max(width - len(start), NARROWEST)
    lines = textwrap.wrap(sentence, room, break_on_hyphens=False) or [""]
    return [(start + lines[0]).rstrip(), *(" " * len(start) + line for line in lines[1:])]


def cut(cell: str, width: int) -> str:
    """A cell of at most some characters; of a path its end is kept, of all else its beginning."""
    if len(cell) <= width:
        return cell
    if not cell.strip("-"):  # the line below a header
        return cell[:width]
    if "/" in cell and " " not in cell:
        return "…" + cell[len(cell) - width + 1 :]
    return cell[: width - 1] + "…"


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


def value_table(
    header: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    width: int | None = None,
    notes: Sequence[str | None] = (),
) -> str:
    """Lay out rows of values under a header and a line; columns of numbers end at one place.

    Args:
        header: Names of the columns.
        rows: Values.
        width: Most characters of a line (see `aligned`).
        notes: By row, a sentence for the lines below it.
    """
    words = [
        i
        for i in range(len(header))
        if not rows or not all(isinstance(row[i], (int, float)) or row[i] is None for row in rows)
    ]
    cells = [list(header), *([one_cell(show(value)) for value in row] for row in rows)]
    rule = ["-" * max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [cells[0], rule, *cells[1:]]
    return "\n".join(aligned(lines, left=words, width=width, notes=[None, None, *notes]))


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
