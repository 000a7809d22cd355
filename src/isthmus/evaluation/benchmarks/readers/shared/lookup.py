"""What the readers of data sets share: files that must be there, media found by name, settings of a known kind."""

from __future__ import annotations

import glob as globbing
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from isthmus.core.files import natural_key
from isthmus.core.modality import AUDIO, IMAGE, POINT_CLOUD, VIDEO
from isthmus.core.table_files import read_table
from isthmus.errors import ConfigError, FormatError
from isthmus.items.find import SUFFIXES

IMAGES = SUFFIXES[IMAGE]
SOUNDS = SUFFIXES[AUDIO] + SUFFIXES[VIDEO]
SHAPES = SUFFIXES[POINT_CLOUD]
"""Suffixes of media, best first: a video serves as its sound track."""


def require(data: Path, *candidates: str, what: str) -> Path:
    """The first of several places that exists inside a data set's folder.

    Args:
        data: The folder that the user downloaded.
        *candidates: Files or folders relative to it, best first; a glob takes its first match in natural order.
        what: What is looked for, in a few words for the message: "the Karpathy split of COCO".

    Raises:
        FormatError: None of them exists.
    """
    for candidate in candidates:
        if globbing.has_magic(candidate):
            matches = sorted(data.glob(candidate), key=natural_key)
            if matches:
                return matches[0]
        elif (data / candidate).exists():
            return data / candidate
    raise FormatError(f"{data}: {' or '.join(candidates)} not found. Expected {what} there; see `isthmus benchmarks`.")


def pick_media(
    data: Path, folders: Sequence[str], stems: Sequence[str], suffixes: Sequence[str], *, what: str
) -> tuple[dict[str, Path], list[str]]:
    """Find one media file for each name, whatever its suffix; each folder is listed once.

    Args:
        data: The folder that the user downloaded.
        folders: Candidate folders relative to it, best first ("." is `data` itself); the first that exists is taken.
        stems: Names as the annotations have them, with or without a suffix; they may hold folders ("val2014/x.jpg").
        suffixes: Suffixes that count, best first, such as `IMAGES`.
        what: What is looked for, for the message: "frames of AVE".

    Returns:
        By stem, the path; and the stems without a file, in their order.

    Raises:
        FormatError: No folder exists, not one file is found, or a name leads out of the folder.
    """
    folder = require(data, *folders, what=what)
    listings: dict[Path, dict[str, Path]] = {}
    by_stem: dict[str, Path] = {}
    missing: list[str] = []
    for stem in stems:
        place = inside(folder, stem)
        if place.parent not in listings:
            listings[place.parent] = _listing(place.parent, suffixes)
        path = listings[place.parent].get(place.name)
        if path is None:
            missing.append(stem)
        else:
            by_stem[stem] = path
    if stems and not by_stem:
        raise FormatError(
            f"{folder}: none of the {len(stems):,} {what} is there (looked for {missing[0]!r} as "
            f"{', '.join(suffixes)}). Expected one file a name; `isthmus benchmarks` says what to download and where "
            "it goes."
        )
    return by_stem, missing


def _listing(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Files of a folder by name and by stem; of two files of one stem the suffix that stands first counts."""
    if not folder.is_dir():
        return {}
    names = [entry for entry in os.listdir(folder) if Path(entry).suffix.lower() in suffixes]
    # The worst suffix first, so that a better one replaces it; a whole name always means itself.
    names.sort(key=lambda name: (-list(suffixes).index(Path(name).suffix.lower()), name))
    stems = {Path(name).stem: folder / name for name in names}
    return stems | {name: folder / name for name in names}


def inside(folder: Path, name: str) -> Path:
    """A path inside a folder, from a name of an annotation file.

    Raises:
        FormatError: The name is empty, absolute or climbs out of the folder.
    """
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts:
        raise FormatError(f"{folder}: the name {name!r} leads out of the folder. Expected a path inside it.")
    return folder / path


def option(options: Mapping[str, Any], key: str, allowed: Sequence[Any]) -> Any:
    """The value of a setting that takes one of a few values.

    Raises:
        ConfigError: It has another.
    """
    value = options.get(key)
    if value not in allowed:
        raise ConfigError(
            f"option {key!r} got {value!r}. Expected one of {', '.join(map(str, allowed))} (--set {key}=...)."
        )
    return value


def columns(path: Path, *names: str) -> list[list[str]]:
    """Columns of a table as texts.

    Raises:
        FormatError: The file is no table, lacks a column, has an empty field in one of them, or no row.
    """
    table = read_table(path)
    out = []
    for name in names:
        if name not in table.column_names:
            raise FormatError(
                f"{path}: has no column {name!r}, only {', '.join(table.column_names)}. Expected {', '.join(names)}."
            )
        values = table[name].to_pylist()
        if not values:
            raise FormatError(f"{path}: has no row. Expected the columns {', '.join(names)} with rows.")
        for row, value in enumerate(values):
            if value is None or value == "":
                raise FormatError(f"{path}: row {row + 1:,} has no {name}. Fill it in, or leave the row out.")
        out.append([str(value) for value in values])
    return out
