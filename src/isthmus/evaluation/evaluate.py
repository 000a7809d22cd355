"""Scores of embeddings and bridges on true pairs and on class labels."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.bridges.bridge import Bridge
from isthmus.bridges.opening import as_bridge
from isthmus.core.geometry import Array, modality_gap, normalize
from isthmus.core.result import OPTIONAL, Result
from isthmus.errors import EvaluationError
from isthmus.evaluation.evaluation_table import format_table
from isthmus.metrics.checks import embedding_matrix
from isthmus.metrics.ranks import Ints
from isthmus.metrics.results import (
    Figures,
    RetrievalResult,
    Settings,
    ZeroShotResult,
    average_prompts,
    score_retrieval,
    score_zero_shot,
)
from isthmus.metrics.truth import Names, read_labels, read_pairs
from isthmus.spaces.references import as_embeddings
from isthmus.spaces.selection import EmbeddingRows

__all__ = [
    "EvaluationReport",
    "RetrievalResult",
    "ZeroShotResult",
    "evaluate_bridge",
    "evaluate_retrieval",
    "evaluate_zero_shot",
    "format_table",
]


Modality = EmbeddingRows | str | Path
"""One modality of a space, or its name: "S.space/audio"."""


@dataclass(frozen=True)
class EvaluationReport(Result):
    """Report of `evaluate_bridge`.

    Attributes:
        scores: Figures with intervals, what chance earns, and the values query by query.
        gap: The modality gap `before`, where dimensions agree (else None), and `after`.
        baselines: By name, figures as those of the bridge with `seconds`, or the `reason` why there are none; None
            where they were not asked for.
    """

    scores: RetrievalResult | ZeroShotResult
    gap: Mapping[str, float | None]
    baselines: Mapping[str, Mapping[str, Any]] | None = field(default=None, metadata=OPTIONAL)

    def to_dict(self) -> Figures:
        """Everything that `isthmus evaluate --json` prints: the scores' keys, `gap` and, if asked for, `baselines`."""
        rest = {} if self.baselines is None else {"baselines": dict(self.baselines)}
        return {**self.scores.to_dict(), "gap": dict(self.gap), **rest}

    def __str__(self) -> str:
        return format_table(self.to_dict())


def evaluate_retrieval(
    query: Any, gallery: Any, pairs: Any, *, ks: Sequence[int] = (1, 5, 10), bootstrap: int = 1000, seed: int = 0
) -> RetrievalResult:
    """Score retrieval in both directions.

    Embeddings are scaled to unit length; the score is the cosine. A tie ranks behind the items that are not relevant, a
    query counts as found when any of its items is, and queries without a pair enter no average.

    Args:
        query: A modality of a space, a tuple (ids, (q, d) array), or an array whose items are called by their row.
        gallery: The same for the other side, of the same dimension.
        pairs: A .csv, .tsv, .parquet or .jsonl file, a table or a mapping with the columns query_id and gallery_id; or
            a list of 2-tuples. An id may stand in many pairs.
        ks: The cut-offs of recall.
        bootstrap: Resamples for the 95 % intervals; 0 is no intervals.
        seed: Seed of the resamples.

    Raises:
        EvaluationError: An id is unknown or stands twice, a column is missing, shapes do not fit, or values are NaN.
    """
    started = time.perf_counter()
    how = _settings(ks, bootstrap, seed)
    (query_ids, q), (gallery_ids, g) = _side(query, "query"), _side(gallery, "gallery")
    rows = read_pairs(pairs, Names.of("query", query_ids, len(q)), Names.of("gallery", gallery_ids, len(g)))
    result = score_retrieval(q, g, rows, how=how)
    return replace(result, seconds=time.perf_counter() - started)


