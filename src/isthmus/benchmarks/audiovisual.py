"""What the readers of audio and audio-visual sets share: lists and tables as published, media by name, tasks of them.

Names of clips are kept as strings, whatever they look like: Flickr's are numbers, YouTube's begin with a dash or an
underscore as often as not.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.benchmarks.readers.common import IMAGES, SOUNDS, inside, require
from isthmus.benchmarks.task import Box, Classification, Retrieval, Side
from isthmus.errors import FormatError
from isthmus.files import one_line
from isthmus.items import Item

LIMIT = 512 * 2**20
"""Bytes of an annotation file; the largest published one has 5 MB."""

Media = dict[str, Path]


def read_text(path: Path, what: str) -> str:
    """A whole annotation file as text, without a byte order mark and with plain line feeds.

    Raises:
        FormatError: It is no file, far too large, or not UTF-8.
    """
    if not path.is_file():
        raise FormatError(f"{path}: no such file. Expected {what}.")
    if (size := path.stat().st_size) > LIMIT:
        raise FormatError(f"{path}: has {size:,} bytes, more than {LIMIT:,}. This is another file than {what}.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: is not UTF-8 ({one_line(error)}). Expected {what}; download it again.") from error
    return text.replace("\r\n", "\n")


def read_list(path: Path, what: str) -> list[str]:
    """Names of a list, one a line: what stands before the first comma.

    Raises:
        FormatError: It cannot be read, or holds nothing.
    """
    names = [line.split(",")[0].strip() for line in read_text(path, what).split("\n")]
    names = [name for name in names if name]
    if not names:
        raise FormatError(f"{path}: is empty. Expected {what}, one name a line.")
    return names


def read_rows(path: Path, columns: Sequence[str], what: str) -> list[dict[str, str]]:
    """Rows of a CSV with a header.

    Args:
        path: The file.
        columns: Columns that it must have.
        what: What it is, for messages.

    Raises:
        FormatError: It cannot be read, lacks a column, or a row is too short.
    """
    reader = csv.DictReader(read_text(path, what).splitlines())
    names = reader.fieldnames or []
    if lacking := [column for column in columns if column not in names]:
        raise FormatError(
            f"{path}: has no column {lacking[0]!r}. It has: {', '.join(names) or 'nothing'}. Expected {what} with the "
            f"columns {', '.join(columns)}."
        )
    rows = []
    for number, row in enumerate(reader, 2):
        if any(row[column] is None for column in columns):
            raise FormatError(f"{path}: line {number} has too few fields. Expected {', '.join(names)}.")
        rows.append({column: row[column].strip() for column in columns})
    return rows


def read_json(path: Path, kind: type, what: str) -> Any:
    """A json file that holds a list or an object.

    Raises:
        FormatError: It cannot be read, or holds something else.
    """
    try:
        value = json.loads(read_text(path, what))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: is no json ({one_line(error)}). Expected {what}; download it again.") from error
    if not isinstance(value, kind):
        raise FormatError(f"{path}: holds a json {type(value).__name__}, expected a {kind.__name__}: {what}.")
    return value


def media_of(
    data: Path, folders: Sequence[str], names: Mapping[str, Sequence[str]], suffixes: Sequence[str], *, what: str
) -> Media:
    """Find a file for each clip in several folders, each listed once.

    Args:
        data: The folder that the user downloaded.
        folders: Folders relative to it, best first; all that exist are looked through.
        names: By clip, the stems that its file may have, best first.
        suffixes: Suffixes that count, best first.
        what: What is looked for, for the message.

    Returns:
        By clip, its file. Clips without one are left out.

    Raises:
        FormatError: No folder exists, not one file is found, or a name leads out of its folder.
    """
    present = [data / folder for folder in folders if (data / folder).is_dir()]
    if not present:
        require(data, *folders, what=what)
    listings = [_listing(folder, suffixes) for folder in present]
    found: Media = {}
    for clip, stems in names.items():
        for stem in stems:
            inside(data, stem)
        hits = (listing[stem] for listing in listings for stem in stems if stem in listing)
        if (hit := next(hits, None)) is not None:
            found[clip] = hit
    if names and not found:
        first = next(iter(names.values()))[0]
        raise FormatError(
            f"{' and '.join(map(str, present))}: none of the {len(names):,} {what} is there (looked for {first!r} as "
            f"{', '.join(suffixes)}). Expected one file a name; `isthmus benchmarks` says what to download and where "
            "it goes."
        )
    return found


def _listing(folder: Path, suffixes: Sequence[str]) -> Media:
    """Files of a folder by stem; of several of one stem the best suffix counts."""
    rank = {suffix: -number for number, suffix in enumerate(suffixes)}
    files = [path for path in folder.iterdir() if path.suffix.lower() in rank]
    return {path.stem: path for path in sorted(files, key=lambda path: (rank[path.suffix.lower()], path.name))}


@dataclass(frozen=True)
class Clips:
    """Clips whose picture and sound are both there.

    Attributes:
        names: In the order of the list.
        images: By name, the picture; also of clips that have no sound.
        sounds: By name, the sound; also of clips that have no picture.
        missing: Names of clips that lack one or both.
    """

    names: list[str]
    images: Media
    sounds: Media
    missing: list[str]


def find_clips(data: Path, names: Iterable[str], images: Sequence[str], sounds: Sequence[str], *, what: str) -> Clips:
    """Find picture and sound of each clip by its name.

    Args:
        data: The folder that the user downloaded.
        names: Names of clips, which are the stems of their files.
        images: Folders of pictures.
        sounds: Folders of sounds.
        what: The data set, for messages.

    Raises:
        FormatError: No folder, no picture, no sound, or not one clip with both.
    """
    unique = list(dict.fromkeys(names))
    stems = {name: [name] for name in unique}
    pictures = media_of(data, images, stems, IMAGES, what=f"pictures of {what}")
    tracks = media_of(data, sounds, stems, SOUNDS, what=f"sounds of {what}")
    return both(unique, pictures, tracks, data, what)


def both(names: Sequence[str], images: Media, sounds: Media, data: Path, what: str) -> Clips:
    """Tell the clips that have picture and sound from the others.

    Raises:
        FormatError: None has both.
    """
    kept = [name for name in names if name in images and name in sounds]
    if not kept:
        raise FormatError(
            f"{data}: not one of the {len(names):,} clips of {what} has both a picture and a sound. Expected files "
            "that are named alike; `isthmus benchmarks` says where they go."
        )
    return Clips(kept, images, sounds, [name for name in names if name not in images or name not in sounds])


def side(modality: str, media: Mapping[str, Path]) -> Side:
    """Items of files, their ids the names of the clips."""
    return Side(modality, [Item(name, str(path)) for name, path in media.items()])


def sound_and_picture(clips: Clips) -> Retrieval:
    """Each clip's picture is what its sound looks for."""
    return Retrieval(
        side("audio", {name: clips.sounds[name] for name in clips.names}),
        side("image", {name: clips.images[name] for name in clips.names}),
        [(name, name) for name in clips.names],
    )


def sounds_and_classes(
    sounds: Media, classes: Mapping[str, str], labels: Sequence[tuple[str, str]], *, multilabel: bool = False
) -> Classification:
    """Sounds with the labels of those that are there."""
    kept = [(clip, name) for clip, name in labels if clip in sounds]
    return Classification(side("audio", sounds), classes, kept, multilabel)


def spoken(name: str) -> str:
    """A class name as it goes into a prompt: blanks for underscores."""
    return name.replace("_", " ").strip()


def check_box(values: Any, where: str) -> Box:
    """Four finite numbers, brought into the picture. A box may end without area; it then covers nothing.

    Raises:
        FormatError: It is something else.
    """
    numbers = list(values) if isinstance(values, list | tuple) else []
    if len(numbers) != 4 or not all(isinstance(v, int | float) and math.isfinite(v) for v in numbers):
        raise FormatError(f"{where}: a box is {values!r}. Expected four numbers: xmin, ymin, xmax, ymax.")
    xmin, ymin, xmax, ymax = (min(max(float(v), 0.0), 1.0) for v in numbers)
    return xmin, ymin, xmax, ymax


def has_area(box: Box) -> bool:
    """Whether a box covers any of its picture."""
    return box[2] > box[0] and box[3] > box[1]
