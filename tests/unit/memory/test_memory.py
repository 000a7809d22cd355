"""Memory banks: what may be given, what comes back, how approximations are judged, what is said of faults."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from isthmus.core import kernels
from isthmus.core.products import SWITCH, WAYS
from isthmus.errors import CheckFailed, ConfigError, FormatError, SpaceError
from isthmus.memory import MemoryBank, OnlineSoftmax, SparseWeights, describe
from isthmus.memory import method as check
from isthmus.memory.bf16 import bf16_sums
from isthmus.memory.compressed import compressed_sums, probe
from isthmus.memory.exact import Work, partial_sums
from isthmus.memory.exact_int16 import int16_partial_sums
from isthmus.memory.matrix import CHUNK_ROWS, MatrixReader
from isthmus.memory.run import Run
from isthmus.memory.sketch import Spectrum

CPU = torch.device("cpu")


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def world(seed=0, *, rows=6000, queries=1200, dim=48, rank=12):
    """Embeddings as real encoders make them: few directions matter, and a query has a few near rows."""
    rng = np.random.default_rng(seed)
    axes = rng.standard_normal((rank, dim)).astype(np.float32)
    keys = rng.standard_normal((rows, rank)).astype(np.float32) @ axes
    near = keys[rng.integers(0, rows, queries)]
    noise = 0.02 * np.sqrt(rank) * rng.standard_normal((queries, dim)).astype(np.float32)
    return (near + 0.4 * rng.standard_normal((queries, rank)).astype(np.float32) @ axes + noise).astype(
        np.float32
    ), keys


def isotropic(seed=0, rows=6000, queries=1200, dim=48):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((queries, dim)).astype(np.float32), rng.standard_normal((rows, dim)).astype(np.float32)


def errors(got, exact):
    error = np.linalg.norm(got - exact, axis=1) / np.linalg.norm(exact, axis=1)
    return error, (unit(got) * unit(exact)).sum(1)


def compiled_or_skip():
    if not kernels.available():
        pytest.skip(kernels.missing())


def force(monkeypatch, way):
    """Make products that way, whatever the processor is fastest at."""
    if way == "integer":
        compiled_or_skip()
    monkeypatch.setenv(SWITCH, way)


class Stored:
    """What the bank sees of the embeddings of a space."""

    def __init__(self, array):
        self.array, self.shape, self.read = array, array.shape, 0

    def take(self, rows, /):
        self.read += len(rows)
        return self.array[rows].astype(np.float32)


# What may be given


@pytest.fixture
def small():
    queries, keys = world(3, rows=3000, queries=200)
    return queries, keys, MemoryBank(keys).aggregate(queries)


def test_tensors_in_give_tensors_out(small):
    queries, keys, expected = small
    got = MemoryBank(torch.from_numpy(keys)).aggregate(torch.from_numpy(queries))
    assert isinstance(got, torch.Tensor)
    np.testing.assert_array_equal(got.numpy(), expected)


@pytest.mark.parametrize("resident_bytes", [0, 1 << 30])
def test_a_memory_map_a_space_and_shards_give_what_the_array_gives(small, tmp_path, resident_bytes):
    queries, keys, expected = small
    half = keys.astype(np.float16)
    np.save(tmp_path / "keys.npy", half)
    mapped = np.load(tmp_path / "keys.npy", mmap_mode="r")
    expected = MemoryBank(half).aggregate(queries)
    for given in (
        mapped,
        Stored(half),
        [half[:7], mapped[7:2000], Stored(half[2000:])],
        iter([half[:1500], half[1500:]]),
    ):
        bank = MemoryBank(given, resident_bytes=resident_bytes)
        assert bank.keys.resident == (resident_bytes > 0)
        np.testing.assert_allclose(bank.aggregate(queries), expected, atol=1e-6)


def test_a_streamed_memory_is_read_once_per_pass(monkeypatch):
    monkeypatch.setattr("isthmus.memory.matrix.CHUNK_BYTES", 4 * 48 * 500)
    queries, keys = world(4)
    stored = Stored(keys)
    bank = MemoryBank(stored, resident_bytes=0)
    bank.aggregate(queries)
    assert stored.read == len(keys)


def test_a_streamed_memory_that_needs_sketching_is_read_in_few_passes(monkeypatch):
    """A compressed pass over it takes four times the queries of an exact one."""
    queries, keys = world(4, queries=4096)
    expected = MemoryBank(keys).aggregate(queries, method="compressed")
    passes = []
    for size in (1, 4096 * 4 * (2 * 48 + 3)):
        monkeypatch.setattr("isthmus.memory.method._SKETCHING_PASS_BYTES", size)
        stored = Stored(keys)
        bank = MemoryBank(stored, resident_bytes=0)
        got = bank.aggregate(queries, method="compressed")
        assert bank.report["used"] == "compressed"
        np.testing.assert_allclose(got, expected, atol=3e-3)
        passes.append(stored.read / len(keys))
    # And every pass takes a few rows to start its floors from.
    assert passes[0] - passes[1] == pytest.approx(3.0, abs=0.3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", ["exact", "bf16", "compressed"])
def test_streaming_in_small_chunks_changes_nothing(monkeypatch, method, way):
    """Whatever rounds some rows together rounds the same rows, however much of the memory is read at a time.

    A compressed scan drops rows by the best that it has seen when a chunk ends, and holds what it says it does.
    """
    force(monkeypatch, way)
    queries, keys = world(5)
    bank = MemoryBank(keys)
    expected = bank.aggregate(queries, method=method)
    assert bank.report["used"] == method
    monkeypatch.setattr("isthmus.memory.matrix.CHUNK_BYTES", 4 * 48 * 2500)
    streamed = MemoryBank(Stored(keys), resident_bytes=0)
    assert streamed.keys.chunk_rows == 2048 < bank.keys.n
    got = streamed.aggregate(Stored(queries), method=method)
    if method == "compressed":
        assert np.percentile(errors(got, expected)[0], 99) <= bank.report["tolerance"]
    else:
        np.testing.assert_array_equal(got, expected)


def test_rows_are_taken_from_several_shards_in_the_order_asked_for(small):
    _, keys, _ = small
    rows = MatrixReader([keys[:10], keys[10:11], keys[11:]], CPU, unit=True, name="memory", resident_bytes=0)
    wanted = torch.tensor([2999, 0, 10, 10, 9, 11, 500])
    np.testing.assert_allclose(rows.take(wanted).numpy(), unit(keys)[wanted.numpy()], atol=1e-6)


def test_the_memory_given_is_never_changed(small):
    queries, keys, _ = small
    before, asked = keys.copy(), queries.copy()
    bank = MemoryBank(keys)
    for method in ("exact", "bf16", "compressed"):
        bank.aggregate(queries, method=method, values=[keys, None])
    np.testing.assert_array_equal(keys, before)
    np.testing.assert_array_equal(queries, asked)


def test_unit_rows_are_used_where_they_lie():
    keys = unit(world(6)[1]).astype(np.float32)
    bank = MemoryBank(keys)
    assert bank.keys.tensor.data_ptr() == torch.from_numpy(keys).data_ptr()


def test_read_only_and_foreign_arrays_are_taken(small):
    queries, keys, expected = small
    frozen = keys.copy()
    frozen.setflags(write=False)
    np.testing.assert_allclose(MemoryBank(frozen).aggregate(queries), expected, atol=1e-6)
    np.testing.assert_allclose(MemoryBank(keys.astype(">f8")).aggregate(queries.astype(">f4")), expected, atol=1e-6)
    np.testing.assert_allclose(MemoryBank(np.asfortranarray(keys)).aggregate(queries[::-1])[::-1], expected, atol=1e-6)


def test_no_queries_give_no_rows(small):
    _, keys, _ = small
    bank = MemoryBank(keys)
    assert bank.aggregate(np.zeros((0, 48), np.float32), method="auto").shape == (0, 48)
    assert bank.nearest(np.zeros((0, 48), np.float32), 3)[0].shape == (0, 3)


def test_a_memory_of_one_row():
    got, stats = MemoryBank(np.eye(1, 4, dtype=np.float32)).aggregate_with_stats(
        np.ones((3, 4), np.float32), method="auto"
    )
    np.testing.assert_allclose(got, np.eye(1, 4).repeat(3, 0))
    np.testing.assert_allclose(stats.effective_neighbours, 1.0)


def test_results_are_written_where_asked(small, tmp_path):
    queries, keys, expected = small
    target = np.lib.format.open_memmap(tmp_path / "out.npy", mode="w+", dtype=np.float16, shape=expected.shape)
    other = np.zeros((len(queries), 5), np.float32)
    values = np.random.default_rng(0).standard_normal((len(keys), 5)).astype(np.float32)
    got = MemoryBank(keys).aggregate(queries, values=[None, values], out=[target, other])
    assert got[0] is target
    np.testing.assert_allclose(target, expected, atol=5e-3)
    np.testing.assert_allclose(other, MemoryBank(keys).aggregate(queries, values=values), atol=1e-6)
    with pytest.raises(ConfigError, match=r"out has shapes \[\(2, 2\)\]\. Expected \[\(200, 48\)\]\."):
        MemoryBank(keys).aggregate(queries, out=np.zeros((2, 2)))


# OnlineSoftmax sums


@pytest.mark.parametrize("temperature", [0.05, 0.2])
def test_sums_in_sixteen_bits_know_where_their_logits_are(temperature):
    """Sums of several parts of a memory are put together by their shifts, which one part alone never shows."""
    queries, keys = world(7)
    run = Run(MemoryBank(keys), queries, None, temperature, stats=True, bias=None)
    block = run.queries.block(0, run.queries.n)
    exact, low = partial_sums(run.work, block), bf16_sums(run.work, block)
    np.testing.assert_allclose(low.log_sum_exp(), exact.log_sum_exp(), atol=0.05)


@pytest.mark.parametrize("temperature", [0.003, 0.01, 0.2])
def test_partial_sums_merge_to_the_whole_in_any_order(temperature):
    queries, keys = world(7)
    whole = MemoryBank(keys).partial(queries, temperature=temperature)
    a, b, c = (
        MemoryBank(part).partial(queries, temperature=temperature) for part in (keys[:1], keys[1:4000], keys[4000:])
    )
    for merged in (a.merge(b).merge(c), a.merge(b.merge(c)), c.merge(a).merge(b)):
        np.testing.assert_allclose(merged.finish()[0], whole.finish()[0], atol=1e-6)
        np.testing.assert_allclose(merged.effective_neighbours(), whole.effective_neighbours(), rtol=1e-3)
        assert merged.rows == len(keys)


def test_partial_sums_are_saved_and_loaded(tmp_path):
    queries, keys = world(8, rows=500, queries=20)
    partial = MemoryBank(keys).partial(queries, values=[keys, keys[:, :3]])
    partial.save(tmp_path / "p.safetensors")
    again = OnlineSoftmax.load(tmp_path / "p.safetensors")
    assert again.rows == 500
    for mine, theirs in zip(again.finish(), partial.finish(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(again.effective_neighbours(), partial.effective_neighbours())


def test_partial_sums_that_do_not_fit_are_refused(tmp_path):
    queries, keys = world(9, rows=500, queries=20)
    bank = MemoryBank(keys)
    with pytest.raises(ConfigError, match=r"partial sums of shapes \[\(20, 48\)\] and \[\(7, 48\)\] do not merge"):
        bank.partial(queries).merge(bank.partial(queries[:7]))
    bare = bank.partial(queries, values=keys[:, :48] + 0.0, stats=False)
    with pytest.raises(ConfigError, match="one partial has statistics and the other has none"):
        bank.partial(queries).merge(bare)
    with pytest.raises(ConfigError, match="these partial sums hold no statistics"):
        bare.effective_neighbours()
    (tmp_path / "x").write_bytes(b"no")
    with pytest.raises(FormatError, match=r"x is no file of partial sums \(.*\)\. Expected one of OnlineSoftmax\.save"):
        OnlineSoftmax.load(tmp_path / "x")


# Approximations


@pytest.mark.parametrize("threads", [1, 2])
def test_compressed_holds_its_tolerance_on_low_rank_data(threads):
    queries, keys = world(10)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        bank = MemoryBank(keys)
        got, stats = bank.aggregate_with_stats(queries, method="compressed", values=[None, keys[:, :5] + 1.0])
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    exact, truth = bank.aggregate_with_stats(queries, values=[None, keys[:, :5] + 1.0])
    assert stats.report["used"] == "compressed"
    assert stats.report["fell_back"] is None
    assert stats.report["check"]["queries"] == 256
    assert stats.report["rank"] <= 24
    for mine, theirs in zip(got, exact, strict=True):
        error, cosine = errors(mine, theirs)
        assert np.percentile(error, 99) <= 0.01
        assert cosine.min() >= 0.99
    ratio = stats.effective_neighbours / truth.effective_neighbours
    assert 0.9 < np.median(ratio) < 1.1


@pytest.mark.parametrize("kind", ["float32", "bf16", "int8"])
def test_a_scan_in_any_type_finds_the_same_rows(kind, monkeypatch):
    """The sketch is scanned in whatever the processor is fastest at; all but bytes work without compiled loops."""
    if kind != "int8":
        monkeypatch.setattr("isthmus.core.kernels.available", lambda: False)
    force(monkeypatch, "integer" if kind == "int8" else kind)
    queries, keys = world(25, rows=3000, queries=400)
    bank = MemoryBank(keys)
    got = bank.aggregate(queries, method="compressed")
    assert bank.report["used"] == "compressed"
    error, _ = errors(got, bank.aggregate(queries))
    assert np.percentile(error, 99) <= 0.01


def test_a_row_that_lies_outside_the_sketch_is_not_missed():
    """A few rows of most memories have their strength where the others have none; a query may ask for one of them."""
    queries, keys = world(26, rows=3000, queries=600)
    rng = np.random.default_rng(0)
    strange = rng.integers(0, len(keys), 12)
    keys[strange] = unit(rng.standard_normal((12, keys.shape[1])).astype(np.float32))
    queries[:12] = unit(keys[strange] + 0.02 * rng.standard_normal((12, keys.shape[1])).astype(np.float32))
    bank = MemoryBank(keys)
    got = bank.aggregate(queries, method="compressed")
    assert bank.report["used"] == "compressed"
    error, _ = errors(got, bank.aggregate(queries))
    assert error[:12].max() <= 0.01


@pytest.mark.parametrize("tolerance", [0.001, 0.05])
def test_compressed_is_as_exact_as_it_is_told_to_be(tolerance):
    queries, keys = world(11)
    bank = MemoryBank(keys)
    got = bank.aggregate(queries, method="compressed", tolerance=tolerance)
    assert bank.report["used"] == "compressed"
    error, _ = errors(got, bank.aggregate(queries))
    assert np.percentile(error, 99) <= tolerance


def test_what_a_sketch_misses_of_a_query_is_known():
    """The margin of the scan is in deviations of each query's own scores, so they must be what they are said to be."""
    queries, keys = (torch.from_numpy(unit(x)) for x in world(26))
    asked, held = (MatrixReader(x, CPU, unit=True, name="x") for x in (queries, keys))
    sketch = Spectrum(held, asked, 0.01).sketch(7)
    logits = (queries @ (keys - sketch.mean).T) / 0.01
    sketched = sketch.of_queries(queries) @ sketch.of_memory(keys).T
    np.testing.assert_allclose(sketch.of_queries(queries).std(0), sketch.of_memory(keys).std(0), rtol=0.2)
    actual = (logits - sketched).std(dim=1)
    assert actual.mean() > 1.0
    np.testing.assert_allclose(sketch.query_error(queries), actual, rtol=0.1)
    assert sketch.residual == pytest.approx(float(actual.square().mean().sqrt()), rel=0.1)


