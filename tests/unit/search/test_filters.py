"""Filters: the grammar, SQLite as an oracle of what passes, types, and everything that is no filter."""

from __future__ import annotations

import sqlite3
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.errors import ConfigError
from isthmus.search.filter_parser import parse_filter
from isthmus.search.filter_tree import Filter, columns
from isthmus.search.filters import mask, matches, quote_name, to_sql

ROWS: list[dict[str, Any]] = [
    {"year": year, "score": score, "label": label, "day": day}
    for year in (2009, 2010, 2011, None)
    for score in (-1.5, 0.0, 2.25, None)
    for label in ("dog", "cat", 'a "b"', "o'c", None)
    for day in (True, False, None)
]


def sqlite_rows(tree: Filter) -> list[bool]:
    """Which rows SQLite lets through, the values passed as parameters."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (n INTEGER, year INTEGER, score REAL, label TEXT, day INTEGER)")
    rows = [(n, *row.values()) for n, row in enumerate(ROWS)]
    connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", rows)
    values: list[Any] = []

    def placeholder(value: Any) -> str:
        values.append(value)
        return "?"

    where = to_sql(tree, placeholder, quote_name)
    passed = {n for (n,) in connection.execute(f"SELECT n FROM t WHERE {where}", values)}
    return [n in passed for n in range(len(ROWS))]


numbers = st.sampled_from(["2010", "2009", "-1.5", "0", "2.25", "+3", "1e3"])
texts = st.sampled_from(['"dog"', "'cat'", '"a \\"b\\""', '"o\'c"', "'o\\'c'", '""'])
operators = st.sampled_from(["==", "=", "!=", "<>", "<", "<=", ">", ">="])
conditions = st.one_of(
    st.tuples(st.sampled_from(["year", "score", "`year`"]), operators, numbers).map(" ".join),
    st.tuples(numbers, operators, st.sampled_from(["year", "score"])).map(" ".join),
    st.tuples(st.just("label"), operators, texts).map(" ".join),
    st.tuples(st.just("day"), st.sampled_from(["==", "!="]), st.sampled_from(["true", "FALSE"])).map(" ".join),
    st.tuples(st.sampled_from(["label in", "label NOT IN"]), st.lists(texts, min_size=1, max_size=3)).map(
        lambda pair: f"{pair[0]} ({', '.join(pair[1])})"
    ),
    st.tuples(st.sampled_from(["year", "label", "day"]), st.sampled_from(["is null", "IS NOT NULL"])).map(" ".join),
)
filters = st.recursive(
    conditions,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" and ", " OR "]), inner).map(lambda p: f"({p[0]}{p[1]}{p[2]})"),
        inner.map(lambda text: f"not ({text})"),
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(filters)
def test_it_lets_through_what_sqlite_lets_through(text: str) -> None:
    tree = parse_filter(text)
    expected = sqlite_rows(tree)
    assert mask(tree, pa.Table.from_pylist(ROWS)).tolist() == expected
    assert [matches(tree, row) for row in ROWS] == expected


def test_and_binds_closer_than_or_and_not_closer_than_and() -> None:
    row = {"a": 1, "b": 2, "c": 3}
    assert matches(parse_filter("a = 1 or b = 0 and c = 0"), row)
    assert not matches(parse_filter("(a = 1 or b = 0) and c = 0"), row)
    assert matches(parse_filter("not a = 0 and b = 2"), row)


def test_columns_of_odd_names_and_dictionaries() -> None:
    table = pa.table({"my col": pa.array(["x", "y"]).dictionary_encode(), "none": pa.nulls(2), "größe": [1, 2]})
    assert mask(parse_filter('`my col` = "y"'), table).tolist() == [False, True]
    assert mask(parse_filter("none > 3 or none is null"), table).tolist() == [True, True]
    assert mask(parse_filter("not none > 3"), table).tolist() == [False, False]
    assert mask(parse_filter("größe >= 2"), table).tolist() == [False, True]
    assert columns(parse_filter("b > 1 and (a is null or b < 3)")) == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "character 1: got the end, expected a column"),
        ("year >", "character 7: got the end, expected a number, a text in quotes"),
        ("year > 1 and", "expected a column"),
        ("year 2010", "got '2010', expected a comparison, in or is"),
        ("year in ()", "expected a number, a text in quotes"),
        ("year in (1", "expected a comma or a closing parenthesis"),
        ("(year > 1", "expected a closing parenthesis"),
        ("year > 1)", "expected and, or, or the end"),
        ("year > 1; drop table t", "got '; drop table t'"),
        ("__import__('os')", r"expected a comparison, in or is"),
        ("year > 1 and year.real > lambda", "expected a number, a text in quotes"),
        ('label = "open', "expected a column, a value or an operator"),
        ("year = 1" + "0" * 40, "expected one of 64 bits"),
        ("year = 1e999", "expected one of 64 bits"),
        ("(" * 60 + "a=1" + ")" * 60, "nested more than 40 deep"),
        ("not " * 60 + "a=1", "nested more than 40 deep"),
        ("a = 1 or " * 3000 + "a = 1", "has 27,005 characters, expected at most 20,000"),
    ],
)
def test_what_is_no_filter_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_filter(text)
    assert len(str(caught.value)) <= 400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("yaer > 1", "names the column 'yaer', the columns are: day, label, list, score, year. Did you mean 'year'"),
        ('year = "2010"', "compares the column 'year' with the text '2010', it holds numbers"),
        ("label = 3", "compares the column 'label' with the number 3, it holds texts"),
        ("day = 1", "compares the column 'day' with the number 1, it holds truth values"),
        ("day < true", "orders the column 'day' of truth values"),
        ("list = 1", "it holds values that have no order"),
    ],
)
def test_columns_are_compared_with_their_kind(text: str, message: str) -> None:
    table = pa.Table.from_pylist([{**row, "list": [1]} for row in ROWS])
    with pytest.raises(ConfigError, match=message):
        mask(parse_filter(text), table)
