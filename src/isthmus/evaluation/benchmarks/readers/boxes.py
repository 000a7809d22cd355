"""A user's own localisation: a table with a row a box, of a picture, its sound, and where in it the sound comes from.

Options, every path relative to the data folder:

samples                   the table: image and audio (paths), the box and its unit (see
                          `isthmus.evaluation.benchmarks.readers.shared.box_tables`); rows of one picture and sound are
                          one sample; a row without a box does not sound
image_column, audio_column
                          its columns of paths
media                     the folder that paths start from
agreement                 boxes that must cover a point for it to count whole: 1 is the union of a sample's boxes, 2
                          gives half a point to what one annotator boxed alone
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.errors import ConfigError, FormatError
from isthmus.evaluation.benchmarks.readers.shared.box_tables import BoxTable
from isthmus.evaluation.benchmarks.readers.shared.lookup import inside, require
from isthmus.evaluation.benchmarks.task import Box, ItemSet, Localization, Reading, Sample
from isthmus.items import Item

OPTIONS: dict[str, Any] = {
    **{"samples": "", "image_column": "image", "audio_column": "audio"},
    **{"media": ".", "agreement": 1},
}


def read(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Read the table and look for the files.

    Raises:
        ConfigError: The task is no localisation, or an option is missing or out of range.
        FormatError: The table or all files are missing, or a box is none.
    """
    task = options["task"]
    if task not in ("localization", "counterfactual"):
        raise ConfigError(f"boxes serve a localization or a counterfactual, got a {task}. Give it another reader.")
    if not options["samples"] or options["agreement"] < 1:
        raise ConfigError(
            f"options samples and agreement got {options['samples']!r} and {options['agreement']}. Expected a table, "
            "relative to --data, and a number from 1."
        )
    path = require(data, options["samples"], what="the table of boxes")
    media = inside(data, options["media"])
    samples, missing = _samples(path, options, media)
    sides = [
        ItemSet(kind, [Item(name, str(media / name)) for name in dict.fromkeys(getattr(one, kind) for one in samples)])
        for kind in ("image", "audio")
    ]
    localization = Localization(sides[0], sides[1], samples, options["agreement"], task == "counterfactual")
    return Reading(localization, missing)


def _samples(path: Path, options: Mapping[str, Any], media: Path) -> tuple[list[Sample], list[str]]:
    """Samples whose files are there, and names of the others."""
    columns = (options["image_column"], options["audio_column"])
    table = BoxTable(path, columns)
    boxes: dict[tuple[str, str], list[Box]] = {}
    missing: dict[str, None] = {}
    for row, (image, audio) in enumerate(zip(*(map(str, table.columns[name]) for name in columns), strict=True)):
        picture, sound = inside(media, image), inside(media, audio)
        if not picture.is_file() or not sound.is_file():
            missing[f"{image}+{audio}"] = None
            continue
        own = boxes.setdefault((image, audio), [])
        if table.boxes[row] is not None:
            own.append(table.box(row, Item(image, str(picture))))
    if not boxes:
        raise FormatError(
            f"{path}: of none of its {len(missing):,} samples both files are there, such as {next(iter(missing))!r} "
            f"in {media}. Check media."
        )
    return [Sample(f"{image}+{audio}", image, audio, own) for (image, audio), own in boxes.items()], list(missing)
