"""How an aggregation is done: the method is chosen, tried on a random sample that is also done exactly, and judged.

Every approximate run is judged on at least 256 queries before the rest is done, so that a refusal costs little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from isthmus.core.products import low_precision_type
from isthmus.core.runtime import numpy_generator
from isthmus.memory.bf16 import low_precision_sums
from isthmus.memory.compressed import BAND, compressed_sums, probe
from isthmus.memory.exact import PASS_BYTES, SMALL, Work, partial_sums
from isthmus.memory.matrix import MatrixReader
from isthmus.memory.online_softmax import OnlineSoftmax
from isthmus.memory.sketch import Spectrum

CHECKED = 256
"""Queries of every approximate run that are done exactly too."""
_FIRST = 64
_SCANS = ((0.7, 3.5), (0.4, 4.0), (0.25, 4.5))
"""Compressed scans to try in turn: what the sketch may miss (standard deviation) and how far the threshold lies beyond
-log(tolerance), in logits. Only the last may use all of the tolerance: 256 queries do not pin a percentile down."""
_MARGIN = 0.7
_WORTH = 0.75
"""Share of the exact method's work above which an approximation is not worth its error."""
_FULL = 0.75
"""Share of the directions beyond which a sketch is none: such data has no structure to lean on."""
_SKETCHING_PASS_BYTES = 4 * PASS_BYTES
"""For a compressed pass over a memory that is not held: it is read, widened and sketched anew in every pass."""
_BF16_P99 = 3.0
"""The bf16 method errs on all queries alike: the mean is held to the tolerance, the percentile to so many of it."""

METHODS = ("exact", "bf16", "compressed", "auto")

Sums = Callable[[Work, torch.Tensor], OnlineSoftmax]


@dataclass
class MethodChoice:
    """Method of an aggregation, with what memory a pass, and the report of how that was found, ready for json."""

    sums: Sums
    report: dict[str, Any] = field(default_factory=dict)
    pass_bytes: int = PASS_BYTES


class _Trial(NamedTuple):
    """An approximation to be judged: its sums, what the report says of it, why it is refused at once,
    and the share of the tolerance that its 99th percentile may take."""

    method: str
    sums: Sums
    details: dict[str, Any]
    refused: str | None = None
    allowed: float = 1.0


def choose_method(work: Work, queries: MatrixReader, method: str, tolerance: float, seed: int) -> MethodChoice:
    """Choose how to do `work` for the queries, judging an approximation on a sample of them.

    Args:
        work: What to average.
        queries: All queries of the run.
        method: "exact", "bf16", "compressed" or "auto".
        tolerance: What the errors are held to.
        seed: Seed of the sample.
    """
    report: dict[str, Any] = {
        "asked": method, "used": "exact", "fell_back": None, "queries": queries.n, "rows": work.keys.n,
        "dim": work.keys.dim, "temperature": work.temperature, "tolerance": tolerance,
    }  # fmt: skip
    choice = MethodChoice(partial_sums, report)
    small = float(queries.n) * work.keys.n * work.keys.dim < SMALL
    if method == "exact" or (method == "auto" and small) or not queries.n:
        return choice
    judge = _Judge(work, queries, tolerance, seed)
    reasons: dict[str, str] = {}
    for trial in judge.trials(method):
        reason = trial.refused or judge.reason_against(trial, report)
        if reason is None:
            report |= {"used": trial.method, **trial.details, "check": judge.check}
            choice.sums = trial.sums
            if trial.method == "compressed" and not work.keys.resident:
                choice.pass_bytes = _SKETCHING_PASS_BYTES
            return choice
        reasons[trial.method] = reason
    report["fell_back"] = "; ".join(f"{name}: {why}" for name, why in reasons.items()) or None
    if judge.check:
        report["check"] = judge.check
    return choice


