"""Equal content under several names, found by hash before anything is decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from isthmus.items import Item, Rejected

_THREADS = 4
_BLOCK = 1 << 20


def first_of_each(items: Sequence[Item]) -> dict[str, str]:
    """For every item whose content an earlier item has, the id of the first that has it."""
    with ThreadPoolExecutor(_THREADS) as threads:
        digests = threads.map(content_hash, items)
        firsts: dict[bytes, str] = {}
        repeated: dict[str, str] = {}
        for item, digest in zip(items, digests, strict=True):
            if digest is None:
                continue
            first = firsts.setdefault(digest, item.id)
            if first != item.id:
                repeated[item.id] = first
    return repeated


def content_hash(item: Item) -> bytes | None:
    """SHA-256 of an item's bytes, box and kind of file; None when it cannot be read, which decoding will say."""
    digest = hashlib.sha256(item.suffix.encode("utf-8", "surrogateescape") + b"\0")
    if item.box is not None:
        digest.update(repr(item.box).encode() + b"\0")
    if item.path is None or item.text is not None or item.member is not None:
        try:
            digest.update(item.read_bytes())
        except Rejected:
            return None
        return digest.digest()
    try:
        item.content()  # refuses what is no file before it is opened
        with open(item.path, "rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except (OSError, Rejected):
        return None
    return digest.digest()
