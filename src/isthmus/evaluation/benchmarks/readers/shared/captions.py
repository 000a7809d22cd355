"""What data sets of captions share: media found under any of several names, and the retrieval that captions make."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from isthmus.core.modality import TEXT
from isthmus.errors import FormatError
from isthmus.evaluation.benchmarks.readers.shared.lookup import inside
from isthmus.evaluation.benchmarks.task import ItemSet, Reading, Retrieval
from isthmus.items import Item


@dataclass(frozen=True)
class Captioned:
    """A clip or a picture, and what people wrote of it.

    Attributes:
        id: Its own key in the data set, whatever order the captions stand in.
        captions: All of them, in the order of the file.
        names: Names that its file may have, best first; folders and the suffix may be part of them or not.
    """

    id: str
    captions: Sequence[str]
    names: Sequence[str]


class Folder:
    """Names that lie in folders of a data set, each folder listed once.

    Names are compared letter by letter even where the disk does not: ids that differ only in case are two.

    Args:
        data: The folder that the user downloaded.
        folders: Where to look, relative to it, best first; those that do not exist are passed over.
        suffixes: Suffixes that count, best first.
    """

    def __init__(self, data: Path, folders: Sequence[str], suffixes: Sequence[str]) -> None:
        self.data, self.folders, self.suffixes = data, folders, suffixes
        self._listings: dict[tuple[str, str], tuple[Path, frozenset[str]]] = {}

    def find(self, names: Iterable[str]) -> Path | None:
        """The first file that any of the names means: as it is, or with a suffix added.

        Raises:
            FormatError: A name leads out of the folder.
        """
        for name in names:
            parent, slash, file = name.rpartition("/")
            if not name or (slash and not parent):
                inside(self.data, name)  # empty or absolute: raises
            forms = self._forms(file)
            for folder in self.folders:
                place, listing = self._list(folder, parent)
                name_here = next((form for form in forms if form in listing), None)
                if name_here is not None:
                    return place / name_here
        return None

    def _forms(self, name: str) -> list[str]:
        """A name, and it with each suffix; as it is only if it has a suffix that counts."""
        whole = [name] if os.path.splitext(name)[1].lower() in self.suffixes else []
        return [*whole, *(name + suffix for suffix in self.suffixes)]

    def _list(self, folder: str, parent: str) -> tuple[Path, frozenset[str]]:
        """A folder below one of the folders, and the names in it."""
        known = self._listings.get((folder, parent))
        if known is None:
            place = inside(self.data / folder, parent or ".")
            known = place, frozenset(os.listdir(place)) if place.is_dir() else frozenset()
            self._listings[folder, parent] = known
        return known


def caption_retrieval(
    entries: Sequence[Captioned], folder: Folder, *, modality: str, what: str, notes: Sequence[str] = ()
) -> Reading:
    """Text to media and back, every caption a query of its own.

    Args:
        entries: What the annotations hold.
        folder: Where the media lie.
        modality: Modality of the media.
        what: What they are, for messages, such as "clips of AudioCaps".
        notes: Said first in the reading's notes.

    Raises:
        FormatError: No file of any entry is there, or no caption.
    """
    media: list[Item] = []
    present: list[Captioned] = []
    missing: list[str] = []
    for entry in entries:
        path = folder.find(entry.names)
        if path is None:
            missing.append(entry.id)
        else:
            present.append(entry)
            media.append(Item(entry.id, str(path)))
    if not present:
        raise FormatError(_none_there(entries, folder, what))
    texts, pairs = caption_items(present)
    return Reading(
        Retrieval(ItemSet(TEXT, texts), ItemSet(modality, media), pairs),
        missing=missing,
        notes=[*notes, *caption_notes(present, what)],
    )


def caption_items(entries: Sequence[Captioned]) -> tuple[list[Item], list[tuple[str, str]]]:
    """Texts `id#number` of all captions but empty ones, and what each belongs to."""
    texts, pairs = [], []
    for entry in entries:
        for number, caption in enumerate(entry.captions):
            if caption.strip():
                texts.append(Item(f"{entry.id}#{number}", text=caption.strip()))
                pairs.append((texts[-1].id, entry.id))
    return texts, pairs


def caption_notes(entries: Sequence[Captioned], what: str) -> list[str]:
    """Notes on captions: what repeats, and how many there are: the count tells which split a figure is of."""
    texts = [[caption.strip() for caption in entry.captions if caption.strip()] for entry in entries]
    total = sum(map(len, texts))
    notes = [f"{len(entries):,} {what} with {total:,} captions"]
    empty = sum(len(entry.captions) for entry in entries) - total
    shared = sum(count > 1 for count in Counter(text for each in texts for text in set(each)).values())
    if empty:
        notes.append(f"{empty:,} empty captions left out")
    if shared:
        notes.append(f"{shared:,} captions stand at more than one item; each counts as wrong for the others")
    return notes


def group_captions(rows: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Captions by key, wherever in the file they stand."""
    groups: dict[str, list[str]] = {}
    for key, caption in rows:
        groups.setdefault(key, []).append(caption)
    return groups


def _none_there(entries: Sequence[Captioned], folder: Folder, what: str) -> str:
    """Message where no picture or sound of the captions is there."""
    if not entries:
        return f"{folder.data}: no {what} are listed. Expected captions; `isthmus benchmarks` says what to download."
    names = ", ".join(repr(name) for name in entries[0].names[:4])
    where = ", ".join(folder.folders)
    return (
        f"{folder.data}: none of the {len(entries):,} {what} is there (looked in {where} for {names}, as "
        f"{', '.join(folder.suffixes[:6])}). Expected one file for each; `isthmus benchmarks` says what to download "
        "and where it goes."
    )
