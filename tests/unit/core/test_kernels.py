"""Compiled loops against numpy, and what is done where they cannot be had."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from isthmus.core import kernels

needs = pytest.mark.skipif(not kernels.available(), reason=str(kernels.missing()))


@pytest.fixture
def fresh():
    kernels.missing.cache_clear()
    yield
    kernels.missing.cache_clear()


def test_they_are_there_where_the_tests_run_on_such_a_processor():
    """A suite that skipped them all would pass on the very machine that they are for."""
    about = Path("/proc/cpuinfo")
    if not about.is_file() or " avx2 " not in about.read_text(encoding="utf-8"):
        pytest.skip("no AVX2 to be seen")
    assert kernels.available(), kernels.missing()


def test_a_switch_turns_them_off(fresh, monkeypatch):
    monkeypatch.setenv(kernels.SWITCH, "0")
    assert not kernels.available()
    assert kernels.missing() == "turned off by ISTHMUS_KERNELS=0"


def test_without_numba_they_say_how_to_get_it(fresh, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "numba":
            raise ImportError("No module named 'numba'", name="numba")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert kernels.missing() == "numba is not installed (pip install 'isthmus[fast]')"


@needs
def test_an_older_processor_goes_without(fresh, monkeypatch):
    from llvmlite import binding

    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: {"sse2": True, "avx2": False})
    assert kernels.missing() == "this processor has no AVX2"


def test_asking_for_them_imports_no_numba_until_then():
    code = "import sys, isthmus.core.kernels; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_was_compiled_of_other_sources_is_forgotten(tmp_path):
    """A function's compiled code holds those that it calls, which lie in other files."""
    cache = tmp_path / "__pycache__"
    cache.mkdir()
    (tmp_path / "a.py").write_text("one")
    kept, old = cache / "a.cpython-311.pyc", cache / "a.f-1.py311.nbi"

    def look():
        for path in (kept, old):
            path.write_bytes(b"x")
        kernels._forget_stale(tmp_path)
        return kept.exists(), old.exists()

    assert look() == (True, False)
    assert look() == (True, True)
    (tmp_path / "b.py").write_text("another")
    assert look() == (True, False)
    assert look() == (True, True)


# Packing


@needs
@pytest.mark.parametrize("width", [4, 16])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (5, 7), (33, 64)])
def test_rows_are_packed_by_units_of_their_own(n, d, width):
    from isthmus.core.kernels import packing

    x = np.random.default_rng(0).standard_normal((n, d)).astype(np.float32) * np.logspace(-3, 3, n)[:, None]
    x, mean = x.astype(np.float32), np.full(d, 0.25, np.float32)
    lanes, units = packing.rows_room(n, d, width), np.empty(n, np.float32)
    packing.pack_rows(x, mean, 2047, 0.0, units, lanes)
    words = lanes.transpose(0, 2, 1).reshape(-1, lanes.shape[1]).copy().view(np.int16)
    assert np.abs(words[:n]).max(axis=1).tolist() == [2047] * n
    assert not words[n:].any()
    assert not words[:, d:].any()
    assert (np.abs(words[:n, :d] * units[:, None] - (x - mean)) <= 0.501 * units[:, None]).all()
    packing.pack_rows(x, mean, 2047, float(units.max()), units, lanes)
    assert (units == units[0]).all()


@needs
@pytest.mark.parametrize(("n", "d"), [(1, 1), (2, 16), (5, 19)])
def test_pairs_of_rows_are_packed_by_units_of_the_columns(n, d):
    from isthmus.core.kernels import packing

    x = np.random.default_rng(0).standard_normal((n, d)).astype(np.float32)
    lanes, units = packing.pairs_room(n, d), np.empty(d, np.float32)
    packing.pack_pairs(x, np.zeros(d, np.float32), 1023, units, lanes)
    words = lanes.view(np.int16).reshape(*lanes.shape, 2).transpose(1, 3, 0, 2).reshape(2 * lanes.shape[1], -1)
    assert np.abs(words).max(axis=0)[:d].tolist() == [1023] * d
    assert not words[n:].any()
    assert not words[:, d:].any()
    assert (np.abs(words[:n, :d] * units - x) <= 0.501 * units).all()


@needs
@pytest.mark.parametrize("inner", [1, 100, 512, 513, 1024, 100_000])
def test_the_largest_integers_stay_within_32_bits(inner):
    from isthmus.core.kernels import packing

    high = packing.highest(inner)
    assert 0 < inner * high * high < 2**31
    assert high == 32767 or inner * (high + 1) ** 2 >= 2**31


@needs
def test_exponentials():
    from numba import njit

    from isthmus.core.kernels.packing import exponential

    @njit
    def every(x):
        return np.array([exponential(v) for v in x], np.float32)

    x = np.linspace(-86.0, 80.0, 5000).astype(np.float32)
    np.testing.assert_allclose(every(x), np.exp(x.astype(np.float64)), rtol=2e-5)
    assert every(np.array([-1e9], np.float32))[0] < 1e-37


# The scan


def lanes(codes: np.ndarray, rows: int) -> np.ndarray:
    from isthmus.core.kernels import scan

    return scan.pack(codes, rows)


