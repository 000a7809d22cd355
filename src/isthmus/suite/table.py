"""A suite's report as lines of plain text: what was found, our rows, the published rows, what to know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Report = Mapping[str, Any]


def format_suite(report: Report) -> str:
    """The whole report for a person."""
    return "\n".join([*_head(report), "", table(report), *_retained(report), *_foot(report)])


def table(report: Report) -> str:
    """Our rows above the published ones, columns aligned; a row without figures gives its reason."""
    columns, metric = list(report["headline"]), report["metric"]
    first = columns[0]
    header = ["", *columns, f"{first} 95 %", "seconds"]
    ours = [_cells(row, columns, metric) for row in report["rows"]]
    theirs = [_published(row, columns) for row in report["published"]]
    lines = [header, *ours, *([["published", *[""] * (len(header) - 1)]] if theirs else []), *theirs]
    widths = [max(len(line[i]) for line in lines if len(line) == len(header) or i == 0) for i in range(len(header))]
    return "\n".join(_aligned(line, widths) for line in lines)


def figures_of(row: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    """The figures of a row in the direction that the benchmark is about."""
    found: Mapping[str, Any] = row if metric == "mean" else row.get(metric, row)
    return found


def _cells(row: Mapping[str, Any], columns: Sequence[str], metric: str) -> list[str]:
    if "reason" in row:
        return [row["name"], row["reason"]]
    figures, several = figures_of(row, metric), len(row.get("seeds", ())) > 1
    spread = row["std"] if several and metric == "mean" else {}
    ends = figures.get(f"{columns[0]}_ci95")
    interval = f"{ends[0]:.3f} - {ends[1]:.3f}" if ends else ""
    seconds = f"{row['seconds']:.2f}" if row.get("seconds") else ""
    return [row["name"], *(_number(one, figures.get(one), spread.get(one)) for one in columns), interval, seconds]


def _published(row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    source = f" ({row['source']})" if row["source"] else ""
    return [f"{row['model']}{source}", *(_number(one, row["figures"].get(one)) for one in columns), "", ""]


def _number(name: str, value: float | None, spread: float | None = None) -> str:
    if value is None:
        return "-"
    text = f"{value:.1f}" if name.startswith("median") else f"{value:.3f}"
    return text if spread is None else f"{text} ± {spread:.3f}"


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    first = f"{line[0]:<{widths[0]}}"
    if len(line) == 2 < len(widths):
        return f"{first}  {line[1]}"
    return "  ".join([first, *(f"{cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))]).rstrip()


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
    counted = [f"{report[key]:,} {words}" for key, words in _COUNTS.items() if report.get(key)]
    yield f"{report['title']}, {report['task']}: {', '.join(counted)}"
    published = report["published_items"]
    found = [f"{published:,} items published"] if published else []
    if report["missing"]:
        named = ", ".join(map(str, report["missing_examples"]))
        found.append(f"{report['missing']:,} missing here (such as {named})")
    if found:
        yield "; ".join(found)
    if report["templates"]:
        used = report["templates"]
        yield f"Class texts: {used['count']} templates, {used['name']} of {used['source']}"
    if report["metric"] == "mean" and report["task"] == "retrieval":
        yield "Means of both directions."


def _retained(report: Report) -> Iterator[str]:
    for space, figures in (report.get("retention") or {}).items():
        figure = next((one for one in report["headline"] if one in figures), None)
        if figure is not None and figures[figure]["ratio"] is not None:
            one = figures[figure]
            yield f"{space} keeps {one['ratio']:.1%} of its own {figure}: {one['before']:.3f}, then {one['after']:.3f}"


def _foot(report: Report) -> Iterator[str]:
    for encoded in report.get("encoded", {}).values():
        if encoded["rejected"]:
            yield f"{encoded['rejected']:,} of {encoded['items']:,} items were rejected by {encoded['encoder']}"
    for row in report["published"]:
        if row["note"]:
            yield f"{row['model']}: {row['note']}"
    for note in report["notes"]:
        yield f"Note: {note}"
