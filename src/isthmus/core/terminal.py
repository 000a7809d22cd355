"""Text for a terminal: what comes from files (ids, names, paths) must not move its cursor or change its title."""

from __future__ import annotations

import re
import shutil
import textwrap

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and newline, marks that turn the direction of text, and halves of characters."""


def printable(text: str) -> str:
    r"""The text with every control character as an escape that can be read, such as `\x1b`; lines stay lines."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def one_cell(text: str) -> str:
    r"""`printable` for a cell of a table or a message of one line: line breaks and tabs are escapes too."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


NARROWEST, WIDEST = 40, 200


def line_width() -> int:
    """Characters of a line: `COLUMNS`, or the terminal's, or 80 where there is none; at least 40, at most 200."""
    return min(max(shutil.get_terminal_size((80, 24)).columns, NARROWEST), WIDEST)


_COMMAND = re.compile(r"\s*(?:\S*/)?isthmus\s")
_ARGUMENT = re.compile(r"(?:'[^']*'|\"[^\"]*\"|\S)+")


def fold(text: str, width: int) -> str:
    r"""The text with lines of at most some characters, the rest of a line further in below it.

    Words are never broken, so that a path can be copied; a command to copy is broken by a `\` as a shell reads it.
    """
    return "\n".join(part for line in text.split("\n") for part in _folded(line, width))


def _folded(line: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    start = line[: len(line) - len(line.lstrip())]
    if not _COMMAND.match(line):
        further = start + "  "
        return textwrap.wrap(
            line, width, initial_indent="", subsequent_indent=further, break_long_words=False, break_on_hyphens=False
        )
    lines, now = [], start
    for argument in _ARGUMENT.findall(line):
        if now.strip() and len(now) + len(argument) + len("  \\") > width:
            lines.append(now + " \\")
            now = start + "  "
        now += (" " if now.strip() else "") + argument
    return [*lines, now]
