"""Pairs and labels from every kind of source, and every fault in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isthmus.errors import EvaluationError, FormatError
from isthmus.metrics.truth import Names, read_labels, read_pairs

QUERY = Names.of("query", ["007", "b", "c,d"], 3)
GALLERY = Names.of("gallery", ["x", "y"], 2)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def rows(pairs: Any, query: Names = QUERY, gallery: Names = GALLERY) -> list[tuple[int, int]]:
    left, right = read_pairs(pairs, query, gallery)
    return list(zip(left.tolist(), right.tolist(), strict=True))


def test_a_csv_keeps_its_ids_as_text(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", 'note,query_id,gallery_id\n1,007,x\n2,"c,d",y\n3,007,y\n')
    assert rows(path) == [(0, 0), (2, 1), (0, 1)]
    assert rows(str(path)) == rows(path)


def test_parquet_tables_mappings_and_lists_say_the_same(tmp_path: Path) -> None:
    columns = {"query_id": ["b", "007"], "gallery_id": ["x", "y"]}
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    expected = [(1, 0), (0, 1)]
    assert rows(tmp_path / "p.parquet") == expected
    assert rows(pa.table(columns)) == expected
    assert rows(columns) == expected
    assert rows([("b", "x"), ("007", "y")]) == expected
    assert rows((("b", "x"), ["007", "y"])) == expected


def test_items_without_ids_are_called_by_their_row() -> None:
    query, gallery = Names.of("query", None, 3), Names.of("gallery", None, 2)
    assert rows(np.array([[2, 0], [1, 1]]), query, gallery) == [(2, 0), (1, 1)]
    assert rows([("2", 0)], query, gallery) == [(2, 0)]
    with pytest.raises(EvaluationError, match=r"query_id 3 \(row 1\) is none of the 3 query ids.* row numbers from 0"):
        rows([(3, 0)], query, gallery)
    with pytest.raises(EvaluationError, match="query_id -1"):
        rows([(-1, 0)], query, gallery)


def test_unknown_ids_name_the_file_the_first_and_how_many(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "query_id,gallery_id\nb,x\nz,x\nw,x\n")
    with pytest.raises(EvaluationError) as fault:
        rows(path)
    message = str(fault.value)
    assert message.startswith(f"{path}: query_id 'z' (row 2) is none of the 3 query ids; 2 of 3 rows name unknown ids.")
    assert "such as '007'" in message
    assert "\n" not in message
    with pytest.raises(EvaluationError, match=r"gallery_id 'q' \(row 1\) is none of the 2 gallery ids; 1 of 1"):
        rows([("b", "q")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("query_id,image\nb,x\n", "has no column 'gallery_id', only query_id, image. Expected the columns"),
        ("query_id,gallery_id\n", "holds no pairs"),
        ("query_id,gallery_id\nb,x\n,y\n", "row 2 has no query_id"),
    ],
)
def test_faults_of_a_file(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "p.csv", text)
    with pytest.raises(EvaluationError, match=message) as fault:
        rows(path)
    assert str(path) in str(fault.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file"):
        rows(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "pairs: holds no pairs"),
        (["ab"], "entry 1 is 'ab', expected a pair"),
        ([("b", "x"), ("b",)], "entry 2 is"),
        ({"query_id": ["b", "b"], "gallery_id": ["x"]}, "2 and 1 entries"),
        ({"query_id": ["b", None], "gallery_id": ["x", "x"]}, "row 2 has no query_id"),
    ],
)
def test_faults_of_lists(pairs: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        rows(pairs)


def test_names_are_unique_and_as_many_as_items() -> None:
    with pytest.raises(EvaluationError, match="query has the id 'a' more than once"):
        Names.of("query", ["a", "b", "a"], 3)
    with pytest.raises(EvaluationError, match="query has 1 ids for 3 embeddings"):
        Names.of("query", ["a"], 3)


def test_labels_by_id_and_by_number(tmp_path: Path) -> None:
    classes = Names("classes", {"dog": 0, "a dog": 0, "cat": 1}, 2)
    path = write(tmp_path / "l.csv", "query_id,class_id\n007,a dog\nb,cat\n")
    left, right = read_labels(path, QUERY, classes)
    assert (left.tolist(), right.tolist()) == ([0, 1], [0, 1])
    left, right = read_labels([1, 0, 1], QUERY, classes)
    assert (left.tolist(), right.tolist()) == ([0, 1, 2], [1, 0, 1])
    with pytest.raises(EvaluationError, match="name 2 classes for 3 queries"):
        read_labels([1, 0], QUERY, classes)
    with pytest.raises(EvaluationError, match=r"class 2 \(row 3\) is none of the 2 classes ids"):
        read_labels(np.array([0, 0, 2]), QUERY, classes)
    with pytest.raises(EvaluationError, match="class_id 'cow'"):
        read_labels([("b", "cow")], QUERY, classes)


QUERIES, PICTURES = Names.of("query", ["q0", "q1", "q2"], 3), Names.of("gallery", ["g0", "g1", "g2"], 3)


@pytest.mark.parametrize("score", ["score", "relevance", "rel"])
def test_only_scores_above_zero_make_true_pairs(tmp_path: Path, score: str) -> None:
    path = tmp_path / "q.csv"
    path.write_text(f"query_id,gallery_id,{score}\nq0,g0,1\nq0,g1,0\nq1,g2,-1\nq2,g2,0.5\nq2,g0,3\n")
    query, gallery = read_pairs(path, QUERIES, PICTURES)
    assert list(zip(query.tolist(), gallery.tolist(), strict=True)) == [(0, 0), (2, 2), (2, 0)]
    table = {"query_id": ["q0", "q1"], "gallery_id": ["g0", "g1"], score: [2, 0]}
    assert read_pairs(table, QUERIES, PICTURES)[0].tolist() == [0]


def test_the_columns_of_beir_and_trec_are_known(tmp_path: Path) -> None:
    for header in ("query-id\tcorpus-id\tscore", "qid\tdocid\trel"):
        (tmp_path / "q.tsv").write_text(f"{header}\nq0\tg1\t1\nq1\tg1\t0\n")
        assert [side.tolist() for side in read_pairs(tmp_path / "q.tsv", QUERIES, PICTURES)] == [[0], [1]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("q0,g0,high\n", r"row 1 has the score 'high', expected a number: above 0 is a true pair"),
        ("q0,g0,1\nq1,g1,\n", r"row 2 has the score '', expected a number"),
        ("q0,g0,0\nq1,g1,-2\n", r"no row has a score above 0, so there are no true pairs"),
    ],
)
def test_faults_of_scores(tmp_path: Path, rows: str, message: str) -> None:
    (tmp_path / "q.csv").write_text("query_id,gallery_id,score\n" + rows)
    with pytest.raises(EvaluationError, match=message):
        read_pairs(tmp_path / "q.csv", QUERIES, PICTURES)
