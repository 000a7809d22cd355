"""Scores of a sketched memory: every type must find the rows that reach their floor, and say how high they lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from isthmus.memory import scores
from isthmus.memory.scores import ByteScores, FloatScores, make_scores, product_type

WHOLE = slice(0, 300)


def world(rows: int = 5001, rank: int = 41) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and rows whose directions are of falling strength, as a sketch has them."""
    draw = torch.Generator().manual_seed(0)
    strength = torch.linspace(2.0, 0.2, rank)
    return tuple(torch.randn((n, rank), generator=draw) * strength for n in (300, rows))


def makers(asking: torch.Tensor, keys: torch.Tensor) -> dict[str, FloatScores | ByteScores]:
    return {
        "float32": FloatScores(asking, torch.float32),
        "bf16": FloatScores(asking, torch.bfloat16),
        "int8": ByteScores(asking, keys[:512]),
    }


def found(made: FloatScores | ByteScores, keys: torch.Tensor, floor: torch.Tensor, part: slice = WHOLE) -> torch.Tensor:
    """(q, m) scores of what was found, NaN elsewhere."""
    out = torch.full((len(floor), len(keys)), torch.nan)
    for low, tile in made.tiles(keys):
        queries, rows, values = made.hits(part, tile, floor.clone())
        assert len(torch.unique(queries * len(keys) + rows)) == len(rows)
        out[queries, rows + low] = values + floor[queries]
    return out


@pytest.mark.parametrize("kind", ["float32", "bf16", "int8"])
@pytest.mark.parametrize("level", [-8.0, 0.0, 9.0, 14.0])
def test_what_reaches_its_floor_is_found_and_scored(kind, level):
    asking, keys = world()
    made = makers(asking, keys)[kind]
    floor = level + torch.linspace(-1.0, 1.0, len(asking))
    got, true = found(made, keys, floor), asking @ keys.T
    noise = float(torch.as_tensor(made.missed).mean())
    margin = {"float32": 1e-3, "bf16": 0.5, "int8": 6.0 * noise + 0.1}[kind]
    assert not torch.isnan(got[true >= floor[:, None] + margin]).any()
    assert torch.isnan(got[true < floor[:, None] - margin]).all()
    seen = ~torch.isnan(got)
    assert float((got - true)[seen].abs().max()) <= margin
    if kind == "int8":
        actual = float((got - true)[seen].std())
        assert 0.5 * noise < actual < 1.2 * noise + 0.05


def test_bytes_score_again_what_passes_them():
    """Duplicates of a query score far above a floor that was set by a few rows: 255 steps do not reach them."""
    asking, keys = world()
    keys[77] = 3.0 * asking[5]
    floor = torch.full((300,), -10.0)
    got = found(ByteScores(asking, keys[:512]), keys, floor)
    assert float(asking[5] @ keys[77]) > 40.0
    assert float(got[5, 77]) == pytest.approx(float(asking[5] @ keys[77]), rel=1e-5)


def test_floors_may_lie_anywhere():
    asking, keys = world()
    floor = torch.linspace(-500.0, 500.0, 300)
    got, true = found(ByteScores(asking, keys[:512]), keys, floor), asking @ keys.T
    assert bool((~torch.isnan(got) == (true >= floor[:, None]))[(true - floor[:, None]).abs() > 2.0].all())
    assert float((got - true)[~torch.isnan(got)].abs().max()) < 2.0


def test_a_part_of_the_queries_is_scored_alone():
    asking, keys = world(rows=100)
    for made in makers(asking, keys).values():
        floor = torch.full((300,), 4.0)
        whole = found(made, keys, floor)
        part = found(made, keys, floor[40:90], slice(40, 90))
        torch.testing.assert_close(part, whole[40:90], equal_nan=True)


@pytest.fixture
def fresh():
    product_type.cache_clear()
    yield torch.device("cpu")
    product_type.cache_clear()


def test_bytes_that_torch_refuses_are_not_used(fresh, monkeypatch):
    def refused(*args):
        raise RuntimeError("no such product")

    monkeypatch.setattr(scores, "_byte_tile", refused)
    assert product_type(fresh) != "int8"


def test_bytes_that_come_out_wrong_are_not_used(fresh, monkeypatch):
    right = ByteScores.hits

    def wrong(self, part, tile, floor):
        queries, rows, values = right(self, part, tile, floor)
        return queries, rows, values + 2.0

    monkeypatch.setattr(ByteScores, "hits", wrong)
    assert product_type(fresh) != "int8"


def test_bytes_of_which_some_are_missed_are_not_used(fresh, monkeypatch):
    right = ByteScores.hits
    monkeypatch.setattr(ByteScores, "hits", lambda *asked: tuple(x[len(x) // 2 :] for x in right(*asked)))
    assert product_type(fresh) != "int8"


def test_where_bytes_are_no_faster_floats_are_used(fresh, monkeypatch):
    monkeypatch.setattr(scores, "_MACHINES", ())
    monkeypatch.setattr(scores, "pays", lambda device: True)
    assert product_type(fresh) == "bf16"
    product_type.cache_clear()
    monkeypatch.setattr(scores, "pays", lambda device: False)
    assert product_type(fresh) == "float32"


def test_few_directions_are_scored_in_floats(monkeypatch):
    monkeypatch.setattr(scores, "product_type", lambda device: "int8")
    asking, keys = world(rank=8)
    assert isinstance(make_scores(asking, keys[:64]), FloatScores)
    asking, keys = world(rank=40)
    assert isinstance(make_scores(asking, keys[:64]), ByteScores)
    # Also of no queries: what is prepared of a memory is kept for others.
    assert isinstance(make_scores(asking[:0], keys[:64]), ByteScores)


@pytest.mark.parametrize("size", [16, 17, 4096])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.6, 1.0])
def test_where_bytes_are_not_zero(size, share):
    flags = (np.random.default_rng(0).random(size) < share).astype(np.uint8) * 200
    np.testing.assert_array_equal(scores._not_zero(flags), np.nonzero(flags)[0])
