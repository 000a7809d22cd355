"""The command line: one verb a step of the flow. Thin: parse, call the Python function of the same name, print."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `isthmus` with `arguments` (default: those of the process) and return its exit code.

    Returns:
        0 done, 1 a check said no, 2 wrong usage or bad input, 130 interrupted.
    """
    from isthmus.cli.app import run

    return run(arguments)
