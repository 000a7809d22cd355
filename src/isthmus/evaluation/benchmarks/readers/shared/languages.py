"""Captions in one file a language, `captions_LL.json`, in the layouts that circulate."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from isthmus.core.modality import IMAGE, TEXT
from isthmus.errors import ConfigError, FormatError
from isthmus.evaluation.benchmarks.readers.shared.annotations import field, read_json_file
from isthmus.evaluation.benchmarks.readers.shared.captions import Captioned, caption_items
from isthmus.evaluation.benchmarks.task import ItemSet, Reading, Retrieval
from isthmus.items import Item

_NAME = re.compile(r"(?:.*_)?captions[_-]([a-z]{2,3}(?:[-_][A-Za-z]{2,4})?)\.json")
_SPLITS = ("val", "dev")
_FOLDERS = ("", "captions", "annotations")

Captions = dict[str, dict[str, list[str]]]
"""By picture and language."""


def caption_files_by_language(data: Path) -> dict[str, Path]:
    """Caption files of a benchmark folder by language: `captions_de.json`, or `crossmodal3600_captions-de.json`."""
    by_language: dict[str, Path] = {}
    for folder in _FOLDERS:
        for path in sorted((data / folder).glob("*.json")):
            match = _NAME.fullmatch(path.name)
            if match and match[1] not in _SPLITS:
                by_language.setdefault(match[1], path)
    return by_language


def captions_by_language(files: Mapping[str, Path]) -> Captions:
    """Captions of all files, by picture (the stem of its file name, or its number) and language.

    Each file is one of: COCO's `images` and `annotations`; CLIP_benchmark's `image_paths` and `annotations`; a dict of
    pictures with a caption or a list; a list of records with an image and a caption.

    Raises:
        FormatError: A file is none of these.
    """
    records: Captions = {}
    for language, path in files.items():
        for picture, texts in _captions(path):
            records.setdefault(Path(picture).stem, {}).setdefault(language, []).extend(texts)
    return records


def _captions(path: Path) -> Iterable[tuple[str, list[str]]]:
    """Captions of one file by picture, in whichever layout it has."""
    value = read_json_file(path, object, "captions of one language")
    if isinstance(value, list):
        return [
            (_image(each, path, n), _texts(field(each, "caption", (list, str), path, n), path))
            for n, each in enumerate(value)
        ]
    if not isinstance(value, dict):
        raise FormatError(f"{path}: holds a {type(value).__name__}, expected the captions of one language.")
    if "image_paths" in value:
        paths, texts = (field(value, name, list, path, 0) for name in ("image_paths", "annotations"))
        if len(paths) != len(texts):
            raise FormatError(f"{path}: has {len(paths):,} pictures and {len(texts):,} captions. Fetch it again.")
        return [(str(one), _texts(text, path)) for one, text in zip(paths, texts, strict=True)]
    if "annotations" in value:
        names = {
            each["id"]: str(each["file_name"])
            for each in value.get("images", ())
            if isinstance(each, dict) and {"id", "file_name"} <= set(each)
        }
        rows = [
            (field(each, "image_id", (int, str), path, n), field(each, "caption", str, path, n))
            for n, each in enumerate(field(value, "annotations", list, path, 0))
        ]
        return [(names.get(number, str(number)), [text]) for number, text in rows]
    return [(str(name), _texts(texts, path)) for name, texts in value.items()]


def _image(record: Any, path: Path, number: int) -> str:
    """Picture that a record of captions names."""
    for key in ("image", "image_id", "image/key", "file_name"):
        if isinstance(record, dict) and key in record:
            return str(record[key])
    raise FormatError(f"{path}: record {number} names no image. Expected a key image, image_id or file_name.")


def _texts(value: Any, path: Path) -> list[str]:
    """Captions of one picture as a list."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise FormatError(f"{path}: holds captions of type {type(value).__name__}, expected a text or a list of texts.")
    return texts


def chosen_languages(records: Mapping[str, Mapping[str, Any]], wanted: str) -> list[str]:
    """The languages that an option names: all, or codes with commas between.

    Raises:
        ConfigError: One is not there.
    """
    known = sorted({language for record in records.values() for language in record})
    chosen = known if wanted == "all" else [language.strip() for language in wanted.split(",")]
    for language in chosen:
        if language not in known:
            raise ConfigError(f"option 'languages' got {language!r}. Expected all, or some of {', '.join(known)}.")
    return chosen


def retrieval_by_language(
    records: Mapping[str, Mapping[str, list[str]]],
    languages: Iterable[str],
    media: Mapping[str, Path],
    *,
    most: int | None,
    note: str = "",
) -> Reading:
    """Retrieval between pictures and their captions in several languages, each a group of queries of its own.

    Args:
        records: Captions by picture and language.
        languages: Those that are scored.
        media: The file of each picture that is there.
        most: Captions of a picture and language at most; None is all.
        note: What stands before the counts in the notes.
    """
    texts: list[Item] = []
    pairs: list[tuple[str, str]] = []
    groups: dict[str, list[str]] = {}
    for language in languages:
        entries = [Captioned(f"{key}/{language}", records[key].get(language, [])[:most], ()) for key in media]
        items, own = caption_items(entries)
        texts += items
        pairs += [(text, key.rpartition("/")[0]) for text, key in own]
        groups[language] = [item.id for item in items]
    gallery = ItemSet(IMAGE, [Item(key, str(file)) for key, file in media.items()])
    counts = f"{len(texts):,} {'in' if note else 'captions in'} {len(groups)} languages"
    return Reading(
        Retrieval(ItemSet(TEXT, texts), gallery, pairs, groups),
        missing=[key for key in records if key not in media],
        notes=[f"{note}{counts}; figures are means over languages"],
    )
