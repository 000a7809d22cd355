"""Webdataset tars: members found once, then read from their place in the tar by whichever worker needs them."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from isthmus.errors import FormatError
from isthmus.items.item import Item

_LOOK = 64
_TEXT_LIMIT = 1 << 20
_BLOCK = 512


def tar_suffixes(path: Path) -> set[str]:
    """Suffixes of the first members of a tar."""
    return {Path(member.name).suffix.lower() for member in islice(_members(path, Counter()), _LOOK)}


def tar_items(
    path: Path, suffixes: Sequence[str], *, prefix: str, as_text: bool, passed_over: Counter[str]
) -> Iterator[Item]:
    """The members of a tar that have one of the suffixes, as items.

    The id is the member's key. Where one key has several members, one without further dots in its name (`7.jpg`) goes
    before those with (`7.mask.png`), which are passed over; several that are on a par are all taken, each by its name
    without its suffix, or with it where that is not enough.

    Args:
        path: An unpacked tar.
        suffixes: In lower case with their dot.
        prefix: Put before the key to make the id.
        as_text: Read the members now, as texts.
        passed_over: Counts by suffix of members that are not taken are added to it.

    Raises:
        FormatError: It is no tar, is packed, its end is missing, or it holds two members of one name.
    """
    by_key: dict[str, list[tarfile.TarInfo]] = {}
    names: set[str] = set()
    for member in _members(path, passed_over):
        key, suffix = split_key(member.name)
        if suffix not in suffixes:
            passed_over[suffix or "without suffix"] += 1
            continue
        if member.name in names:
            raise FormatError(
                f"{path}: holds two members named {member.name!r}, as tar -r makes. Unpack it and pack it again, so "
                "that one is left."
            )
        names.add(member.name)
        by_key.setdefault(key, []).append(member)
    for key, members in by_key.items():
        for name, member in _named(key, members, passed_over):
            item = Item(prefix + name, str(path), member=(member.name, member.offset_data, member.size))
            if as_text:
                data = item.read_bytes() if member.size <= _TEXT_LIMIT else b""
                item = Item(item.id, str(path), data.decode("utf-8", "surrogateescape"))
            yield item


def _named(
    key: str, members: list[tarfile.TarInfo], passed_over: Counter[str]
) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The members of one key that are taken, each with its id."""
    if len(members) == 1:
        yield key, members[0]
        return
    names = [member.name.removeprefix("./") for member in members]
    plain = [name[len(key) :].count(".") == 1 for name in names]
    if plain.count(True) == 1:
        yield key, members[plain.index(True)]
        passed_over.update(
            name[len(key) :].lower() for name, is_plain in zip(names, plain, strict=True) if not is_plain
        )
        return
    stems = [name.rpartition(".")[0] for name in names]
    for name, stem, member in zip(names, stems, members, strict=True):
        yield stem if stems.count(stem) == 1 else name, member


def split_key(name: str) -> tuple[str, str]:
    """Key and last suffix of a member, as webdataset has it: `a/b.seg.png` is `a/b` and `.png`."""
    folder, slash, file = name.removeprefix("./").rpartition("/")
    stem, _, rest = file.partition(".")
    return folder + slash + stem, f".{rest.rpartition('.')[2]}".lower() if rest else ""


def _members(path: Path, passed_over: Counter[str]) -> Iterator[tarfile.TarInfo]:
    """Files in a tar, hidden ones left out; links, devices and files with holes are counted."""
    count, end = 0, 0
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                count += 1
                end = tar.offset
                if Path(member.name).name.startswith(".") or member.isdir():
                    continue
                if member.isfile() and not member.issparse():
                    yield member
                else:
                    passed_over["links, devices and files with holes in a tar"] += 1
    except tarfile.TarError as error:
        raise FormatError(
            f"{path}: is no whole, unpacked tar ({error} after {count:,} members). Unpack or fetch it again."
        ) from error
    _check_end(path, count, end)


def _check_end(path: Path, count: int, end: int) -> None:
    """Refuse a tar that was cut, wherever, and one after whose end another begins: both lose members without a word."""
    with path.open("rb") as stream:
        stream.seek(end)
        last = stream.read(2 * _BLOCK)
        if any(last[:_BLOCK]):
            fault = "a damaged header follows"
        elif len(last) < 2 * _BLOCK or any(last):
            fault = "its end is missing, it was cut"
        else:
            while (block := stream.read(2048 * _BLOCK)) and not any(block):
                pass
            if not block:
                return
            fault = "another archive follows its end (tar -xif unpacks both)"
    raise FormatError(f"{path}: is no whole tar: {fault} after {count:,} members. Fetch it again, or pack it again.")
