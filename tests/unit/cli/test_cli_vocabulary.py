"""`isthmus vocabulary`: what it prints, finds and writes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from isthmus.cli import main
from isthmus.items.vocabulary import load_vocabulary, text_id


def test_it_shows_a_sample_that_is_the_same_every_time(capsys: pytest.CaptureFixture[str]):
    reports = []
    for _ in range(2):
        assert main(["vocabulary", "--json", "-n", "5"]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert reports[0] == reports[1]
    assert reports[0]["count"] == reports[0]["found"] == len(load_vocabulary()) == sum(reports[0]["kinds"].values())
    assert len(reports[0]["entries"]) == 5
    assert set(reports[0]["entries"][0]) == {"name", "kind", "count", "gloss"}


def test_it_finds_words_and_kinds(capsys: pytest.CaptureFixture[str]):
    assert main(["vocabulary", "--search", "barking", "--kind", "sound", "--json"]) == 0
    names = [entry["name"] for entry in json.loads(capsys.readouterr().out)["entries"]]
    assert names[0] == "barking"
    assert "dog barking" in names
    assert main(["vocabulary", "--kind", "smell"]) == 2
    assert "--kind got 'smell', expected one of animal, artefact" in capsys.readouterr().err


def test_it_writes_a_table_that_encode_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "names.csv"
    assert main(["vocabulary", "--kind", "sound", "--out", str(out), "--quiet"]) == 0
    with open(out, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["text"] for row in rows] == [entry.name for entry in load_vocabulary() if entry.kind == "sound"]
    assert all(row["id"] == text_id(row["text"]) for row in rows)
    assert main(["vocabulary", "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["vocabulary", "--out", str(tmp_path / "names.xls")]) == 2
    assert "expected the name of a .csv file" in capsys.readouterr().err
