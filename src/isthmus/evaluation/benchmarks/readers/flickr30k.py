"""Flickr30k in the files that circulate: Karpathy's split, the published captions, a csv, CLIP_benchmark's list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from isthmus.core.modality import IMAGE
from isthmus.errors import FormatError
from isthmus.evaluation.benchmarks.readers.coco import raw_captions
from isthmus.evaluation.benchmarks.readers.shared.annotations import field, read_json_file, read_lines
from isthmus.evaluation.benchmarks.readers.shared.captions import Captioned, Folder, caption_retrieval, group_captions
from isthmus.evaluation.benchmarks.readers.shared.lookup import IMAGES, option, require
from isthmus.evaluation.benchmarks.task import Reading

OPTIONS: dict[str, Any] = {"source": "auto", "split": "test", "images": ""}

_FILES: dict[str, tuple[str, ...]] = {
    "karpathy": ("dataset_flickr30k.json", "dataset_flickr32k.json"),
    "clip_benchmark": ("flickr30k_{split}_karpathy.txt",),
    "token": ("results_20130124.token", "flickr30k/results_20130124.token"),
    "csv": ("results.csv", "flickr30k_images/results.csv"),
}


def read(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Read Flickr30k.

    Args:
        data: Holds an annotation file and the folder `flickr30k-images` (or `flickr30k_images`) of pictures.
        options: `source` auto (the first that is there), karpathy, clip_benchmark, token or csv; `split` test, val,
            train or all. The last two sources have no splits: ids of one are read from `test.txt` (Flickr30k
            Entities) or from Karpathy's file; `images` the folder of pictures, where it has another name.
        work: Not used.

    Raises:
        FormatError: The annotations or all pictures are missing, or the annotations are another file.
    """
    split = option(options, "split", ("test", "val", "train", "all"))
    source = option(options, "source", ("auto", *_FILES))
    sources = _FILES if source == "auto" else {source: _FILES[source]}
    names = {name.format(split=split): key for key, files in sources.items() for name in files}
    path = require(data, *names, what="captions of Flickr30k")
    source = names[path.relative_to(data).as_posix()]
    notes: list[str] = []
    captions = _READ[source](path, split, notes)
    if source in ("token", "csv") and split != "all":
        captions = _of_split(captions, data, split, notes)
    folders = [str(options["images"])] if options.get("images") else []
    folders += ["flickr30k-images", "flickr30k_images", "flickr30k_images/flickr30k_images", "images", "Images", "."]
    entries = [Captioned(name.removesuffix(".jpg"), texts, [name]) for name, texts in captions.items()]
    return caption_retrieval(
        entries,
        Folder(data, folders, IMAGES),
        modality=IMAGE,
        what="pictures of Flickr30k",
        notes=[f"Flickr30k {split} of {path.name}, captions as written", *notes],
    )


def _karpathy(path: Path, split: str, notes: list[str]) -> dict[str, list[str]]:
    """Captions of one split by picture, from Karpathy's json."""
    images = field(read_json_file(path, dict, "Karpathy's split"), "images", list, path, 0)
    return {
        field(image, "filename", str, path, n): raw_captions(image, path, n)
        for n, image in enumerate(images)
        if split in ("all", field(image, "split", str, path, n))
    }


def _clip_benchmark(path: Path, split: str, notes: list[str]) -> dict[str, list[str]]:
    """A header, then `name.jpg,caption` without quotes: a caption may hold commas."""
    rows = []
    for number, line in enumerate(read_lines(path)[1:], 2):
        name, dot, caption = line.partition(".jpg,")
        if not dot:
            raise FormatError(f"{path}: line {number} is {line[:60]!r}, expected NAME.jpg,CAPTION. Fetch it again.")
        rows.append((f"{name}.jpg", caption))
    return group_captions(rows)


def _token(path: Path, split: str, notes: list[str]) -> dict[str, list[str]]:
    """`NAME.jpg#0`, a tab, the caption."""
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        key, tab, caption = line.partition("\t")
        name, mark, _ = key.rpartition("#")
        if not tab or not mark:
            raise FormatError(f"{path}: line {number} is {line[:60]!r}, expected NAME.jpg#NUMBER, a tab and a caption.")
        rows.append((name, caption))
    return group_captions(rows)


def _csv(path: Path, split: str, notes: list[str]) -> dict[str, list[str]]:
    """`name| number| caption` without quotes; one row of the file as it circulates lacks its second bar."""
    lines = read_lines(path)
    header = [part.strip() for part in (lines or [""])[0].split("|")]
    if header != ["image_name", "comment_number", "comment"]:
        raise FormatError(f"{path}: begins with {header}, expected image_name| comment_number| comment.")
    rows = []
    for number, line in enumerate(lines[1:], 1):
        parts = [part.strip() for part in line.split("|", 2)]
        if len(parts) == 2:
            index, _, caption = parts[1].partition(" ")
            if not index.isdigit():
                raise FormatError(f"{path}: row {number} is {line[:60]!r}, expected NAME.jpg| NUMBER| CAPTION.")
            notes.append(f"row {number} of {path.name} lacks its second bar: repaired")
            parts = [parts[0], index, caption.strip()]
        rows.append((parts[0], parts[-1]))
    return group_captions(rows)


def _of_split(captions: Mapping[str, list[str]], data: Path, split: str, notes: list[str]) -> dict[str, list[str]]:
    """The pictures of a split, from a list of ids or from Karpathy's file; where both are there they are compared."""
    path = require(
        data, f"{split}.txt", f"flickr30k_entities/{split}.txt", *_FILES["karpathy"], what=f"the pictures of {split}"
    )
    if path.suffix == ".json":
        wanted = list(_karpathy(path, split, []))
    else:
        wanted = [f"{line.strip().removesuffix('.jpg')}.jpg" for line in read_lines(path) if line.strip()]
        other = next((data / name for name in _FILES["karpathy"] if (data / name).is_file()), None)
        if other is not None and set(_karpathy(other, split, [])) != set(wanted):
            notes.append(f"the {split} pictures of {path.name} are not those of {other.name}: {path.name} is taken")
    if unknown := [name for name in wanted if name not in captions]:
        raise FormatError(f"{path}: {unknown[0]!r} is none of the {len(captions):,} pictures with captions.")
    return {name: captions[name] for name in wanted}


_READ: dict[str, Callable[[Path, str, list[str]], Mapping[str, list[str]]]] = {
    "karpathy": _karpathy,
    "clip_benchmark": _clip_benchmark,
    "token": _token,
    "csv": _csv,
}
