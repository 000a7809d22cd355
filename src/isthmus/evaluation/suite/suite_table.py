"""A suite's report as lines of plain text: what was found, our rows, the published rows, what to know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isthmus.core.text_table import ROW_NAME, aligned, figure, interval

Report = Mapping[str, Any]

_PLAIN = {
    "raw": "raw cross-space",
    "mean_offset": "mean offset",
    "procrustes": "Procrustes",
    "ridge": "ridge",
    "cca": "CCA",
    "dictionary": "dictionary",
    "dictionary_two_sided": "dictionary, two-sided",
    "paired_ridge": "paired oracle, ridge",
    "paired_cca": "paired oracle, CCA",
}
NAMES = {**_PLAIN, **{f"{key}_centred": f"{name}, centred" for key, name in _PLAIN.items()}}
"""What the rows of `isthmus.evaluation.baselines` are called in a table."""


def format_suite(report: Report, *, width: int | None = None) -> str:
    """The whole report for a person, its table no wider than `width` characters."""
    return "\n".join([*_head(report), "", table(report, width=width), *_retained(report), *_foot(report)])


def table(report: Report, *, width: int | None = None) -> str:
    """Our rows above the published ones, columns aligned; rows without figures are told by `_foot`."""
    columns, metric = list(report["headline"]), report["metric"]
    first = columns[0]
    header = ["", *columns, f"{first} 95 %", "seconds"]
    ours = [_cells(row, columns, metric) for row in report["rows"] if "reason" not in row]
    theirs = [_published(row, columns) for row in report["published"]]
    lines = [header, *ours, *([["published", *[""] * (len(header) - 1)]] if theirs else []), *theirs]
    return "\n".join(aligned(lines, width=width, narrowest=ROW_NAME))


def figures_of(row: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    """The figures of a row in the direction that the benchmark is about."""
    figures: Mapping[str, Any] = row if metric == "mean" else row.get(metric, row)
    return figures


def _cells(row: Mapping[str, Any], columns: Sequence[str], metric: str) -> list[str]:
    """Cells of one row of a suite's table."""
    figures, several = figures_of(row, metric), len(row.get("seeds", ())) > 1
    spread = figures_of(row["std"], metric) if several else {}
    seconds = f"{row['seconds']:.2f}" if row.get("seconds") else ""
    return [
        NAMES.get(row["name"], row["name"]),
        *(figure(one, figures.get(one), spread.get(one), absent="-") for one in columns),
        interval(figures.get(f"{columns[0]}_ci95")),
        seconds,
    ]


def _published(row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """Cells of a published row of a suite's table."""
    source = f" ({row['source']})" if row["source"] else ""
    return [f"{row['model']}{source}", *(figure(one, row["figures"].get(one), absent="-") for one in columns), "", ""]


_COUNTS = {
    "n_query": "queries",
    "n_gallery": "gallery items",
    "n_pairs": "true pairs",
    "classes": "classes",
    "n_labels": "labels",
    "n_texts": "class texts",
    "n_samples": "samples",
}


def _head(report: Report) -> Iterator[str]:
    """Lines above a suite's table: what was read and what is missing."""
    counted = [f"{report[key]:,} {words}" for key, words in _COUNTS.items() if report.get(key)]
    yield f"{report['title']}, {report['task']}: {', '.join(counted)}"
    published = report["published_items"]
    parts = [f"{published:,} items published"] if published else []
    if report["missing"]:
        named = ", ".join(map(str, report["missing_examples"]))
        parts.append(f"{report['missing']:,} missing here (such as {named})")
    if parts:
        yield "; ".join(parts)
    if report["templates"]:
        used = report["templates"]
        yield f"Class texts: {used['count']} templates, {used['name']} of {used['source']}"
    if report["metric"] == "mean" and report["task"] == "retrieval":
        yield "Means of both directions."


def _retained(report: Report) -> Iterator[str]:
    """Lines that say what each space keeps of its own score."""
    for space, figures in (report.get("retention") or {}).items():
        name = next((one for one in report["headline"] if one in figures), None)
        if name is not None and figures[name]["ratio"] is not None:
            one = figures[name]
            yield f"{space} keeps {one['ratio']:.1%} of its own {name}: {one['before']:.3f}, then {one['after']:.3f}"


def reasons(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Reasons of a suite's table, each with the names of the rows that have no figures for it."""
    by_reason: dict[str, list[str]] = {}
    for row in rows:
        if "reason" in row:
            by_reason.setdefault(row["reason"], []).append(NAMES.get(row["name"], row["name"]))
    return by_reason


def _foot(report: Report) -> Iterator[str]:
    """Lines below a suite's table: reasons, rejected items, sources."""
    for reason, names in reasons(report["rows"]).items():
        yield f"No figures for {'; '.join(names)}: {reason}"
    for encoded in report.get("encoded", {}).values():
        if encoded["rejected"]:
            yield f"{encoded['rejected']:,} of {encoded['items']:,} items were rejected by {encoded['encoder']}"
    for row in report["published"]:
        if row["note"]:
            yield f"{row['model']}: {row['note']}"
    for note in report["notes"]:
        yield f"Note: {note}"
