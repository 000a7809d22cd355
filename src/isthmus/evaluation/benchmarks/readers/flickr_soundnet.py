"""Flickr-SoundNet (Senocak et al., CVPR 2018): 5,000 pictures with sound, boxed by three annotators each.

Names are Flickr's numbers, kept as strings. `Annotations/<name>.xml` holds boxes in pixels of a picture of 256 x 256;
`frames/` and `audio/` hold 4,750 clips for training and `test/frames`, `test/audio` the 250 of the test.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.core.files import natural_key
from isthmus.core.messages import one_line
from isthmus.errors import FormatError
from isthmus.evaluation.benchmarks.readers.shared.annotations import read_lines
from isthmus.evaluation.benchmarks.readers.shared.box_tables import check_box
from isthmus.evaluation.benchmarks.readers.shared.clips import (
    Clips,
    Places,
    find_clips,
    only,
    read_list,
    sound_and_picture,
)
from isthmus.evaluation.benchmarks.readers.shared.lookup import inside, option, require
from isthmus.evaluation.benchmarks.readers.shared.sounding import add_silent, localization, read_silent, samples_of
from isthmus.evaluation.benchmarks.task import Box, Reading

_ODD = "3908875350"
"""The name that one half of the published code has and the other has not."""
_MISSPELT = "3908875357"

_PLACES = Places(
    "Flickr-SoundNet",
    ("test/frames", "frames", "extend_frames", "test/extend_frames"),
    ("test/audio", "audio", "extend_audio", "test/extend_audio"),
)
_SIDE = 256
_LISTS = {"slavc": "250 names, as SLAVC lists them", "lvs": "249 names, as LVS and EZ-VSL list them"}


def retrieval(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Pictures and sounds, both ways.

    Args:
        data: Folder with `frames/`, `audio/`, `test/` and `Annotations/` or `metadata/`.
        options: `split`: all (train and test, 5,000), train (4,750) or test; `list`: "slavc" or "lvs" for the test.
        work: Not used.

    Raises:
        FormatError: A file is not there, or not as published.
    """
    split = option(options, "split", ("all", "train", "test"))
    names: list[str] = []
    if split in ("all", "train"):
        names += _train_names(data)
    if split in ("all", "test"):
        names = list(dict.fromkeys([*names, *_test_names(data, options)]))
    clips = find_clips(data, names, _PLACES, work)
    return Reading(sound_and_picture(clips), clips.missing, clips.notes)


def sources(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Pictures with the boxes of what sounds, on the test list.

    Args:
        data: Folder with `Annotations/`, `test/frames` and `test/audio` (or `frames` and `audio`).
        options: `list`: "slavc" or "lvs".
        work: Not used.

    Raises:
        FormatError: A file is not there, or not as published.
    """
    clips, boxes = _test(data, options, work)
    return Reading(
        localization(clips, samples_of(clips, boxes), agreement=2), clips.missing, [*clips.notes, *_notes(options)]
    )


def counterfactual(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Extended Flickr-SoundNet (SLAVC): the test list, and as many pictures with a sound that is not theirs.

    Args:
        data: As of `sources`, with `metadata/flickr_test_plus_silent.csv`.
        options: As of `sources`.
        work: Not used.

    Raises:
        FormatError: A file is not there, or not as published.
    """
    silent = read_silent(data, "flickr_test_plus_silent.csv")
    clips, boxes = _test(data, options, work, [name for pair in silent for name in pair])
    return add_silent(clips, samples_of(clips, boxes), silent, agreement=2, notes=[*clips.notes, *_notes(options)])


def _test(
    data: Path, options: Mapping[str, Any], work: Path, further: Sequence[str] = ()
) -> tuple[Clips, dict[str, Sequence[Box]]]:
    """The clips of the test with their boxes; media are looked for of `further` names too."""
    names = _test_names(data, options)
    folder = require(data, "Annotations", "test/Annotations", what="the boxes of Flickr-SoundNet, NAME.xml each")
    boxes: dict[str, Sequence[Box]] = {name: read_boxes(inside(folder, f"{name}.xml")) for name in names}
    return only(find_clips(data, [*names, *further], _PLACES, work), names, data, _PLACES.what), boxes


def _notes(options: Mapping[str, Any]) -> list[str]:
    return [
        f"Test list: {_LISTS[options['list']]}.",
        "A point boxed once counts a half, twice or more a whole (boxes are summed, halved, clipped at 1).",
    ]


def _test_names(data: Path, options: Mapping[str, Any]) -> list[str]:
    """Names of the test; the two published lists differ by one."""
    which = option(options, "list", tuple(_LISTS))
    what = "the test list of Flickr-SoundNet"
    path = require(data, "metadata/flickr_test.csv", "flickr_test.csv", "test_list.txt", what=what)
    names = [name.removesuffix(".png").removesuffix(".jpg") for name in read_list(path, what)]
    names = list(dict.fromkeys(_ODD if name == _MISSPELT else name for name in names))
    if which == "lvs":
        return [name for name in names if name != _ODD]
    # The list of LVS is that of SLAVC without this name.
    return [*names, _ODD] if len(names) == 249 and _ODD not in names else names


def _train_names(data: Path) -> list[str]:
    """The published list of 4,750, or all that is annotated."""
    what = "the training list of Flickr-SoundNet, or its Annotations"
    path = require(
        data, "metadata/flickr_sup_train.txt", "flickr_sup_train.txt", "Annotations", "test/Annotations", what=what
    )
    if path.is_file():
        return read_list(path, what)
    names = [file.stem for file in sorted(path.glob("*.xml"), key=natural_key)]
    if not names:
        raise FormatError(f"{path}: holds no .xml. Expected {what}: 5,000 files NAME.xml.")
    return names


def read_boxes(path: Path) -> list[Box]:
    """Boxes of all annotators of a picture, as fractions.

    Below the root stands an element an annotator and in it `bbox` elements: one entry that is passed over, then xmin,
    ymin, xmax, ymax in pixels of 256 x 256.

    Raises:
        FormatError: It is missing, no such XML, or declares entities.
    """
    text = "\n".join(read_lines(path))
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise FormatError(f"{path}: declares a document type, which the published files do not. Download it again.")
    try:
        root = ET.fromstring(text)
        corners = [
            [int(str(entry.text)) for entry in list(box)[1:5]] for one in root for box in one if box.tag == "bbox"
        ]
    except (ET.ParseError, ValueError) as error:
        raise FormatError(f"{path}: is not as published ({one_line(error)}). Download it again.") from error
    if not corners:
        raise FormatError(f"{path}: holds no bbox. Expected the boxes of three annotators; download it again.")
    return [check_box([value / _SIDE for value in box], str(path)) for box in corners]
