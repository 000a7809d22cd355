"""Scores of a sketched memory: every type must find the rows that reach their floor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from isthmus.core import kernels
from isthmus.core.products import SWITCH
from isthmus.memory import candidates as scores
from isthmus.memory.candidates import Bounds, ByteScores, FloatScores, make_scores

WHOLE = slice(0, 300)
KINDS = ["float32", "bf16", "int8"]


def world(rows: int = 5001, rank: int = 41) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and rows whose directions are of falling strength, as a sketch has them."""
    draw = torch.Generator().manual_seed(0)
    strength = torch.linspace(2.0, 0.2, rank)
    return tuple(torch.randn((n, rank), generator=draw) * strength for n in (300, rows))


def make(kind: str, asking: torch.Tensor, keys: torch.Tensor) -> FloatScores | ByteScores:
    if kind != "int8":
        return FloatScores(asking, torch.bfloat16 if kind == "bf16" else torch.float32)
    if not kernels.available():
        pytest.skip(kernels.missing())
    return ByteScores(asking, keys[:512])


def margin_of(kind: str, made: FloatScores | ByteScores) -> torch.Tensor:
    """(q,) what a score may err by: of a million scores none lies beyond seven deviations."""
    if kind == "int8":
        return 7.0 * made.missed + 0.01
    return torch.full((300,), {"float32": 1e-3, "bf16": 0.5}[kind])


def bounds(best: torch.Tensor, threshold: torch.Tensor, rows: int, query_error: float = 0.0) -> Bounds:
    return Bounds(best.clone(), threshold.clone(), torch.full_like(best, query_error), torch.zeros(rows))


def found(made: FloatScores | ByteScores, keys: torch.Tensor, held: Bounds, part: slice = WHOLE) -> torch.Tensor:
    """(q, m) whether a row was found."""
    starts, columns = made.find(part, made.tiles(keys), held)
    assert len(starts) == part.stop - part.start + 1
    assert int(starts[-1]) == len(columns)
    out = torch.zeros((len(starts) - 1, len(keys)), dtype=torch.int64)
    for query in range(len(out)):
        out[query].index_add_(
            0, columns[starts[query] : starts[query + 1]], torch.tensor(1).expand(starts.diff()[query])
        )
    assert int(out.max()) <= 1
    return out.bool()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [-8.0, 0.0, 9.0, 14.0])
def test_what_reaches_its_floor_is_found(kind, level):
    asking, keys = world()
    made = make(kind, asking, keys)
    floor = level + torch.linspace(-1.0, 1.0, len(asking))
    threshold = torch.full_like(floor, 1e3)  # So far that no best is ever raised beyond the one that was given.
    got, true = found(made, keys, bounds(floor + threshold, threshold, len(keys))), asking @ keys.T
    floor, margin = floor[:, None], margin_of(kind, made)[:, None]
    assert got[true >= floor + margin].all()
    assert not got[true < floor - margin].any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_floor_follows_the_best_row_wherever_it_comes(kind):
    asking, keys = world()
    made = make(kind, asking, keys)
    true = asking @ keys.T
    held = bounds(torch.full((300,), -50.0), torch.full((300,), 6.0), len(keys))
    got, margin = found(made, keys, held), margin_of(kind, made)
    assert bool(((held.best - true.amax(dim=1)).abs() <= margin).all())
    margin = margin[:, None]
    under = true.amax(dim=1, keepdim=True) - true
    assert got[under <= 6.0 - 2.0 * margin].all()
    assert not got[under > 6.0 + 2.0 * margin].any()
    assert 1.0 < float(got.sum(1).float().mean()) < 200.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_the_sketch_misses_more_of_raises_the_best_by_less(kind):
    asking, keys = world(rows=3000)
    made = make(kind, asking, keys)
    top = (asking @ keys.T).argmax(dim=1)
    held = bounds(torch.full((300,), -50.0), torch.full((300,), 6.0), len(keys), query_error=2.0)
    held.row_residual[top] = 100.0
    found(made, keys, held)
    rest = asking @ keys.T
    rest[:, top] = -torch.inf
    assert bool(((held.best - rest.amax(dim=1)).abs() <= margin_of(kind, made)).all())


@pytest.mark.parametrize("kind", KINDS)
def test_floors_may_lie_anywhere(kind):
    asking, keys = world()
    floor = torch.linspace(-500.0, 500.0, 300)
    threshold = torch.full_like(floor, 2e3)
    made = make(kind, asking, keys)
    got, true = found(made, keys, bounds(floor + threshold, threshold, len(keys))), asking @ keys.T
    clear = (true - floor[:, None]).abs() > (4.0 if kind == "bf16" else 2.0)
    assert bool((got == (true >= floor[:, None]))[clear].all())


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_the_queries_is_scored_alone(kind):
    asking, keys = world(rows=101)
    made = make(kind, asking, keys)
    held = bounds(torch.full((300,), 10.0), torch.full((300,), 6.0), len(keys))
    whole = found(made, keys, held)
    own = bounds(torch.full((51,), 10.0), torch.full((51,), 6.0), len(keys))
    assert bool((found(made, keys, own, slice(40, 91)) == whole[40:91]).all())


def test_bytes_err_by_what_they_say():
    """The scores themselves, from the compiled loop, against products in float64."""
    asking, keys = world(rows=2048)
    made = make("int8", asking, keys)
    from isthmus.core.kernels import scan

    tile = made.tiles(keys)[0][1]
    packed = scan.pack(made._codes, scan.TILE_ROWS)
    hits = tuple(np.empty(700_000, kind) for kind in (np.int32, np.int32, np.float32))
    best, threshold, nothing = (np.full(n, x, np.float32) for n, x in ((300, 0.0), (300, 1e3), (2048, 0.0)))
    rows = tile.lanes, 0, 2048, tile.scale, nothing, nothing[:300]
    count = scan.scan_tile(packed, made._scales, made._zeros, *rows, threshold, best, hits, 0)
    assert count == 300 * 2048
    got = np.zeros((300, 2048))
    got[hits[0][:count], hits[1][:count]] = hits[2][:count]
    error = got - (asking.double() @ keys.double().T).numpy()
    noise = made.missed.numpy()
    assert 0.8 < (error.std(axis=1) / noise).mean() < 1.2
    assert np.abs(error / noise[:, None]).max() < 7.0


def test_more_hits_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(scores, "_HITS", 64)
    asking, keys = world(rows=2500)
    made = make("int8", asking, keys)
    floor, threshold = torch.full((300,), -40.0), torch.full((300,), 1e3)
    got = found(made, keys, bounds(floor + threshold, threshold, len(keys)))
    assert bool((got == (asking @ keys.T >= -40.0))[((asking @ keys.T) + 40.0).abs() > 2.0].all())
    assert int(got.sum()) > 700_000


def test_the_type_of_a_scan_decides_its_scores(monkeypatch):
    asking, keys = world()
    monkeypatch.setenv(SWITCH, "float32")
    assert make_scores(asking, keys).sketched.dtype == torch.float32
    monkeypatch.setenv(SWITCH, "bf16")
    assert make_scores(asking, keys).sketched.dtype == torch.bfloat16
    if not kernels.available():
        pytest.skip(kernels.missing())
    monkeypatch.setenv(SWITCH, "integer")
    # Also of no queries: what is prepared of a memory is kept for others.
    assert isinstance(make_scores(asking[:0], keys[:64]), ByteScores)
