"""An evaluation as an aligned table of plain text: the bridge, the baselines and chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_WAYS = {"query_to_gallery": "q>g", "gallery_to_query": "g>q"}
_FIGURES = ("r@", "accuracy@", "map", "median")


def format_table(result: Mapping[str, Any], *, name: str = "bridge") -> str:
    """Write an evaluation as a table.

    Args:
        result: What `evaluate_bridge` or a result's `to_dict` gave.
        name: What to call the first row.

    Returns:
        Lines of plain text. Retrieval figures are means of both directions, and two more columns give the first figure
        of each direction; a baseline without figures shows its reason.
    """
    wide = "mean" in result
    columns = [key for key in result.get("mean", result) if key.startswith(_FIGURES) and not key.endswith("_ci95")]
    rows = [(name, result), *result.get("baselines", {}).items()]
    if "random" not in result.get("baselines", {}):
        rows.append(("random", result.get("chance", {})))
    ways = [f"{columns[0]} {way}" for way in _WAYS.values()] if wide else []
    header = ["", *columns, f"{columns[0]} 95 %", *ways, "seconds"]
    lines = [header, *(_cells(label, row, columns, wide=wide) for label, row in rows)]
    widths = [max(len(line[i]) for line in lines if len(line) == len(header) or i == 0) for i in range(len(header))]
    return "\n".join(_aligned(line, widths).rstrip() for line in lines)


def _cells(label: str, row: Mapping[str, Any], columns: Sequence[str], *, wide: bool) -> list[str]:
    if "reason" in row:
        return [label, row["reason"]]
    figures = row.get("mean", row)
    ends = figures.get(f"{columns[0]}_ci95")
    cells = [label, *(_number(column, figures.get(column)) for column in columns)]
    cells.append(f"{ends[0]:.3f} - {ends[1]:.3f}" if ends else "")
    if wide:
        cells += [_number(columns[0], row.get(way, {}).get(columns[0])) for way in _WAYS]
    return [*cells, f"{row['seconds']:.2f}" if row.get("seconds") else ""]


def _number(column: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if column.startswith("median") else f"{value:.3f}"


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    first = f"{line[0]:<{widths[0]}}"
    if len(line) == 2 < len(widths):
        return f"{first}  {line[1]}"
    return "  ".join([first, *(f"{cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))])
