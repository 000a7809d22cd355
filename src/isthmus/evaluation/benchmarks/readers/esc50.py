"""ESC-50 (Piczak, 2015): 2,000 sounds of five seconds, 50 classes, classified by the names of the classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.errors import FormatError
from isthmus.evaluation.benchmarks.readers.shared.annotations import read_rows, whole_number
from isthmus.evaluation.benchmarks.readers.shared.clips import media_of, sounds_and_classes, spoken
from isthmus.evaluation.benchmarks.readers.shared.lookup import SOUNDS, option, require
from isthmus.evaluation.benchmarks.task import Reading

OPTIONS = {"fold": 0, "subset": "esc50"}
_PUBLISHED = 2000


def read(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Sounds and their classes.

    Args:
        data: Folder with `meta/esc50.csv` and `audio/`.
        options: `fold`: 1 to 5, or 0 for all; `subset`: esc50, or esc10 for its ten classes of freer licence.
        work: Not used.

    Raises:
        FormatError: A file is not there, or not as published.
    """
    path = require(data, "meta/esc50.csv", "esc50.csv", what="the labels of ESC-50")
    rows = list(read_rows(path, ("filename", "fold", "target", "category", "esc10"), blanks=True))
    notes = [] if len(rows) == _PUBLISHED else [f"{path.name} has {len(rows):,} rows, published are {_PUBLISHED:,}."]
    fold, subset = option(options, "fold", range(6)), option(options, "subset", ("esc50", "esc10"))
    rows = [row for row in rows if not fold or row["fold"] == str(fold)]
    rows = [row for row in rows if subset == "esc50" or row["esc10"].lower() == "true"]
    if not rows:
        raise FormatError(f"{path}: has no row of fold {fold} of {subset}. Expected the published labels of ESC-50.")
    if odd := [row["target"] for row in rows if whole_number(row["target"]) is None]:
        raise FormatError(f"{path}: the target {odd[0]!r} is no number of a class. Download meta/esc50.csv again.")
    if any(row["category"].isdigit() for row in rows):
        raise FormatError(
            f"{path}: the column category holds numbers, as in the data set's first form. Expected meta/esc50.csv with "
            "names; download it again."
        )
    names = {row["filename"]: [Path(row["filename"]).stem] for row in rows}
    sounds = media_of(data, ("audio",), names, SOUNDS, what="sounds of ESC-50")
    classes = dict(
        sorted({row["target"]: spoken(row["category"]) for row in rows}.items(), key=lambda one: int(one[0]))
    )
    task = sounds_and_classes(sounds, classes, [(row["filename"], row["target"]) for row in rows])
    return Reading(task, [name for name in names if name not in sounds], notes)
