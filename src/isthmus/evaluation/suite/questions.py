"""What a benchmark asks of embeddings: two sides to encode, and a truth that scores any two sets of rows of them.

Every row of a suite is one question answered by other rows: those of a bridge, of a simple method, of the encoders
themselves. So a task is taken apart once, into sides and a truth, and nothing after that knows which task it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import Array, normalize
from isthmus.errors import EvaluationError
from isthmus.evaluation.benchmarks.task import Classification, ItemSet, Retrieval
from isthmus.metrics.bootstrap import bootstrap_intervals
from isthmus.metrics.chance import chance_figures
from isthmus.metrics.classification import average_precision_by_class
from isthmus.metrics.ranks import Ints
from isthmus.metrics.results import Figures, Settings, average_prompts, mean_figures, score_retrieval, score_zero_shot

WAYS = ("query_to_gallery", "gallery_to_query")
ACCURACY = (1, 3, 5)
"""Cut-offs of accuracy: 3 is what the papers of 3D classification print besides."""

Values = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class TaskScore:
    """Score of one row of a benchmark's table: figures, chance, values by item.

    Attributes:
        figures: As an evaluation prints them: by direction and `mean`, or flat; with intervals.
        chance: What a random order earns; empty where nobody knows.
        parts: By direction ("" where there is none), for each group the values whose means are the figures.
    """

    figures: Figures
    chance: Figures = field(default_factory=dict)
    parts: Mapping[str, Sequence[Values]] = field(default_factory=dict)

    def scores(self) -> Figures:
        """The figures."""
        return self.figures


Score = Callable[[Array, Array], TaskScore]
"""Scores unit rows of the two sides, in the order of the ids that it was made for."""


class Truth(Protocol):
    """Truth of a benchmark in ids, bound to rows when they are known."""

    def scorer(self, query: Sequence[str], target: Sequence[str], how: Settings) -> Score:
        """Bind the truth to the ids that were encoded; those that were rejected enter no score.

        Raises:
            EvaluationError: Nothing is left to score.
        """


@dataclass(frozen=True)
class ScoringTask:
    """A benchmark, ready to be encoded and scored.

    Attributes:
        query: The items that are searched with, classified, or heard.
        target: The gallery, the class texts, or the places in pictures.
        truth: What is true of them.
        counts: Numbers for the report.
        notes: What a reader of the figures must know.
    """

    query: ItemSet
    target: ItemSet
    truth: Truth
    counts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class PairTruth:
    """Retrieval: pairs of ids, and groups of queries that are scored apart and averaged."""

    pairs: Sequence[tuple[str, str]]
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def scorer(self, query: Sequence[str], target: Sequence[str], how: Settings) -> Score:
        """See `Truth`."""
        rows, columns = _numbers(query), _numbers(target)
        numbers = [(rows[q], columns[g]) for q, g in self.pairs if q in rows and g in columns]
        if not numbers:
            raise EvaluationError("no true pair is left to score. Check that both sides were encoded.")
        both = np.array(numbers, dtype=np.int64)
        if not self.groups:
            return lambda q, g: retrieval_score(q, g, (both[:, 0], both[:, 1]), how)
        members = {
            name: np.array([rows[one] for one in ids if one in rows], np.int64) for name, ids in self.groups.items()
        }
        return lambda q, g: grouped_score(q, g, both, members, how)


def retrieval_score(query: Array, gallery: Array, pairs: tuple[Ints, Ints], how: Settings) -> TaskScore:
    """Retrieval in both directions."""
    result = score_retrieval(query, gallery, pairs, how=how)
    sides = zip(WAYS, (result.query_to_gallery, result.gallery_to_query), strict=True)
    return TaskScore(result.scores(), result.chance(), {way: [side.per_query(how.ks)] for way, side in sides})


def grouped_score(
    query: Array, gallery: Array, pairs: NDArray[np.int64], members: Mapping[str, Ints], how: Settings
) -> TaskScore:
    """Each group of queries against the whole gallery, and the mean of the groups."""
    by_group: dict[str, TaskScore] = {}
    for name, rows in members.items():
        place = np.full(len(query), -1)
        place[rows] = np.arange(len(rows))
        own = pairs[place[pairs[:, 0]] >= 0]
        if len(own):
            by_group[name] = retrieval_score(query[rows], gallery, (place[own[:, 0]], own[:, 1]), how)
    if not by_group:
        raise EvaluationError("no group of the benchmark has a true pair left to score.")
    figures = mean_figures([one.figures for one in by_group.values()])
    figures["groups"] = {name: one.figures["mean"] for name, one in by_group.items()}
    parts = {way: [one.parts[way][0] for one in by_group.values()] for way in WAYS}
    return TaskScore(figures, mean_figures([one.chance for one in by_group.values()]), parts)


@dataclass(frozen=True)
class ClassTruth:
    """Classification: the class of each text, and the labels of the items."""

    class_of: Mapping[str, str]
    labels: Sequence[tuple[str, str]]
    multilabel: bool = False

    def scorer(self, query: Sequence[str], target: Sequence[str], how: Settings) -> Score:
        """See `Truth`."""
        names = _numbers(list(dict.fromkeys(self.class_of[text] for text in target)))
        class_of = np.array([names[self.class_of[text]] for text in target], np.int64)
        rows = _numbers(query)
        numbers = [(rows[item], names[label]) for item, label in self.labels if item in rows and label in names]
        if not numbers:
            raise EvaluationError("no label is left to score. Check that the items and class texts were encoded.")
        both = np.array(numbers, np.int64)
        # Classes are numbered as their first texts stand, so that one text a class needs no averaging.
        score = multilabel_score if self.multilabel else accuracy_score

        def run(q: Array, texts: Array) -> TaskScore:
            classes = texts if len(names) == len(texts) else normalize(average_prompts(texts, class_of, len(names)))
            return score(q, classes, (both[:, 0], both[:, 1]), how)

        return run


def accuracy_score(query: Array, classes: Array, labels: tuple[Ints, Ints], how: Settings) -> TaskScore:
    """Accuracy at k."""
    how = Settings(tuple(k for k in ACCURACY if k <= len(classes)), how.bootstrap, how.seed)
    result = score_zero_shot(query, classes, labels, how=how)
    hits = {f"accuracy@{k}": (result.ranking.best <= k).astype(np.float64) for k in how.ks}
    return TaskScore(result.scores(), result.chance(), {"": [hits]})


def multilabel_score(query: Array, classes: Array, labels: tuple[Ints, Ints], how: Settings) -> TaskScore:
    """Mean average precision over classes; its interval is of resampled classes, since it is no mean over items."""
    mask = np.zeros((len(query), len(classes)), dtype=bool)
    mask[labels] = True
    values = average_precision_by_class(query @ classes.T, mask)
    present = mask.any(axis=0)
    figures: Figures = {"map": float(values[present].mean())}
    if how.bootstrap:
        ends = bootstrap_intervals({"map": values[present]}, seed=how.seed, n=how.bootstrap)["map"]
        figures["map_ci95"] = list(ends)
    chance = chance_figures(mask.sum(axis=0)[present], len(query), ks=(1,))["map"]
    return TaskScore(figures, {"map": chance}, {"": [{"map": values[present]}]})


def scoring_task(
    task: Retrieval | Classification, prompts: ItemSet | None = None, *, limit: int | None = None
) -> ScoringTask:
    """Take a retrieval or a classification apart.

    Args:
        task: What a reader made of the data set.
        prompts: Classification: the filled class texts, each with a `class`, where the task has none of its own.
        limit: Only the first items of the query and what belongs to them.
    """
    if isinstance(task, Retrieval):
        return _retrieval_task(task, limit)
    side = task.prompts or prompts
    if side is None:
        raise EvaluationError("the classification has no class texts. Give templates to fill, or texts of its own.")
    query = shortened(task.query, None if limit is None else task.query.ids[:limit])
    truth = ClassTruth(_class_of(side), task.labels, task.multilabel)
    query_ids = set(query.ids)
    labels = [label for label in task.labels if label[0] in query_ids]
    counts = {
        "n_query": len(query_ids),
        "classes": len(task.classes),
        "n_labels": len(labels),
        "n_texts": len(side.ids),
    }
    return ScoringTask(query, side, truth, counts)


def _retrieval_task(task: Retrieval, limit: int | None) -> ScoringTask:
    """Take a retrieval apart, with the first queries and their true items where it is limited."""
    query, gallery, pairs = task.query, task.gallery, list(task.pairs)
    if limit is not None:
        first = set(query.ids[:limit])
        pairs = [pair for pair in pairs if pair[0] in first]
        reached = {pair[1] for pair in pairs}
        query = shortened(query, [one for one in query.ids if one in first])
        gallery = shortened(gallery, [one for one in gallery.ids if one in reached])
    counts = {"n_query": len(query.ids), "n_gallery": len(gallery.ids), "n_pairs": len(pairs)}
    return ScoringTask(query, gallery, PairTruth(pairs, task.groups), {**counts, "groups": len(task.groups)})


def shortened(side: ItemSet, ids: Sequence[str] | None) -> ItemSet:
    """Some items of a side, in their order; None is all."""
    if ids is None or len(ids) == len(side.ids):
        return side
    if side.embeddings is None:
        wanted = set(ids)
        return ItemSet(side.modality, [item for item in side.items if item.id in wanted])
    from isthmus.spaces.selection import Selection

    return ItemSet(side.modality, embeddings=Selection.of_ids(whole_of(side.embeddings), ids))


def whole_of(embeddings: Any) -> Any:
    """The modality behind a selection of its rows."""
    return getattr(embeddings, "whole", embeddings)


def _class_of(side: ItemSet) -> dict[str, str]:
    """The class of every text."""
    if side.embeddings is not None:
        table = side.embeddings.metadata
        names = table["class" if "class" in table.column_names else "id"].to_pylist()
        return dict(zip(side.embeddings.ids, map(str, names), strict=True))
    return {item.id: str(item.columns.get("class", item.id)) for item in side.items}


def _numbers(ids: Sequence[str]) -> dict[str, int]:
    """Row number of every id."""
    return {name: number for number, name in enumerate(ids)}
