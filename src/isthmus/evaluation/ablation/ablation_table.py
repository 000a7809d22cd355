"""The table of a grid: means and deviations over seeds, differences to the base row, and what the papers say."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isthmus.core.text_table import markdown_table

if TYPE_CHECKING:
    from isthmus.evaluation.ablation.expand import Row
    from isthmus.evaluation.ablation.grid import Claim, Grid

LOWER_IS_BETTER = ("median_rank",)
AGREES = {True: "yes", False: "no"}

Cells = Mapping[tuple[str, int], Mapping[str, Any]]
"""By a row's label and a seed, the cell; missing where it is not trained yet, with `fault` where it failed."""


def tabulate(grid: Grid, rows: Sequence[Row], cells: Cells) -> dict[str, Any]:
    """The table as plain values.

    Rows of one seed share their draws, so rows are compared seed by seed. A row is called better or worse than another
    where the mean of these differences is above two standard errors, and above the grid's tolerance; else the same. The
    standard error is that of the differences to the base row pooled over all trained rows, since two or three seeds of
    one row say little of their own deviation.

    Returns:
        `columns`; `noise` (by column, the pooled deviation of differences, None where one seed tells none) and
        `resolution` (by column, the least difference that counts); `rows` with `scores` by column (`mean`, `std`,
        `seeds`, `difference`, `verdict`) and, where the papers say something, `expect`, `verdict` and `agrees` ("yes",
        "no", "not shown", or None where it cannot be told); `claims` alike.
    """
    scored = _Scored(grid, rows, cells)
    return {
        "title": grid.title,
        "method": grid.method,
        "via": grid.via,
        "seeds": list(grid.seeds),
        "settings": grid.settings,
        "columns": list(grid.columns),
        "noise": scored.noise,
        "resolution": scored.resolution,
        "tolerance": grid.tolerance,
        "rows": [scored.line(row) | _facts(grid, row, cells) for row in rows],
        "claims": [scored.claim(claim) for claim in grid.claims],
    }


class _Scored:
    """Figures of all rows by seed, and what tells them apart."""

    def __init__(self, grid: Grid, rows: Sequence[Row], cells: Cells) -> None:
        self.columns, self.base = list(grid.columns), rows[0].label
        self.values = {row.label: {name: _seeds(grid, row, cells, name) for name in self.columns} for row in rows}
        base, trained = self.values[self.base], [self.values[row.label] for row in rows if row.trained]
        self.noise = {name: _pooled([_differences(row[name], base[name]) for row in trained]) for name in self.columns}
        self.resolution = {
            name: _resolution(noise, len(grid.seeds), grid.tolerance) for name, noise in self.noise.items()
        }

    def compare(self, label: str, other: str, column: str) -> tuple[float | None, str | None]:
        """Mean difference of a row to another, and what it is called."""
        return _compare(self.values[label][column], self.values[other][column], column, self.resolution[column])

    def line(self, row: Row) -> dict[str, Any]:
        """A row of the table."""
        scores = {}
        for name in self.columns:
            difference, verdict = self.compare(row.label, self.base, name)
            scores[name] = {**_summary(self.values[row.label][name]), "difference": difference, "verdict": verdict}
        row_facts = {"table": row.table, "name": row.name, "method": row.method, "via": row.via, "changes": row.changes}
        judged = _judged(row.expect, scores[row.on]["verdict"]) if row.expect else {}
        return {**row_facts, "scores": scores, "source": row.source, "on": row.on, **judged}

    def claim(self, claim: Claim) -> dict[str, Any]:
        """Outcome of a paper's claim in an ablation."""
        column = next((c for c in self.columns if claim.on in (c, c.rpartition(" ")[0])), self.columns[0])
        against = claim.against or self.base
        difference, verdict = self.compare(claim.row, against, column)
        claim_facts = {"says": claim.says, "row": claim.row, "against": against, "on": column, "source": claim.source}
        return {**claim_facts, "difference": difference, **_judged(claim.expect, verdict)}


def _seeds(grid: Grid, row: Row, cells: Cells, column: str) -> list[float | None]:
    """A column's figure of every seed of a row, None where there is none yet."""
    task, metric = grid.columns[column]
    seed_cells = [cells.get((row.label, seed)) for seed in grid.seeds]
    return [
        None if cell is None or "scores" not in cell else figure(cell["scores"][task], metric) for cell in seed_cells
    ]


def figure(report: Mapping[str, Any], metric: str) -> float:
    """Figure of a report of `evaluate_bridge`, such as "map" (of both directions) or "query_to_gallery/map"."""
    table, _, name = metric.rpartition("/")
    return float((report[table] if table else report.get("mean", report))[name])