def test_compressed_refuses_isotropic_data():
    queries, keys = isotropic()
    bank = MemoryBank(keys)
    got = bank.aggregate(queries, method="compressed")
    assert bank.report["used"] == "exact"
    assert "directions" in bank.report["fell_back"]
    np.testing.assert_array_equal(got, bank.aggregate(queries))


def test_compressed_refuses_a_high_temperature():
    queries, keys = world(12)
    bank = MemoryBank(keys)
    got = bank.aggregate(queries, method="compressed", temperature=0.2)
    assert bank.report["used"] == "exact"
    assert "a query needs more than" in bank.report["fell_back"]
    assert "of 6,000 rows" in bank.report["fell_back"]
    np.testing.assert_array_equal(got, bank.aggregate(queries, temperature=0.2))


def test_a_probe_of_a_large_memory_stops_where_too_many_rows_matter():
    """At a high temperature nearly every row does, and what is found of a million is too much to hold."""
    queries, keys = (torch.from_numpy(unit(x)) for x in world(12, rows=40_000))
    held = MatrixReader(keys, CPU, unit=True, name="memory")
    work = Work(held, [None], 0.2, False, True)
    sketch = Spectrum(held, MatrixReader(queries, CPU, unit=True, name="queries"), 0.2).sketch(11)
    every, few = (probe(work, queries[:16], sketch, 8.0, most)[0] for most in (40_000, 100))
    assert every > 20_000
    assert 100 < few <= CHUNK_ROWS


