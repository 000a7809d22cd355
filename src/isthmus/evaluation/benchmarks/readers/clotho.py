"""Clotho: clips of 15 to 30 seconds from Freesound with five captions each."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.core.modality import AUDIO
from isthmus.evaluation.benchmarks.readers.shared.annotations import read_rows
from isthmus.evaluation.benchmarks.readers.shared.captions import Captioned, Folder, caption_retrieval
from isthmus.evaluation.benchmarks.readers.shared.lookup import SOUNDS, option, require
from isthmus.evaluation.benchmarks.task import Reading

OPTIONS: dict[str, Any] = {"split": "evaluation", "audio": ""}

_CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))


def read(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Read Clotho, v1, v2 or v2.1, whose evaluation split is the same.

    Args:
        data: Holds `clotho_captions_evaluation.csv` and the folder `evaluation` of its wav files.
        options: `split` evaluation, validation or development; `audio` the folder of clips, where it has another name.
        work: Not used.

    Raises:
        FormatError: The table or all clips are missing, or the table is another one.
    """
    split = option(options, "split", ("evaluation", "validation", "development"))
    name = f"clotho_captions_{split}.csv"
    table = require(data, name, f"csv_files/{name}", f"captions/{name}", what="the captions of Clotho")
    folders = [str(options["audio"])] if options.get("audio") else []
    folders += [split, f"audio/{split}", f"clotho_audio_{split}/{split}", f"clotho_audio_{split}"]
    # Names are taken letter by letter: blanks before the dot, entities and brackets are part of them. Some unpackers
    # resolve the entities, so that is looked for too. Four names stand in two splits, so the split is part of the id.
    entries = [
        Captioned(f"{split}/{row['file_name']}", [row[key] for key in _CAPTIONS], _names(row["file_name"]))
        for row in read_rows(table, ("file_name", *_CAPTIONS))
    ]
    notes = [f"Clotho {split}; clips last 15 to 30 s, so what an encoder with a shorter window hears is its own choice"]
    return caption_retrieval(
        entries, Folder(data, folders, SOUNDS), modality=AUDIO, what="clips of Clotho", notes=notes
    )


def _names(name: str) -> list[str]:
    """Names that a file of Clotho may have: as listed, or without HTML entities."""
    plain = html.unescape(name)
    return [name] if plain == name or "/" in plain else [name, plain]
