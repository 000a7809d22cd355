"""The demo's table: methods down, tasks across, and what the figures come to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

HEADINGS: Final = {
    "audio-image": ("audio > image", "via text"),
    "point_cloud-audio": ("3D > audio", "emergent"),
    "point_cloud-text": ("3D > text", "emergent"),
}
"""By task: what is found by what, and how the two came together."""

ROWS: Final = {
    "random": "chance",
    "procrustes": "Procrustes through the overlap",
    "ridge": "ridge through the overlap",
    "cca": "CCA through the overlap",
    "dictionary": "overlap as a dictionary",
    "dictionary_two_sided": "overlap as a dictionary, both ways",
    "ex-mcr": "isthmus extend (Ex-MCR, trained)",
    "": "isthmus connect (auto)",
    "paired_projector": "paired oracle, Ex-MCR's network",
    "paired_ridge": "paired oracle, ridge",
    "paired_cca": "paired oracle, CCA",
}
"""By name of a baseline (empty: the bridge): what the table calls it."""

CELL: Final = 6
"""Characters of a figure: three tasks beside the longest name fit a terminal of 80 columns."""

Task = Mapping[str, Any]


def shares(report: Task) -> dict[str, float]:
    """R@1 of the bridge (mean of both directions) as a multiple of chance and a share of the best oracle's."""
    rows, own = report["baselines"], report["mean"]["r@1"]
    oracles = [row["r@1"] for name, row in rows.items() if name.startswith("paired_") and "r@1" in row]
    best = max(oracles, default=0.0)
    return {"times_chance": own / rows["random"]["r@1"], "share_of_oracle": own / best if best else float("nan")}


def lines(tasks: Mapping[str, Task]) -> Iterator[str]:
    """The table, line by line: R@1 and mAP as means of both directions."""
    width = max(map(len, ROWS.values()))
    yield " " * width + "".join(f"  {HEADINGS[task][0]:>{CELL + 1 + CELL}}" for task in tasks)
    yield " " * width + "".join(f"  {HEADINGS[task][1]:>{CELL + 1 + CELL}}" for task in tasks)
    yield " " * width + "  " + "  ".join(f"{'R@1':>{CELL}} {'mAP':>{CELL}}" for _ in tasks)
    for name, words in ROWS.items():
        figures = [task["mean"] if not name else task["baselines"].get(name, {}) for task in tasks.values()]
        if any("r@1" in row for row in figures):
            yield f"{words:<{width}}  " + "  ".join(_cells(row) for row in figures)


def _cells(row: Mapping[str, Any]) -> str:
    """Figures of one row of the demo's table."""
    if "r@1" not in row:
        return f"{'-':>{CELL}} {'-':>{CELL}}"
    return f"{row['r@1']:>{CELL}.3f} {row['map']:>{CELL}.3f}"


def verdicts(tasks: Mapping[str, Task]) -> Iterator[str]:
    """A sentence a task."""
    for name, task in tasks.items():
        yield (
            f"{HEADINGS[name][0]}: R@1 {task['times_chance']:.0f} times chance, "
            f"{task['share_of_oracle']:.0%} of the best oracle that was given real pairs."
        )
