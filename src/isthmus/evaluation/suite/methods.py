"""The rows of a benchmark's table: one question, answered by many ways of making two sides comparable."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isthmus.bridges.bridge import Bridge
from isthmus.errors import BridgeError, EvaluationError, IsthmusError, SpaceError
from isthmus.evaluation.baselines import baseline_rows, figures_row
from isthmus.evaluation.suite.embed import ItemSetEmbedder
from isthmus.evaluation.suite.questions import WAYS, Score, ScoringTask, TaskScore
from isthmus.evaluation.suite.retrain import trained
from isthmus.evaluation.suite.settings import SuiteSettings
from isthmus.metrics.results import mean_figures
from isthmus.spaces.selection import EmbeddingRows

Row = dict[str, Any]
"""`name`, `kind` (bridge, random, own, baseline, recipe), and figures with `seconds`, or the `reason` why there are
none. A row of several runs holds their mean, the deviation under `std`, `seeds` and `runs`."""


@dataclass(frozen=True)
class EmbeddedTask:
    """Both sides embedded for one bridge, and how to score them: what all rows beside the bridge stand on.

    Attributes:
        bridge: The bridge.
        scoring: The benchmark.
        query: One side, in its own space.
        target: The other.
        spaces: Names of the bridge's spaces that the two are of.
        score: Scores unit rows in the order of the two sides.
    """

    bridge: Bridge
    scoring: ScoringTask
    query: EmbeddingRows
    target: EmbeddingRows
    spaces: tuple[str, str]
    score: Score

    @classmethod
    def of(
        cls, bridge: Bridge, scoring: ScoringTask, embedder: ItemSetEmbedder, spaces: tuple[str, str] | None = None
    ) -> EmbeddedTask:
        """Embed both sides, by default in the spaces that a bridge would take them from."""
        names = spaces or (embedder.home(bridge, scoring.query), embedder.home(bridge, scoring.target))
        query = embedder.embed(bridge, scoring.query, names[0])
        target = embedder.embed(bridge, scoring.target, names[1])
        score = scoring.truth.scorer(query.ids, target.ids, embedder.settings.how)
        return cls(bridge, scoring, query, target, names, score)

    def through(self, bridge: Bridge, force: bool = False) -> TaskScore:
        """The score of both sides projected by a bridge of the same spaces."""
        x = bridge.project(self.query, space=self.spaces[0], modality=self.query.modality, force=force)
        y = bridge.project(self.target, space=self.spaces[1], modality=self.target.modality, force=force)
        return self.score(x, y)

    def raw(self) -> TaskScore:
        """The score of both sides as their encoders made them."""
        x, y = self.query.unit(), self.target.unit()
        if x.shape[1] != y.shape[1]:
            raise EvaluationError(f"the sides have {x.shape[1]} and {y.shape[1]} dimensions.")
        return self.score(x, y)


def bridge_row(name: str, embedded: EmbeddedTask, *, force: bool = False) -> tuple[Row, TaskScore]:
    """The row of a bridge."""
    started = time.perf_counter()
    outcome = embedded.through(embedded.bridge, force)
    return row(name, "bridge", outcome, time.perf_counter() - started), outcome


def row(name: str, kind: str, outcome: TaskScore, seconds: float) -> Row:
    """Row of a benchmark's table for one run."""
    return {"name": name, "kind": kind, **figures_row(outcome.scores(), seconds)}


