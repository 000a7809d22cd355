"""AudioSet (Gemmeke et al., 2017): segments of ten seconds, each with some of 527 labels.

`eval_segments.csv` begins with three lines of comments; its rows have a blank after each comma, also before a quote.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from isthmus.errors import FormatError
from isthmus.evaluation.benchmarks.readers.shared.annotations import read_lines, read_rows
from isthmus.evaluation.benchmarks.readers.shared.clips import media_of, sounds_and_classes
from isthmus.evaluation.benchmarks.readers.shared.lookup import SOUNDS, option, require
from isthmus.evaluation.benchmarks.task import Reading

SPLITS = ("eval", "balanced_train", "unbalanced_train")
OPTIONS = {"split": "eval"}
_SPOILED = ("#NAME?", "#REF!", "#VALUE!", "#N/A", "#NUM!", "#DIV/0!")
"""What spreadsheets put in place of a text that they take for a formula, such as an id that begins with a minus."""


class Segment(NamedTuple):
    """A row: YouTube id, where it starts in seconds, machine names of its labels."""

    id: str
    start: float
    labels: list[str]


def read(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Sounds and their labels.

    Args:
        data: Folder with `eval_segments.csv`, `class_labels_indices.csv` and the sounds, by their YouTube id with or
            without a `Y` before it, or with the start second behind it.
        options: `split`: eval, balanced_train or unbalanced_train.
        work: Not used.

    Raises:
        FormatError: A file is not there, or not as published.
    """
    split = option(options, "split", SPLITS)
    path = require(data, f"{split}_segments.csv", f"metadata/{split}_segments.csv", what="the segments of AudioSet")
    segments, notes = read_segments(path)
    index = "class_labels_indices.csv"
    table = require(data, index, f"metadata/{index}", what="the class names of AudioSet")
    classes = _classes(table)
    for segment in segments:
        if unknown := [label for label in segment.labels if label not in classes]:
            raise FormatError(f"{path}: {segment.id!r} has the label {unknown[0]!r}, which {table} does not have.")
    folders = (f"audio/{split}", f"audio/{split}_segments", f"{split}_segments", split, "audio", ".")
    sounds = media_of(data, folders, {one.id: _stems(one) for one in segments}, SOUNDS, what="sounds of AudioSet")
    labels = [(one.id, label) for one in segments for label in one.labels]
    task = sounds_and_classes(sounds, classes, labels, multilabel=True)
    return Reading(task, [one.id for one in segments if one.id not in sounds], notes)


def _classes(table: Path) -> dict[str, str]:
    """Names of the classes by their machine names, none of which a spreadsheet has made an error of."""
    classes = {}
    for number, row in enumerate(read_rows(table, ("mid", "display_name")), 2):
        for value in (row["mid"], row["display_name"]):
            if value.startswith(_SPOILED):
                raise FormatError(
                    f"{table}: line {number} holds {value!r}: a spreadsheet spoiled the file. Download it again."
                )
        classes[row["mid"]] = row["display_name"]
    return classes


def _stems(segment: Segment) -> list[str]:
    """What a segment's file may be called."""
    starts = (f"{segment.start:.0f}", f"{segment.start:.3f}", f"{segment.start * 1000:.0f}")
    names = (segment.id, *(f"{segment.id}_{start}" for start in starts))
    return [f"{mark}{name}" for name in names for mark in ("Y", "")]


def read_segments(path: Path) -> tuple[list[Segment], list[str]]:
    """Rows of a list of segments, and a note where they are not as many as its head says.

    Raises:
        FormatError: A row is not as published, an id stands twice, or was spoiled by a spreadsheet.
    """
    lines = read_lines(path)
    segments: dict[str, Segment] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or (line.startswith("#") and not line.startswith(_SPOILED)):
            continue
        segment = _segment(line, f"{path}: line {number}")
        if segment.id in segments:
            raise FormatError(f"{path}: line {number}: {segment.id!r} stands twice. Expected the published list.")
        segments[segment.id] = segment
    if not segments:
        raise FormatError(f"{path}: holds no segment. Expected rows of YTID, start_seconds, end_seconds, labels.")
    said = next(
        (int(match[1]) for line in lines[:3] if (match := re.search(r"num_segs=([0-9]{1,18})", line))), len(segments)
    )
    notes = [f"{path.name} has {len(segments):,} segments, its head says {said:,}."] if said != len(segments) else []
    return list(segments.values()), notes


def _segment(line: str, where: str) -> Segment:
    """Segment of AudioSet from one line of its csv."""
    try:
        fields = next(csv.reader([line], skipinitialspace=True))
    except csv.Error:
        fields = []
    if spoiled := [field for field in fields if field.startswith(_SPOILED)]:
        what = "the id is" if fields[0] == spoiled[0] else "it holds"
        raise FormatError(f"{where}: {what} {spoiled[0]!r}: a spreadsheet spoiled the file. Download it again.")
    try:
        name, start, _, labels = fields
        return Segment(name, float(start), [label.strip() for label in labels.split(",")])
    except ValueError as error:
        raise FormatError(f"{where} is {line[:80]!r}. Expected YTID, start_seconds, end_seconds, labels.") from error
