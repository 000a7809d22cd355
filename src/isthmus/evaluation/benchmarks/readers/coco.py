"""COCO captions, in the files that circulate: val2017 as published, Karpathy's split, BLIP's and CLIP_benchmark's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.core.modality import IMAGE
from isthmus.errors import FormatError
from isthmus.evaluation.benchmarks.readers.shared.annotations import field, read_json_file, whole_number
from isthmus.evaluation.benchmarks.readers.shared.captions import (
    Captioned,
    Folder,
    caption_retrieval,
    group_captions,
)
from isthmus.evaluation.benchmarks.readers.shared.languages import (
    caption_files_by_language,
    captions_by_language,
    chosen_languages,
    retrieval_by_language,
)
from isthmus.evaluation.benchmarks.readers.shared.lookup import IMAGES, option, require
from isthmus.evaluation.benchmarks.task import Reading

OPTIONS: dict[str, Any] = {"source": "val2017", "split": "test", "captions": "all", "images": "", "languages": ""}

_FILES: dict[str, tuple[str, ...]] = {
    "val2017": ("annotations/captions_val2017.json", "captions_val2017.json"),
    "val2014": ("annotations/captions_val2014.json", "captions_val2014.json"),
    "karpathy": ("dataset_coco.json", "annotations/dataset_coco.json", "karpathy/dataset_coco.json"),
    "blip": ("coco_karpathy_{split}.json", "annotations/coco_karpathy_{split}.json"),
    "clip_benchmark": ("coco_{split}_karpathy.json", "annotations/coco_{split}_karpathy.json"),
}
_SPLITS = ("test", "val", "train")


def read(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Read COCO.

    Args:
        data: Holds an annotation file and the pictures in `val2017` or `val2014`.
        options: `source`: val2017 (the papers' 25,014 captions), val2014, karpathy, blip or clip_benchmark; `split` of
            the last three, test, val or train (Karpathy's restval is train); `captions` all or five a picture;
            `images` the folder of pictures, where it has another name; `languages` all, or codes with commas between:
            then the captions come from one `captions_LL.json` a language, scored by language and then averaged.
        work: Not used.

    Raises:
        FormatError: The annotations or all pictures are missing, or the annotations are another file.
    """
    if options.get("languages"):
        return _by_language(data, options)
    source = option(options, "source", tuple(_FILES))
    split = option(options, "split", _SPLITS)
    most = {"all": None, "five": 5}[option(options, "captions", ("all", "five"))]
    names = [name.format(split=split) for name in _FILES[source]]
    path = require(data, *names, what=f"the COCO captions of source {source}")
    entries = [Captioned(each.id, each.captions[:most], each.names) for each in _READ[source](path, split)]
    folders = [str(options["images"])] if options.get("images") else []
    folders += [".", "val2017", "val2014", "train2014", "train2017", "images", "images/val2017", "images/val2014"]
    which = source if source.startswith("val") else f"{source}, {split}"
    notes = [f"COCO {which}, {'five captions a picture' if most else 'all captions'}, as written"]
    return caption_retrieval(
        entries, Folder(data, folders, IMAGES), modality=IMAGE, what="pictures of COCO", notes=notes
    )


def _by_language(data: Path, options: Mapping[str, Any]) -> Reading:
    """Pictures with captions in several languages, one file a language."""
    most = {"all": None, "five": 5}[option(options, "captions", ("all", "five"))]
    files = caption_files_by_language(data)
    if not files:
        raise FormatError(f"{data}: has no captions_LL.json, such as captions_de.json. Put one a language there.")
    records = captions_by_language(files)
    folders = [str(options["images"])] if options.get("images") else []
    folder = Folder(data, [*folders, ".", "val2017", "val2014", "train2014", "train2017", "images"], IMAGES)
    media = {key: file for key in records if (file := folder.find([key, *_numbered(key)]))}
    if not media:
        raise FormatError(f"{data}: none of the {len(records):,} pictures of the captions is there. Put them beside.")
    return retrieval_by_language(records, chosen_languages(records, str(options["languages"])), media, most=most)


def _numbered(key: str) -> list[str]:
    """Names of a picture's file by its COCO number."""
    number = whole_number(key)
    return [] if number is None else picture_names(number)


def picture_names(number: int) -> list[str]:
    """Names of a picture in either release, by its number."""
    old = f"{number:012d}"
    return [
        f"{old}.jpg",
        *(f"{part}/COCO_{part}_{old}.jpg" for part in ("val2014", "train2014")),
        f"COCO_val2014_{old}",
    ]


def _coco(path: Path, split: str) -> Sequence[Captioned]:
    """The published layout: images and annotations that name them by number."""
    value = read_json_file(path, dict, "COCO captions")
    images = [
        (field(image, "id", int, path, n), field(image, "file_name", str, path, n))
        for n, image in enumerate(field(value, "images", list, path, 0))
    ]
    captions = group_captions(
        (str(field(each, "image_id", int, path, n)), field(each, "caption", str, path, n))
        for n, each in enumerate(field(value, "annotations", list, path, 0))
    )
    return [Captioned(str(n), captions[str(n)], [name, *picture_names(n)]) for n, name in images if str(n) in captions]


def _karpathy(path: Path, split: str) -> Sequence[Captioned]:
    """Karpathy's: a picture a record, with its split."""
    entries = []
    images = field(read_json_file(path, dict, "Karpathy's split"), "images", list, path, 0)
    for n, image in enumerate(images):
        own = field(image, "split", str, path, n)
        if ("train" if own == "restval" else own) != split:
            continue
        number = field(image, "cocoid", int, path, n)
        names = [f"{image.get('filepath', 'val2014')}/{field(image, 'filename', str, path, n)}", *picture_names(number)]
        entries.append(Captioned(str(number), raw_captions(image, path, n), names))
    return entries


def raw_captions(image: Any, path: Path, number: int) -> list[str]:
    """The captions of a record of Karpathy's as they were written, not as tokens."""
    return [field(each, "raw", str, path, number) for each in field(image, "sentences", list, path, number)]


def _blip(path: Path, split: str) -> Sequence[Captioned]:
    """BLIP's: a list of pictures with all captions, in train a record a caption."""
    captions: dict[str, list[str]] = {}
    for n, record in enumerate(read_json_file(path, list, "BLIP's captions")):
        text = field(record, "caption", (list, str), path, n)
        own = captions.setdefault(field(record, "image", str, path, n), [])
        own.extend(text if isinstance(text, list) else [text])
    return [
        Captioned(_number(name, path), texts, [name, *picture_names(int(_number(name, path)))])
        for name, texts in captions.items()
    ]


def _number(name: str, path: Path) -> str:
    """COCO number in a picture's name."""
    match = re.search(r"([0-9]{12})\.[A-Za-z]+$", name)
    if match is None:
        raise FormatError(
            f"{path}: the picture {name!r} has no COCO number. Expected val2014/COCO_val2014_<12 digits>.jpg."
        )
    return str(int(match[1]))


_READ: dict[str, Callable[[Path, str], Sequence[Captioned]]] = {
    "val2017": _coco,
    "val2014": _coco,
    "karpathy": _karpathy,
    "blip": _blip,
    "clip_benchmark": _coco,
}
