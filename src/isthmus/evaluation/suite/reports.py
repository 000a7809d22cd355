"""What a suite and a comparison found, as objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from isthmus.core.result import OPTIONAL, SPREAD, Result
from isthmus.evaluation.suite.suite_table import format_suite

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class BenchmarkHead(Result):
    """Head of a benchmark's report: what was asked and what was found.

    Attributes:
        benchmark: Its name.
        title: Its title.
        task: "retrieval", "classification" and so on.
        metric: Where its figures stand: "mean", or a direction.
        headline: The figures that its papers print.
        data: The folder of the data set.
        published_items: How many items the authors published; None where they do not say.
        counts: Queries, gallery items, true pairs and so on; in JSON keys of their own.
        missing: Items of the data set that are not there.
        missing_examples: Names of some of them.
        notes: What to know before the figures are compared.
        templates: What class names were put into; None where nothing was.
    """

    benchmark: str
    title: str
    task: str
    metric: str
    headline: list[str]
    data: str
    published_items: int | None
    counts: Mapping[str, int] = field(metadata=SPREAD)
    missing: int
    missing_examples: list[str]
    notes: list[str]
    templates: Mapping[str, Any] | None


@dataclass(frozen=True)
class SuiteReport(Result):
    """Bridges on a benchmark, above what was published.

    Attributes:
        head: What was asked and found; in JSON keys of their own.
        rows: A row a bridge, the bridges' first, then baselines and other recipes.
        retention: By space, its own scores before and after; None where baselines were not asked for.
        spaces: Which spaces the two sides were embedded in.
        encoded: By `space/modality`, what the encoding came to.
        published: The published rows.
        seconds: Time that it took.
    """

    head: BenchmarkHead = field(metadata=SPREAD)
    rows: list[dict[str, Any]]
    spaces: Mapping[str, str]
    encoded: Mapping[str, Mapping[str, Any]]
    published: list[dict[str, Any]]
    seconds: float
    retention: Mapping[str, Figures] | None = field(default=None, metadata=OPTIONAL)

    def __str__(self) -> str:
        return format_suite(self)


@dataclass(frozen=True)
class Comparison(Result):
    """Two bridges on one benchmark, item by item.

    Attributes:
        head: What was asked and found; in JSON keys of their own.
        figures: By figure `a`, `b`, `difference` (b - a), `ci95` and `p`; for retrieval the means of both directions.
        directions: The same for either direction, by its name; in JSON keys of their own.
        resamples: Resamples of the bootstrap.
        seconds: Time that it took.
    """

    head: BenchmarkHead = field(metadata=SPREAD)
    figures: Mapping[str, Figures]
    directions: Mapping[str, Mapping[str, Figures]] = field(metadata=SPREAD)
    resamples: int
    seconds: float
