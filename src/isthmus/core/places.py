"""Places on disk that a command may write to: links followed, inputs kept clear, what a folder holds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from isthmus.errors import ConfigError, IsthmusError

_SHOWN = 3
"""Files that a message names."""

OURS = re.compile(r"(?:.*/)?\.[^/]+\.(?:partial|old)-\d+(?:/.*)?|(?:.*/)?\.[^/]*isthmus\.lock")
"""What a killed process leaves beside what it wrote, and the file of a lock."""


def home_path(path: str | Path) -> Path:
    """A path with `~` at its start replaced by the home folder, which shells leave alone after `--option=`."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path}: whose home folder this is, nobody knows. Give the path itself.") from error


def followed(path: Path, label: str, fault: type[IsthmusError]) -> Path:
    """Where a path leads: what a link points to is replaced in place, so that the link stays one."""
    if "\0" in str(path):
        raise fault(f"{label} holds a zero byte. Give another path.")
    if path.is_symlink() and not path.exists():
        where = os.readlink(path)
        raise fault(f"{label} is a link that leads nowhere ({where}). Remove it, or give another path.")
    if path.name in ("", ".", "..") or path.is_symlink():
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent)) / path.name


def keep_clear(
    place: Path, inputs: Iterable[str | Path | None], label: str, fault: type[IsthmusError], *, current: bool = True
) -> None:
    """Refuse a place that is or holds what the command reads or where it runs, or that lies inside an input."""
    own = _file_identity(place)
    here = Path.cwd()
    for what in [*([here] if current else []), *(home_path(one) for one in inputs if one is not None)]:
        name = "the current folder" if what == here else f"{what}, which this command reads"
        if not os.path.lexists(what):
            continue
        real = Path(os.path.realpath(what))
        if real == place or (own is not None and own == _file_identity(real)):
            raise fault(f"{label} is {name}. Give another path.")
        if any(parent == place or (own is not None and own == _file_identity(parent)) for parent in real.parents):
            raise fault(f"{label} holds {name}. Give another path.")
        if what != here and real.is_dir() and real in place.parents:
            raise fault(f"{label} lies inside {name}. Give a path outside of it.")


def _file_identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of what lies at a path, which two names of one folder share."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def names_inside(folder: Path, *, hidden: bool = False) -> list[str]:
    """Relative paths of all that lies in a folder: files, links, and empty folders with a slash behind them."""
    entries = []
    for parent, folders, names in os.walk(folder):
        base = Path(parent)
        links = [name for name in folders if (base / name).is_symlink()]
        entries += [(base / name).relative_to(folder).as_posix() for name in [*names, *links]]
        if not folders and not names and base != folder:
            entries.append(base.relative_to(folder).as_posix() + "/")
    return sorted(name for name in entries if hidden or not OURS.fullmatch(name))


def some_names(names: list[str]) -> str:
    """The first names of files for a message, and how many more there are."""
    shown = ", ".join(ascii(name)[1:-1][:60] for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
