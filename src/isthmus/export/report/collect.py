"""What a report says, gathered from a bridge, its spaces where they can be found, and tasks with a known truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.bridges.explain import LEAST_SHOWN, Explainer
from isthmus.bridges.training_spaces import TrainingSpaces
from isthmus.errors import IsthmusError
from isthmus.evaluation.evaluate import evaluate_bridge
from isthmus.export.report.examples import HITS, Example, Shown, Viewer, best_and_worst, confusions, first_ranks, hubs
from isthmus.metrics.truth import Names, read_labels, read_pairs
from isthmus.recipes.posterior.forecast import Concept, unknown_of_pair
from isthmus.spaces.selection import Selection

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.spaces.embeddings import Embeddings

FIGURES = ("r@1", "r@5", "r@10", "map", "median_rank", "accuracy@1", "accuracy@5")


@dataclass(frozen=True)
class ReportTask:
    """Items with a known truth, to be scored and shown.

    Attributes:
        query: What is searched with, or classified.
        gallery: What is searched; for zero-shot classification the class texts.
        pairs: True pairs (`query_id,gallery_id`), or for zero-shot the labels (`query_id,class_id`).
        zero_shot: Whether the gallery's texts are classes.
    """

    query: Embeddings
    gallery: Embeddings
    pairs: Any
    zero_shot: bool = False

    @property
    def title(self) -> str:
        """`sound/audio to picture/image`."""
        return f"{self.query.space_name}/{self.query.modality} to {self.gallery.space_name}/{self.gallery.modality}"


@dataclass(frozen=True)
class TaskReport:
    """A task scored.

    Attributes:
        title: What is searched with what.
        counts: Words on its size.
        rows: By method, figure to value; the bridge first.
        directions: By direction, the bridge's figures as words with their 95 % intervals.
        gap: Modality gap before and after.
        best, worst: Examples.
        hubs: Items that are everyone's neighbours, with the skewness of the counts.
        confusions: (true class, taken for, count) by name.
    """

    title: str
    counts: str
    rows: dict[str, dict[str, float]]
    directions: dict[str, dict[str, str]]
    gap: dict[str, float | None]
    best: list[Example] = field(default_factory=list)
    worst: list[Example] = field(default_factory=list)
    hubs: list[Shown] = field(default_factory=list)
    skew: float = 0.0
    confusions: list[tuple[str, str, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Content:
    """All that a report says.

    Attributes:
        name: What the bridge is called.
        bridge: The bridge.
        tasks: Scored tasks.
        health: Of every space that could be opened.
        unseen: Why others could not be.
        unknown: Spaces that were joined: one that hardly knows some concepts, one that knows them, and the concepts.
    """

    name: str
    bridge: Bridge
    tasks: list[TaskReport]
    health: list[Mapping[str, Any]]
    unseen: list[str]
    unknown: list[tuple[str, str, list[Concept]]] = field(default_factory=list)

    @property
    def record(self) -> Mapping[str, Any]:
        """What was recorded when the bridge was made."""
        return self.bridge.record


def collect(
    bridge: Bridge,
    tasks: Sequence[ReportTask],
    *,
    name: str,
    baselines: bool = False,
    space_paths: Mapping[str, str | Path] | None = None,
    force: bool = False,
) -> Content:
    """Gather a report.

    Args:
        bridge: The bridge.
        tasks: Items with a known truth; may be none.
        name: What the bridge is called.
        baselines: Score the simple methods of each task too.
        space_paths: Where the bridge's spaces lie now, by name.
        force: Project embeddings of another encoder too.
    """
    health, unseen = _health(bridge, space_paths or {})
    scored = [_task(bridge, task, baselines, space_paths, force) for task in tasks]
    return Content(name, bridge, scored, health, unseen, _unknown(bridge, space_paths or {}))


def _unknown(bridge: Bridge, places: Mapping[str, str | Path]) -> list[tuple[str, str, list[Concept]]]:
    """For each two spaces that were joined, the concepts of their overlap that one of them hardly knows."""
    found = []
    for (first, second), via in joined_pairs(bridge).items():
        try:
            pair = [bridge.open_space(name, places.get(name)) for name in (first, second)]
            unknown = unknown_of_pair(*pair, via=via)
        except IsthmusError:  # the section on health says why a space cannot be opened
            continue
        other = {first: second, second: first}
        found += [(name, other[name], concepts) for name, concepts in unknown.items() if concepts]
    return found


def joined_pairs(bridge: Bridge) -> dict[tuple[str, str], list[str]]:
    """Pairs of spaces that were joined to each other, and the modalities through which, as the bridge records it."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for step in [*bridge.record.get("earlier", []), {"record": bridge.record}]:
        for names, via in (step["record"].get("pairs") or {}).items():
            first, _, second = names.partition(",")
            pairs[first, second] = list(via)
    if pairs:
        return pairs
    training = TrainingSpaces(bridge)
    for space in bridge.spaces[1:]:
        try:
            other = training.partner(space.name)
            if other is not None:
                pairs[other, space.name] = training.via(space.name)
        except IsthmusError:
            continue
    return pairs


def _health(bridge: Bridge, places: Mapping[str, str | Path]) -> tuple[list[Mapping[str, Any]], list[str]]:
    """The health of every space that can be opened, and why the others cannot."""
    from isthmus.spaces.health import inspect

    found: list[Mapping[str, Any]] = []
    unseen = []
    for space in bridge.spaces:
        try:
            told: Any = inspect(bridge.open_space(space.name, places.get(space.name)))
        except IsthmusError as error:
            unseen.append(f"{space.name}: {error}")
            continue
        found.append(told if isinstance(told, Mapping) else told.to_dict())
    return found, unseen


