"""Locks of places that are written to: one writer at a time, and the second is told at once who is there.

A lock is a file beside the place with a lock of the system on it, so that a process that is killed lets go by itself;
the file says who holds it. Where the system or the file system knows no such lock, nobody is kept out.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from isthmus.errors import ConfigError, IsthmusError

_TOLD = 4096
"""Bytes that are read of a lock file."""

_mine: dict[str, tuple[int, int]] = {}
"""By path of the lock file, the thread of this process that holds it and how many times over."""
_guard = threading.Lock()


@contextmanager
def hold(place: str | Path, *, what: str = "", fault: type[IsthmusError] = ConfigError) -> Iterator[None]:
    """Keep other processes from writing at a place until the block ends.

    Args:
        place: What is written; it need not exist. A thread may hold a place several times over.
        what: What is written of it, where several things may be at once: a modality.
        fault: The class of the fault.

    Raises:
        IsthmusError: Another process, or another thread, writes there; the message says who, where and since when.
    """
    folder = os.path.realpath(os.path.dirname(os.path.abspath(place)))
    name = os.path.basename(os.path.abspath(place))
    file = os.path.join(folder, "." + ".".join(filter(None, [name, what, "isthmus.lock"])))
    me = threading.get_ident()
    with _guard:
        owner, count = _mine.get(file, (me, 0))
        if owner == me and count:
            _mine[file] = (me, count + 1)
        elif count:
            raise fault(f"{place}: another thread of this process is writing {what or 'it'}. Wait for it to end.")
    if owner == me and count:
        try:
            yield
        finally:
            with _guard:
                _mine[file] = (me, _mine[file][1] - 1)
        return
    made = _make_folders(folder)
    handle = _acquire(file, place, what, fault)
    with _guard:
        _mine[file] = (me, 1)
    try:
        yield
    finally:
        with _guard:
            _mine.pop(file, None)
        if handle is not None:
            with suppress(OSError):  # before letting go, so that nobody locks a file that is gone
                os.unlink(file)
            os.close(handle)
        for each in made:
            with suppress(OSError):  # only those that nothing was written into
                os.rmdir(each)


Args = ParamSpec("Args")
Result = TypeVar("Result")


def one_writer(
    place: str, *, what: str = "", unless: str = "", fault: type[IsthmusError] = ConfigError
) -> Callable[[Callable[Args, Result]], Callable[Args, Result]]:
    """Let a function hold the place that one of its arguments names, from before its work until it returns.

    Args:
        place: Name of the argument.
        what: Name of the argument that says what is written of the place; where it is None, nothing is held here.
        unless: Name of an argument that is None where the place is to be held.
        fault: The class of the fault.
    """

    def decorate(function: Callable[Args, Result]) -> Callable[Args, Result]:
        parameters = inspect.signature(function)

        @functools.wraps(function)
        def held(*args: Args.args, **kwargs: Args.kwargs) -> Result:
            given = parameters.bind(*args, **kwargs)
            given.apply_defaults()
            part = given.arguments[what] if what else ""
            if part is None or (unless and _option(given.arguments, unless) is not None):
                return function(*args, **kwargs)
            with hold(given.arguments[place], what=str(part), fault=fault):
                return function(*args, **kwargs)

        return held

    return decorate


def _option(arguments: Mapping[str, Any], name: str) -> Any:
    """An option of a call: an argument, one of its further keywords, or an attribute of its `options`."""
    if name in arguments:
        return arguments[name]
    changes = arguments.get("changes", {})
    return changes[name] if name in changes else getattr(arguments.get("options"), name, None)


def _make_folders(folder: str) -> list[str]:
    """Make the folder of a lock file; returns the folders that were missing, deepest first."""
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    if missing:
        with suppress(OSError):  # the writer itself says why it cannot
            os.makedirs(missing[0], exist_ok=True)
    return missing


def _acquire(file: str, place: str | Path, what: str, fault: type[IsthmusError]) -> int | None:
    """Lock a lock file; None where that cannot be done here (no such lock, no permission)."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    while True:
        try:
            handle = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except OSError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = _holder(handle)
            os.close(handle)
            raise fault(
                f"{place}: {who} is writing {what or 'it'} now. Wait for it to end, stop it, or give another path."
            ) from None
        except OSError:  # some network file systems
            os.close(handle)
            return None
        # The one before may have removed the file between our opening and locking it: then it is not the one there.
        try:
            same = os.path.samestat(os.fstat(handle), os.stat(file))
        except OSError:
            same = False
        if same:
            break
        os.close(handle)
    about = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "command": " ".join(os.path.basename(part) for part in sys.argv[:2])[:200],
    }
    with suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(about).encode(), 0)
    return handle


def _holder(handle: int) -> str:
    """Who holds a lock, as its file says."""
    try:
        about = json.loads(os.pread(handle, _TOLD, 0))
        words = f"process {int(about['pid'])} on {about['host']} ({about['command']}, since {about['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
    return words if words.isprintable() else "another process"
