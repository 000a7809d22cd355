"""What `inspect` found: a report a space, and what two share, as an object and as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from isthmus.core.result import OPTIONAL, Result
from isthmus.core.text_table import aligned, show


@dataclass(frozen=True)
class HealthReport(Result):
    """The health of a space, and with a second one what the two share.

    Attributes:
        space: Name of the space.
        path: Its folder.
        dim: Length of an embedding.
        rows: Rows of all modalities.
        normalized: Whether all rows are of unit length.
        modalities: By name: rows, dtype, mean_norm, effective_rank, duplicates and so on.
        gaps: By pair of modalities, the norm of the difference of their centroids.
        warnings: What is worth a look, in plain sentences; those of both spaces.
        seconds: Time that it took.
        other: The report of the second space, without warnings.
        overlap: By modality, what the two share: counts, and how far neighbours agree.
    """

    space: str
    path: str
    dim: int
    rows: int
    normalized: bool
    modalities: Mapping[str, Mapping[str, Any]]
    gaps: Mapping[str, float]
    warnings: list[str]
    seconds: float
    other: Mapping[str, Any] | None = field(default=None, metadata=OPTIONAL)
    overlap: Mapping[str, Mapping[str, Any]] | None = field(default=None, metadata=OPTIONAL)

    def __str__(self) -> str:
        return format_report(self)


_COLUMNS = (
    "rows",
    "dim",
    "dtype",
    "mean_norm",
    "min_norm",
    "max_norm",
    "mean_cosine",
    "effective_rank",
    "duplicates",
    "encoder",
)


def format_report(report: Mapping[str, Any]) -> str:
    """A report of `inspect` as plain text: a table of each space, its gaps, the overlap, and the warnings."""
    lines: list[str] = []
    for one in filter(None, (report, report.get("other"))):
        lines += [f"space {one['space']}, dim {one['dim']}, {one['rows']:,} rows ({one['path']})", ""]
        lines += [*_table("modality", one["modalities"], _COLUMNS), ""]
        lines += [f"modality gap {pair}: {gap:.4f}" for pair, gap in one["gaps"].items()] + [""] * bool(one["gaps"])
    if shared := report.get("overlap"):
        columns = tuple(dict.fromkeys(key for entry in shared.values() for key in entry))
        lines += [
            f"shared by {report['space']} and {report['other']['space']}",
            "",
            *_table("modality", shared, columns),
            "",
        ]
    lines += [f"warning: {text}" for text in report["warnings"]] or ["no warnings"]
    return "\n".join(lines)


def _table(head: str, entries: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    rows = [[name, *(show(entry.get(column)) for column in columns)] for name, entry in entries.items()]
    return aligned([[head, *columns], *rows])