@needs
@pytest.mark.parametrize("k", [1, 8, 20, 96])
def test_byte_products_are_exact_at_their_extremes(k):
    from numba import njit

    from isthmus.core.kernels.llvm import TILE_COLUMNS, TILE_ROWS
    from isthmus.core.kernels.tiles import int8_tile

    rng = np.random.default_rng(k)
    rows = rng.choice(np.array([0, 1, 64, 127], np.uint8), (TILE_COLUMNS, k))
    asking = rng.choice(np.array([-63, 0, 1, 63], np.int8), (TILE_ROWS, k))
    rows[0], asking[0], asking[1] = 127, 63, -63
    floors = np.array([-5, 0, 100, 2**31 - 1], np.int32)

    @njit
    def run(many, few, groups, floors, out):
        return int8_tile(many, 0, few, 0, groups, floors, 0, out)

    many, few = lanes(rows, TILE_COLUMNS), lanes(asking, TILE_ROWS)
    out = np.empty(TILE_ROWS * TILE_COLUMNS, np.int32)
    found = run(many.reshape(-1), few.reshape(-1), many.shape[1], floors, out)
    expected = asking.astype(np.int64) @ rows.astype(np.int64).T
    np.testing.assert_array_equal(out.reshape(TILE_ROWS, TILE_COLUMNS), expected)
    bits = np.array([found >> bit & 1 for bit in range(64)], bool).reshape(TILE_ROWS, TILE_COLUMNS)
    np.testing.assert_array_equal(bits, expected > floors[:, None])


@needs
@pytest.mark.parametrize("k", [1, 7, 512])
def test_word_products_are_exact(k):
    from numba import njit

    from isthmus.core.kernels.llvm import TILE_COLUMNS, TILE_ROWS
    from isthmus.core.kernels.tiles import int16_tile

    rng = np.random.default_rng(k)
    rows, asking = (rng.integers(-2000, 2001, (n, 2 * k)).astype(np.int16) for n in (TILE_COLUMNS, TILE_ROWS))

    @njit
    def run(many, few, groups, out):
        int16_tile(many, 0, few, 0, groups, out, 0, TILE_COLUMNS)

    out = np.empty(TILE_ROWS * TILE_COLUMNS, np.int32)
    packed = (np.ascontiguousarray(x.view(np.int32).T).reshape(-1) for x in (rows, asking))
    run(*packed, k, out)
    np.testing.assert_array_equal(
        out.reshape(TILE_ROWS, TILE_COLUMNS), asking.astype(np.int64) @ rows.astype(np.int64).T
    )


@needs
def test_rows_that_fill_up_a_tile_are_not_found():
    """Zeros stand behind the last row; where a query's own bytes sum to less than nothing they would score high."""
    from isthmus.core.kernels import scan

    rows, asking = np.full((3, 8), 64, np.uint8), np.full((1, 8), -60, np.int8)
    hits = tuple(np.empty(1000, kind) for kind in (np.int32, np.int32, np.float32))
    one, zeros = np.ones(1, np.float32), asking.sum(1, dtype=np.int32) * 64
    limits = np.zeros(3, np.float32), np.zeros(1, np.float32), one.copy(), np.zeros(1, np.float32)
    packed = lanes(asking, scan.TILE_ROWS), one, zeros, lanes(rows, scan.TILE_COLUMNS)
    count = scan.scan_tile(*packed, 0, 3, 1.0, *limits, hits, 0)
    assert hits[1][:count].tolist() == [0, 1, 2]
    assert hits[2][:count].tolist() == [0.0, 0.0, 0.0]


@needs
def test_pairs_are_multiplied_and_rows_added():
    from isthmus.core.kernels import scan

    rng = np.random.default_rng(0)
    queries, keys = (rng.standard_normal((n, 37)).astype(np.float32) for n in (5, 40))
    counts = np.array([3, 0, 7, 1, 40])
    starts = np.concatenate([[0], np.cumsum(counts)])
    columns = np.concatenate([rng.permutation(40)[:n] for n in counts])
    owner = np.repeat(np.arange(5), counts)
    products = scan.pair_products(queries, keys, starts, columns, 3.0)
    np.testing.assert_allclose(products, 3.0 * (queries[owner] * keys[columns]).sum(1), rtol=1e-4, atol=1e-5)
    weights = rng.random(len(columns)).astype(np.float32)
    sums = np.ones((5, 37), np.float32)
    expected = sums.astype(np.float64)
    np.add.at(expected, owner, weights[:, None].astype(np.float64) * keys[columns])
    scan.add_rows(starts, columns, weights, keys, sums)
    np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-5)


# The exact average


@needs
@pytest.mark.parametrize("m", [1, 7, 2048])
def test_exponentials_are_as_exact_as_a_librarys(m):
    from isthmus.core.kernels.exp_sum import exponentiate

    rng = np.random.default_rng(m)
    logits, shifts = rng.uniform(-100.0, 100.0, (30, m)).astype(np.float32), np.full(30, 40.0, np.float32)
    expected = np.exp((logits - shifts[:, None]).astype(np.float64))
    totals = np.ones(30, np.float32)
    exponentiate(logits, shifts, totals)
    normal = expected > 1e-37
    np.testing.assert_allclose(logits[normal], expected[normal], rtol=3e-7)
    assert logits[~normal].size == 0 or logits[~normal].max() < 1e-37
    np.testing.assert_allclose(totals, 1.0 + expected.sum(axis=1), rtol=1e-6)
