"""An evaluation as an aligned table of plain text: the bridge, the baselines and chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.core.text_table import ROW_NAME, aligned, figure, interval

_WAYS = {"query_to_gallery": "q>g", "gallery_to_query": "g>q"}
_FIGURES = ("r@", "accuracy@", "map", "median")


def format_table(result: Mapping[str, Any], *, name: str = "bridge", width: int | None = None) -> str:
    """Write an evaluation as a table.

    Args:
        result: What `evaluate_bridge` or a result's `to_dict` gave.
        name: What to call the first row.
        width: Most characters of a line; None is as many as it takes.

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
    return "\n".join(aligned(lines, width=width, narrowest=ROW_NAME))


def _cells(label: str, row: Mapping[str, Any], columns: Sequence[str], *, wide: bool) -> list[str]:
    """Cells of one row of an evaluation's table."""
    if "reason" in row:
        return [label, row["reason"]]
    figures = row.get("mean", row)
    cells = [label, *(figure(column, figures.get(column)) for column in columns)]
    cells.append(interval(figures.get(f"{columns[0]}_ci95")))
    if wide:
        cells += [figure(columns[0], row.get(way, {}).get(columns[0])) for way in _WAYS]
    return [*cells, f"{row['seconds']:.2f}" if row.get("seconds") else ""]
