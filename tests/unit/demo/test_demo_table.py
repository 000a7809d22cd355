"""The demo's table."""

from __future__ import annotations

from isthmus.demo.demo_table import HEADINGS, ROWS, lines


def test_the_table_fits_a_terminal_of_eighty_columns():
    row = {"r@1": 0.5, "map": 1.0}
    task = {"mean": row, "baselines": {name: row for name in ROWS if name}}
    table = list(lines(dict.fromkeys(HEADINGS, task)))
    assert len(table) == 3 + len(ROWS)
    assert max(map(len, table)) <= 80
    assert all(line.count("0.500  1.000") == 3 for line in table[3:])
