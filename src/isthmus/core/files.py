"""Files and folders: written aside and renamed whole, hashed, read as json, found by path, folder or glob."""

from __future__ import annotations

import ctypes
import errno
import glob as globbing
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isthmus.core.json_text import json_limit, parse_json
from isthmus.core.messages import one_line
from isthmus.errors import FormatError, IsthmusError


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it becomes `path` in one step, on disk and whole, or is removed."""
    path = Path(path)
    aside = _aside(path)
    sweep(path)
    try:
        with disk_faults(path):
            yield aside
            sync(aside)
        os.replace(aside, path)
        sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def atomic_folder(
    path: str | Path,
    *,
    overwrite: bool = False,
    before: Callable[[], object] | None = None,
    remove: Callable[[Path], None] | None = None,
) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it becomes `path` in one step when the block ends well, or is removed.

    What lies at `path` is moved aside and removed last. Callers decide beforehand whether it may be (see
    `isthmus.core.replace`, which every verb goes through).

    Args:
        path: The folder to be.
        overwrite: Replace what lies there.
        before: Called when the new folder is whole, right before the step: the last moment to refuse.
        remove: Removes the old folder; by default all of it.

    Raises:
        FileExistsError: Something lies at `path` and `overwrite` is false; callers check first, in their own words.
    """
    path = Path(path)
    _restore(path)
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(f"{path} exists")
    aside, old = _aside(path), path.with_name(f".{path.name}.old-{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    aside.mkdir()
    try:
        with disk_faults(path):
            yield aside
            sync_tree(aside)
        if before is not None:
            before()
        if os.path.lexists(path):
            if not overwrite:
                raise FileExistsError(f"{path} exists")
            # One step where the system has it: a reader always finds the old folder or the new one.
            if _exchange(aside, path):
                os.replace(aside, old)
            else:
                os.replace(path, old)
                os.replace(aside, path)
        else:
            os.replace(aside, path)
        sync(path.parent)
    finally:
        if os.path.lexists(old) and not os.path.lexists(path):
            os.replace(old, path)
        _remove(aside)
        if os.path.lexists(old):
            (remove or _remove)(old)


_FULL = re.compile(
    r"no space left|os error 28|file too large|os error 27|disk quota|\d+ requested and \d+ written", re.I
)


@contextmanager
def disk_faults(path: Path) -> Iterator[None]:
    """Turn what libraries raise in their own classes when a disk is full into the OSError that it is, with the path."""
    try:
        yield
    except IsthmusError:
        raise
    except Exception as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if isinstance(error, OSError) and error.errno is not None and (not full or error.filename is not None):
            raise
        if not full and not _FULL.search(str(error)):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def _restore(path: Path) -> None:
    """Put back what a process that was killed between two steps had moved aside, or finish removing it."""
    for old in path.parent.glob(f".{globbing.escape(path.name)}.old-*"):
        process = old.name.rsplit("-", 1)[-1]
        if process.isdigit() and (int(process) == os.getpid() or not _lives(int(process))):
            if os.path.lexists(path):
                _remove(old)
            else:
                os.replace(old, path)


def _exchange(a: Path, b: Path) -> bool:
    """Let two paths change places in one step; False where the system or the file system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):  # not Linux, or an old C library
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(a), here, os.fsencode(b), exchange) == 0)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial-{os.getpid()}")


def sweep(path: Path, *, held: bool = False) -> None:
    """Remove what killed processes left beside `path` when they wrote it.

    Args:
        path: What they wrote.
        held: Nobody else writes it now, as the caller holds a lock; otherwise what living processes of this machine
            write is left alone.
    """
    for leftover in path.parent.glob(f".{globbing.escape(path.name)}.partial-*"):
        process = leftover.name.rsplit("-", 1)[-1]
        if held or (process.isdigit() and (int(process) == os.getpid() or not _lives(int(process)))):
            _remove(leftover)


def _lives(process: int) -> bool:
    if os.name == "nt":  # os.kill would end it there
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Ask the system to put a file or folder on disk. Folders cannot be synced everywhere; then this does nothing."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():
            return
        raise
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """`sync` everything inside a folder, deepest first, and the folder itself."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(parent) / name)
        sync(Path(parent))


def sha256_file(path: str | Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Hexadecimal sha256 of a value's canonical json: sorted keys, no spaces, UTF-8, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_json(path: str | Path, *, kind: str) -> dict[str, Any]:
    """Read a json object.

    Args:
        path: The file.
        kind: What the file is, for the message, such as "space manifest".

    Raises:
        FormatError: The file is too large, is not UTF-8, is not json, or holds something else than an object.
        OSError: The file cannot be read.
    """
    path = Path(path)
    size, limit = path.stat().st_size, json_limit()
    if size > limit:
        raise FormatError(
            f"{path}: a {kind} has at most {limit:,} bytes, got {size:,}. This is another file, or a damaged one; "
            "ISTHMUS_MAX_JSON raises the limit."
        )
    try:
        value = parse_json(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{path}: cannot be read as the json of a {kind} ({one_line(error)}). Restore it from a copy, or write it "
            "anew."
        ) from error
    if not isinstance(value, dict):
        raise FormatError(
            f"{path}: a {kind} is a json object, got a {type(value).__name__}. Restore it from a copy, or write it "
            "anew."
        )
    return value


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as readable json in one step (see `atomic_file`)."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def natural_key(path: str | Path) -> tuple[tuple[int, int, str], ...]:
    """Sorting key under which `part_2` stands before `part_10`."""
    parts = re.split(r"(\d+)", str(path))
    return tuple((1, int(part), "") if part.isascii() and part.isdigit() else (0, 0, part) for part in parts)


def expand_paths(paths: str | Path | Iterable[str | Path], suffixes: Sequence[str]) -> list[Path]:
    """Find the files that paths, folders (searched through) and globs name, each once, in natural order.

    Args:
        paths: One or many. A file named itself must have one of the suffixes; in folders and globs others are passed.
        suffixes: Wanted suffixes in lower case with their dot.

    Raises:
        FormatError: A path does not exist, has another suffix, or nothing was found at all.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    files: dict[Path, None] = {}
    for path in given:
        for file in _expand(Path(path), tuple(suffixes)):
            files.setdefault(file)
    if not files:
        where = ", ".join(map(str, given[:3])) or "no path"
        raise FormatError(
            f"{where}: no file with one of the suffixes {', '.join(suffixes)}. Give a file, a folder or a glob that "
            "holds some."
        )
    return sorted(files, key=natural_key)


def _expand(path: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    if path.is_dir():
        files: Iterable[Path] = (file for file in path.rglob("*") if file.is_file())
    elif path.is_file():
        if path.suffix.lower() not in suffixes:
            raise FormatError(
                f"{path}: the suffix {path.suffix!r} is not known here. Expected one of {', '.join(suffixes)}."
            )
        files = [path]
    elif globbing.has_magic(str(path)):
        files = (Path(file) for file in globbing.iglob(str(path), recursive=True) if Path(file).is_file())
    else:
        raise FormatError(f"{path}: no such file or folder. Check the path.")
    for file in files:
        if file.suffix.lower() in suffixes and not file.name.startswith("."):
            yield file
