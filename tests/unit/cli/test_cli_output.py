"""Words on standard error, one JSON object on standard output."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from isthmus.cli.output import output, plain


def test_json_is_one_object_and_alone_on_standard_output(capsys: pytest.CaptureFixture[str]):
    with output(as_json=True) as out:
        print("a library that chats")
        out.say("words")
        out.table(["a"], [[1]])
        out.report = {"path": Path("x"), "score": np.float32(0.5)}
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"path": "x", "score": 0.5}
    assert "a library that chats" in captured.err
    assert "words" in captured.err


def test_a_fault_leaves_standard_output_empty(capsys: pytest.CaptureFixture[str]):
    def verb() -> None:
        with output(as_json=True) as out:
            out.report = {"half": True}
            raise ValueError("late")

    with pytest.raises(ValueError, match="late"):
        verb()
    assert capsys.readouterr().out == ""


def test_results_are_on_standard_output_and_notes_on_standard_error(capsys: pytest.CaptureFixture[str]):
    with output() as out:
        print("a library that chats")
        out.say("words")
        out.table(["a"], [[1]])
        out.note("Next: something")
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["words", "a", "-", "1"]
    assert captured.err.splitlines() == ["a library that chats", "Next: something"]


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]):
    with output(quiet=True) as out:
        out.say("words")
        out.table(["a"], [[1]])
        out.note("a note")
    assert capsys.readouterr() == ("", "")


def test_plain_gives_what_json_knows():
    value = {"a": np.arange(2), "b": (1, float("nan")), "c": {np.int64(3)}, 4: None, "d": np.bool_(True)}
    assert plain(value) == {"a": [0, 1], "b": [1, None], "c": [3], "4": None, "d": True}
