"""VGGSS (Chen et al., CVPR 2021): 5,158 clips of VGGSound's test with boxes of what sounds.

`vggss.json` is a list of `{"file", "class", "bbox"}`, boxes as corners in fractions of the picture; a clip is named
`<YouTube id>_<start second, six digits>`, as are `frames/<clip>.jpg` and `audio/<clip>.wav`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.errors import FormatError
from isthmus.evaluation.benchmarks.readers.shared.annotations import read_json_file
from isthmus.evaluation.benchmarks.readers.shared.box_tables import check_box, has_area
from isthmus.evaluation.benchmarks.readers.shared.clips import (
    Clips,
    Places,
    find_clips,
    only,
    read_list,
    sound_and_picture,
)
from isthmus.evaluation.benchmarks.readers.shared.lookup import option, require
from isthmus.evaluation.benchmarks.readers.shared.sounding import add_silent, localization, read_silent, samples_of
from isthmus.evaluation.benchmarks.task import Box, Reading

SPLITS = ("all", "heard", "unheard")
OPTIONS = {"split": "all"}

_PLACES = Places("VGGSS", ("frames", "extend_frames"), ("audio", "extend_audio"), ("video", "videos"))

Boxes = dict[str, Sequence[Box]]


def retrieval(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Pictures and sounds, both ways.

    Args:
        data: Folder with `vggss.json` or `metadata/vggss.json`, `frames/` and `audio/`, or `video/`.
        options: `split`: all, or heard or unheard by the lists of SLAVC.
        work: Middle frames of videos go here, where there are no frames.

    Raises:
        FormatError: A file is not there, or not as published.
    """
    clips, _, _ = _read(data, options, work)
    return Reading(sound_and_picture(clips), clips.missing, clips.notes)


def sources(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Pictures with the boxes of what sounds. Arguments and faults as of `retrieval`."""
    clips, boxes, notes = _read(data, options, work)
    return Reading(localization(clips, samples_of(clips, boxes)), clips.missing, notes)


def counterfactual(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Extended VGGSS (SLAVC): the test, and as many pictures with a sound that is not theirs, or with none.

    Args:
        data: As of `retrieval`, with `metadata/vggss_test_plus_silent.csv`.
        options: As of `retrieval`.
        work: As of `retrieval`.

    Raises:
        FormatError: A file is not there, or not as published.
    """
    silent = read_silent(data, "vggss_test_plus_silent.csv")
    clips, boxes, notes = _read(data, options, work, [name for pair in silent for name in pair])
    return add_silent(clips, samples_of(clips, boxes), silent, notes=notes)


def _read(
    data: Path, options: Mapping[str, Any], work: Path, further: Sequence[str] = ()
) -> tuple[Clips, Boxes, list[str]]:
    """Clips of a split with their boxes, and notes; media are looked for of `further` names too."""
    path = require(data, "vggss.json", "metadata/vggss.json", what="the boxes of VGGSS")
    boxes, notes = read_boxes(path)
    names = _names(data, option(options, "split", SPLITS), path, boxes)
    clips = only(find_clips(data, [*names, *further], _PLACES, work), names, data, _PLACES.what)
    return clips, boxes, [*clips.notes, *notes]


def _names(data: Path, split: str, path: Path, boxes: Boxes) -> list[str]:
    """Clips of one split of VGGSS."""
    if split == "all":
        return list(boxes)
    name, what = f"vggss_{split}_test.csv", f"the list of {split} clips of VGGSS"
    names = read_list(require(data, f"metadata/{name}", name, what=what), what)
    if unknown := [clip for clip in names if clip not in boxes]:
        raise FormatError(f"{path}: has no boxes of {unknown[0]!r}, which {name} lists. Expected the vggss.json of it.")
    return names


def read_boxes(path: Path) -> tuple[Boxes, list[str]]:
    """Boxes by clip, brought into their pictures, and a note of those that had to be.

    Raises:
        FormatError: It is not as published, or a clip stands twice.
    """
    boxes: Boxes = {}
    outside = 0
    for number, row in enumerate(read_json_file(path, list, "the boxes of VGGSS")):
        if not isinstance(row, dict) or not isinstance(row.get("file"), str) or not isinstance(row.get("bbox"), list):
            raise FormatError(f"{path}: entry {number} is {str(row)[:80]}. Expected file, class and bbox.")
        if row["file"] in boxes:
            raise FormatError(f"{path}: the clip {row['file']!r} stands twice. Expected the published list.")
        boxes[row["file"]] = [check_box(box, f"{path}: entry {number}") for box in row["bbox"]]
        outside += sum(any(not 0.0 <= value <= 1.0 for value in box) for box in row["bbox"])
    if not boxes:
        raise FormatError(f"{path}: is an empty list. Expected the boxes of VGGSS, 5,158 clips.")
    return boxes, _notes(boxes, outside)


def _notes(boxes: Boxes, outside: int) -> list[str]:
    """Conventions that a reader of VGGSS's figures must know."""
    flat = sum(not has_area(box) for each in boxes.values() for box in each)
    never = sum(not any(map(has_area, each)) for each in boxes.values())
    notes = ["The truth is the union of a clip's boxes."]
    if outside or flat:
        notes.append(
            f"{outside:,} boxes lay outside their picture and were brought in; {flat:,} have no area, and {never:,} "
            "clips have no other: nothing predicted in them counts as found."
        )
    return notes