def evaluate_zero_shot(
    query: Any, classes: Any, labels: Any, *, ks: Sequence[int] = (1, 5), bootstrap: int = 1000, seed: int = 0
) -> ZeroShotResult:
    """Score zero-shot classification: each item takes the classes whose texts are nearest.

    Several prompts of one class are averaged and scaled to unit length. They are one class by a `class` column in the
    metadata of `classes`, or by a repeated id in (ids, array).

    Args:
        query: What is classified; see `evaluate_retrieval`.
        classes: The prompts; see `evaluate_retrieval`.
        labels: As `pairs` of `evaluate_retrieval`, with the columns query_id and class_id; a class id is a value of the
            `class` column or the id of a prompt. Or an integer array with the class number of each query.
        ks: The cut-offs of accuracy.
        bootstrap: Resamples for the 95 % intervals; 0 is no intervals.
        seed: Seed of the resamples.

    Raises:
        EvaluationError: An id is unknown, a column is missing, shapes do not fit, or values are NaN.
    """
    started = time.perf_counter()
    how = _settings(ks, bootstrap, seed)
    query_ids, q = _side(query, "query")
    ids, prompts = _side(classes, "classes")
    class_of, names = _classes(ids, len(prompts), _class_column(classes))
    rows = read_labels(labels, Names.of("query", query_ids, len(q)), names)
    result = score_zero_shot(q, _class_embeddings(prompts, class_of), rows, how=how)
    return replace(result, seconds=time.perf_counter() - started)


def evaluate_bridge(
    bridge: Bridge | str | Path,
    *,
    query: Modality,
    gallery: Modality | None = None,
    pairs: Any = None,
    classes: Modality | None = None,
    labels: Any = None,
    baselines: bool = False,
    train_pairs: Any = None,
    space_paths: Mapping[str, str | Path] | None = None,
    force: bool = False,
    bootstrap: int = 1000,
    seed: int = 0,
) -> EvaluationReport:
    """Project two modalities through a bridge and score them.

    Args:
        bridge: The bridge, or its folder.
        query: What is searched with, or classified: `space["audio"]`, or "S.space/audio".
        gallery: Retrieval: what is searched.
        pairs: Retrieval: true pairs, as for `evaluate_retrieval`.
        classes: Zero-shot: the class texts.
        labels: Zero-shot: the truth, as for `evaluate_zero_shot`.
        baselines: Score the simple methods too, fit on the spaces that the bridge was trained on.
        train_pairs: True pairs of items of those spaces, for the paired oracle; columns query_id and gallery_id.
        space_paths: Where those spaces lie now, by name, if not where they lay.
        force: Project embeddings of another encoder too.
        bootstrap: Resamples for the 95 % intervals; 0 is no intervals.
        seed: Seed of the resamples.

    Raises:
        EvaluationError: Neither or both of the tasks are given, or as the functions of the task.
        FingerprintError: Embeddings come from an encoder that the bridge does not know.
    """
    started = time.perf_counter()
    through, opened = as_bridge(bridge), as_embeddings(query, option="query")
    target, zero_shot = _target(gallery, pairs, classes, labels)
    task = _Task(opened, target, pairs, labels, zero_shot=zero_shot, how=Settings((1, 5, 10), bootstrap, seed))
    q, g = through.project(opened, force=force), through.project(target, force=force)
    result = task.score(q, g)
    gap = {"before": _gap(opened, target), "after": modality_gap(q, g)}
    report = EvaluationReport(replace(result, seconds=time.perf_counter() - started), gap)
    if not baselines and train_pairs is None:
        return report
    from isthmus.evaluation.baselines import baseline_rows, figures_row

    rows = baseline_rows(
        through, opened, target, task.score, train_pairs=train_pairs, space_paths=space_paths, force=force
    )
    return replace(report, baselines={"random": figures_row(result.chance(), 0.0)} | rows)


def _target(gallery: Modality | None, pairs: Any, classes: Modality | None, labels: Any) -> tuple[EmbeddingRows, bool]:
    """The other side of an evaluation, and whether it is the texts of classes."""
    if (gallery is None) != (pairs is None) or (classes is None) != (labels is None):
        raise EvaluationError("give gallery= with pairs= (retrieval), or classes= with labels= (zero-shot).")
    if gallery is not None and classes is not None:
        raise EvaluationError("got gallery= and classes=, expected one of them: one evaluation is one task.")
    if gallery is not None:
        return as_embeddings(gallery, option="gallery"), False
    if classes is not None:
        return as_embeddings(classes, option="classes"), True
    raise EvaluationError("give gallery= with pairs= (retrieval), or classes= with labels= (zero-shot).")


