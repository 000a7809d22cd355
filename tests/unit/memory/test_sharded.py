"""Aggregation over shards gives one result, whoever computes it."""

from __future__ import annotations

import itertools
import sys
from contextlib import nullcontext

import numpy as np
import pytest

from isthmus.errors import ConfigError, DependencyError, FormatError
from isthmus.memory import MemoryBank
from isthmus.memory.sharded import ShardedMemory, aggregate_shards, open_engine


@pytest.fixture
def world(tmp_path):
    rng = np.random.default_rng(0)
    keys = rng.standard_normal((5000, 16)).astype(np.float32)
    other = rng.standard_normal((5000, 6)).astype(np.float32)
    queries = keys[:700] + 0.5 * rng.standard_normal((700, 16)).astype(np.float32)
    cuts = [0, 1, 2000, 3500, 5000]
    shards, values = [], []
    for number, (low, high) in enumerate(itertools.pairwise(cuts)):
        for array, stem, files in ((keys, "keys", shards), (other, "values", values)):
            files.append(tmp_path / f"{stem}{number}.npy")
            np.save(files[-1], array[low:high])
    return queries, keys, other, shards, values


@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_shards_give_what_the_whole_gives(world, temperature, monkeypatch):
    monkeypatch.setattr("isthmus.memory.sharded.QUERY_BLOCK", 300)
    queries, keys, other, shards, values = world
    got, stats = aggregate_shards(shards, queries, temperature=temperature)
    whole, truth = MemoryBank(keys).aggregate_with_stats(queries, temperature=temperature)
    np.testing.assert_allclose(got, whole, atol=1e-5)
    np.testing.assert_allclose(stats.effective_neighbours, truth.effective_neighbours, rtol=1e-3)
    assert stats.report["shards"] == 4
    got, _ = aggregate_shards(shards, queries, temperature=temperature, values=values)
    np.testing.assert_allclose(
        got, MemoryBank(keys).aggregate(queries, temperature=temperature, values=other), atol=1e-5
    )


@pytest.fixture(scope="module")
def processes():
    """Two processes that start once: a fresh Python that loads torch takes seconds."""
    with open_engine("processes", workers=2) as opened:
        yield opened


def test_processes_give_the_same(world, processes):
    queries, _, _, shards, values = world
    alone, _ = aggregate_shards(shards, queries, values=values)
    together, stats = aggregate_shards(shards, queries, values=values, engine=processes)
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert stats.report["engine"] == "processes"


def test_no_queries_give_no_rows(world):
    _, _, _, shards, _ = world
    got, stats = aggregate_shards(shards, np.zeros((0, 16), np.float32))
    assert got.shape == (0, 16)
    assert len(stats.effective_neighbours) == 0


def test_faults_are_one_clear_line(world, tmp_path, monkeypatch):
    queries, keys, _, shards, values = world
    with pytest.raises(ConfigError, match=r"unknown engine 'spark'\. Expected one of local, processes, ray"):
        aggregate_shards(shards, queries, engine="spark")
    with pytest.raises(ConfigError, match=r"got 0 shards and no values\. Expected at least one shard"):
        aggregate_shards([], queries)
    with pytest.raises(ConfigError, match="got 4 shards and 3 of values"):
        aggregate_shards(shards, queries, values=values[:3])
    (tmp_path / "bad.npy").write_bytes(b"no array")
    with pytest.raises(FormatError, match=r"bad\.npy is no shard \(.*\)\. Expected an \(n, d\) \.npy file"):
        aggregate_shards([tmp_path / "bad.npy"], queries)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match=r"Run: pip install 'isthmus\[ray\]'"):
        aggregate_shards([keys], queries, engine="ray")


@pytest.mark.parametrize("engine", ["local", "processes"])
def test_a_sharded_memory_is_a_memory_bank(world, engine, tmp_path, monkeypatch, request):
    """Several matrices under the same weights, and several aggregations by workers that start once."""
    monkeypatch.setattr("isthmus.memory.sharded.SHARD_ROWS", 1700)
    queries, keys, other, _, _ = world
    bank = MemoryBank(keys)
    opening = nullcontext(request.getfixturevalue("processes")) if engine == "processes" else open_engine(engine)
    with opening as opened:
        alone = ShardedMemory(keys, None, opened, tmp_path / "a")
        both = ShardedMemory(keys, [keys, other], opened, tmp_path / "b")
        for part in (queries[:300], queries[300:]):
            (got,), stats = alone.aggregate_with_stats(part, temperature=0.05)
            truth, exact = bank.aggregate_with_stats(part, temperature=0.05)
            np.testing.assert_allclose(got, truth, atol=1e-5)
            np.testing.assert_allclose(stats.effective_neighbours, exact.effective_neighbours, rtol=1e-3)
            got, stats = both.aggregate_with_stats(part, temperature=0.05)
            for mine, theirs in zip(got, bank.aggregate(part, temperature=0.05, values=[keys, other]), strict=True):
                np.testing.assert_allclose(mine, theirs, atol=1e-5)
            assert stats.report["shards"] == 3
            assert stats.report["engine"] == engine
        got, _ = both.aggregate_with_stats(queries[:0], temperature=0.05)
        assert [x.shape for x in got] == [(0, 16), (0, 6)]
    assert len(list(tmp_path.glob("*/*/*.npy"))) == (9 if engine == "processes" else 0)


def test_an_unknown_engine_is_refused():
    unknown = pytest.raises(ConfigError, match=r"unknown engine 'spark'\. Expected one of local, processes, ray")
    with unknown, open_engine("spark"):
        pass
