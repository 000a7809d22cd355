"""A grid as its TOML file declares it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from isthmus.core.messages import validation_fault
from isthmus.core.toml import read_toml
from isthmus.errors import ConfigError

Claimed = Literal["better", "worse", "same"]

FIGURES = ("map", "r@1", "r@5", "r@10", "median_rank")
RETRIEVAL = tuple(f"{side}{name}" for side in ("", "query_to_gallery/", "gallery_to_query/") for name in FIGURES)
"""Figures of retrieval: those of the mean of both directions, then of each."""
ZERO_SHOT = ("accuracy@1", "accuracy@5")
"""Figures of classification."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Spaces(_Strict):
    """The spaces that are joined, as paths.

    Attributes:
        base: The base; of C-MCR the first space.
        leaf: The leaf; of C-MCR the second space.
    """

    base: str
    leaf: str


class Evaluation(_Strict):
    """Task that the bridges of an ablation are scored on.

    Attributes:
        name: Its name in the table.
        query: SPACE/MODALITY that is searched with, or classified.
        gallery: Retrieval: SPACE/MODALITY that is searched.
        pairs: Retrieval: file of true pairs.
        classes: Zero-shot: SPACE/MODALITY of the class texts.
        labels: Zero-shot: file of labels.
        metrics: Figures of the table: those of the mean of both directions ("map", "r@1"), of one direction
            ("query_to_gallery/r@1"), or of classification ("accuracy@1").
    """

    name: str = Field("scores", min_length=1)
    query: str
    gallery: str | None = None
    pairs: str | None = None
    classes: str | None = None
    labels: str | None = None
    metrics: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _metrics(cls, values: Any) -> Any:
        """Default metrics of an ablation's task."""
        if isinstance(values, Mapping) and not values.get("metrics"):
            return {**values, "metrics": ("accuracy@1",) if values.get("classes") else ("map", "r@1")}
        return values

    @model_validator(mode="after")
    def _one_task(self) -> Evaluation:
        """Refuse what is neither a retrieval nor a zero-shot classification."""
        retrieval, zero_shot = (self.gallery, self.pairs), (self.classes, self.labels)
        if not (all(retrieval) and not any(zero_shot)) and not (all(zero_shot) and not any(retrieval)):
            raise ValueError("evaluate needs gallery with pairs (retrieval), or classes with labels (zero-shot)")
        known = RETRIEVAL if self.gallery else ZERO_SHOT
        if wrong := [name for name in self.metrics if name not in known]:
            raise ValueError(f"metrics names {wrong[0]!r}, expected some of {', '.join(known)}")
        return self

    @property
    def columns(self) -> dict[str, str]:
        """By the name of a column of the table, the figure that stands in it."""
        return {f"{self.name} {metric}": metric for metric in self.metrics}


class RowEntry(_Strict):
    """Row of an ablation's grid: what it changes of the base row.

    Attributes:
        table: Heading that the row stands under.
        name: Its name there.
        settings: Settings that differ from the base's.
        method: Method, where it differs.
        via: Overlap modalities, where they differ.
        expect: What the papers say of the row against the base row: "better", "worse" or "same".
        source: Where they say so.
        on: The column that this is about; the first where it does not say.
    """

    table: str = ""
    name: str = Field(min_length=1)
    settings: dict[str, Any] = {}
    method: str | None = None
    via: str | None = None
    expect: Claimed | None = None
    source: str = ""
    on: str | None = None


class Claim(_Strict):
    """Claim of a paper: one row of an ablation against another.

    Attributes:
        says: It in words.
        row: "TABLE/NAME" of the row.
        against: "TABLE/NAME" of the other; the base row where it does not say.
        expect: "better", "worse" or "same".
        source: Where they say so.
        on: The column that this is about; the first where it does not say.
    """

    says: str = Field(min_length=1)
    row: str
    against: str | None = None
    expect: Claimed
    source: str = ""
    on: str | None = None


class Grid(_Strict):
    """A whole grid.

    Attributes:
        title: Title of the table.
        spaces: What is joined.
        method: "ex-mcr", "c-mcr", or a closed form ("dictionary", "ridge", "procrustes", "cca",
            "mean_offset").
        via: Overlap modalities, "text" or "text,image".
        seeds: Every row is trained once for each.
        settings: Settings of every row; those that a row's own method does not have are left out there.
        base: Name of the base row, which changes nothing.
        rows: Rows that are named one by one.
        grid: By setting (or "method", "via") a list of values; their product makes rows too.
        evaluate: What every bridge is scored on.
        claims: What the papers say of rows against each other.
        tolerance: Differences up to this are called the same, whatever the seeds say.
    """

    title: str = "Ablations"
    spaces: Spaces
    method: str = "ex-mcr"
    via: str
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    settings: dict[str, Any] = {}
    base: str = "base"
    rows: tuple[RowEntry, ...] = ()
    grid: dict[str, list[Any]] = {}
    evaluate: tuple[Evaluation, ...] = Field(min_length=1)
    claims: tuple[Claim, ...] = ()
    tolerance: float = Field(0.0, ge=0.0)

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        """Refuse seeds that are given twice or negative."""
        if len(set(value)) < len(value) or min(value) < 0:
            raise ValueError("seeds must be different numbers from 0")
        return value

    @property
    def columns(self) -> dict[str, tuple[str, str]]:
        """By the name of a column, the evaluation and the figure."""
        return {name: (task.name, metric) for task in self.evaluate for name, metric in task.columns.items()}


def read_grid(path: str | Path) -> Grid:
    """Read the TOML file of a grid.

    Raises:
        ConfigError: It is no TOML, or a key is unknown, missing or out of range.
    """
    path = Path(path)
    return parse_grid(read_toml(path, "--config"), f"--config {path}")


def parse_grid(table: Mapping[str, Any], where: str = "grid") -> Grid:
    """Check the table of a grid file; its rows are checked by `expand`.

    Raises:
        ConfigError: A key is unknown, missing or out of range.
    """
    try:
        grid = Grid(**table)
    except ValidationError as error:
        raise ConfigError(validation_fault(error, Grid, where)) from error
    names = [task.name for task in grid.evaluate]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"{where} has two [[evaluate]] called {twice[0]!r}. Give each a name of its own.")
    return grid
