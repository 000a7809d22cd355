"""Lines for a terminal."""

from __future__ import annotations

import shlex

import pytest

from isthmus.core.terminal import fold


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("short", "short"),
        ("", ""),
        ("a line\nand one more", "a line\nand one more"),
        ("  picture/image: normalize, center, linear", "  picture/image:\n    normalize,\n    center, linear"),
        ("Saved /a/folder/of/some/length/x.bridge now.", "Saved\n  /a/folder/of/some/length/x.bridge\n  now."),
    ],
)
def test_long_lines_go_on_below(text: str, folded: str):
    assert fold(text, 20) == folded


def test_a_command_stays_one_that_a_shell_runs():
    command = "  .venv/bin/isthmus search my.world --text 'three hundred and forty' --gallery pictures.space/image -k 5"
    folded = fold(command, 40)
    assert len(folded.splitlines()) > 2
    assert max(map(len, folded.splitlines())) <= 40
    assert shlex.split(folded.replace("\\\n", "")) == shlex.split(command)
