"""From what a user names (files, folders, globs, tables, lists of captions, tars) to the items that are encoded.

Ids are what joins spaces, so they hold no surprise:

- a file in a folder: its path below that folder, with forward slashes, suffix included (`dogs/1.png`);
- a file that is named itself: its file name;
- a member of a webdataset tar: its key, which is the member's name up to the first dot of the file name;
- a row of a table: its `id` column, or else `captions.csv:7` with rows counted from 1;
- a line of a text file: `captions.txt:7`, lines counted from 1.

An id that would stand twice is an error that names both places.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.core.files import natural_key
from isthmus.core.modality import AUDIO, IMAGE, POINT_CLOUD, TEXT, VIDEO
from isthmus.errors import ConfigError, FormatError
from isthmus.items.item import Item
from isthmus.items.tables import TABLES, Types, list_items, table_items
from isthmus.items.tars import tar_items, tar_suffixes

SUFFIXES: dict[str, tuple[str, ...]] = {
    IMAGE: (
        *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"),
        *(".ppm", ".pgm", ".pbm", ".tga", ".jp2", ".ico"),
    ),
    AUDIO: (
        *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".m4b", ".aac"),
        *(".aif", ".aiff", ".au", ".caf", ".wma", ".w64", ".mka"),
    ),
    VIDEO: (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ogv", ".ts"),
    POINT_CLOUD: (".ply", ".obj", ".stl", ".off", ".glb", ".npy", ".npz"),
}
"""Kinds of files by modality. A video counts as audio (its sound track) for an encoder that takes no video."""

LISTS = (".txt",)
TARS = (".tar",)
PACKED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        modality: What the items are.
        items: In the order in which they are encoded: as named, within a folder in natural order of their ids.
        types: Arrow types of the items' further columns.
    """

    modality: str
    items: list[Item]
    types: Types


@dataclass(frozen=True)
class _File:
    """A file, the name that its id begins with, and whether the user named it itself."""

    path: Path
    name: str
    named: bool = False

    @property
    def suffix(self) -> str:
        return self.path.suffix.lower()


def find_items(
    paths: str | Path | Iterable[str | Path],
    *,
    modality: str | None = None,
    offered: Sequence[str] | None = None,
    ids: str | None = None,
    text_column: str | None = None,
) -> Found:
    """Find the items that paths name.

    Args:
        paths: Files, folders (searched through, hidden ones left out), globs; tables (.csv, .tsv, .parquet, .jsonl)
            with a column of texts or of paths (relative to the table); lists of texts (.txt, one a line);
            webdataset tars.
        modality: Which items; None infers it, and is refused where there are several kinds.
        offered: Modalities that the encoder has; files of others are passed over when the modality is inferred.
        ids: "path" makes ids of files named themselves and of members of tars unique by their path, "stem" leaves the
            suffix out of ids; anything else is the column of a table that holds the ids, by default `id`.
        text_column: The column of a table that holds the texts, by default `text` or `caption`.

    Raises:
        FormatError: A path does not exist, nothing was found, a table lacks its columns, or an id stands twice.
        ConfigError: The modality is not given and cannot be told.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    files = [file for path in given for file in _expand(Path(path))]
    modality = modality or _infer(files, offered, given)
    wanted = [file for file in files if _fits(file, modality)]
    items: list[Item] = []
    types: Types = {}
    for file in wanted:
        items.extend(_items_of(file, modality, ids, text_column, types))
    if not items:
        raise FormatError(_nothing(given, files, modality))
    check_unique(items)
    return Found(modality, items, types)


def _expand(path: Path) -> Iterator[_File]:
    """The files that one path names, each with the name that its id begins with."""
    if path.is_dir():
        yield from _walk(path)
    elif path.is_file():
        yield _File(path, _utf8(path.name), named=True)
    elif glob.has_magic(str(path)):
        root = _root(path)
        found = (Path(name) for name in glob.iglob(str(path), recursive=True))
        for file in sorted(found, key=_order):
            if file.is_file():
                yield _File(file, _utf8(file.relative_to(root).as_posix()))
    else:
        raise FormatError(f"{path}: no such file or folder. Check the path.")


def _walk(folder: Path) -> list[_File]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent) / name for name in names if not name.startswith(".")]
    files = [_File(path, _utf8(path.relative_to(folder).as_posix())) for path in found]
    return sorted(files, key=lambda file: _order(file.name))


def _utf8(name: str) -> str:
    """A name as valid Unicode, which names of files need not be."""
    return name.encode("utf-8", "backslashreplace").decode()


def _order(path: str | Path) -> tuple[Any, str]:
    """Natural order, and never a tie: the order of items must not depend on the file system."""
    return natural_key(path), str(path)


def _root(pattern: Path) -> Path:
    """The folder above the first part of a glob that has magic in it."""
    parts = []
    for part in pattern.parts:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)


def _kinds(file: _File) -> set[str]:
    """The modalities that a file may hold, by its name alone, or for a tar by its members' names."""
    if file.suffix in TARS:
        suffixes = tar_suffixes(file.path)
        kinds = {kind for kind, known in SUFFIXES.items() if suffixes & set(known)}
        return kinds | ({TEXT} if ".txt" in suffixes and not kinds else set())
    if file.suffix in (*TABLES, *LISTS):
        return {TEXT}
    return {kind for kind, known in SUFFIXES.items() if file.suffix in known}