def test_a_scan_that_misses_is_caught_and_done_exactly(monkeypatch):
    """Whatever goes wrong in the approximation, the sample done exactly finds it."""
    queries, keys = world(13)
    from isthmus.memory import method as check

    def wrong(work, asking, sketch, threshold, tail):
        sums = check.partial_sums(work, asking)
        sums.sums[0][: len(asking) // 20] *= -1.0
        return sums

    monkeypatch.setattr(check, "compressed_sums", wrong)
    bank = MemoryBank(keys)
    got = bank.aggregate(queries, method="compressed")
    assert bank.report["used"] == "exact"
    assert "99th percentile" in bank.report["fell_back"] or "mean relative error" in bank.report["fell_back"]
    assert bank.report["check"]["p99"] > 0.01
    assert "exact (compressed was refused" in describe(bank.report)
    np.testing.assert_array_equal(got, bank.aggregate(queries))


def test_nan_results_never_pass_the_check(monkeypatch):
    queries, keys = world(14)
    from isthmus.memory import method as check

    def broken(work, asking, sketch, threshold, tail):
        sums = check.partial_sums(work, asking)
        sums.sums[0][:] = torch.nan
        return sums

    monkeypatch.setattr(check, "compressed_sums", broken)
    bank = MemoryBank(keys)
    assert np.isfinite(bank.aggregate(queries, method="compressed")).all()
    assert bank.report["used"] == "exact"


@pytest.mark.parametrize("kind", ["int16", "float32"])
@pytest.mark.parametrize("temperature", [0.01, 0.05])
def test_bf16_is_within_its_tolerance(kind, temperature, monkeypatch):
    force(monkeypatch, "integer" if kind == "int16" else kind)
    queries, keys = world(15)
    bank = MemoryBank(keys)
    asked = {"values": [None, keys[:, :6] + 0.5, keys[:, :19] * np.linspace(1e-3, 1e3, 19)], "temperature": temperature}
    got, stats = bank.aggregate_with_stats(queries, method="bf16", **asked)
    exact, truth = bank.aggregate_with_stats(queries, **asked)
    assert bank.report["used"] == "exact"
    assert (stats.report["used"], stats.report["products"]) == ("bf16", kind)
    for mine, theirs in zip(got, exact, strict=True):
        error, _ = errors(mine, theirs)
        assert error.mean() <= 0.01
        assert error.mean() > 1e-5
    assert 0.9 < np.median(stats.effective_neighbours / truth.effective_neighbours) < 1.1


def test_native_bf16_products_are_as_good(monkeypatch):
    """On a processor that multiplies bf16 itself the results of the products are bf16 too."""
    force(monkeypatch, "bf16")
    queries, keys = world(16, rows=2000, queries=300)
    bank = MemoryBank(keys)
    got = bank.aggregate(queries, method="bf16", tolerance=0.02)
    assert bank.report["used"] == "bf16"
    error, _ = errors(got, bank.aggregate(queries))
    assert error.mean() <= 0.01


@pytest.mark.parametrize("rows", [1, 2, 17, 511, 513, 1300])
@pytest.mark.parametrize("queries", [1, 3, 64, 65, 300])
def test_sixteen_bit_averages_of_any_size(rows, queries):
    """Tiles are filled up; nothing of what fills them may be averaged, and the sums merge with those of other rows."""
    compiled_or_skip()
    rng = np.random.default_rng(rows)
    asking, keys = (torch.from_numpy(unit(rng.standard_normal((n, 21)).astype(np.float32))) for n in (queries, rows))
    other = torch.from_numpy(rng.standard_normal((rows, 3)).astype(np.float32)) - 4.0
    held = [MatrixReader(x, CPU, unit=False, name="x") for x in (keys, other)]
    work = Work(held[0], [None, held[1]], 0.1, True, True)
    got, exact = int16_partial_sums(work, asking), partial_sums(work, asking)
    for mine, theirs in zip(got.finish(), exact.finish(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(got.log_sum_exp(), exact.log_sum_exp(), atol=2e-3, rtol=0.0)
    torch.testing.assert_close(got.effective_neighbours(), exact.effective_neighbours(), rtol=2e-2, atol=1e-2)
    merged, twice = got.merge(exact), exact.merge(exact)
    torch.testing.assert_close(merged.log_sum_exp(), twice.log_sum_exp(), atol=2e-3, rtol=0.0)


def test_sixteen_bit_averages_stay_within_32_bits():
    """Rows of one size in every coordinate have the largest products, and equal rows the largest sums of weights."""
    compiled_or_skip()
    keys = torch.full((3000, 512), 512.0**-0.5)
    keys[::2] *= -1.0
    work = Work(MatrixReader(keys, CPU, unit=False, name="x"), [None], 0.01, False, True)
    got = int16_partial_sums(work, keys[:70])
    torch.testing.assert_close(got.finish()[0], keys[:70], atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("temperature", [0.0019, 0.001, 0.0003])
def test_sixteen_bit_weights_never_wrap(temperature):
    """The heaviest weight of a query, rounded up past 32,767, would count with the opposite sign."""
    compiled_or_skip()
    queries, keys = (torch.from_numpy(unit(x)) for x in world(41, rows=5000, queries=2000))
    work = Work(MatrixReader(keys, CPU, unit=False, name="x"), [None], temperature, True, True)
    got, exact = int16_partial_sums(work, queries).finish()[0], partial_sums(work, queries).finish()[0]
    assert float(torch.cosine_similarity(got, exact).min()) > 0.9


# The check of an approximation


def spoil(monkeypatch, rows, change):
    """Make the compressed method wrong on some of the sampled queries, and note what it was asked."""
    asked = []

    def wrong(work, queries, *rest):
        asked.append(queries.clone())
        sums = compressed_sums(work, queries, *rest)
        sums.sums[0][:rows] = change(sums.sums[0][:rows])
        return sums

    monkeypatch.setattr(check, "compressed_sums", wrong)
    return asked


@pytest.mark.parametrize(
    ("rows", "change", "reason"),
    [
        (1, lambda x: -x, r"smallest cosine -0\.9|smallest cosine -1\."),
        (8, lambda x: 1.05 * x, "99th percentile of the relative error 0.05"),
        (256, lambda x: 1.02 * x, "mean relative error 0.02"),
    ],
)
def test_a_run_that_is_wrong_for_a_few_is_refused(monkeypatch, rows, change, reason):
    """One query of 256 that points away, some that are off by more than the tolerance, all that are off a little."""
    queries, keys = world(42)
    spoil(monkeypatch, rows, change)
    bank = MemoryBank(keys)
    bank.aggregate(queries, method="compressed", tolerance=0.0101)
    assert bank.report["used"] == "exact"
    assert re.search(reason, bank.report["fell_back"]), bank.report["fell_back"]


def test_the_check_is_of_random_queries_of_the_seed(monkeypatch):
    queries, keys = world(43)
    asked = spoil(monkeypatch, 0, lambda x: x)
    bank = MemoryBank(keys)
    samples = []
    for seed in (0, 0, 1):
        asked.clear()
        bank.aggregate(queries, method="compressed", seed=seed)
        samples.append(asked[0].numpy())
    rows = [[int(np.abs(unit(queries) - row).sum(1).argmin()) for row in sample] for sample in samples]
    assert len(set(rows[0])) == 256
    assert rows[0] == rows[1] != rows[2]
    # As spread over all of them as a random sample is: not the first, not every fourth.
    assert np.mean(rows[0]) == pytest.approx(len(queries) / 2, rel=0.15)
    assert len(set(np.diff(sorted(rows[0])))) > 5


def test_without_compiled_loops_a_run_is_as_good(monkeypatch):
    monkeypatch.setattr("isthmus.core.kernels.available", lambda: False)
    monkeypatch.delenv(SWITCH, raising=False)
    queries, keys = world(27)
    bank = MemoryBank(keys)
    got = bank.aggregate(queries, method="compressed")
    assert bank.report["used"] == "compressed"
    error, _ = errors(got, bank.aggregate(queries))
    assert np.percentile(error, 99) <= 0.01
    bank.aggregate(queries, method="bf16")
    assert bank.report["products"] in ("bf16", "float32")


def test_bf16_does_again_what_runs_over():
    """A query whose nearest row is far better than any row looked at first would overflow: it is done exactly."""
    rng = np.random.default_rng(0)
    keys = np.concatenate([rng.standard_normal((5000, 4)) * 0.01 - np.eye(1, 4), np.eye(1, 4)]).astype(np.float32)
    queries = np.eye(1, 4, dtype=np.float32).repeat(300, 0)
    got = MemoryBank(np.roll(keys, 17, axis=0)).aggregate(queries, method="bf16")
    np.testing.assert_allclose(got, queries, atol=1e-3)


def test_auto_is_exact_where_little_is_to_be_gained():
    queries, keys = world(17)
    bank = MemoryBank(keys)
    bank.aggregate(queries, method="auto")
    assert bank.report["used"] == "exact"
    assert bank.report["fell_back"] is None


def test_auto_compresses_a_large_job_and_refuses_what_it_cannot_hold(monkeypatch):
    monkeypatch.setattr("isthmus.memory.method.SMALL", 0.0)
    queries, keys = world(18)
    bank = MemoryBank(keys)
    bank.aggregate(queries, method="auto")
    assert bank.report["used"] == "compressed"
    bank.aggregate(queries, method="auto", temperature=0.3)
    assert bank.report["used"] in ("exact", "bf16")


def test_the_report_is_json_and_the_sample_is_seeded():
    queries, keys = world(19)
    bank = MemoryBank(keys)
    reports = []
    for seed in (0, 0, 1):
        _, stats = bank.aggregate_with_stats(queries, method="compressed", seed=seed)
        reports.append(json.loads(json.dumps(stats.report)))
    assert reports[0] == reports[1]
    assert reports[0]["check"] != reports[2]["check"]
    assert set(reports[0]) >= {"asked", "used", "fell_back", "tolerance", "check", "effective_neighbours"}
    assert "compressed, relative error" in describe(reports[0])


# A prior on the rows


@pytest.mark.parametrize("temperature", [0.004, 0.05, 1.0])
@pytest.mark.parametrize("rows", [6000, 9000])
def test_a_bias_is_a_prior_on_the_rows(temperature, rows):
    queries, keys = world(30, rows=rows, queries=300)
    rng = np.random.default_rng(1)
    bias, values = 6.0 * rng.standard_normal(rows), rng.standard_normal((rows, 5)).astype(np.float32)
    logits = unit(queries).astype(np.float64) @ unit(keys).T.astype(np.float64) / temperature + bias
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    bank = MemoryBank(keys)
    got, stats = bank.aggregate_with_stats(queries, temperature=temperature, bias=bias, values=[None, values])
    np.testing.assert_allclose(got[0], shares @ unit(keys), atol=2e-5)
    np.testing.assert_allclose(got[1], shares @ values, atol=2e-4)
    entropy = -(shares * np.log(np.maximum(shares, 1e-300))).sum(1)
    np.testing.assert_allclose(stats.effective_neighbours, np.exp(entropy), rtol=5e-3)
    blocks = list(bank.weights(queries, temperature=temperature, bias=bias, block_bytes=4 * rows * 128))
    assert [part for part, _ in blocks] == [slice(0, 128), slice(128, 256), slice(256, 300)]
    np.testing.assert_allclose(np.concatenate([block for _, block in blocks]), shares, atol=2e-5)


def test_an_even_bias_changes_nothing_and_a_mighty_one_everything(small):
    queries, keys, expected = small
    bank = MemoryBank(keys)
    np.testing.assert_allclose(bank.aggregate(queries, bias=np.full(len(keys), 7.0)), expected, atol=1e-5)
    alone = np.where(np.arange(len(keys)) == 17, 0.0, -1e4)
    np.testing.assert_allclose(bank.aggregate(queries, bias=alone), unit(keys)[[17] * len(queries)], atol=1e-6)
    first = bank.partial(queries, bias=np.zeros(len(keys)))
    second = MemoryBank(keys[:5]).partial(queries, bias=np.full(5, 300.0))
    np.testing.assert_allclose(first.merge(second).finish()[0], second.finish()[0], atol=1e-5)


def test_a_bias_that_does_not_fit_is_refused(small):
    queries, keys, _ = small
    bank = MemoryBank(keys)
    for bad in (np.zeros(7), np.full(len(keys), np.nan), np.zeros((len(keys), 1))):
        with pytest.raises(ConfigError, match=r"the bias has shape .* of 3,000 rows\. Expected one finite"):
            bank.aggregate(queries, bias=bad)
    with pytest.raises(ConfigError, match=r"the method 'bf16' knows no bias\. Expected exact or auto"):
        bank.aggregate(queries, bias=np.zeros(len(keys)), method="bf16")
    bank.aggregate(queries, bias=np.zeros(len(keys)), method="auto")
    assert bank.report["used"] == "exact"


# Sparse weights


def test_sparse_weights_recompose_the_average(tmp_path):
    queries, keys = world(20)
    bank = MemoryBank(keys)
    weights = bank.sparse(queries)
    other = np.random.default_rng(0).standard_normal((len(keys), 9)).astype(np.float32)
    error, cosine = errors(weights.recompose(np.arange(len(weights)), unit(keys)), bank.aggregate(queries))
    assert np.percentile(error, 99) <= 0.01
    assert cosine.min() > 0.99
    some = np.array([7, 3, 3, 1100])
    np.testing.assert_allclose(weights.recompose(some, other), bank.aggregate(queries, values=other)[some], atol=0.05)
    ends, _, shares = weights.unpack(np.arange(len(weights)))
    np.testing.assert_array_equal(ends, weights.starts[1:])
    np.testing.assert_allclose(np.add.reduceat(shares, weights.starts[:-1]), 1.0, atol=1e-5)
    assert weights.report["check"]["p99"] <= 0.01
    weights.save(tmp_path / "w.safetensors")
    again = SparseWeights.load(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(again.entries, weights.entries)
    np.testing.assert_array_equal(again.recompose(some, other), weights.recompose(some, other))
    stored = Stored(other)
    np.testing.assert_array_equal(weights.recompose(some, stored), weights.recompose(some, other))


def test_sparse_weights_of_a_streamed_memory_are_the_same(monkeypatch):
    queries, keys = world(21)
    expected = MemoryBank(keys).sparse(queries)
    monkeypatch.setattr("isthmus.memory.matrix.CHUNK_BYTES", 4 * 48 * 700)
    got = MemoryBank(Stored(keys), resident_bytes=0).sparse(queries)
    rows = np.arange(len(got))
    np.testing.assert_allclose(got.recompose(rows, keys), expected.recompose(rows, keys), atol=0.05)


def test_an_entry_takes_four_bytes_on_disk(tmp_path):
    queries, keys = world(22)
    weights = MemoryBank(keys).sparse(queries, max_k=8, tolerance=0.5)
    counts = np.diff(weights.starts)
    assert counts.max() <= 8
    weights.save(tmp_path / "w.safetensors")
    size = 4 * (len(queries) + 1) + 4 * int(counts.sum())
    assert weights.report["bytes"] == weights.nbytes == size
    assert (tmp_path / "w.safetensors").stat().st_size == pytest.approx(size, abs=300)


@pytest.mark.parametrize(("memory_rows", "kind"), [(300, np.uint32), (1 << 24, np.uint32), ((1 << 24) + 1, np.uint64)])
def test_packed_weights_are_those_given_but_for_rounding(memory_rows, kind):
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 30, 200)
    starts = np.concatenate([[0], np.cumsum(counts)])
    shares = np.concatenate([np.sort(rng.dirichlet(np.full(n, 0.3)))[::-1] for n in counts]).clip(1e-30)
    rows = rng.integers(0, memory_rows, len(shares))
    rows[:2] = 0, memory_rows - 1
    weights = SparseWeights.pack(starts, rows, shares, memory_rows)
    assert weights.entries.dtype == kind
    ends, found, got = weights.unpack(np.arange(200))
    np.testing.assert_array_equal(ends, starts[1:])
    np.testing.assert_array_equal(found, rows)
    np.testing.assert_allclose(got, shares, atol=4e-3 if memory_rows == 1 << 24 else 2e-5)
    some = np.array([150, 3, 3])
    for number, (last, query) in enumerate(zip(weights.unpack(some)[0], some, strict=True)):
        part = slice(last - counts[query], last)
        np.testing.assert_array_equal(weights.unpack(some)[1][part], rows[starts[query] : starts[query + 1]])
        assert weights.unpack(some)[2][part].sum() == pytest.approx(1.0, abs=1e-5), number
    entropy = [-(got[a:b] * np.log(got[a:b])).sum() for a, b in pairwise(starts)]
    np.testing.assert_allclose(weights.effective_neighbours(), np.exp(entropy), rtol=1e-4)


def test_the_fewest_rows_that_hold_the_tolerance_are_kept():
    queries, keys = world(24)
    bank = MemoryBank(keys)
    exact = bank.aggregate(queries)
    kept = []
    for tolerance in (0.1, 0.03, 0.01):
        weights = bank.sparse(queries, tolerance=tolerance)
        error, _ = errors(weights.recompose(np.arange(len(weights)), unit(keys)), exact)
        # 256 queries choose the mass, and these are all of them.
        assert np.percentile(error, 99) <= 1.2 * tolerance
        kept.append(weights.report["rows_per_query"])
    assert kept == sorted(kept)
    assert kept[0] < kept[2] < bank.sparse(queries, mass=0.999).report["rows_per_query"]


def test_the_check_is_of_the_values_that_are_given():
    queries, keys = world(25)
    bank = MemoryBank(keys)
    wild = np.random.default_rng(0).standard_normal((len(keys), 16)).astype(np.float32)
    both = bank.sparse(queries, values=[unit(keys), wild])
    error, _ = errors(both.recompose(np.arange(len(both)), wild), bank.aggregate(queries, values=wild))
    assert np.percentile(error, 99) <= 0.012
    assert both.report["mass"] > bank.sparse(queries).report["mass"]


def test_weights_that_are_not_sparse_are_refused(tmp_path):
    queries, keys = world(23)
    bank = MemoryBank(keys)
    with pytest.raises(
        CheckFailed, match=r"at temperature 0\.3 are not sparse: more than 1,024 of 6,000 rows matter .* max_k is 64"
    ):
        bank.sparse(queries, temperature=0.3, max_k=64)
    with pytest.raises(CheckFailed, match=r"mass 0\.5 and max_k 64 are off by .* over 0\.01\. Raise mass"):
        bank.sparse(queries, mass=0.5, max_k=64)
    with pytest.raises(ConfigError, match=r"mass must lie between 0 and 1 and max_k be at least 1, got 1\.0 and 64"):
        bank.sparse(queries, mass=1.0, max_k=64)
    (tmp_path / "x").write_bytes(b"no")
    with pytest.raises(
        FormatError, match=r"x is no file of sparse weights \(.*\)\. Expected one written by SparseWeights"
    ):
        SparseWeights.load(tmp_path / "x")


@pytest.mark.parametrize(
    "fault",
    [
        {"starts": np.array([0, 2, 2], np.uint32)},
        {"starts": np.array([0, 1, 3], np.uint32)},
        {"starts": np.array([1, 2], np.uint32)},
        {"starts": np.zeros(0, np.uint32)},
        {"starts": np.array([0.0, 1.0, 2.0])},
        {"entries": np.zeros((2, 1), np.uint32)},
        {"entries": np.zeros(2, np.int32)},
        {"memory_rows": np.array([1 << 25])},
    ],
)
def test_damaged_sparse_weights_are_told(tmp_path, fault):
    from safetensors.numpy import save_file

    whole = {
        "starts": np.array([0, 1, 2], np.uint32),
        "entries": np.array([5, 6], np.uint32),
        "memory_rows": np.array([9]),
    }
    save_file(whole, tmp_path / "w")
    assert len(SparseWeights.load(tmp_path / "w")) == 2
    save_file({**whole, **fault}, tmp_path / "w")
    with pytest.raises(FormatError, match=r"w is no file of sparse weights \(sparse weights got .* Expected starts"):
        SparseWeights.load(tmp_path / "w")
    for broken in ({"entries": whole["entries"]}, {**whole, "memory_rows": np.array([9, 9])}):
        save_file(broken, tmp_path / "w")
        with pytest.raises(FormatError, match="w is no file of sparse weights"):
            SparseWeights.load(tmp_path / "w")


# What is said when something is wrong


def test_faults_of_the_input_are_one_clear_line(small):
    queries, keys, _ = small
    bank = MemoryBank(keys)
    with pytest.raises(ConfigError, match="the memory holds no rows"):
        MemoryBank(np.zeros((0, 4), np.float32))
    with pytest.raises(ConfigError, match="the memory hold no rows"):
        MemoryBank([])
    with pytest.raises(ConfigError, match=r"the memory have shape \(4,\)\. Expected \(n, d\)"):
        MemoryBank(np.zeros(4, np.float32))
    with pytest.raises(ConfigError, match=r"the memory have shape \(2, 5\) in part 1\. Expected \(n, d\) with one d"):
        MemoryBank([np.ones((2, 4)), np.ones((2, 5))])
    with pytest.raises(ConfigError, match="the queries have 7 dimensions, the memory 48"):
        bank.aggregate(np.ones((2, 7), np.float32))
    with pytest.raises(
        ConfigError, match=r"the values have 10 rows, the memory 3000\. Expected a value per memory row"
    ):
        bank.aggregate(queries, values=keys[:10])
    with pytest.raises(ConfigError, match=r"unknown method 'fast'\. Expected one of exact, bf16, compressed, auto"):
        bank.aggregate(queries, method="fast")
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="the temperature must be above 0, got"):
            bank.aggregate(queries, temperature=temperature)
    with pytest.raises(ConfigError, match=r"the tolerance must be above 0, got 0"):
        bank.aggregate(queries, tolerance=0)
    with pytest.raises(ConfigError, match="k must be at least 1, got 0"):
        bank.nearest(queries, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_named(small, bad):
    queries, keys, _ = small
    spoiled = keys.copy()
    spoiled[2500, 3] = bad
    with pytest.raises(SpaceError, match="row 2500 of the memory holds NaN or infinity"):
        MemoryBank(spoiled)
    asking = queries.copy()
    asking[150, 0] = bad
    with pytest.raises(SpaceError, match="row 150 of the queries holds NaN or infinity"):
        MemoryBank(keys).aggregate(asking)


def test_a_zero_query_averages_everything():
    _, keys = world(24, rows=100)
    got = MemoryBank(keys).aggregate(np.zeros((1, 48), np.float32))
    np.testing.assert_allclose(got[0], unit(keys).mean(0), atol=1e-6)


def test_memory_stays_bounded():
    """4,096 queries over 60,000 rows: the score matrix alone would be a gigabyte."""
    code = """
import resource, numpy as np, torch
from isthmus.memory import MemoryBank
rng = np.random.default_rng(0)
keys = rng.standard_normal((60_000, 32), dtype=np.float32); keys /= np.linalg.norm(keys, axis=1, keepdims=True)
queries = keys[:4096] + 0.0
MemoryBank(keys[:3000]).aggregate(queries[:10])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
MemoryBank(keys).aggregate(queries)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 100
