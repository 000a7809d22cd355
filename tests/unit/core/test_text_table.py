"""Tables of plain text."""

from __future__ import annotations

import pytest

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
