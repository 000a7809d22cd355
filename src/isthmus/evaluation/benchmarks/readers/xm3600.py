"""Crossmodal-3600: pictures with captions in 36 languages, scored by language and then averaged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.errors import FormatError
from isthmus.evaluation.benchmarks.readers.shared.annotations import read_lines
from isthmus.evaluation.benchmarks.readers.shared.captions import Folder
from isthmus.evaluation.benchmarks.readers.shared.languages import (
    caption_files_by_language,
    captions_by_language,
    chosen_languages,
    retrieval_by_language,
)
from isthmus.evaluation.benchmarks.readers.shared.lookup import IMAGES, option, require
from isthmus.evaluation.benchmarks.task import Reading

OPTIONS: dict[str, Any] = {"languages": "all", "captions": "all", "images": ""}


def read(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Read Crossmodal-3600.

    Args:
        data: Holds `captions.jsonl`, or one `captions_LL.json` a language, and the folder `images`.
        options: `languages` all, or codes with commas between ("de,ja"); `captions` all (big_vision's protocol) or
            first (one a picture and language, CLIP_benchmark's); `images` the folder, where it has another name.
        work: Not used.

    Raises:
        FormatError: The captions or all pictures are missing, or the captions are another file.
        ConfigError: A language is unknown.
    """
    most = {"all": None, "first": 1}[option(options, "captions", ("all", "first"))]
    names = ("captions.jsonl", "captions/captions.jsonl")
    files = {} if any((data / name).is_file() for name in names) else caption_files_by_language(data)
    what = "the captions of Crossmodal-3600"
    records = captions_by_language(files) if files else _records(require(data, *names, what=what))
    languages = chosen_languages(records, str(options.get("languages", "all")))
    folders = [str(options["images"])] if options.get("images") else []
    folder = Folder(data, [*folders, "images", "."], IMAGES)
    media = {key: file for key in records if (file := folder.find([key]))}
    if not media:
        raise FormatError(
            f"{data}: none of the {len(records):,} pictures of Crossmodal-3600 is there (looked for "
            f"images/{next(iter(records), 'KEY')}.jpg). Expected the content of images.tgz there."
        )
    how = "the first caption of a picture" if most else "all captions"
    return retrieval_by_language(records, languages, media, most=most, note=f"{how}: ")


def _records(path: Path) -> dict[str, dict[str, list[str]]]:
    """Captions by picture and language."""
    records = {}
    for number, line in enumerate(read_lines(path), 1):
        try:
            record = json.loads(line)
            key = record["image/key"]
            captions = {name: value["caption"] for name, value in record.items() if isinstance(value, dict)}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FormatError(
                f"{path}: line {number} is no record of captions.jsonl (image/key, and by language a caption list). "
                "web_captions.jsonl is another file: fetch captions.zip."
            ) from error
        if not all(
            isinstance(each, list) and all(isinstance(text, str) for text in each) for each in captions.values()
        ):
            raise FormatError(
                f"{path}: line {number} has captions that are no lists of texts. Fetch captions.zip again."
            )
        records[str(key)] = captions
    return records
