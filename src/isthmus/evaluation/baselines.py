"""Baselines of an evaluation: what simple methods earn on the same items, fit on what the bridge itself had.

Each is fit from the overlap of the bridge's training spaces and sees no true pair, except the paired oracles, which see
the true training pairs that are given and nothing else. A baseline that cannot be computed is listed with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from isthmus.bridges.routes import apply_route
from isthmus.bridges.training_spaces import FIT_ROWS, TrainingSpaces, centred_rows, space_of
from isthmus.core.geometry import Array, evenly_spaced, normalize
from isthmus.core.messages import one_line
from isthmus.errors import EvaluationError, IsthmusError
from isthmus.metrics.truth import Names, read_pairs
from isthmus.recipes.solvers import ClosedFormConfig, solve

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.spaces.selection import EmbeddingRows

METHODS = ("mean_offset", "procrustes", "ridge", "cca", "dictionary")
ORACLES = ("ridge", "cca")


class Scored(Protocol):
    """The result of an evaluation."""

    def scores(self) -> dict[str, Any]: ...


Score = Callable[[Array, Array], Scored]
Rows = dict[str, dict[str, Any]]


def baseline_rows(
    bridge: Bridge,
    query: EmbeddingRows,
    target: EmbeddingRows,
    score: Score,
    *,
    train_pairs: Any = None,
    space_paths: Mapping[str, str | Path] | None = None,
    force: bool = False,
) -> Rows:
    """Score every baseline on the items of one evaluation.

    Args:
        bridge: The bridge; its record says which spaces were joined through what.
        query: One side of the evaluation, as its encoder made it.
        target: The other side: a gallery, or class texts.
        score: Scores unit rows of the two sides, in their order.
        train_pairs: True pairs of items of the training spaces, for the paired oracles; see `read_pairs`.
        space_paths: Where the training spaces lie now, by name, if not where they lay.
        force: Take embeddings of another encoder too.

    Returns:
        By name: the figures (for retrieval the mean of both directions, and the directions under their names) with
        `seconds`, or the `reason` why there are none. `_centred` means that each modality's mean was removed first.

    Raises:
        EvaluationError: A training pair names an unknown item.
    """
    ends = (
        _End(query, space_of(bridge, query, force=force, first=True)),
        _End(target, space_of(bridge, target, force=force, first=True)),
    )
    spaces = TrainingSpaces(bridge, space_paths)
    rows: Rows = {}
    for name, make in [*_unpaired(spaces, *ends), *_oracles(spaces, *ends, train_pairs)]:
        rows[name] = _row(make, score)
    return rows


def figures_row(scores: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Row of a benchmark's table: the figures, at the top those of the mean of both directions where there are two."""
    return {**scores.get("mean", {}), **scores, "seconds": seconds}


ArrayPair = tuple[Array, Array]
Maker = Callable[[], ArrayPair]


def _row(make: Maker, score: Score) -> dict[str, Any]:
    """Score of one simple method, or the reason why it has none."""
    started = time.perf_counter()
    try:
        query, target = make()
        if query.shape[1] != target.shape[1]:
            raise EvaluationError(f"the sides have {query.shape[1]} and {target.shape[1]} dimensions.")
        scores = score(normalize(query), normalize(target)).scores()
    except EvaluationError as error:
        return {"reason": str(error)}
    except (IsthmusError, np.linalg.LinAlgError, ValueError) as error:
        return {"reason": one_line(error, 400)}
    return figures_row(scores, time.perf_counter() - started)


@dataclass(frozen=True)
class _End:
    """One side of the evaluation: its items and the bridge's space that they belong to."""

    items: EmbeddingRows
    space: str


