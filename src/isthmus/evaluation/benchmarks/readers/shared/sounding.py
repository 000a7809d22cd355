"""Tasks of pictures and what sounds in them: samples with boxes, and samples where nothing in the picture sounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from isthmus.errors import FormatError
from isthmus.evaluation.benchmarks.readers.shared.annotations import read_rows
from isthmus.evaluation.benchmarks.readers.shared.clips import Clips, side
from isthmus.evaluation.benchmarks.readers.shared.lookup import require
from isthmus.evaluation.benchmarks.task import Box, Localization, Reading, Sample

Silent = list[tuple[str, str]]
"""(name of the picture, name of the sound)"""

NON_SOUNDING = "non-sounding"


def samples_of(clips: Clips, boxes: Mapping[str, Sequence[Box]]) -> list[Sample]:
    """A sample a clip: its picture with its own sound."""
    return [Sample(name, name, name, boxes[name]) for name in clips.names]


def localization(clips: Clips, samples: Sequence[Sample], *, agreement: int = 1) -> Localization:
    """The task of samples, with the pictures and sounds that they need and no others."""
    images = dict.fromkeys(sample.image for sample in samples)
    sounds = dict.fromkeys(sample.audio for sample in samples)
    return Localization(
        side("image", {name: clips.images[name] for name in images}),
        side("audio", {name: clips.sounds[name] for name in sounds}),
        list(samples),
        agreement,
    )


def read_silent(data: Path, name: str) -> Silent:
    """Non-sounding samples of a localisation benchmark: pictures with a sound that does not belong to them.

    In spite of its name the published file holds these alone, so the list of the test is needed beside it.

    Args:
        data: The folder that the user downloaded.
        name: The file, `video,audio,label`; rows of another label than `non-sounding` are passed over, as the
            published evaluator does.

    Raises:
        FormatError: It is not there, not as published, or holds no such row.
    """
    what = "SLAVC's list of non-sounding pairs"
    path = require(data, f"metadata/{name}", name, what=what)
    rows = list(read_rows(path, ("video", "audio", "label"), blanks=True))
    silent = [(row["video"], row["audio"]) for row in rows if row["label"] == NON_SOUNDING]
    if not silent:
        raise FormatError(f"{path}: has no row with the label {NON_SOUNDING!r}. Expected {what}; download it again.")
    return silent


def add_silent(
    clips: Clips, samples: Sequence[Sample], silent: Silent, *, agreement: int = 1, notes: Sequence[str] = ()
) -> Reading:
    """The counterfactual task: sounding samples, then those whose picture and sound do not belong together.

    The published loader replaces a pair whose file is missing by a random clip; here it is left out and counted.
    """
    there = [(v, a) for v, a in silent if v in clips.images and a in clips.sounds]
    missing = [f"{v}+{a}" for v, a in silent if v not in clips.images or a not in clips.sounds]
    every = [*samples, *(Sample(f"{v}+{a}", v, a) for v, a in dict.fromkeys(there))]
    task = replace(localization(clips, every, agreement=agreement), counterfactual=True)
    words = f"{len(samples):,} sounding and {len(every) - len(samples):,} non-sounding samples."
    return Reading(task, [*clips.missing, *missing], [*notes, words])