def mean_row(name: str, kind: str, runs: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> Row:
    """Several runs of one thing: means, and deviations (n - 1) of the figures at the top and of either direction."""
    words = ("name", "kind", "std", "seeds", "runs")
    figures = [{key: value for key, value in run.items() if key not in words} for run in runs]
    tops = [name for name, value in figures[0].items() if isinstance(value, float) and name != "seconds"]
    spread = {
        **_deviations(figures, tops),
        **{way: _deviations([run[way] for run in figures], tops) for way in WAYS if way in figures[0]},
    }
    # An interval of items says nothing about seeds; the mean of the runs' intervals is kept beside the deviation.
    own = [{one: run[one] for one in tops} for run in figures]
    return {"name": name, "kind": kind, **mean_figures(figures), "std": spread, "seeds": list(seeds), "runs": own}


def _deviations(figures: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, float]:
    """Sample deviation of figures over runs; 0 for a single run."""
    if len(figures) == 1:
        return dict.fromkeys(names, 0.0)
    return {name: float(np.std([one[name] for one in figures], ddof=1)) for name in names}


def random_row(outcome: TaskScore) -> Row:
    """Row of a benchmark's table for a random order, by its expected scores."""
    if not outcome.chance:
        return {"name": "random", "kind": "random", "reason": "chance has no closed form here."}
    return {"name": "random", "kind": "random", **figures_row(outcome.chance, 0.0)}


def own_rows(embedded: EmbeddedTask, embedder: ItemSetEmbedder) -> tuple[list[Row], dict[str, dict[str, Any]]]:
    """Each space that embeds both sides by itself: its score before any bridge, and through the bridge.

    Returns:
        Rows, and by space the figures `before` and `after`: what of its own score the bridge retains.
    """
    bridge, scoring = embedded.bridge, embedded.scoring
    rows: list[Row] = []
    retained: dict[str, dict[str, Any]] = {}
    for space in bridge.spaces:
        if any(f"{space.name}/{side.modality}" not in bridge.routes for side in (scoring.query, scoring.target)):
            continue
        name = f"own pair ({space.name})"
        try:
            started = time.perf_counter()
            own = EmbeddedTask.of(bridge, scoring, embedder, (space.name, space.name))
            before = own.raw()
            rows.append(row(name, "own", before, time.perf_counter() - started))
            after = own.through(bridge, embedder.settings.force)
            rows.append(row(f"{name}, through the bridge", "own", after, time.perf_counter() - started))
            retained[space.name] = retention(rows[-2], rows[-1])
        except IsthmusError as error:
            rows.append({"name": name, "kind": "own", "reason": str(error)})
    if not rows:
        which = f"both {scoring.query.modality} and {scoring.target.modality}"
        rows.append({"name": "own pair", "kind": "own", "reason": f"no space of the bridge embeds {which}."})
    return rows, retained


def retention(before: Row, after: Row) -> dict[str, Any]:
    """Retention of a space's own scores through a bridge: by figure, before, after, and their ratio."""
    tops = [key for key, value in before.items() if isinstance(value, float) and key != "seconds"]
    return {
        key: {"before": before[key], "after": after[key], "ratio": after[key] / before[key] if before[key] else None}
        for key in tops
        if not key.startswith("median")
    }


def simple_rows(embedded: EmbeddedTask, settings: SuiteSettings) -> list[Row]:
    """The simple methods, fit on the overlap of the bridge's training spaces; see `isthmus.evaluation.baselines`."""
    by_method = baseline_rows(
        embedded.bridge,
        embedded.query,
        embedded.target,
        embedded.score,
        train_pairs=settings.train_pairs,
        space_paths=settings.space_paths,
        force=settings.force,
    )
    return [{"name": name, "kind": "baseline", **figures} for name, figures in by_method.items()]


def recipe_rows(embedded: EmbeddedTask, settings: SuiteSettings) -> Iterator[Row]:
    """The recipes that are asked for, each trained with every seed."""
    for recipe in settings.recipes:
        name = {"ours": "ours, trained again"}.get(recipe, f"{recipe} (paper)")
        try:
            runs = [_trained_row(embedded, recipe, seed, settings) for seed in settings.seeds]
        except (EvaluationError, BridgeError, SpaceError) as error:
            yield {"name": name, "kind": "recipe", "reason": str(error)}
            continue
        yield mean_row(name, "recipe", runs, settings.seeds)


def _trained_row(embedded: EmbeddedTask, recipe: str, seed: int, settings: SuiteSettings) -> Row:
    bridge = trained(embedded.bridge, recipe, seed, embedded.spaces, settings)
    started = time.perf_counter()
    return row(recipe, "recipe", embedded.through(bridge, settings.force), time.perf_counter() - started)
