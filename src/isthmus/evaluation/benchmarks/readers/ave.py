"""AVE (Tian et al., ECCV 2018): 4,097 videos of events that are heard and seen, each with its sound, both ways.

`Annotations.txt` has a row an event, `category&video&good&start&end`, with or without a header. Categories hold commas
and a video may stand under two of them; here a video is one item. The published archive holds videos: frames beside
them are used if they are there, else the middle frame of each video is cut out once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.core.messages import one_line
from isthmus.errors import FormatError
from isthmus.evaluation.benchmarks.readers.shared.annotations import read_lines
from isthmus.evaluation.benchmarks.readers.shared.clips import Places, find_clips, sound_and_picture
from isthmus.evaluation.benchmarks.readers.shared.lookup import option, require
from isthmus.evaluation.benchmarks.task import Reading
from isthmus.items.decoding import require as require_module

SPLITS = ("all", "train", "val", "test")
OPTIONS = {"split": "all", "list": "txt"}

_PLACES = Places("AVE", ("frames", "AVE/frames"), ("audio", "AVE/audio"), ("AVE", ".", "data/AVE"))


def read(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Sounds and pictures of the videos of a split.

    Args:
        data: Folder with `Annotations.txt` and `AVE/<video>.mp4`, or with `frames/` and `audio/`.
        options: `split`: all, train, val or test; `list`: "txt" takes `trainSet.txt` and its kin, "h5" takes the index
            arrays of the authors' code (`train_order.h5` ...), which are said to differ.
        work: Frames of videos go here.

    Raises:
        FormatError: A file is not there, or not as published.
    """
    split, lists = option(options, "split", SPLITS), option(options, "list", ("txt", "h5"))
    path = require(
        data, "Annotations.txt", "AVE/Annotations.txt", "data/Annotations.txt", what="the annotations of AVE"
    )
    rows = _split(data, path, _rows(path), split, lists)
    names = list(dict.fromkeys(video for _, video in rows))
    clips, notes = find_clips(data, names, _PLACES, work), []
    if repeated := len(rows) - len(names):
        notes.append(f"{repeated:,} rows name a video again under another label; a video is one item.")
    return Reading(sound_and_picture(clips), clips.missing, [*clips.notes, *notes])


def _rows(path: Path) -> list[tuple[str, str]]:
    """(category, video) of each row."""
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        fields = line.strip().split("&")
        if not line.strip() or (number == 1 and fields[:2] == ["Category", "VideoID"]):
            continue
        if len(fields) != 5 or not fields[1]:
            raise FormatError(
                f"{path}: line {number} is {line.strip()[:80]!r}. Expected category&video&quality&start&end."
            )
        rows.append((fields[0], fields[1]))
    if not rows:
        raise FormatError(f"{path}: holds no row. Expected category&video&quality&start&end, 4,143 of them.")
    return rows


def _split(data: Path, path: Path, rows: list[tuple[str, str]], split: str, lists: str) -> list[tuple[str, str]]:
    """Clips of one split of AVE."""
    if split == "all":
        return rows
    if lists == "txt":
        name = f"{split}Set.txt"
        return _rows(require(data, name, f"AVE/{name}", f"data/{name}", what=f"the {split} split of AVE"))
    name = f"{split}_order.h5"
    file = require(data, f"data/{name}", name, f"AVE/{name}", what=f"the {split} split of AVE's code")
    order = _order(file)
    if order and not 0 <= min(order) <= max(order) < len(rows):
        raise FormatError(
            f"{file}: points at rows {min(order)} to {max(order)}, but {path} has {len(rows):,} rows. Expected the "
            "Annotations.txt of the same repository."
        )
    return [rows[number] for number in order]


def _order(file: Path) -> list[int]:
    """Numbers of the clips of a split, from the .h5 of AVE's authors."""
    h5py = require_module("h5py", extra="benchmarks", purpose="reading .h5 files")
    try:
        with h5py.File(file, "r") as content:
            return [int(number) for number in content["order"][:]]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{file}: has no array 'order' ({one_line(error)}). Download it again.") from error
