"""UrbanSound8K (Salamon et al., 2014): 8,732 sounds of at most four seconds, ten classes, ten folds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.errors import FormatError
from isthmus.evaluation.benchmarks.readers.shared.annotations import read_rows, whole_number
from isthmus.evaluation.benchmarks.readers.shared.clips import Media, media_of, sounds_and_classes, spoken
from isthmus.evaluation.benchmarks.readers.shared.lookup import SOUNDS, option, require
from isthmus.evaluation.benchmarks.task import Reading

OPTIONS = {"fold": 0}
_PUBLISHED = 8732


def read(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Sounds and their classes.

    Args:
        data: Folder with `metadata/UrbanSound8K.csv` and `audio/fold1` to `audio/fold10`.
        options: `fold`: 1 to 10, or 0 for all.
        work: Not used.

    Raises:
        FormatError: A file is not there, or not as published.
    """
    what = "the labels of UrbanSound8K"
    path = require(data, "metadata/UrbanSound8K.csv", "UrbanSound8K.csv", what=what)
    rows = list(read_rows(path, ("slice_file_name", "fold", "classID", "class"), blanks=True))
    notes = []
    if len(rows) != _PUBLISHED:
        notes.append(f"{path.name} has {len(rows):,} rows, published are {_PUBLISHED:,}; a shortened copy circulates.")
    fold = option(options, "fold", range(11))
    rows = [row for row in rows if not fold or row["fold"] == str(fold)]
    if not rows:
        raise FormatError(f"{path}: has no row of fold {fold}. Expected the published labels of UrbanSound8K.")
    if odd := [row["classID"] for row in rows if whole_number(row["classID"]) is None]:
        raise FormatError(f"{path}: the classID {odd[0]!r} is no number. Download the labels again.")
    sounds = _sounds(data, rows)
    classes = {row["classID"]: spoken(row["class"]) for row in sorted(rows, key=lambda row: int(row["classID"]))}
    task = sounds_and_classes(sounds, classes, [(row["slice_file_name"], row["classID"]) for row in rows])
    return Reading(task, [row["slice_file_name"] for row in rows if row["slice_file_name"] not in sounds], notes)


def _sounds(data: Path, rows: list[dict[str, str]]) -> Media:
    """Every sound of the rows; they lie a folder a fold, or all in one."""
    folders = [f"audio/fold{fold}" for fold in dict.fromkeys(row["fold"] for row in rows)]
    names = {row["slice_file_name"]: [Path(row["slice_file_name"]).stem] for row in rows}
    return media_of(data, (*folders, "audio"), names, SOUNDS, what="sounds of UrbanSound8K")
