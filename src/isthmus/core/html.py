"""Objects as a notebook shows them: small tables, every word of a file escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

MOST_ROWS = 50


def html_table(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]], *, note: str = "") -> str:
    """A titled table; numbers stand to the right, and what is left out beyond `MOST_ROWS` rows is counted."""
    shown = list(rows)
    rest = len(shown) - MOST_ROWS
    head = "".join(f"<th style='text-align:left'>{escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in shown[:MOST_ROWS])
    notes = [note] if note else []
    notes += [f"and {rest:,} more rows"] if rest > 0 else []
    foot = "".join(f"<div><small>{escape(each)}</small></div>" for each in notes)
    return f"<div><b>{escape(title)}</b></div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{foot}"


def _cell(value: Any) -> str:
    """Cell of an HTML table, numbers to the right."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"<td style='text-align:left'>{escape('' if value is None else str(value))}</td>"
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
    return f"<td style='text-align:right'>{text}</td>"