def _summary(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean and deviation of a figure over seeds."""
    known = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(known) if known else None,
        "std": statistics.stdev(known) if len(known) > 1 else None,
        "seeds": list(values),
    }


def _differences(values: Sequence[float | None], others: Sequence[float | None]) -> list[float]:
    """Differences seed by seed, of the seeds that both have."""
    return [a - b for a, b in zip(values, others, strict=True) if a is not None and b is not None]


def _pooled(rows: Sequence[Sequence[float]]) -> float | None:
    """Deviation of differences over seeds, pooled over rows; the base row and those equal to it tell nothing."""
    samples = [row for row in rows if len(row) > 1 and any(row)]
    freedom = sum(len(row) - 1 for row in samples)
    return math.sqrt(sum(statistics.variance(row) * (len(row) - 1) for row in samples) / freedom) if freedom else None


def _resolution(noise: float | None, seeds: int, tolerance: float) -> float | None:
    """Smallest difference of two rows of an ablation that says anything, from the noise of seeds."""
    return None if noise is None else max(tolerance, 2.0 * noise / math.sqrt(seeds))


def _compare(
    values: Sequence[float | None], others: Sequence[float | None], column: str, resolution: float | None
) -> tuple[float | None, str | None]:
    """Mean difference over the seeds that both have, and what it is called."""
    by_seed = _differences(values, others)
    if not by_seed:
        return None, None
    difference = round(statistics.fmean(by_seed), 12) + 0.0  # never -0.0
    if resolution is None or len(by_seed) < len(values):
        return difference, None
    if abs(difference) <= resolution:
        return difference, "same"
    higher = difference > 0
    return difference, "better" if higher != column.endswith(LOWER_IS_BETTER) else "worse"


def _judged(expect: str, verdict: str | None) -> dict[str, Any]:
    """Whether a verdict is what the papers say; "not shown" where they say a difference and none is seen."""
    shown = "not shown" if verdict == "same" != expect else AGREES[verdict == expect]
    return {"expect": expect, "verdict": verdict, "agrees": shown if verdict else None}


def _facts(grid: Grid, row: Row, cells: Cells) -> dict[str, Any]:
    """What the training of a row came to, of its first cell, and the fault of one that failed."""
    seed_cells = [cell for seed in grid.seeds if (cell := cells.get((row.label, seed))) is not None]
    facts = {
        key: seed_cells[0].get(key) if seed_cells else None
        for key in ("pseudo_pairs", "steps", "batch_size", "parameters")
    }
    faults = [cell["fault"] for cell in seed_cells if "fault" in cell]
    return {**facts, **({"fault": faults[0]} if faults else {})}


def to_markdown(report: Mapping[str, Any]) -> str:
    """The table for a page: a row a line, then the claims, then what counts as a difference."""
    columns = report["columns"]
    expectations = any("expect" in row for row in report["rows"])
    head = ["what", "changed to", *(part for name in columns for part in (name, "against the base"))]
    lines = []
    for row in report["rows"]:
        line = [row["table"] or "-", row["name"]]
        for name in columns:
            line += [_mean(row["scores"][name]), _signed(row["scores"][name]["difference"])]
        lines.append(line + ([row.get("expect") or "", row.get("agrees") or ""] if expectations else []))
    parts = [markdown_table(head + (["the papers say", "agrees"] if expectations else []), lines)]
    if report["claims"]:
        claims = [
            [
                each["says"],
                f"{each['row']} against {each['against']}",
                _signed(each["difference"]),
                each["agrees"] or "",
            ]
            for each in report["claims"]
        ]
        parts.append(markdown_table(["the papers say", "rows", "difference", "agrees"], claims))
    faults = [f"{row['table']}/{row['name']}: {row['fault']}" for row in report["rows"] if "fault" in row]
    return "\n".join([*parts, *faults, explained(report)]) + "\n"


def explained(report: Mapping[str, Any]) -> str:
    """Paragraph on how to read an ablation's table."""
    several = len(report["seeds"]) > 1
    words = [f"{len(report['seeds'])} seeds; mean ± standard deviation over them." if several else "One seed."]
    known = {name: value for name, value in report["resolution"].items() if value is not None}
    if known:
        bounds = ", ".join(f"{value:.3f} ({name})" for name, value in known.items())
        words.append(
            f"A difference counts above {bounds}: two standard errors of a mean difference to the base, from the "
            "differences seed by seed, their deviation pooled over all trained rows."
        )
        words.append('"not shown": the papers report a difference, and none above that is seen here.')
    else:
        words.append("Fewer than two seeds tell no difference from chance: nothing is judged.")
    return " ".join(words)


def _mean(score: Mapping[str, Any]) -> str:
    """Mean and deviation as text."""
    if score["mean"] is None:
        return "-"
    return f"{score['mean']:.3f}" + (f" ± {score['std']:.3f}" if score["std"] is not None else "")


def _signed(value: float | None) -> str:
    """Difference as text with its sign."""
    return "-" if value is None else f"{value:+.3f}"


def to_csv(report: Mapping[str, Any]) -> str:
    """The rows as CSV, full precision: a column each for mean, deviation, difference and every seed of a figure."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    parts = ("mean", "std", "difference", "verdict")
    seeds = [f"seed {seed}" for seed in report["seeds"]]
    figures = [f"{name} {part}" for name in report["columns"] for part in (*parts, *seeds)]
    writer.writerow(["table", "name", "method", "via", *figures, "expect", "agrees"])
    for row in report["rows"]:
        line = [row["table"], row["name"], row["method"], row["via"]]
        for name in report["columns"]:
            score = row["scores"][name]
            line += [score[part] for part in parts] + score["seeds"]
        writer.writerow([*line, row.get("expect"), row.get("agrees")])
    return stream.getvalue()
