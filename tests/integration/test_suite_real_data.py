"""The declarations of `bench/suite` read the real embeddings that they are written for."""

from __future__ import annotations

from pathlib import Path

import pytest

from isthmus.evaluation.benchmarks.declaration import load_benchmark
from isthmus.evaluation.benchmarks.task import Classification, Retrieval

FOLDER = Path(__file__).resolve().parents[2] / "bench" / "suite"
SIZES = {
    "sound-picture": (245, 371, 4702),
    "shape-picture": (149, 542, 5396),
    "sound-names": (245, 18, 245),
    "shape-names": (149, 21, 149),
    "picture-names": (371, 19, 371),
}
"""Queries; gallery items or classes; pairs or labels."""


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.toml")))
def test_a_declaration_finds_every_item_class_and_pair(name: str, shared: Path, tmp_path: Path):
    one = load_benchmark(FOLDER / f"{name}.toml")
    task = one.read(shared / "data" / "embeddings", tmp_path).task
    queries, others, truth = SIZES[name]
    assert len(task.query.ids) == queries
    if isinstance(task, Retrieval):
        assert (len(task.gallery.ids), len(task.pairs)) == (others, truth)
    else:
        assert isinstance(task, Classification)
        assert (len(task.classes), len(task.labels)) == (others, truth)
        assert {label for _, label in task.labels} <= set(task.classes)


def test_no_true_pairs_are_left_unread(shared: Path):
    tables = {path.name for path in (shared / "data" / "embeddings" / "test").glob("pairs_*.parquet")}
    named = {load_benchmark(path).options.get("pairs", "").rpartition("/")[2] for path in FOLDER.glob("*.toml")}
    assert tables <= named, "a true pair file that no declaration of bench/suite reads"
