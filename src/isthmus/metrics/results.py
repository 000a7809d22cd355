"""Results of an evaluation as objects: figures with intervals, what chance earns, and the values query by query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import Array
from isthmus.core.html import html_table
from isthmus.metrics.bootstrap import bootstrap_intervals
from isthmus.metrics.chance import chance_figures
from isthmus.metrics.ranks import Ints, Ranking
from isthmus.metrics.retrieval import retrieval, retrieval_one_way

Figures = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Settings of how figures are reported: cut-offs, resamples, seed.

    Attributes:
        ks: The cut-offs.
        bootstrap: Resamples for the 95 % intervals; 0 is no intervals.
        seed: Seed of the resamples.
    """

    ks: tuple[int, ...] = (1, 5, 10)
    bootstrap: int = 1000
    seed: int = 0


def _with_intervals(figures: Mapping[str, float], values: Mapping[str, NDArray[np.float64]], how: Settings) -> Figures:
    """Figures and, under `NAME_ci95`, the bootstrap intervals of those that are means."""
    out: Figures = dict(figures)
    if how.bootstrap:
        ends = bootstrap_intervals(values, seed=how.seed, n=how.bootstrap)
        out.update({f"{name}_ci95": list(ends[name]) for name in values})
    return out


def mean_figures(figures: Sequence[Mapping[str, Any]]) -> Figures:
    """Mean of equally built figures, such as those of two directions or of several seeds, figure by figure.

    The mean of the ends of intervals is the interval of the mean if what is averaged moves together, and wider than it
    if not: it never says more than is known.
    """
    out: Figures = {}
    for name, value in figures[0].items():
        every = [one[name] for one in figures]
        if isinstance(value, Mapping):
            out[name] = mean_figures(every)
        elif isinstance(value, list):
            out[name] = [float(end) for end in np.mean(every, axis=0)]
        else:
            out[name] = float(np.mean(every))
    return out


@dataclass(frozen=True)
class RetrievalResult:
    """Retrieval in both directions.

    Attributes:
        query_to_gallery: Ranks of gallery items, query by query.
        gallery_to_query: Ranks of queries, gallery item by gallery item.
        seconds: Time that it took.
        how: Cut-offs and intervals.
    """

    query_to_gallery: Ranking
    gallery_to_query: Ranking
    seconds: float
    how: Settings = Settings()

    def scores(self) -> Figures:
        """Figures of both directions and their mean, with intervals."""
        ways = {
            name: _with_intervals(side.figures(self.how.ks), side.per_query(self.how.ks), self.how)
            for name, side in self._sides().items()
        }
        return {**ways, "mean": mean_figures(list(ways.values()))}

    def chance(self) -> Figures:
        """The figures that a random order is expected to earn."""
        ways = {
            name: chance_figures(side.positives, side.n_candidates, ks=self.how.ks)
            for name, side in self._sides().items()
        }
        return {**ways, "mean": mean_figures(list(ways.values()))}

    def _sides(self) -> dict[str, Ranking]:
        """Rankings by direction."""
        return {"query_to_gallery": self.query_to_gallery, "gallery_to_query": self.gallery_to_query}

    def _repr_html_(self) -> str:
        """Table of the scores for a notebook."""
        figures = self.scores()
        return figures_html(
            f"retrieval, {len(self.query_to_gallery.rows):,} queries", figures | {"chance": self.chance()["mean"]}
        )

    def to_dict(self) -> Figures:
        """Everything that `isthmus evaluate --json` prints; fractions are 0 to 1.

        `n_query` counts the queries that have a pair; `n_without_pairs` the others, which enter no average but stay in
        the way of the gallery's items. `n_gallery` counts all that was ranked.
        """
        return {
            "n_query": len(self.query_to_gallery.rows),
            "n_gallery": self.query_to_gallery.n_candidates,
            "n_pairs": int(self.query_to_gallery.positives.sum()),
            "n_without_pairs": self.query_to_gallery.n_without_pairs,
            "n_gallery_without_pairs": self.gallery_to_query.n_without_pairs,
            "seconds": self.seconds,
            **self.scores(),
            "chance": self.chance()["mean"],
        }


