"""The memory bank against the softmax written out in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from isthmus.memory import MemoryBank


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def plain(queries, keys, temperature, values=None):
    """Softmax average and effective neighbours, every matrix in full, float64."""
    queries, keys = unit(queries.astype(np.float64)), unit(keys.astype(np.float64))
    logits = queries @ keys.T / temperature
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nansum(np.where(weights > 0, weights * np.log(weights), 0.0), axis=1)
    return weights @ (keys if values is None else values.astype(np.float64)), np.exp(entropy)


def draw(seed, q=300, m=5000, d=32):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((q, d)).astype(np.float32), rng.standard_normal((m, d)).astype(np.float32)


@pytest.mark.parametrize("temperature", [0.001, 0.005, 0.01, 0.02, 0.05, 1.0, 100.0])
def test_exact_equals_the_softmax_written_out(temperature):
    queries, keys = draw(0)
    expected, neighbours = plain(queries, keys, temperature)
    got, stats = MemoryBank(keys).aggregate_with_stats(queries, temperature=temperature)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=2e-5)
    np.testing.assert_allclose(stats.effective_neighbours, neighbours, rtol=2e-3)


@pytest.mark.parametrize("temperature", [0.01, 0.1])
def test_values_are_averaged_under_the_same_weights(temperature):
    queries, keys = draw(1)
    values = [np.random.default_rng(s).standard_normal((len(keys), w)).astype(np.float32) for s, w in ((2, 7), (3, 40))]
    got, stats = MemoryBank(keys).aggregate_with_stats(queries, temperature=temperature, values=values)
    for result, matrix in zip(got, values, strict=True):
        expected, neighbours = plain(queries, keys, temperature, matrix)
        np.testing.assert_allclose(result, expected, atol=1e-4)
        np.testing.assert_allclose(stats.effective_neighbours, neighbours, rtol=2e-3)


def test_a_query_far_from_every_row_is_exact_too():
    """Cosines near -1 underflow under a constant shift at 0.01: they are found and done again."""
    rng = np.random.default_rng(4)
    axis = np.eye(1, 16, dtype=np.float32)
    keys = axis + 0.05 * rng.standard_normal((3000, 16)).astype(np.float32)
    queries = np.concatenate([-axis, axis, -axis + 0.01])
    expected, neighbours = plain(queries, keys, 0.01)
    got, stats = MemoryBank(keys).aggregate_with_stats(queries, temperature=0.01)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    np.testing.assert_allclose(stats.effective_neighbours, neighbours, rtol=2e-3)


def test_dot_products_without_normalising():
    queries, keys = draw(5, q=50, m=300, d=8)
    logits = queries.astype(np.float64) @ keys.T.astype(np.float64) / 0.1
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = (weights / weights.sum(axis=1, keepdims=True)) @ keys
    np.testing.assert_allclose(
        MemoryBank(keys, normalize=False).aggregate(queries, temperature=0.1), expected, atol=1e-4
    )


@pytest.mark.parametrize("k", [1, 5, 300])
def test_nearest_rows_are_the_sorted_cosines(k):
    queries, keys = draw(6, q=40, m=300)
    cosines = unit(queries) @ unit(keys).T
    scores, rows = MemoryBank(keys).nearest(queries, k)
    np.testing.assert_allclose(scores, -np.sort(-cosines, axis=1)[:, :k], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(cosines, rows, 1), scores, atol=1e-6)


def test_nearest_rows_over_several_chunks():
    queries, keys = draw(7, q=20, m=30_000, d=16)
    cosines = unit(queries) @ unit(keys).T
    scores, rows = MemoryBank(keys).nearest(torch.from_numpy(queries), 7)
    assert isinstance(rows, torch.Tensor)
    np.testing.assert_array_equal(rows.numpy(), np.argsort(-cosines, axis=1, kind="stable")[:, :7])
    np.testing.assert_allclose(scores.numpy(), -np.sort(-cosines, axis=1)[:, :7], atol=1e-6)


DIRECTIONS = [
    ("picture/text", "picture/image"),
    ("picture/image", "picture/text"),
    ("sound/text", "sound/audio"),
    ("sound/audio", "sound/text"),
    ("shape/point_cloud", "shape/image"),
]


def real(shared, name):
    import pyarrow.parquet as pq

    column = pq.read_table(shared / "data" / "embeddings" / f"{name}.parquet", columns=["embedding"])["embedding"]
    return column.combine_chunks().values.to_numpy(zero_copy_only=False).reshape(len(column), -1).astype(np.float32)


@pytest.mark.parametrize(("asking", "memory"), DIRECTIONS)
def test_compressed_holds_on_real_embeddings(shared, asking, memory):
    """At the papers' temperature on every real direction, on other queries than those it checked itself on."""
    queries, keys = real(shared, asking), real(shared, memory)
    queries = queries[np.random.default_rng(1).permutation(len(queries))[:2000]]
    bank = MemoryBank(keys)
    got = bank.aggregate(queries, method="compressed")
    assert bank.report["used"] == "compressed", bank.report["fell_back"]
    exact = bank.aggregate(queries)
    error = np.linalg.norm(got - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert np.percentile(error, 99) <= 0.01
    assert (unit(got) * unit(exact)).sum(1).min() >= 0.99
    bank.aggregate(queries, method="compressed", temperature=0.05)
    assert bank.report["used"] == "exact"


def test_bf16_on_real_embeddings(shared):
    queries, keys = real(shared, "picture/image")[:1000], real(shared, "picture/text")
    bank = MemoryBank(keys)
    got = bank.aggregate(queries, method="bf16")
    assert bank.report["used"] == "bf16"
    exact = bank.aggregate(queries)
    assert (np.linalg.norm(got - exact, axis=1) / np.linalg.norm(exact, axis=1)).mean() <= 0.01
