"""Two bridges on one benchmark: the difference of every figure, with an interval and a p-value, item by item."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.bridges.bridge import Bridge
from isthmus.bridges.opening import as_bridge
from isthmus.core.locks import hold
from isthmus.errors import EvaluationError
from isthmus.evaluation.benchmarks.declaration import Benchmark, load_benchmark
from isthmus.evaluation.suite.embed import ItemSetEmbedder
from isthmus.evaluation.suite.methods import EmbeddedTask
from isthmus.evaluation.suite.questions import TaskScore, Values
from isthmus.evaluation.suite.reports import Comparison
from isthmus.evaluation.suite.run_suite import check_names, describe, prepare
from isthmus.evaluation.suite.settings import SuiteSettings, settle
from isthmus.metrics.bootstrap import bootstrap_means

Draws = NDArray[np.float64]


def compare_bridges(
    a: Bridge | str | Path,
    b: Bridge | str | Path,
    benchmark: str | Path | Benchmark,
    data: str | Path,
    *,
    cache: str | Path | None = None,
    settings: SuiteSettings | None = None,
    **changes: Any,
) -> Comparison:
    """Compare two bridges on the items of one benchmark.

    Args:
        a: A bridge, or its folder.
        b: Another.
        benchmark: See `run_suite`.
        data: The folder of the data set.
        cache: Folder of encoded items.
        settings: Everything else; `bootstrap` is the number of resamples.
        **changes: Settings over those.

    Raises:
        EvaluationError: The two were scored on other items, or there is nothing to resample.
        IsthmusError: As `run_suite`.
    """
    started = time.perf_counter()
    how = settle(settings, changes, cache)
    if not how.bootstrap:
        raise EvaluationError("a comparison is a bootstrap test: bootstrap got 0, expected a number of resamples.")
    declared = benchmark if isinstance(benchmark, Benchmark) else load_benchmark(benchmark)
    prepared = prepare(declared, data, how)
    bridges = as_bridge(a), as_bridge(b)
    check_names(bridges, prepared.scoring, how)
    embedder = ItemSetEmbedder(how)
    outcomes = []
    with hold(how.cache):
        for bridge in bridges:
            embedded = EmbeddedTask.of(bridge, prepared.scoring, embedder)
            outcomes.append(embedded.through(bridge, how.force))
    by_direction = differences(outcomes[0], outcomes[1], seed=how.seed, n=how.bootstrap)
    return Comparison(
        describe(declared, data, prepared, how.limit),
        figures=by_direction.pop("figures"),
        directions=by_direction,
        resamples=how.bootstrap,
        seconds=time.perf_counter() - started,
    )


def differences(a: TaskScore, b: TaskScore, *, seed: int, n: int) -> dict[str, Any]:
    """`figures`, and either direction where there are two; see `compare_bridges`.

    The same items are drawn for both bridges. The mean of two directions takes their draws in order of size, so that
    its interval is the mean of theirs: right if the directions move together, too wide if they do not, as everywhere
    in isthmus.

    Raises:
        EvaluationError: The outcomes are of other items.
    """
    ways = {way: _draws(a.parts[way], b.parts.get(way, ()), seed=seed, n=n) for way in a.parts}
    if not ways:
        raise EvaluationError("this benchmark has no figure that is a mean over items; nothing can be resampled.")
    out: dict[str, Any] = {}
    for way, draws in ways.items():
        summary = _figure_differences(_side(a, way), _side(b, way), draws)
        out["figures" if way == "" else way] = summary
    if "" not in ways:
        names = next(iter(ways.values()))
        both = {name: np.mean([np.sort(draws[name]) for draws in ways.values()], axis=0) for name in names}
        out["figures"] = _figure_differences(a.figures["mean"], b.figures["mean"], both)
    return out


def _side(outcome: TaskScore, way: str) -> dict[str, Any]:
    """Figures of a score in one direction."""
    return outcome.figures if way == "" else outcome.figures[way]


def _figure_differences(a: dict[str, Any], b: dict[str, Any], draws: dict[str, Draws]) -> dict[str, Any]:
    """Difference of every figure of two bridges, with interval and p-value."""
    return {
        name: {
            "a": a[name],
            "b": b[name],
            "difference": b[name] - a[name],
            "ci95": [float(end) for end in np.quantile(values, (0.025, 0.975))],
            "p": p_value(values),
        }
        for name, values in draws.items()
    }


def p_value(draws: Draws) -> float:
    """Two-sided: how often a resampled difference lies on the other side of zero, twice; never below 2 / (n + 1)."""
    below, above = np.count_nonzero(draws <= 0.0), np.count_nonzero(draws >= 0.0)
    return float(min(1.0, 2.0 * (min(below, above) + 1) / (len(draws) + 1)))


def _draws(a: Sequence[Values], b: Sequence[Values], *, seed: int, n: int) -> dict[str, Draws]:
    """(n,) resampled mean differences of every figure; groups are resampled apart and averaged."""
    if len(a) != len(b):
        raise EvaluationError(f"the bridges were scored on {len(a)} and {len(b)} groups. Expected the same items.")
    by_group: list[dict[str, Draws]] = []
    for one, other in zip(a, b, strict=True):
        names = list(one)
        if any(len(one[name]) != len(other[name]) for name in names):
            raise EvaluationError(
                f"the bridges were scored on {len(one[names[0]]):,} and {len(other[names[0]]):,} items, since their "
                "encoders rejected others. Leave those items out of the data set."
            )
        stacked = np.stack([np.asarray(other[name] - one[name], np.float64) for name in names], axis=1)
        drawn = bootstrap_means(stacked, seed=seed, n=n)
        by_group.append({name: drawn[:, number] for number, name in enumerate(names)})
    return {name: np.mean([each[name] for each in by_group], axis=0) for name in by_group[0]}