@dataclass(frozen=True)
class ZeroShotResult:
    """Zero-shot classification.

    Attributes:
        ranking: Rank of the right class, query by query.
        classes: Number of classes.
        seconds: Time that it took.
        how: Cut-offs and intervals.
    """

    ranking: Ranking
    classes: int
    seconds: float
    how: Settings = Settings(ks=(1, 5))

    def scores(self) -> Figures:
        """Accuracy at each k, with intervals."""
        hits = {f"accuracy@{k}": (self.ranking.best <= k).astype(np.float64) for k in self.how.ks}
        return _with_intervals({name: float(value.mean()) for name, value in hits.items()}, hits, self.how)

    def chance(self) -> Figures:
        """The accuracy that a random order is expected to earn."""
        figures = chance_figures(self.ranking.positives, self.classes, ks=self.how.ks)
        return {f"accuracy@{k}": figures[f"r@{k}"] for k in self.how.ks}

    def _repr_html_(self) -> str:
        """Table of the scores for a notebook."""
        rows = {"this": self.scores(), "chance": self.chance()}
        return figures_html(f"zero-shot, {len(self.ranking.rows):,} items in {self.classes:,} classes", rows)

    def to_dict(self) -> Figures:
        """Everything that `isthmus evaluate --json` prints; `n` counts the queries that have a label."""
        return {
            "n": len(self.ranking.rows),
            "classes": self.classes,
            "n_without_labels": self.ranking.n_without_pairs,
            "seconds": self.seconds,
            **self.scores(),
            "chance": self.chance(),
        }


def figures_html(title: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows of figures as a notebook shows them, each with its interval where it has one."""
    names = [name for name in next(iter(rows.values())) if not name.endswith("_ci95")]
    table = [
        [row.replace("_", " "), *(_with_interval(figures, name) for name in names)] for row, figures in rows.items()
    ]
    return html_table(title, ["", *names], table)


def _with_interval(figures: Mapping[str, Any], name: str) -> str:
    """A figure with its interval, as text."""
    value, interval = figures.get(name), figures.get(f"{name}_ci95")
    if not isinstance(value, (int, float)):
        return "-"
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def score_retrieval(
    query: Array, gallery: Array, pairs: tuple[Ints, Ints], seconds: float = 0.0, how: Settings | None = None
) -> RetrievalResult:
    """Retrieval scores in both directions. `query` (q, d) and `gallery` (g, d) are unit rows, `pairs` rows of both."""
    return RetrievalResult(*retrieval(query, gallery, pairs), seconds, how or Settings())


def score_zero_shot(
    query: Array, classes: Array, labels: tuple[Ints, Ints], seconds: float = 0.0, how: Settings | None = None
) -> ZeroShotResult:
    """Zero-shot classification scores.

    `query` (q, d) and `classes` (c, d) are unit rows, `labels` query rows and class numbers.
    """
    return ZeroShotResult(retrieval_one_way(query, classes, labels), len(classes), seconds, how or Settings(ks=(1, 5)))


def average_prompts(prompts: Array, class_of: Sequence[int] | Ints, classes: int) -> Array:
    """Mean of each class's prompts, (classes, d). Prompts are unit rows; the mean is not scaled yet.

    Args:
        prompts: (p, d) unit rows.
        class_of: (p,) class number of each prompt.
        classes: Number of classes, each with at least one prompt.
    """
    numbers = np.asarray(class_of)
    order = np.argsort(numbers, kind="stable")
    starts = np.searchsorted(numbers[order], np.arange(classes))
    sums = np.add.reduceat(prompts[order].astype(np.float64), starts, axis=0)
    return (sums / np.bincount(numbers, minlength=classes)[:, None]).astype(np.float32)