def _task(
    bridge: Bridge,
    task: ReportTask,
    baselines: bool,
    places: Mapping[str, str | Path] | None,
    force: bool,
) -> TaskReport:
    given: dict[str, Any] = (
        {"classes": task.gallery, "labels": task.pairs}
        if task.zero_shot
        else {"gallery": task.gallery, "pairs": task.pairs}
    )
    told: Any = evaluate_bridge(bridge, query=task.query, baselines=baselines, space_paths=places, force=force, **given)
    figures: Mapping[str, Any] = told if isinstance(told, Mapping) else told.to_dict()
    rows, directions = _figures(figures), _directions(task, figures)
    base = TaskReport(task.title, _counts(task, figures), rows, directions, dict(figures.get("gap") or {}))
    if task.zero_shot and "class" in (task.gallery.metadata.column_names if task.gallery.metadata else ()):
        return base  # several prompts make one class: its texts are no items that could be shown
    return _with_examples(bridge, task, base, places, force)


def _figures(figures: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Figures by method; of retrieval the means of both directions."""
    methods = {"this bridge": figures, **figures.get("baselines", {})}
    wholes = {method: told.get("mean", told) for method, told in methods.items()}
    rows = {method: {name: float(whole[name]) for name in FIGURES if name in whole} for method, whole in wholes.items()}
    return {method: row for method, row in rows.items() if row}


def _directions(task: ReportTask, figures: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Figures of the bridge by direction, with intervals where there are any."""
    names = (task.query.modality, task.gallery.modality)
    names = names if len(set(names)) > 1 else ("query", "gallery")
    sides = {" to ".join(names): "query_to_gallery", " to ".join(reversed(names)): "gallery_to_query"}
    if task.zero_shot:
        sides = {"95 % interval": ""}
    told = {words: figures if not key else figures.get(key, {}) for words, key in sides.items()}
    return {words: {name: _with_interval(side, name) for name in FIGURES} for words, side in told.items()}


def _with_interval(side: Mapping[str, Any], name: str) -> str:
    value, interval = side.get(name), side.get(f"{name}_ci95")
    if value is None:
        return "-"
    if name == "median_rank":
        return f"{value:,g}"
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def _counts(task: ReportTask, figures: Mapping[str, Any]) -> str:
    if task.zero_shot:
        return f"{figures.get('n', 0):,} items, {figures.get('classes', 0):,} classes"
    sizes = (figures.get("n_query", 0), figures.get("n_gallery", 0), figures.get("n_pairs", 0))
    return "{:,} queries, {:,} in the gallery, {:,} true pairs".format(*sizes)


def _with_examples(
    bridge: Bridge, task: ReportTask, base: TaskReport, places: Mapping[str, str | Path] | None, force: bool
) -> TaskReport:
    q, g = bridge.project(task.query, force=force), bridge.project(task.gallery, force=force)
    scores = q @ g.T
    truth = _truth(task)
    ranks = first_ranks(scores, truth)
    near, far = Viewer(task.query), Viewer(task.gallery)
    reasons = Reasons(bridge, task, places)
    best, worst = best_and_worst(scores, truth)

    def example(row: int) -> Example:
        order = np.argsort(-scores[row], kind="stable")[:HITS]
        hits = [far.show(int(i), score=float(scores[row, i]), right=int(i) in truth[row]) for i in order]
        return Example(near.show(row), hits, int(ranks[row]), reasons(row, int(order[0])))

    crowd, skew = hubs(scores)
    names = task.gallery.ids
    return TaskReport(
        **{**vars(base), "best": [example(row) for row in best], "worst": [example(row) for row in worst]}
        | {"hubs": [far.show(row, note=f"near {count:,} of {len(q):,}") for row, count in crowd], "skew": skew}
        | {"confusions": [(names[a], names[b], n) for a, b, n in confusions(scores, truth)] if task.zero_shot else []}
    )


def _truth(task: ReportTask) -> list[set[int]]:
    """By query, the rows of its true items."""
    pairs: Any = task.pairs
    query = Names.of("query", task.query.ids, len(task.query))
    gallery = Names.of("gallery", task.gallery.ids, len(task.gallery))
    queries, items = (read_labels if task.zero_shot else read_pairs)(pairs, query, gallery)
    truth: list[set[int]] = [set() for _ in range(len(task.query))]
    for one, other in zip(queries, items, strict=True):
        truth[int(one)].add(int(other))
    return truth


class Reasons:
    """The shared texts that carry the matches of a task, where the bridge or its spaces can tell.

    Args:
        bridge: The bridge.
        task: The task.
        places: Where the bridge's spaces lie now, by name.
    """

    def __init__(self, bridge: Bridge, task: ReportTask, places: Mapping[str, str | Path] | None) -> None:
        self._explainer, self._task = Explainer(bridge, space_paths=places), task

    def __call__(self, query: int, hit: int) -> list[tuple[str, float]]:
        """Names and shares of a match, or nothing."""
        task = self._task
        try:
            items = [self._explainer.item(Selection(x, [row])) for x, row in ((task.query, query), (task.gallery, hit))]
            told = self._explainer.explain(*items, top=4)
        except IsthmusError:
            return []
        return [(name, share) for name, share in told.shares if share >= LEAST_SHOWN]
