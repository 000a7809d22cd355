"""The journal: what was added is there, what was cut short is not, and nothing else is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isthmus.encoders.pipeline.journal import Journal, Rejection
from isthmus.encoders.pipeline.rejected import read_rejected, reasons, write_rejected


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)


def fill(path: Path) -> list[int]:
    """Three batches; returns the length of the file after each."""
    sizes = []
    with Journal(path, 4) as journal:
        journal.add(["a", "b"], rows(2), [Rejection("x", "x.png", "truncated\nor not")])
        sizes.append(path.stat().st_size)
        journal.add([], np.empty((0, 4), np.float32), [Rejection("y\udce9", "y.png", "empty")])
        sizes.append(path.stat().st_size)
        journal.add(["c"], rows(1, 1))
        sizes.append(path.stat().st_size)
    return sizes


def test_what_was_added_is_read_back(tmp_path: Path):
    fill(tmp_path / "j")
    with Journal(tmp_path / "j", 4) as journal:
        assert np.array_equal(journal.rows(["c", "a", "b"]), np.concatenate([rows(1, 1), rows(2)]))
        assert list(journal.rejected) == ["x", "y\udce9"]
        assert journal.rejected["x"] == Rejection("x", "x.png", "truncated\nor not")
        assert len(journal) == 3
        assert "a" in journal
        assert "x" in journal
        assert "z" not in journal
        assert not journal.has_row("x")


def test_cut_anywhere_it_keeps_the_whole_batches(tmp_path: Path):
    """The oracle: after a cut at any byte exactly the batches that end before it are there, and more can be added."""
    sizes = fill(tmp_path / "j")
    whole = (tmp_path / "j").read_bytes()
    counts = [0, 2, 2, 3]
    for cut in range(len(whole) + 1):
        (tmp_path / "k").write_bytes(whole[:cut])
        with Journal(tmp_path / "k", 4) as journal:
            assert len(journal) == counts[sum(size <= cut for size in sizes)]
            journal.add(["d"], rows(1, 2))
        with Journal(tmp_path / "k", 4) as journal:
            assert np.array_equal(journal.rows(["d"]), rows(1, 2))


def test_a_flipped_bit_ends_it(tmp_path: Path):
    sizes = fill(tmp_path / "j")
    data = bytearray((tmp_path / "j").read_bytes())
    data[sizes[0] - 3] ^= 1
    (tmp_path / "j").write_bytes(data)
    with Journal(tmp_path / "j", 4) as journal:
        assert len(journal) == 0


def test_another_dim_is_dropped(tmp_path: Path):
    fill(tmp_path / "j")
    with Journal(tmp_path / "j", 5) as journal:
        assert len(journal) == 0
        assert not journal.rejected


def test_shortening_keeps_rejections_and_the_rows_asked_for(tmp_path: Path):
    fill(tmp_path / "j")
    with Journal(tmp_path / "j", 4) as journal:
        journal.shorten(["b"])
        journal.add(["d"], rows(1, 2))
        assert np.array_equal(journal.rows(["b", "d"]), np.concatenate([rows(2)[1:], rows(1, 2)]))
    with Journal(tmp_path / "j", 4) as journal:
        assert len(journal) == 2
        assert set(journal.rejected) == {"x", "y\udce9"}


def test_rejected_file(tmp_path: Path):
    path = tmp_path / "image" / "rejected.parquet"
    assert read_rejected(path) == []
    write_rejected(path, [Rejection("a", "caf\udce9.png", "silent")])
    assert read_rejected(path) == [Rejection("a", "caf\\udce9.png", "silent")]
    write_rejected(path, [])
    assert not path.exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["a", "b", "a"], "2 x a, 1 x b"),
        (["a", "a", "b", "c", "d", "e"], "2 x a, 1 x b, 1 x c, and 2 others"),
    ],
)
def test_reasons_in_words(given: list[str], words: str):
    assert reasons([Rejection(str(n), "", reason) for n, reason in enumerate(given)]) == words
