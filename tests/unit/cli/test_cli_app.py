"""Faults become one line and an exit code; help, version and usage faults behave as the contract says."""

from __future__ import annotations

import errno

import pytest

from isthmus import __version__
from isthmus.cli import main
from isthmus.cli.app import VERBS, describe
from isthmus.errors import CheckFailed, FingerprintError, OverlapError


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (OverlapError("spaces share\nnothing."), "OverlapError: spaces share nothing.", 2),
        (FingerprintError("other."), "FingerprintError: other.", 2),
        (CheckFailed("too many."), "CheckFailed: too many.", 1),
        (OSError(errno.ENOSPC, "No space", "x.npy"), "OSError: no space left on the device of x.npy.", 2),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "PermissionError: /x may not be read or written", 2),
        (FileNotFoundError(errno.ENOENT, "No such file", "y"), "FileNotFoundError: y does not exist.", 2),
        (OSError("strange"), "OSError: a file: strange.", 2),
        (KeyboardInterrupt(), "", 130),
        (MemoryError(), "MemoryError: not enough memory.", 2),
        (ValueError("bug"), "InternalError: ValueError: bug. This is a fault of isthmus", 2),
        (SystemExit(0), "", 0),
        (SystemExit("text"), "", 1),
    ],
)
def test_every_fault_is_one_line_and_a_code(error: BaseException, line: str, code: int):
    got, exit_code = describe(error)
    assert got.startswith(line)
    assert "\n" not in got
    assert exit_code == code


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["extnd"], "UsageError: No such command 'extnd'. Did you mean 'extend'? See isthmus --help."),
        (["inspect"], "UsageError: Missing argument 'S.space'. See isthmus inspect --help."),
        (["inspect", "--wrong"], "UsageError: No such option: --wrong"),
        (["search", "b", "--gallery", "g", "-k", "0"], "UsageError: Invalid value for '-k'"),
        (["import", "x.npy", "--into", "s"], "UsageError: Missing option '--modality'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(line)


def test_no_verb_prints_the_help_and_ends_with_2(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_version_and_help(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"isthmus {__version__}\n"
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "..." not in shown.split("Commands:")[1], "a summary is cut off"
    assert [line.split()[0] for line in shown.split("Commands:")[1].split("\n") if line.strip()] == list(VERBS)


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_explains_itself_on_80_columns(verb: str, capsys: pytest.CaptureFixture[str]):
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--json" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_a_traceback_only_with_debug(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    arguments = ["inspect", "nowhere.space"]
    main(arguments)
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("ISTHMUS_DEBUG", "1")
    main(arguments)
    assert "Traceback" in capsys.readouterr().err