class _Task:
    """One evaluation: its truth as row numbers, read once, and how to score embeddings of its two sides."""

    def __init__(
        self,
        query: EmbeddingRows,
        target: EmbeddingRows,
        pairs: Any,
        labels: Any,
        *,
        zero_shot: bool,
        how: Settings,
    ) -> None:
        self.how = replace(how, ks=(1, 5)) if zero_shot else how
        queries = Names.of("query", query.ids, len(query))
        self.class_of: Ints | None = None
        if zero_shot:
            self.class_of, names = _classes(target.ids, len(target), _class_column(target))
            self.truth = read_labels(labels, queries, names)
        else:
            self.truth = read_pairs(pairs, queries, Names.of("gallery", target.ids, len(target)))

    def score(self, query: Array, target: Array) -> RetrievalResult | ZeroShotResult:
        """Score unit rows in the order of the two sides; prompts of one class are averaged."""
        if self.class_of is None:
            return score_retrieval(query, target, self.truth, how=self.how)
        return score_zero_shot(query, _class_embeddings(target, self.class_of), self.truth, how=self.how)


def _settings(ks: Sequence[int], bootstrap: int, seed: int) -> Settings:
    """Checked cut-offs, resamples and seed of an evaluation."""
    if not len(ks) or any(not isinstance(k, int | np.integer) or k < 1 for k in ks) or bootstrap < 0:
        raise EvaluationError(f"ks must be cut-offs from 1 and bootstrap not negative, got {ks} and {bootstrap}.")
    return Settings(tuple(int(k) for k in ks), bootstrap, seed)


def _side(x: Any, name: str) -> tuple[list[str] | None, Array]:
    """Ids, or None, and unit rows of what a caller gave."""
    if hasattr(x, "unit") and hasattr(x, "ids"):
        return list(x.ids), embedding_matrix(x.unit(), name)
    ids, array = x if isinstance(x, tuple) and len(x) == 2 else (None, x)
    matrix = normalize(embedding_matrix(array, name))
    return None if ids is None else [str(each) for each in ids], matrix


def _class_column(x: Any) -> list[Any] | None:
    """The `class` column of a modality's metadata, where there is one."""
    table = getattr(x, "metadata", None)
    if table is None or "class" not in table.column_names:
        return None
    values: list[Any] = table["class"].to_pylist()
    return values


def _classes(ids: Sequence[str] | None, size: int, column: Sequence[Any] | None) -> tuple[Ints, Names]:
    """Class number of each prompt, and what labels may call a class: its name, or the id of one of its prompts."""
    if ids is None:
        return np.arange(size), Names("classes", None, size)
    if len(ids) != size:
        raise EvaluationError(f"classes has {len(ids):,} ids for {size:,} embeddings. Expected one id for each.")
    own = [name if value is None else str(value) for name, value in zip(ids, column or [None] * size, strict=True)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(own))}
    class_of = np.array([numbers[name] for name in own], dtype=np.int64)
    names = dict(zip(ids, class_of.tolist(), strict=True)) | numbers  # a class's name counts before a prompt's id
    return class_of, Names("classes", names, len(numbers))


def _class_embeddings(prompts: Array, class_of: Ints) -> Array:
    """Unit means of the prompts of each class; untouched where each class has one prompt."""
    count = int(class_of.max()) + 1
    return prompts if count == len(prompts) else normalize(average_prompts(prompts, class_of, count))


def _gap(query: EmbeddingRows, target: EmbeddingRows) -> float | None:
    """Modality gap of query and gallery, where they are of one dimension."""
    return modality_gap(query.unit(), target.unit()) if query.dim == target.dim else None