class _Variant:
    """All unpaired methods on one preparation of the items: as they are, or each modality's mean removed."""

    def __init__(self, spaces: TrainingSpaces, query: _End, target: _End, *, centred: bool) -> None:
        self.spaces, self.query, self.target, self.centred = spaces, query, target, centred
        # The overlaps and prepared sides serve every method; a fault in them is each method's reason.
        self.overlap = cache(lambda name: spaces.overlap(name, centred=centred))
        self.items = cache(self._items)

    def _items(self, end: _End) -> Array:
        """Rows of one end, centred where the variant is."""
        unit = end.items.unit()
        return centred_rows(unit, self.spaces.mean(end.space, end.items.modality)) if self.centred else unit

    def raw(self) -> ArrayPair:
        """Both sides as they are."""
        return self.items(self.query), self.items(self.target)

    def mapped(self, method: str, *, two_sided: bool = False) -> ArrayPair:
        """Both sides carried, overlap by overlap, to the nearest space that both paths lead to.

        Where that is one overlap, a method that has a part for either side (CCA, the two-sided dictionary) uses both.
        """
        paths = self._paths()
        if sorted(map(len, paths)) != [0, 1]:
            if two_sided:
                raise EvaluationError("query and gallery meet through more than one overlap; see dictionary.")
            return self._along(paths[0], self.query, method), self._along(paths[1], self.target, method)
        near, far = self.overlap((paths[0] or paths[1])[0])
        settings = {"two_sided": True} if two_sided else {}
        fit = solve(near, far, ClosedFormConfig(method=method, **settings))
        sides = (fit.leaf, fit.base) if paths[0] else (fit.base, fit.leaf)
        ends = self.items(self.query), self.items(self.target)
        x, y = (apply_route(route, fit.arrays, end) for route, end in zip(sides, ends, strict=True))
        return x, y

    def _paths(self) -> tuple[list[str], list[str]]:
        """Overlaps that lead from query and gallery to the space where they meet."""
        ways = self.spaces.path(self.query.space), self.spaces.path(self.target.space)
        if self.query.space == self.target.space:
            raise EvaluationError("query and gallery are of one space; there is nothing to map, see raw.")
        meeting = next(name for name in ways[0] if name in ways[1])
        return ways[0][: ways[0].index(meeting)], ways[1][: ways[1].index(meeting)]

    def _along(self, path: Sequence[str], end: _End, method: str) -> Array:
        """Rows carried over one overlap after another by a simple method."""
        x = self.items(end)
        settings: dict[str, Any] = {"two_sided": False} if method in ("cca", "dictionary") else {}
        for name in path:
            near, far = self.overlap(name)
            fit = solve(near, far, ClosedFormConfig(method=method, **settings))
            x = normalize(apply_route(fit.leaf, fit.arrays, x))
        return x


def _unpaired(spaces: TrainingSpaces, query: _End, target: _End) -> Iterator[tuple[str, Maker]]:
    """Simple methods that need no pairs, each as a function that makes both sides."""
    for suffix, centred in (("", False), ("_centred", True)):
        variant = _Variant(spaces, query, target, centred=centred)
        yield f"raw{suffix}", variant.raw
        for method in METHODS:
            yield f"{method}{suffix}", partial(variant.mapped, method)
        yield f"dictionary_two_sided{suffix}", partial(variant.mapped, "dictionary", two_sided=True)


def _oracles(spaces: TrainingSpaces, query: _End, target: _End, train_pairs: Any) -> Iterator[tuple[str, Maker]]:
    """Simple methods that are fit on true pairs, as a bound."""
    if train_pairs is None:
        return
    ends = [spaces[end.space][end.items.modality] for end in (query, target)]
    names = [Names.of(f"training {e.space_name}/{e.modality}", e.ids, len(e)) for e in ends]
    rows = read_pairs(train_pairs, *names)
    chosen = evenly_spaced(len(rows[0]), FIT_ROWS)
    far, near = (end.unit(each[chosen]) for end, each in zip(ends, rows, strict=True))
    for method in ORACLES:
        yield f"paired_{method}", partial(_oracle, near, far, method, (query.items, target.items))


def _oracle(near: Array, far: Array, method: str, items: tuple[EmbeddingRows, EmbeddingRows]) -> ArrayPair:
    """Both sides carried by what true training pairs teach."""
    fit = solve(near, far, ClosedFormConfig(method=method))
    return apply_route(fit.leaf, fit.arrays, items[0].unit()), apply_route(fit.base, fit.arrays, items[1].unit())
