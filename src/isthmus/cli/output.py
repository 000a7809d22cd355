"""What a verb prints: results on standard output, for a person or as one JSON object; all else on standard error."""

from __future__ import annotations

import errno
import json
import math
import os
import sys
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, TextIO

from isthmus.core.terminal import fold, line_width, printable
from isthmus.core.text_table import value_table
from isthmus.errors import IsthmusWarning


class Output:
    """Collects what one verb has to say.

    Args:
        as_json: Print the report as one JSON object on standard output when the verb is done.
        quiet: Print no words and no tables.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json, self.quiet = as_json, quiet
        self.report: Mapping[str, Any] = {}
        # Standard output is either the one object or what a person reads, never both.
        self._results = sys.stderr if as_json else sys.stdout

    def say(self, text: str = "") -> None:
        """Print lines of the result; what is longer than a line of the terminal goes on below it."""
        if self.quiet:
            return
        try:
            print(fold(printable(text), line_width()), file=self._results, flush=True)
        except BrokenPipeError:  # `isthmus search ... | head`: whoever read has enough, and the work goes on
            _discard(self._results)
            self.quiet = True

    def sentence(self, text: str) -> None:
        """Print a sentence of the result, broken where a line ends."""
        self.say(textwrap.fill(text, line_width(), break_long_words=False, break_on_hyphens=False))

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Any]], *, notes: Sequence[str | None] = ()) -> None:
        """Print rows of values under a header, columns aligned, no wider than the terminal; notes stand below rows."""
        self.say(value_table(header, rows, width=line_width(), notes=notes))

    def note(self, text: str) -> None:
        """Print a line that is no result: progress, a warning, or what to do next."""
        if not self.quiet:
            print(printable(text), file=sys.stderr, flush=True)


@contextmanager
def output(*, as_json: bool = False, quiet: bool = False) -> Iterator[Output]:
    """Give a verb its `Output`; whatever a library prints to standard output meanwhile goes to standard error.

    The report is printed only if the verb succeeds, so that standard output holds one whole object or nothing.
    """
    out = Output(as_json=as_json, quiet=quiet)
    with redirect_stdout(sys.stderr), _warnings_as_notes(out):
        yield out
    if as_json:
        _print_json(plain(out.report))


@contextmanager
def _warnings_as_notes(out: Output) -> Iterator[None]:
    """Tell isthmus's own warnings as a line of their own, without the place in the source that Python adds."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def tell(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, IsthmusWarning):
                out.note(str(message))
            else:
                show(message, category, *place, **more)

        warnings.showwarning = tell
        yield


def _print_json(report: Any) -> None:
    """Print one json object on standard output, whatever its encoding.

    Raises:
        OSError: Standard output is closed, or what it is written to refuses it.
    """
    stream = sys.stdout
    if stream is None or stream.closed:
        raise OSError(errno.EBADF, "it is closed, so the report was not written", "standard output")
    text = json.dumps(report, ensure_ascii=False)
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeError:  # a terminal of another encoding, or a name that is no text
        text = json.dumps(report)
    try:
        print(text, file=stream)
        stream.flush()
    except OSError as error:
        _discard(stream)
        if error.errno == errno.EPIPE:  # typer ends without a word where it sees this one
            raise OSError(errno.EBADF, "it was closed before all was written", "standard output") from error
        raise OSError(error.errno, error.strerror or str(error), "standard output") from error


def _discard(stream: TextIO) -> None:
    """Send what a stream still holds nowhere, else the interpreter writes it once more when it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def plain(value: Any) -> Any:
    """Turn numpy scalars, arrays, paths and tuples into what JSON knows; a number that is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
