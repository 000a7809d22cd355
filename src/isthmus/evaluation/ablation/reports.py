"""What a grid came to, or would come to, as objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from isthmus.core.result import Result
from isthmus.evaluation.ablation.ablation_table import to_markdown


@dataclass(frozen=True)
class AblationReport(Result):
    """The table of a grid; see `isthmus.evaluation.ablation.ablation_table.tabulate`.

    Attributes:
        title: Title of the grid.
        method: Method of its base row.
        via: Through which modalities.
        seeds: Over which it was trained.
        settings: Settings of the base row.
        columns: Names of the figures.
        noise: By column, the pooled deviation of differences; None where one seed tells none.
        resolution: By column, the least difference that counts.
        tolerance: What differences have to be above in any case.
        rows: With `scores` by column and, where the papers say something, `expect`, `verdict` and `agrees`.
        claims: Alike.
        cells: How many there are: `all`, `done`, of them `found` finished before and `trained` now, and `failed`.
        spaces: Modalities by space.
        cost: Seconds a cell.
        versions: What the cells were trained with.
        path: The folder that holds the tables.
    """

    title: str
    method: str
    via: str | list[str]
    seeds: list[int]
    settings: Mapping[str, Any]
    columns: list[str]
    noise: Mapping[str, float | None]
    resolution: Mapping[str, float | None]
    tolerance: float
    rows: list[dict[str, Any]]
    claims: list[dict[str, Any]]
    cells: Mapping[str, int]
    spaces: Mapping[str, list[str]]
    cost: Mapping[str, float]
    versions: Mapping[str, str]
    path: str

    def __str__(self) -> str:
        return to_markdown(self)


@dataclass(frozen=True)
class AblationEstimate(Result):
    """What a grid trains and how long that takes; see `isthmus.evaluation.ablation.estimate.estimate`.

    Attributes:
        title: Title of the grid.
        rows: Each with `pseudo_pairs`, `batch_size`, `epochs`, `steps`, or the `fault` of one that cannot be trained.
        cells: How many there are: `all`, `found`, `left`.
        pools: Distinct centric kinds to aggregate.
        seconds: For all that is left; None where nothing could be measured.
        measured: What that is taken from: "finished cells" or a "probe".
    """

    title: str
    rows: list[dict[str, Any]]
    cells: Mapping[str, int]
    pools: int
    seconds: float | None
    measured: str