def _infer(files: list[_File], offered: Sequence[str] | None, given: Sequence[str | Path]) -> str:
    counts: Counter[str] = Counter()
    for file in files:
        kinds = _kinds(file)
        if VIDEO in kinds and offered is not None and VIDEO not in offered:
            kinds = kinds - {VIDEO} | {AUDIO}
        counts.update(kind for kind in kinds if offered is None or kind in offered)
    if len(counts) == 1:
        return next(iter(counts))
    where = ", ".join(map(str, given[:3])) or "no path"
    if counts:
        several = ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())
        raise ConfigError(f"{where}: holds several kinds of files ({several}). Say which with --modality.")
    expected = f" that the encoder takes ({', '.join(offered)})" if offered is not None else ""
    raise FormatError(f"{where}: {_seen(files)} and nothing{expected}. Check the path, or give --modality.")


def _fits(file: _File, modality: str) -> bool:
    """Whether a file may hold items of a modality. A file that is named itself is taken at the user's word."""
    if file.path.name.lower().endswith(PACKED_TARS) and (file.named or modality in SUFFIXES):
        raise FormatError(f"{file.path}: a packed tar cannot be read out of order. Unpack it to .tar, or to a folder.")
    if file.suffix in TARS:
        return True
    if file.suffix in (*TABLES, *LISTS):
        return modality == TEXT or (file.named and file.suffix in TABLES)
    return file.suffix in _suffixes(modality) or (file.named and modality != TEXT)


def _suffixes(modality: str) -> tuple[str, ...]:
    return SUFFIXES.get(modality, ()) + (SUFFIXES[VIDEO] if modality == AUDIO else ())


def _items_of(file: _File, modality: str, ids: str | None, text_column: str | None, types: Types) -> Iterator[Item]:
    if file.suffix in TARS:
        prefix = f"{_name(file, ids)}/" if ids == "path" else ""
        suffixes = (".txt",) if modality == TEXT else _suffixes(modality)
        return tar_items(file.path, suffixes, prefix=prefix, as_text=modality == TEXT)
    if file.suffix in TABLES:
        return table_items(file.path, _name(file, ids), modality, columns=(ids, text_column), types=types)
    if modality == TEXT:
        return list_items(file.path, _name(file, ids))
    if ids not in (None, "path", "stem"):
        raise ConfigError(f"{file.path}: is no table with a column {ids!r} for the ids. Give path, stem, or nothing.")
    name = _name(file, ids)
    if ids == "stem":
        name = name.removesuffix(file.path.suffix)
    return iter((Item(name, str(file.path)),))


def _name(file: _File, ids: str | None) -> str:
    return _utf8(file.path.as_posix()) if ids == "path" and file.named else file.name


def check_unique(items: list[Item]) -> None:
    """Raise a FormatError that names both places when an id stands twice."""
    seen: dict[str, int] = {}
    for number, item in enumerate(items):
        first = seen.setdefault(item.id, number)
        if first != number:
            raise FormatError(
                f"the id {item.id!r} stands twice: {items[first].place} and {item.place}. Ids join spaces and must be "
                "unique: give the folder above instead of its files, make the tables' ids unique, or give ids='path'."
            )


def _nothing(given: Sequence[str | Path], files: list[_File], modality: str) -> str:
    where = ", ".join(map(str, given[:3])) or "no path"
    suffixes = (*TABLES, *LISTS) if modality == TEXT else _suffixes(modality)
    expected = " ".join(suffixes) or "files named one by one"
    return f"{where}: {_seen(files)} and nothing of {modality}. Expected {expected}, or a .tar of them."


def _seen(files: list[_File]) -> str:
    if not files:
        return "holds no file"
    counts = Counter(file.suffix or "without suffix" for file in files)
    return "holds " + ", ".join(f"{count:,} {suffix}" for suffix, count in counts.most_common(4))
