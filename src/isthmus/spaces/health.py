"""Health of a space, and what two spaces share: figures and plain warnings, in memory bounded by blocks and samples."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import effective_rank
from isthmus.core.modality import via_list
from isthmus.core.runtime import numpy_generator
from isthmus.errors import OverlapError
from isthmus.spaces.agreement import LEAST_SAMPLED, NEIGHBOURS, contradiction, neighbour_agreement
from isthmus.spaces.embeddings import Embeddings
from isthmus.spaces.health_report import HealthReport, format_report
from isthmus.spaces.overlap import Overlap, overlap
from isthmus.spaces.shards import UNIT_TOLERANCE
from isthmus.spaces.space import Space, as_space

__all__ = ["HealthReport", "format_report", "inspect", "neighbour_agreement", "sample_rows"]

COLLAPSED_COSINE = 0.9
COLLAPSED_RANK = 0.05
FEW_SHARED = 1_000
_SAMPLE = 10_000
_NEIGHBOUR_SAMPLE = 4_000
_BLOCK_VALUES = 2**23
_RANK_VALUES = 2**25
_RANK_SIDE = 2_048


def inspect(
    space: Space | str | Path,
    other: Space | str | Path | None = None,
    *,
    via: str | Sequence[str] | None = None,
    sample: int = _SAMPLE,
    k: int = NEIGHBOURS,
    seed: int = 0,
) -> HealthReport:
    """Examine a space, and with a second one what the two share.

    Norms, mean cosines, gaps and duplicates are of all rows, effective ranks and neighbours of a seeded sample.

    Args:
        space: A space, or its folder.
        other: A second one.
        via: Modalities that the two share, by default all that both have.
        sample: Most rows of a modality that are sampled.
        k: Neighbours to compare.
        seed: Seed of the samples.

    Returns:
        A report; printed, it is a table of each space, its gaps, the overlap and the warnings.

    Raises:
        OverlapError: The spaces have no modality in common, or not that of `via`, or share none of its ids.
    """
    started = time.monotonic()
    first, second = as_space(space), None if other is None else as_space(other)
    report = _space_report(first, sample, seed)
    if second is not None:
        report["other"] = _space_report(second, sample, seed)
        names = None if via is None else via_list(via)
        report["overlap"] = _overlaps(first, second, names, min(sample, _NEIGHBOUR_SAMPLE), k, seed)
        report["warnings"] += report["other"].pop("warnings")
        report["warnings"] += _overlap_warnings(first, second, report["overlap"])
    return HealthReport(**report, seconds=round(time.monotonic() - started, 3))


@dataclass(frozen=True)
class _Moments:
    """What one pass over all rows gathers: norms (n,), 0 where not finite; the sum of unit rows (d,); hashes (n,)."""

    norms: NDArray[np.float64]
    unit_sum: NDArray[np.float64]
    hashes: NDArray[np.uint64]

    @property
    def centroid(self) -> NDArray[np.float64]:
        """(dim,) mean of the unit rows."""
        return self.unit_sum / max(len(self.norms), 1)

    @property
    def mean_cosine(self) -> float:
        """Mean cosine over all pairs of different rows, from the sum of the unit rows."""
        rows = np.count_nonzero(self.norms)
        return float((self.unit_sum @ self.unit_sum - rows) / (rows * (rows - 1))) if rows > 1 else 1.0


def _moments(embeddings: Embeddings) -> _Moments:
    """Norms, hashes and sum of a modality's rows, in one pass."""
    norms = np.empty(len(embeddings), np.float64)
    hashes = np.empty(len(embeddings), np.uint64)
    total = np.zeros(embeddings.dim, np.float64)
    factors = numpy_generator(0).integers(0, 2**63, embeddings.dim, dtype=np.uint64) | np.uint64(1)
    row = 0
    for x in embeddings.blocks(max(_BLOCK_VALUES // embeddings.dim, 1)):
        here = slice(row, row + len(x))
        length = np.sqrt(np.einsum("nd,nd->n", x, x, dtype=np.float64))
        if not (finite := np.isfinite(length)).all():
            length[~finite], x = 0.0, np.where(finite[:, None], x, np.float32(0.0))
        norms[here] = length
        total += (1.0 / np.maximum(length, 1e-30)) @ x
        # Equal rows have equal hashes; two different ones among a million agree by chance once in ten million runs.
        hashes[here] = np.einsum(
            "nd,d->n", (x + np.float32(0.0)).view(np.uint32), factors, dtype=np.uint64, casting="unsafe"
        )
        row += len(x)
    return _Moments(norms, total, hashes)


def _space_report(space: Space, sample: int, seed: int) -> dict[str, Any]:
    """Health of one space by modality, with gaps and warnings."""
    moments = {name: _moments(space[name]) for name in space}
    modalities = {name: _modality_report(space[name], moments[name], sample, seed) for name in space}
    gaps = {
        f"{a} - {b}": round(float(np.linalg.norm(moments[a].centroid - moments[b].centroid)), 6)
        for a, b in combinations(moments, 2)
    }
    return {
        "space": space.name,
        "path": str(space.path),
        "dim": space.dim,
        "rows": sum(len(space[name]) for name in space),
        "normalized": space.normalized,
        "modalities": modalities,
        "gaps": gaps,
        "warnings": list(_space_warnings(space, modalities, moments)),
    }


def _space_warnings(
    space: Space, modalities: Mapping[str, Mapping[str, Any]], moments: Mapping[str, _Moments]
) -> Iterator[str]:
    """Warnings on the health of a space as a whole."""
    if unknown := [name for name, report in modalities.items() if report["encoder"] is None]:
        yield (
            f"{space.name}: nobody says which encoder made {', '.join(unknown)}; the name "
            f"{space[unknown[0]].info['encoder']['id']!r} stands in for it. "
            "Import with --encoder ID, so that spaces are not mixed up."
        )
    for name in space:
        for text in _modality_warnings(space[name], modalities[name], moments[name]):
            yield f"{space.name}/{name}: {text}"
    for name in space.unfinished:
        yield (
            f"{space.name}/{name}: rows of it are half written and not counted here. "
            "Run the interrupted import or encode again to finish it."
        )


def _modality_report(embeddings: Embeddings, moments: _Moments, sample: int, seed: int) -> dict[str, Any]:
    """Health of one modality: norms, duplicates, rank, mean cosine."""
    rows = sample_rows(len(embeddings), min(sample, _rank_rows(embeddings.dim)), seed)
    rows = rows[moments.norms[rows] > 0.0]
    x = embeddings.take(rows) / np.asarray(moments.norms[rows], np.float32)[:, None]
    encoder = embeddings.info["encoder"]
    return {
        "rows": len(embeddings),
        "dim": embeddings.dim,
        "dtype": embeddings.dtype,
        "mean_norm": round(float(moments.norms.mean()), 6),
        "min_norm": round(float(moments.norms.min()), 6),
        "max_norm": round(float(moments.norms.max()), 6),
        "unit_share": round(float(np.mean(np.abs(moments.norms - 1.0) <= UNIT_TOLERANCE)), 6),
        "mean_cosine": round(moments.mean_cosine, 6),
        "effective_rank": round(effective_rank(x), 2) if len(x) else 0.0,
        "effective_rank_rows": len(x),
        "unusable": int(np.count_nonzero(moments.norms == 0.0)),
        "duplicates": len(moments.hashes) - len(np.unique(moments.hashes)),
        "encoder": None if encoder["library"] == "unknown" else encoder["id"],
        "fingerprint": embeddings.fingerprint,
    }


def _rank_rows(dim: int) -> int:
    """Rows that enter the effective rank: of wide embeddings fewer, since it costs the cube of the smaller side."""
    return _SAMPLE if dim <= _RANK_SIDE else max(min(_RANK_SIDE, _RANK_VALUES // dim), 2)


def sample_rows(rows: int, sample: int, seed: int) -> NDArray[np.int64]:
    """Row numbers of a seeded sample without repetition, sorted; all rows where there are no more than `sample`."""
    if rows <= sample:
        return np.arange(rows, dtype=np.int64)
    return np.sort(numpy_generator(seed).choice(rows, sample, replace=False)).astype(np.int64)


def _modality_warnings(embeddings: Embeddings, report: Mapping[str, Any], moments: _Moments) -> Iterator[str]:
    """Warnings on the health of one modality."""
    if report["unusable"]:
        yield f"has {report['unusable']:,} rows that are zero or not finite. Check with --verify, make it again."
    if report["rows"] > 1 and report["mean_cosine"] > COLLAPSED_COSINE:
        yield (
            f"nearly collapsed: rows have a mean cosine of {report['mean_cosine']:.3f}, so neighbours mean little. "
            "Check the encoder and its preprocessing."
        )
    possible = min(report["dim"], report["effective_rank_rows"] - 1)
    if possible >= 20 and report["effective_rank"] < COLLAPSED_RANK * possible:
        yield (
            f"uses few directions: its effective rank is {report['effective_rank']:.1f} of {possible} possible. "
            "Check that items differ, and that the encoder has not collapsed."
        )
    if report["duplicates"]:
        share = report["duplicates"] / report["rows"]
        yield (
            f"{report['duplicates']:,} rows ({share:.1%}) repeat another row exactly{_example(embeddings, moments)}. "
            "Retrieval counts such items as ties; leave repeated items out if they are not meant."
        )


def _example(embeddings: Embeddings, moments: _Moments) -> str:
    """Ids of two items that have one embedding."""
    order = np.argsort(moments.hashes, kind="stable")
    at = int(np.flatnonzero(np.diff(moments.hashes[order]) == 0)[0])
    names = embeddings.id_array.take([int(order[at]), int(order[at + 1])]).to_pylist()
    return f", such as {names[0]!r} and {names[1]!r}"


def _overlaps(
    a: Space, b: Space, via: Sequence[str] | None, sample: int, k: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Overlap of two spaces by modality."""
    names = list(via) if via else [name for name in a if name in b]
    if not names:
        raise OverlapError(
            f"spaces {a.name!r} ({', '.join(a)}) and {b.name!r} ({', '.join(b)}) have no modality in common. "
            "Encode one modality with both encoders."
        )
    report = {}
    for name in names:
        try:
            shared = overlap(a, b, name)
        except OverlapError:
            if via:
                raise
            shared = Overlap([], np.empty(0, np.int64), np.empty(0, np.int64))
        report[name] = _overlap_report(a[name], b[name], shared, sample, k, seed)
    return report


def _overlap_report(a: Embeddings, b: Embeddings, shared: Overlap, sample: int, k: int, seed: int) -> dict[str, Any]:
    """Overlap of two spaces in one modality: shared items and common neighbours."""
    count = len(shared)
    report: dict[str, Any] = {
        "shared": count,
        "share_of_first": round(count / len(a), 6),
        "share_of_second": round(count / len(b), 6),
    }
    rows = sample_rows(count, sample, seed)
    k = min(k, len(rows) - 2)
    if k < 1:
        return report
    agreement = neighbour_agreement(a.unit(shared.rows_a[rows]), b.unit(shared.rows_b[rows]), k)
    return {**report, "sampled": len(rows), "k": k, **{key: round(value, 6) for key, value in agreement.items()}}


def _overlap_warnings(a: Space, b: Space, overlaps: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Warnings on what two spaces share."""
    for name, report in overlaps.items():
        where, shared = f"{a.name} and {b.name}, {name}", report["shared"]
        if not shared:
            yield f"{where}: no id is shared. Encode the same items with both encoders, or give ids with --ids."
        elif shared < FEW_SHARED:
            yield f"{where}: only {shared:,} items are shared, all that a bridge learns from. Thousands are better."
        if shared and max(report["share_of_first"], report["share_of_second"]) < 0.1:
            yield f"{where}: under 10 % of either side is shared. Check that both name items by the same ids."
        if report.get("sampled", 0) >= LEAST_SAMPLED and (text := contradiction(where, report)):
            yield text
        if a[name].fingerprint == b[name].fingerprint:
            yield f"{where}: both were made by the same encoder; there is nothing to bridge."
