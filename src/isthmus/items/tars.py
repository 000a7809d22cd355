"""Webdataset tars: members found once, then read from their place in the tar by whichever worker needs them."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from isthmus.errors import FormatError
from isthmus.items.item import Item

_LOOK = 64
_TEXT_LIMIT = 1 << 20


def tar_suffixes(path: Path) -> set[str]:
    """Suffixes of the first members of a tar."""
    return {Path(member.name).suffix.lower() for member in islice(_members(path), _LOOK)}


def tar_items(path: Path, suffixes: Sequence[str], *, prefix: str, as_text: bool) -> Iterator[Item]:
    """The members of a tar that have one of the suffixes, as items.

    Args:
        path: An unpacked tar.
        suffixes: In lower case with their dot. Of two members with one key the suffix that stands first here wins.
        prefix: Put before the key to make the id.
        as_text: Read the members now, as texts.

    Raises:
        FormatError: It is no tar, is packed, or its end is missing.
    """
    best: dict[str, tuple[int, tarfile.TarInfo]] = {}
    for member in _members(path):
        key, suffix = split_key(member.name)
        if suffix in suffixes:
            rank = suffixes.index(suffix)
            if key not in best or rank < best[key][0]:
                best[key] = rank, member
    for key, (_, member) in best.items():
        item = Item(prefix + key, str(path), member=(member.name, member.offset_data, member.size))
        if as_text:
            data = item.read_bytes() if member.size <= _TEXT_LIMIT else b""
            item = Item(item.id, str(path), data.decode("utf-8", "surrogateescape"))
        yield item


def split_key(name: str) -> tuple[str, str]:
    """Key and last suffix of a member, as webdataset has it: `a/b.seg.png` is `a/b` and `.png`."""
    folder, slash, file = name.removeprefix("./").rpartition("/")
    stem, _, rest = file.partition(".")
    return folder + slash + stem, f".{rest.rpartition('.')[2]}".lower() if rest else ""


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    """Files in a tar, hidden ones left out."""
    count = 0
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                count += 1
                if member.isfile() and not member.issparse() and not Path(member.name).name.startswith("."):
                    yield member
    except tarfile.TarError as error:
        raise FormatError(
            f"{path}: is no whole, unpacked tar ({error} after {count:,} members). Unpack or fetch it again."
        ) from error
