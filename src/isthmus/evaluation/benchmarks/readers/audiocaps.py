"""AudioCaps (cdjkim/audiocaps): ten-second clips of YouTube with five captions each, in either version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.core.modality import AUDIO
from isthmus.errors import FormatError
from isthmus.evaluation.benchmarks.readers.shared.annotations import read_lines, read_rows
from isthmus.evaluation.benchmarks.readers.shared.captions import Captioned, Folder, caption_retrieval
from isthmus.evaluation.benchmarks.readers.shared.lookup import SOUNDS, option, require
from isthmus.evaluation.benchmarks.task import Reading

OPTIONS: dict[str, Any] = {"split": "test", "version": "1.0", "audio": ""}

_FOLDERS = {"1.0": "dataset", "2.0": "dataset2.0"}


def read(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Read AudioCaps.

    Args:
        data: Holds `dataset/test.csv` or `test.csv`, and the clips, whose audio the authors do not publish: by youtube
            id, start time or caption id, in a folder `audio`, `test`, or beside the tables.
        options: `split` test, val or train; `version` 1.0 or 2.0 (captions reworded, same clips in val and test);
            `audio` the folder of clips, where it has another name.
        work: Not used.

    Raises:
        FormatError: The table or all clips are missing, or the table is another one.
    """
    split = option(options, "split", ("test", "val", "train"))
    version = option(options, "version", tuple(_FOLDERS))
    table = require(
        data, f"{_FOLDERS[version]}/{split}.csv", f"{split}.csv", f"csv_files/{split}.csv", what="a table of AudioCaps"
    )
    folders = [str(options["audio"])] if options.get("audio") else []
    folders += [f"audio/{split}", f"{split}", f"waveforms/{split}", "audio", "."]
    entries = _by_file(table) if "file_name" in (read_lines(table) or [""])[0] else _by_clip(table)
    notes = [f"AudioCaps {version}, {split}; lost videos make everybody's test a subset: compare the number of clips"]
    return caption_retrieval(
        entries, Folder(data, folders, SOUNDS), modality=AUDIO, what="clips of AudioCaps", notes=notes
    )


def _by_clip(table: Path) -> Sequence[Captioned]:
    """The authors' tables: a row a caption, the rows of a clip apart from each other."""
    clips: dict[str, list[tuple[str, str, str]]] = {}
    columns = ("audiocap_id", "youtube_id", "start_time", "caption")
    for number, row in enumerate(read_rows(table, columns), 1):
        if row["youtube_id"].startswith("#") or not row["youtube_id"]:
            raise FormatError(
                f"{table}: row {number} has the youtube_id {row['youtube_id']!r}; a spreadsheet has overwritten ids "
                "that begin with - or =. Fetch the table again, and open it with no spreadsheet."
            )
        clips.setdefault(row["youtube_id"], []).append((row["audiocap_id"], row["start_time"], row["caption"]))
    return [_clip(clip, rows) for clip, rows in clips.items()]


def _clip(clip: str, rows: Sequence[tuple[str, str, str]]) -> Captioned:
    """Clip of AudioCaps with its captions and the names that its file may have."""
    start = rows[0][1]
    names = [f"{clip}_{start}", f"Y{clip}", clip, f"Y{clip}_{start}", f"{clip}_{start}000", *(row[0] for row in rows)]
    return Captioned(clip, [row[2] for row in rows], names)


def _by_file(table: Path) -> Sequence[Captioned]:
    """The tables of text-audio retrieval code: a row a clip with five captions, or with one."""
    entries: dict[str, Captioned] = {}
    for row in read_rows(table, ("file_name",)):
        captions = [row[key] for key in ("caption", *(f"caption_{n}" for n in range(1, 6))) if row.get(key)]
        known = entries.get(row["file_name"])
        captions = [*known.captions, *captions] if known else captions
        entries[row["file_name"]] = Captioned(row["file_name"], captions, [row["file_name"]])
    return list(entries.values())