class _Judge:
    """The sampled queries, their exact results (made when first needed), and the trials in the order of their cost."""

    def __init__(self, work: Work, queries: MatrixReader, tolerance: float, seed: int) -> None:
        self.work, self.queries, self.tolerance, self.seed = work, queries, tolerance, seed
        chosen = numpy_generator(seed, 256).choice(queries.n, min(CHECKED, queries.n), replace=False)
        self.sample = queries.take(torch.from_numpy(np.sort(chosen)))
        self.check: dict[str, Any] = {}
        self._exact: list[torch.Tensor] | None = None

    def trials(self, method: str) -> Iterator[_Trial]:
        """Yield what may be tried: compressed scans, the cheapest first, each after the one before was refused."""
        if method in ("compressed", "auto"):
            spectrum = Spectrum(self.work.keys, self.queries, self.work.temperature)
            for number, (residual, margin) in enumerate(_SCANS):
                trial = self._compressed(spectrum, residual, margin)
                yield trial if number == len(_SCANS) - 1 else trial._replace(allowed=_MARGIN)
                if trial.refused:
                    break
        if method in ("bf16", "auto"):
            kind = low_precision_type(self.work.keys.device)
            if method == "bf16" or kind != "float32":
                yield _Trial("bf16", low_precision_sums, {"products": kind}, allowed=_BF16_P99)

    def _compressed(self, spectrum: Spectrum, residual: float, margin: float) -> _Trial:
        """Trial of a compressed scan: its sketch, threshold and tail, or why it does not pay."""
        rows, dim = self.work.keys.n, self.work.keys.dim
        sketch = spectrum.sketch(spectrum.rank(residual))
        threshold = max(2.5 * BAND, margin - float(np.log(self.tolerance)))
        details: dict[str, Any] = {
            "rank": sketch.rank, "residual": round(sketch.residual, 4), "threshold": round(threshold, 2),
        }  # fmt: skip
        allowed = _WORTH * rows * (dim + sum(self.work.widths) + 50.0)
        cost = rows * (sketch.rank + 20.0)
        if cost > allowed or sketch.rank > _FULL * dim:
            return _Trial("compressed", partial_sums, details, f"the scores need {sketch.rank} of {dim} directions")
        # A rescored row costs about as much as 25 rows of a dense product.
        most = (allowed - cost) / (25.0 * dim)
        rows_per_query, tail = probe(self.work, self.sample[:_FIRST], sketch, threshold, most)
        details |= {"rows_per_query": round(rows_per_query, 1), "tail": round(tail, 4)}
        refused = f"a query needs more than {most:,.0f} of {rows:,} rows" if rows_per_query > most else None

        def sums(work: Work, queries: torch.Tensor) -> OnlineSoftmax:
            return compressed_sums(work, queries, sketch, threshold, tail)

        return _Trial("compressed", sums, details, refused)

    def reason_against(self, trial: _Trial, report: dict[str, Any]) -> str | None:
        """Do the sample both ways; say why the approximation does not hold the tolerance, or None."""
        if self._exact is None:
            exact = partial_sums(self.work, self.sample)
            self._exact = exact.finish()
            if exact.moment is not None:
                report["effective_neighbours"] = percentiles(exact.effective_neighbours())
        self.check = compare(trial.sums(self.work, self.sample).finish(), self._exact) | {"seed": self.seed}
        allowed = self.tolerance * trial.allowed
        errors = self.check
        if errors["mean"] > self.tolerance:
            return f"mean relative error {errors['mean']:.2g}, over the tolerance of {self.tolerance:g}"
        if errors["p99"] > allowed:
            return f"99th percentile of the relative error {errors['p99']:.2g}, over the tolerance of {allowed:g}"
        if errors["min_cosine"] < 1.0 - self.tolerance:
            return f"smallest cosine {errors['min_cosine']:.4f}, under {1.0 - self.tolerance:g}"
        return None


def compare(results: list[torch.Tensor], exact: list[torch.Tensor]) -> dict[str, Any]:
    """Relative errors and cosines of (q, d) results against the exact ones; of several, the worst per query."""
    errors, cosines = [], []
    for mine, theirs in zip(results, exact, strict=True):
        size = torch.linalg.vector_norm(theirs, dim=1).clamp_min(1e-12)
        errors.append(torch.linalg.vector_norm(mine - theirs, dim=1) / size)
        cosines.append(torch.cosine_similarity(mine, theirs, dim=1))
    # A NaN must count as wrong, never as within the tolerance.
    error = torch.stack(errors).amax(dim=0).nan_to_num(nan=1e9).cpu().numpy().astype(np.float64)
    cosine = float(np.nan_to_num(torch.stack(cosines).amin().item(), nan=-1.0))
    return {
        "queries": len(error), "mean": float(error.mean()), "p99": float(np.percentile(error, 99)),
        "max": float(error.max()), "min_cosine": cosine,
    }  # fmt: skip


def percentiles(values: torch.Tensor) -> dict[str, float]:
    """Percentiles 10, 50, 90 and 99 of a (n,) tensor."""
    array = values.cpu().numpy()
    return {f"p{p}": float(np.percentile(array, p)) for p in (10, 50, 90, 99)} if len(array) else {}


def describe(report: dict[str, Any]) -> str:
    """Description in one line of how an aggregation was done and how far off it is."""
    size = f"{report['queries']:,} queries over {report['rows']:,} rows at temperature {report['temperature']:g}"
    if report["used"] == "exact":
        why = f" ({report['asked']} was refused: {report['fell_back']})" if report["fell_back"] else ""
        return f"{size}: exact{why}"
    check = report["check"]
    return (
        f"{size}: {report['used']}, relative error {check['mean']:.1e} on average and {check['p99']:.1e} at the 99th "
        f"percentile of {check['queries']} queries done exactly too, smallest cosine {check['min_cosine']:.5f}"
    )
