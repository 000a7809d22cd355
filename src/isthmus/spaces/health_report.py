"""What `inspect` found: a report a space, and what two share, as an object and as plain text."""

from __future__ import annotations

import textwrap
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


_OF_OVERLAP = ("shared", "share_of_first", "share_of_second", "agreement", "agreement_chance", "jaccard")
_AGREEMENT = (
    "agreement: of an item's {k} nearest shared items, the share that is among its {k} nearest in the other space; "
    "{chance:.2%} by chance. Texts of two good encoders have 20 to 65 %, images of a strong and a weak one about 4 %; "
    "with half of the ids wrong it falls to half. It says whether ids mean the same, and is no score of a join."
)


def format_report(report: Mapping[str, Any], *, width: int | None = None) -> str:
    """A report of `inspect` as plain text: a table of each space, its gaps, the overlap, and the warnings.

    Args:
        report: The report.
        width: Most characters of a line; None leaves lines as long as they are.
    """
    lines: list[str] = []
    for one in filter(None, (report, report.get("other"))):
        lines += [f"space {one['space']}, dim {one['dim']}, {one['rows']:,} rows ({one['path']})", ""]
        lines += [*_table("modality", one["modalities"], _COLUMNS, width), ""]
        lines += [f"modality gap {pair}: {gap:.4f}" for pair, gap in one["gaps"].items()] + [""] * bool(one["gaps"])
    if shared := report.get("overlap"):
        lines += [f"shared by {report['space']} and {report['other']['space']}", ""]
        lines += [*_table("modality", shared, _OF_OVERLAP, width), ""]
        if measured := [entry for entry in shared.values() if "agreement" in entry]:
            words = _AGREEMENT.format(k=measured[0]["k"], chance=measured[0]["agreement_chance"])
            lines += [*_sentence(words, width), ""]
    warnings = [f"warning: {text}" for text in report["warnings"]] or ["no warnings"]
    return "\n".join([*lines, *(line for text in warnings for line in _sentence(text, width))])


def _sentence(text: str, width: int | None) -> list[str]:
    """A sentence of the report, wrapped to the terminal."""
    return [text] if width is None else textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)


def _table(head: str, entries: Mapping[str, Mapping[str, Any]], columns: Sequence[str], width: int | None) -> list[str]:
    """Table of the report, a line an entry."""
    rows = [[name, *(show(entry.get(column)) for column in columns)] for name, entry in entries.items()]
    return aligned([[head, *(column.replace("_", " ") for column in columns)], *rows], width=width)
