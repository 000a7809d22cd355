"""From paths, folders and globs to files, with a count of everything that is passed over."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isthmus.core.files import natural_key
from isthmus.core.limits import special_file
from isthmus.core.table_files import parquet_faults
from isthmus.errors import FormatError

_PRODUCTS = {"space.json": "a space", "bridge.json": "a bridge"}
_IMG2DATASET = {"key", "status", "url"}


@dataclass(frozen=True)
class File:
    """A file, the name that its id begins with, and how it was named.

    Attributes:
        path: Where it lies.
        name: Its path below the folder or glob that was given, or its file name.
        named: Whether the user named it itself.
        sidecar: Whether it is a .txt that goes with a file of the same stem beside it, and so one text as a whole.
    """

    path: Path
    name: str
    named: bool = False
    sidecar: bool = False

    @property
    def suffix(self) -> str:
        """In lower case with its dot."""
        return self.path.suffix.lower()


@dataclass
class PassedOver:
    """Counts of files that lay in the folders and are not taken.

    Attributes:
        counts: Files by suffix; and by kind what is no file.
        notes: What a suffix does not say, a line each.
    """

    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def files_of(path: Path, passed_over: PassedOver) -> Iterator[File]:
    """The files that one path names: itself, those of a folder in natural order of their names, or those of a glob.

    Raises:
        FormatError: There is nothing, it is no file or folder, or it is a space or bridge.
    """
    if path.is_dir():
        if product := _product(path, os.listdir(path)):
            raise FormatError(f"{path}: is {product} of isthmus, not raw files. Give the folder of the files.")
        yield from _walk(path, passed_over)
    elif path.is_file():
        yield File(path, utf8(path.name), named=True)
    elif what := special_file(path):
        raise FormatError(f"{path}: is {what}, no file. It is never opened; save what it gives as a file.")
    elif glob.has_magic(str(path)):
        root = _root(path)
        for file in sorted((Path(name) for name in glob.iglob(str(path), recursive=True)), key=_order):
            if file.is_file():
                yield File(file, utf8(file.relative_to(root).as_posix()))
            elif special_file(file):
                passed_over.counts["pipes and devices"] += 1
    else:
        check_exists(path)


def check_exists(path: Path) -> None:
    """Refuse a path that names nothing; what a glob names is seen when it is walked.

    Raises:
        FormatError: There is no such file or folder.
    """
    if not path.exists() and not glob.has_magic(str(path)):
        raise FormatError(f"{path}: no such file or folder. Check the path.")


def _walk(folder: Path, passed_over: PassedOver) -> list[File]:
    """Files of a folder and those below it. Hidden ones, what isthmus wrote, links to folders, pipes are left out."""
    files: list[File] = []

    def unreadable(error: OSError) -> None:
        passed_over.notes.append(f"{error.filename}: cannot be read ({error.strerror}), nothing of it is taken")

    for parent, folders, names in os.walk(folder, onerror=unreadable):
        here = Path(parent)
        if here != folder and (product := _product(here, names)):
            passed_over.notes.append(f"{here}: is {product} of isthmus, passed over")
            folders.clear()
            continue
        passed_over.counts["links to folders"] += sum((here / name).is_symlink() for name in folders)
        if any(name.endswith("_emb") for name in folders):  # embeddings and their metadata, as clip-retrieval has them
            passed_over.notes.append(f"{here}: its embeddings and their metadata are passed over")
            folders[:] = [name for name in folders if not name.endswith("_emb") and name != "metadata"]
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += _files_in(here, folder, folders, names, passed_over)
    return sorted(files, key=lambda file: _order(file.name))


def _files_in(
    here: Path, folder: Path, folders: list[str], names: list[str], passed_over: PassedOver
) -> Iterator[File]:
    """Files of one folder that count, and a count of those passed over."""
    visible = [name for name in names if not name.startswith(".")]
    for name in names:
        if name.startswith(".") and Path(name).suffix:
            passed_over.counts[f"hidden {Path(name).suffix.lower()}"] += 1
    stems = Counter(name.rpartition(".")[0] for name in visible)
    for name in visible:
        path = here / name
        if special_file(path):
            passed_over.counts["pipes and devices"] += 1
            continue
        stem, _, suffix = name.rpartition(".")
        if suffix == "parquet" and (stem in folders or f"{stem}.tar" in visible) and _is_img2dataset(path):
            passed_over.notes.append(f"{path}: is img2dataset's list of what it fetched, passed over")
            continue
        yield File(path, utf8(path.relative_to(folder).as_posix()), sidecar=suffix == "txt" and stems[stem] > 1)


def _product(folder: Path, names: list[str]) -> str | None:
    """What a folder is, where isthmus wrote it; else None."""
    return next((what for name, what in _PRODUCTS.items() if name in names), None)


def _is_img2dataset(path: Path) -> bool:
    """Whether a parquet file is the index of a tar of img2dataset."""
    import pyarrow.parquet as pq

    try:
        with parquet_faults(path):
            return set(pq.read_schema(path).names) >= _IMG2DATASET
    except FormatError:  # whoever reads it says so
        return False


def utf8(name: str) -> str:
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
