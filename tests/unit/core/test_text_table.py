"""Tables of plain text."""

from __future__ import annotations

import pytest

from isthmus.core.terminal import line_width
from isthmus.core.text_table import aligned, figure, interval, markdown_table, show, value_table


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567, "1,234,567"), (0.123456, "0.1235"), (None, "-"), (True, "yes"), (float("inf"), "-"), ("x", "x")],
)
def test_values_are_shown_for_people(value: object, text: str):
    assert show(value) == text


def test_a_table_aligns_numbers_right_and_words_left():
    assert value_table(["name", "n"], [["a", 5], ["long", 1000]]).splitlines() == [
        "name  n".replace("  n", "      n"),
        "----  -----",
        "a         5",
        "long  1,000",
    ]


def test_an_empty_table_is_its_header():
    assert value_table(["a", "b"], []).splitlines()[0] == "a  b"


def test_a_short_row_is_a_label_and_a_sentence_that_widens_no_column():
    lines = aligned([["", "r@1", "r@5"], ["ours", "0.5", "0.75"], ["theirs", "a long reason why there is none"]])
    assert lines == ["        r@1   r@5", "ours    0.5  0.75", "theirs  a long reason why there is none"]


def test_columns_of_words_begin_at_one_place():
    assert aligned([["a", "b"], ["long", "c"]], left=(0, 1)) == ["a     b", "long  c"]
    assert aligned([]) == []


def test_figures_medians_and_intervals():
    assert figure("r@1", 0.12345) == "0.123"
    assert figure("median_rank", 4.0) == "4.0"
    assert figure("map", 0.5, 0.01) == "0.500 ± 0.010"
    assert (figure("map", None), figure("map", None, absent="-")) == ("", "-")
    assert (interval((0.1, 0.25)), interval(None)) == ("0.100 - 0.250", "")


def test_a_bar_inside_a_cell_of_markdown_is_escaped():
    assert markdown_table(["a"], [["x|y"]]) == "| a |\n| --- |\n| x\\|y |\n"


def test_a_wide_table_cuts_words_first_and_keeps_the_end_of_a_path():
    rows = [[1, "the beginning of a long description", "/far/away/in/a/folder/picture.png"]]
    lines = value_table(["rank", "what", "where"], rows, width=40).splitlines()
    assert max(map(len, lines)) <= 40
    assert lines[2] == "   1  the beginning o…  …der/picture.png"
    assert lines[1] == "----  ----------------  ----------------"


def test_many_columns_of_numbers_stand_in_blocks_each_with_its_label():
    header = ["method", *[f"figure {n}" for n in range(8)]]
    text = value_table(header, [["ours", *range(1000, 1008)], ["theirs", *range(8)]], width=40)
    blocks = [block.splitlines() for block in text.split("\n\n")]
    assert len(blocks) == 3
    assert all(len(line) <= 40 for block in blocks for line in block)
    assert [line.split()[0] for line in blocks[1]] == ["method", "------", "ours", "theirs"]
    assert "1,007" in blocks[2][2]


def test_sentences_and_notes_are_broken_and_stand_once():
    lines = aligned(
        [["", "a" * 15, "b" * 15, "c" * 15], ["x", "1", "2", "3"], ["y", "a sentence that is longer than a line is"]],
        width=36,
        notes=[None, "a note that is longer than a line is here", None],
    )
    assert max(map(len, lines)) <= 36
    assert sum("sentence" in line for line in lines) == 1
    assert lines[2] == "      a note that is longer than a"
    assert lines[3] == "      line is here"


@pytest.mark.parametrize(("columns", "width"), [("100", 100), ("7", 40), ("100000", 200), ("none", 80)])
def test_the_width_is_the_terminals(columns: str, width: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert line_width() == width
