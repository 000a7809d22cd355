"""Hits as a person reads them."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.cli.output import output
from isthmus.cli.search import show_hits
from isthmus.search.hits import Hit


def shown(hits: list[Hit], capsys: pytest.CaptureFixture[str]) -> list[str]:
    with output() as out:
        show_hits(out, hits)
    return capsys.readouterr().out.splitlines()


def hit(name: str, **metadata: Any) -> Hit:
    return Hit(id=name, score=0.5, row=0, gallery="clip/image", modality="image", metadata=metadata)


def test_a_path_that_ends_in_the_id_is_not_said_twice(capsys: pytest.CaptureFixture[str]):
    lines = shown([hit("dog.jpg", image_path="/home/photos/dog.jpg")], capsys)
    assert lines[0].split() == ["rank", "cosine", "id"]
    assert lines[2].split() == ["1", "0.5", "dog.jpg"]


def test_what_else_is_known_stands_beside_the_id(capsys: pytest.CaptureFixture[str]):
    hits = [
        hit("7", image_path="/photos/dog.jpg"),
        hit("8", text="a dog", year=2020),
        hit("og.jpg", image_path="/dog.jpg"),
    ]
    lines = shown(hits, capsys)
    assert lines[0].split() == ["rank", "cosine", "id", "what"]
    assert [line.split()[3:] for line in lines[2:]] == [["/photos/dog.jpg"], ["a", "dog", "2020"], ["/dog.jpg"]]


def test_no_hit_is_a_table_without_rows(capsys: pytest.CaptureFixture[str]):
    assert len(shown([], capsys)) == 2
