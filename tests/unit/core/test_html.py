"""Notebooks: what an object shows, with every word of a file escaped."""

from __future__ import annotations

import io
from html import escape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isthmus import SearchIndex, evaluate_bridge, extend, make_space
from isthmus.core.html import MOST_ROWS, html_table
from isthmus.core.runtime import Progress
from worlds import three_spaces


def test_rows_beyond_the_most_are_counted_and_words_escaped():
    text = html_table("<b>", ["n", "<i>"], [(i, "<script>") for i in range(MOST_ROWS + 3)])
    assert text.count("<tr>") == MOST_ROWS + 1
    assert "and 3 more rows" in text
    assert "<script>" not in text
    assert "&lt;b&gt;" in text


def test_spaces_embeddings_and_bridges_show_themselves(tmp_path: Path):
    first, second, _ = three_spaces(tmp_path)
    assert f"space {first.name}, {first.dim} dimensions" in first._repr_html_()
    assert "<td style='text-align:right'>400</td>" in first._repr_html_()
    shown = first["text"]._repr_html_()
    assert "the first 5 of 400 items" in shown
    assert first["text"].ids[0] in shown
    bridge = extend(base=first, leaf=second, via="text", method="procrustes")
    assert "normalize &gt; linear" in bridge._repr_html_()


def test_ids_of_a_file_cannot_speak_html(tmp_path: Path):
    space = make_space(tmp_path / "s", {"text": (["<img src=x>"], np.ones((1, 4), np.float32))})
    assert "<img" not in space["text"]._repr_html_()


def test_progress_in_a_notebook_rewrites_one_line(monkeypatch: pytest.MonkeyPatch):
    class OutStream(io.StringIO):
        pass

    OutStream.__module__ = "ipykernel.iostream"
    stream = OutStream()
    monkeypatch.setattr("sys.stderr", stream)
    with Progress("train", 2, every=0.0) as progress:
        progress.advance()
        progress.advance()
    assert stream.getvalue().count("\n") == 1
    assert "\r" in stream.getvalue()


def test_results_show_the_tables_of_the_command(tmp_path: Path):
    first, second, _ = three_spaces(tmp_path)
    bridge = extend(base=first, leaf=second, via="text", method="procrustes")
    pairs = [(name, name) for name in first["text"].ids]
    told = evaluate_bridge(bridge, query=second["text"], gallery=first["text"], pairs=pairs)
    assert told._repr_html_() == f"<pre>{escape(str(told))}</pre>"
    shown = told.scores._repr_html_()
    assert f"{told['mean']['map']:.3f} (" in shown
    assert "<td style='text-align:left'>chance</td>" in shown


def test_hits_show_pictures_and_escape_words(tmp_path: Path):
    path = tmp_path / "a.png"
    Image.new("RGB", (300, 200), (200, 10, 10)).save(path)
    index = SearchIndex(np.eye(2, 4), ["<b>", "y"], {"image_path": [str(path), "/nowhere.png"]}, modalities="image")
    shown = index.search(np.eye(4)[0], k=2)[0]._repr_html_()
    assert shown.count("data:image/webp;base64,") == 1
    assert "<b>" not in shown
    assert "&lt;b&gt;" in shown
    assert "1.000" in shown
