"""Tables in files: values stay what stands there, and rows are never lost between two ways of reading a quote mark."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isthmus.core.limits import SETTING
from isthmus.core.table_files import read_table
from isthmus.errors import ConfigError, FormatError


def test_a_csv_is_text(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text('\ufeffquery_id,n\n007,1\nNULL,\n"a\nb",3\n', encoding="utf-8")
    table = read_table(path)
    assert table.column("query_id").to_pylist() == ["007", "NULL", "a\nb"]
    assert table.column("n").to_pylist() == ["1", "", "3"]


def test_tables_of_every_kind(tmp_path: Path):
    (tmp_path / "a.tsv").write_text("id\tx\n1\t2\n")
    (tmp_path / "a.jsonl").write_text('{"id": "1", "x": 2}\n')
    pq.write_table(pa.table({"id": ["1"], "x": [2]}), tmp_path / "a.parquet")
    for name in ("a.tsv", "a.jsonl", "a.parquet"):
        table = read_table(tmp_path / name)
        assert table.column_names == ["id", "x"]
        assert table.column("id").to_pylist() == ["1"]


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.csv", None, "no such file"),
        ("a.txt", b"x", "a table is one of .csv, .tsv, .parquet, .jsonl, got '.txt'"),
        ("a.csv", b"", "is empty. Expected a line with the names of the columns"),
        ("a.csv", b"a,b\n1,2,3\n", r"line 2 has 3 fields, the header has 2 \(a, b\)"),
        ("a.csv", b"a,b\n\xff,2\n", "line 2 is not UTF-8 .*iconv"),
        ("a.csv", b"a,a\n1,2\n", "two columns have one name"),
        ("a.jsonl", b"{", "line 1 is no json object"),
        ("a.parquet", b"PAR1", "cannot be read as parquet"),
        ("a.parquet", b"PAR1" + bytes(100) + b"\xff\x00\x00\x00PAR1", "cannot be read as parquet"),
    ],
)
def test_faults_of_tables(tmp_path: Path, name: str, content: bytes | None, fault: str):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=fault) as caught:
        read_table(tmp_path / name)
    assert "\n" not in str(caught.value)


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8"))
    return path


@pytest.mark.parametrize(
    "text",
    [
        "2021-03-04",
        "2020-01-01T05:00:00Z",
        "2020-01-01 05:00:00.123456",
        "12:30",
        "true",
        "null",
        "1e5",
        "007",
        "0x10",
        "-inf",
        " padded ",
        "",
    ],
)
def test_a_string_of_a_jsonl_is_itself_whatever_it_looks_like(tmp_path: Path, text: str):
    path = written(tmp_path / "a.jsonl", f'{{"id": {json.dumps(text)}}}\n\n{{"id": {json.dumps(text)}}}\n')
    assert read_table(path).column("id").to_pylist() == [text, text]
    assert read_table(path).schema.field("id").type == pa.string()


def test_a_jsonl_keeps_types_fills_gaps_and_ends_lines_at_line_feeds_only(tmp_path: Path):
    path = written(tmp_path / "a.jsonl", '\ufeff{"id": 1, "x": [1, 2]}\r\n{"id": 2, "y": "a\u2028b", "x": null}')
    table = read_table(path)
    assert table.to_pydict() == {"id": [1, 2], "x": [[1, 2], None], "y": [None, "a\u2028b"]}
    assert read_table(written(tmp_path / "n.jsonl", '{"x": 1}\n{"x": 2.5}\n'))["x"].to_pylist() == [1.0, 2.5]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"id": "a"}\n{"id": 2}\n', "line 2 has a whole number as 'id', lines before it text"),
        ('{"id": "a"}\n\n{"id": true}\n', "line 3 has true or false as 'id', lines before it text"),
        ('{"id": "a", "id": "b"}\n', "line 1 is no json object .*the key 'id' stands twice"),
        ('[{"id": "a"}]\n', "line 1 is a list, expected a json object"),
        ('[\n{"id": "a"}\n]\n', "line 1 is no json object .*A .json with one list is no .jsonl"),
        ("\n\n", "is empty. Expected one json object a line"),
        ('{"id": 99999999999999999999999}\n', "the values of 'id' cannot be one column"),
        ('{"a": ' + "[" * 20_000 + "]" * 20_000 + "}", "line 1 is nested more than 64 deep"),
        ('{"a":' * 8_000 + "1" + "}" * 8_000, "line 1 is nested more than 64 deep"),
    ],
)
def test_faults_of_a_jsonl_name_the_line(tmp_path: Path, content: str, fault: str):
    with pytest.raises(FormatError, match=fault) as caught:
        read_table(written(tmp_path / "a.jsonl", content))
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_brackets_inside_strings_are_not_nesting(tmp_path: Path):
    path = written(tmp_path / "a.jsonl", json.dumps({"text": "[" * 500 + '\\"' + "{" * 500}))
    assert read_table(path).num_rows == 1


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        (
            "a.tsv",
            'id\ttext\n1\t"big" dog\n2\tcat\n',
            "line 2 opens a quote mark that closes in line 2 and is followed",
        ),
        ("a.tsv", 'id\ttext\n1\ta\n2\t"a dog\n3\tcat\n', "line 3 opens a quote mark that is never closed"),
        (
            "a.tsv",
            'id\ttext\n1\t"a dog\n2\ta cat\n3\tlast"\n',
            "line 2 opens a quote mark that closes in line 4, and every",
        ),
        ("a.csv", 'id,text\na,"a dog\nb,"a cat\n', "line 2 opens a quote mark that closes in line 3 and is followed"),
        (
            "a.csv",
            'id,text\na,"a dog runs\nb,a cat sleeps"\n',
            "line 2 opens a quote mark that closes in line 3, and every",
        ),
        ("a.csv", 'text,id\n"a dog,1\nb,2\n"a cat,3\n', "line 2 opens a quote mark"),
        ("a.csv", 'id,text\na,"she said \\"hi\\""\n', "line 2 opens a quote mark that closes in line 2"),
    ],
)
def test_a_quote_mark_never_swallows_rows(tmp_path: Path, name: str, content: str, fault: str):
    with pytest.raises(FormatError, match=fault):
        read_table(written(tmp_path / name, content))


def test_texts_of_several_lines_are_read(tmp_path: Path):
    path = written(
        tmp_path / "a.csv", 'id,text\n1,"Hello, you\nthere"\n2,"one,\r\ntwo words, three"\n\n3,"say ""hi"""\n'
    )
    assert read_table(path)["text"].to_pylist() == ["Hello, you\nthere", "one,\r\ntwo words, three", 'say "hi"']
    assert read_table(written(tmp_path / "m.csv", "id,text\r1,a\r2,b\r"))["id"].to_pylist() == ["1", "2"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "id;text\n1;a\n", "seems to be separated by ';'"),
        ("a.csv", "id\ttext\n1\ta\n", "seems to be separated by a tab"),
        ("a.csv", "id|text|more\n1|a|b\n", r"seems to be separated by '\|'"),
        ("a.csv", "sep=;\nid;text\n", "seems to be separated by ';'"),
        ("a.tsv", "id,text\n1,a\n", "seems to be separated by ','"),
        ("a.csv", "\n", "is empty"),
    ],
)
def test_another_separator_is_told(tmp_path: Path, name: str, content: str, words: str):
    with pytest.raises(FormatError, match=words):
        read_table(written(tmp_path / name, content))


def test_a_table_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    table = pa.table({"id": ["a" * 1000] * 200_000})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    monkeypatch.setenv(SETTING, "50MB")
    with pytest.raises(FormatError, match=r"takes .* bytes once unpacked, the limit is 50,000,000; set ISTHMUS_MAX"):
        read_table(tmp_path / "a.parquet")
    monkeypatch.setenv(SETTING, "1GB")
    assert read_table(tmp_path / "a.parquet").num_rows == 200_000
    monkeypatch.setenv(SETTING, "much")
    with pytest.raises(ConfigError, match="ISTHMUS_MAX_UNPACKED: expected a size such as 4GB"):
        read_table(tmp_path / "a.parquet")


def test_two_columns_of_one_name_are_refused_in_a_parquet_too(tmp_path: Path):
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(FormatError, match=r"two columns have one name \(a, a\)"):
        read_table(tmp_path / "a.parquet")
