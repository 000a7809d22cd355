"""From what a user names (files, folders, globs, tables, lists of captions, tars) to the items that are encoded.

Ids are what joins spaces, so they hold no surprise:

- a file in a folder: its path below that folder, with forward slashes, suffix included (`dogs/1.png`);
- a file that is named itself: its file name;
- a member of a webdataset tar: its key, which is the member's name up to the first dot of the file name;
- a row of a table: its `id` column, or else `captions.csv:7` with rows counted from 1;
- a line of a text file: `captions.txt:7`, lines counted from 1;
- a text beside a file of the same stem (`7.txt` beside `7.jpg`, as img2dataset has it): its path without suffix.

An id that would stand twice is an error that names both places.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from isthmus.core.modality import AUDIO, IMAGE, POINT_CLOUD, TEXT, VIDEO
from isthmus.errors import ConfigError, FormatError
from isthmus.items.item import Item
from isthmus.items.tables import TABLES, TableColumns, Types, list_items, table_items
from isthmus.items.tars import tar_items, tar_suffixes
from isthmus.items.walk import File, PassedOver, files_of, utf8

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
class FoundItems:
    """Items that were found in what a user named.

    Attributes:
        modality: What the items are.
        items: In the order in which they are encoded: as named, within a folder in natural order of their ids.
        types: Arrow types of the items' further columns.
        passed_over: How many files and members lay there and were not taken, by suffix.
        notes: What else was left out, a line each.
    """

    modality: str
    items: list[Item]
    types: Types
    passed_over: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()


def find_items(
    paths: str | Path | Iterable[str | Path],
    *,
    modality: str | None = None,
    offered: Sequence[str] | None = None,
    ids: str | None = None,
    text_column: str | None = None,
    path_column: str | None = None,
) -> FoundItems:
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
        path_column: The column of a table that holds paths, by default `image_path`, `path`, `file_name` and the like.

    Raises:
        FormatError: A path does not exist, nothing was found, a table lacks its columns or holds something else than
            texts in them, a tar is not whole, or an id stands twice.
        ConfigError: The modality is not given and cannot be told.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    passed_over = PassedOver()
    files = [file for path in given for file in files_of(Path(path), passed_over)]
    modality = modality or _infer(files, offered, given)
    columns = TableColumns(ids, text_column, path_column)
    items: list[Item] = []
    types: Types = {}
    for file in files:
        if _fits(file, modality):
            items.extend(_items_of(file, modality, columns, types, passed_over))
        else:
            passed_over.counts[file.suffix or "without suffix"] += 1
    if not items:
        raise FormatError(_nothing(given, files, modality))
    check_unique(items)
    return FoundItems(modality, items, types, dict((+passed_over.counts).most_common()), passed_over.notes)


def _kinds(file: File) -> set[str]:
    """The modalities that a file may hold, by its name alone, or for a tar by its members' names."""
    if file.suffix in TARS:
        suffixes = tar_suffixes(file.path)
        kinds = {kind for kind, known in SUFFIXES.items() if suffixes & set(known)}
        return kinds | ({TEXT} if ".txt" in suffixes and not kinds else set())
    if file.suffix in (*TABLES, *LISTS):
        return {TEXT}
    return {kind for kind, known in SUFFIXES.items() if file.suffix in known}


def _infer(files: list[File], offered: Sequence[str] | None, given: Sequence[str | Path]) -> str:
    """Modality of the files that were named, if it is only one."""
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


def _fits(file: File, modality: str) -> bool:
    """Whether a file may hold items of a modality. A file that is named itself is taken at the user's word."""
    if file.path.name.lower().endswith(PACKED_TARS) and (file.named or modality in SUFFIXES):
        raise FormatError(f"{file.path}: a packed tar cannot be read out of order. Unpack it to .tar, or to a folder.")
    if file.suffix in TARS:
        return True
    if file.suffix in (*TABLES, *LISTS):
        return modality == TEXT or (file.named and file.suffix in TABLES)
    return file.suffix in _suffixes(modality) or (file.named and modality != TEXT)


def _suffixes(modality: str) -> tuple[str, ...]:
    """Suffixes of the files of a modality."""
    return SUFFIXES.get(modality, ()) + (SUFFIXES[VIDEO] if modality == AUDIO else ())


def _items_of(
    file: File, modality: str, columns: TableColumns, types: Types, passed_over: PassedOver
) -> Iterator[Item]:
    """Items of one file: itself, the rows of a table, the lines of a list, the members of a tar."""
    ids = columns.ids
    if file.suffix in TARS:
        prefix = f"{_name(file, ids)}/" if ids == "path" else ""
        suffixes = (".txt",) if modality == TEXT else _suffixes(modality)
        return tar_items(file.path, suffixes, prefix=prefix, as_text=modality == TEXT, passed_over=passed_over.counts)
    if file.suffix in TABLES:
        name = _name(file, ids)
        return table_items(file.path, name, modality, columns=columns, types=types, notes=passed_over.notes)
    if modality == TEXT and file.sidecar:
        return iter((Item(file.name.removesuffix(file.path.suffix), str(file.path), _whole_text(file.path)),))
    if modality == TEXT:
        return list_items(file.path, _name(file, ids))
    if ids not in (None, "path", "stem"):
        raise ConfigError(f"{file.path}: is no table with a column {ids!r} for the ids. Give path, stem, or nothing.")
    name = _name(file, ids)
    if ids == "stem":
        name = name.removesuffix(file.path.suffix)
    return iter((Item(name, str(file.path)),))


def _whole_text(path: Path) -> str:
    """Text of a file."""
    return path.read_bytes().decode("utf-8", "surrogateescape").removeprefix("\ufeff").strip()


def _name(file: File, ids: str | None) -> str:
    """Id of a file: its name, or its path."""
    return utf8(file.path.as_posix()) if ids == "path" and file.named else file.name


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


def _nothing(given: Sequence[str | Path], files: list[File], modality: str) -> str:
    """Message where no item of the modality was found."""
    where = ", ".join(map(str, given[:3])) or "no path"
    suffixes = (*TABLES, *LISTS) if modality == TEXT else _suffixes(modality)
    expected = " ".join(suffixes) or "files named one by one"
    return f"{where}: {_seen(files)} and nothing of {modality}. Expected {expected}, or a .tar of them."


def _seen(files: list[File]) -> str:
    """What was found instead, in a few words."""
    if not files:
        return "holds no file"
    counts = Counter(file.suffix or "without suffix" for file in files)
    return "holds " + ", ".join(f"{count:,} {suffix}" for suffix, count in counts.most_common(4))
