"""ImageNet-1k, its 50,000 validation pictures: folders by wnid, or flat with the truth of devkit, Caffe or Kaggle."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.core.messages import one_line
from isthmus.core.modality import IMAGE
from isthmus.errors import ConfigError, FormatError
from isthmus.evaluation.benchmarks.readers.shared.annotations import read_lines, read_rows, whole_number
from isthmus.evaluation.benchmarks.readers.shared.captions import Folder
from isthmus.evaluation.benchmarks.readers.shared.lookup import IMAGES, option, require
from isthmus.evaluation.benchmarks.task import Classification, ItemSet, Reading
from isthmus.evaluation.benchmarks.templates import assigned_lists
from isthmus.items import Item

OPTIONS: dict[str, Any] = {"layout": "auto", "names": "auto", "images": ""}

_VAL = ("val", "ILSVRC/Data/CLS-LOC/val", "ILSVRC2012_img_val", ".")
_DEVKIT = "ILSVRC2012_devkit_t12/data"
_TRUTHS = {
    "devkit": (f"{_DEVKIT}/ILSVRC2012_validation_ground_truth.txt", "ILSVRC2012_validation_ground_truth.txt"),
    "kaggle": ("LOC_val_solution.csv", "ILSVRC/LOC_val_solution.csv"),
    "caffe": ("val.txt", "caffe_ilsvrc12/val.txt"),
}
_MAX_META = 8 * 2**20
_META = (f"{_DEVKIT}/meta.mat", "meta.mat")
_SYNSETS = (
    *("LOC_synset_mapping.txt", "ILSVRC/LOC_synset_mapping.txt", "synset_words.txt", "synsets.txt"),
    *("caffe_ilsvrc12/synset_words.txt", "caffe_ilsvrc12/synsets.txt"),
)
_NAMES = (
    *("Prompt_Engineering_for_ImageNet.ipynb", "en_classnames.json", "imagenet_classes.txt", "classnames.txt"),
    *(name for name in _SYNSETS if not name.endswith("synsets.txt")),
    *_META,
)

Labels = list[tuple[str, str]]
"""Name of a picture and its wnid."""


def read(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Read ImageNet-1k's validation pictures.

    Args:
        data: Holds `val` with a folder a class, or with the pictures themselves and one of: the devkit's ground truth
            and `meta.mat`; Caffe's `val.txt` and `synset_words.txt`; Kaggle's `LOC_val_solution.csv`. And names of the
            classes: the CLIP notebook or CLIP_benchmark's `en_classnames.json` (the names that the papers use), a text
            file in the order of the wnids, or else the synsets' own.
        options: `layout` auto, folders, devkit, caffe or kaggle; `names` auto or a file of names, relative to the data;
            `images` the folder of pictures, where it has another name.
        work: Not used.

    Raises:
        FormatError: Truth, names or all pictures are missing, or a file is another one.
        ConfigError: The names do not fit the classes in number.
    """
    layout = option(options, "layout", ("auto", "folders", *_TRUTHS))
    named = [str(options["images"])] if options.get("images") else []
    folder = require(data, *named, *_VAL, what="the validation pictures of ImageNet")
    layout = _layout(data, folder) if layout == "auto" else layout
    labels, wnids = _LAYOUTS[layout](data, folder)
    names, source = _class_names(data, str(options.get("names") or "auto"), wnids)
    places = Folder(folder, ["."], IMAGES)
    files = {name: path for name, _ in labels if (path := places.find([name])) is not None}
    if not files:
        raise FormatError(
            f"{folder}: none of the {len(labels):,} pictures of ImageNet is there (looked for {labels[0][0]!r}). "
            "Expected the validation pictures; `isthmus benchmarks` says what to download and where it goes."
        )
    notes = [f"layout {layout}, {len(names):,} classes with names of {source}"]
    if twice := len(names) - len(set(names.values())):
        notes.append(f"{twice} names stand for two classes; classes are told apart by their wnid")
    items = [Item(name, str(path)) for name, path in files.items()]
    truth = [(name, wnid) for name, wnid in labels if name in files]
    return Reading(
        Classification(ItemSet(IMAGE, items), names, truth), [name for name, _ in labels if name not in files], notes
    )


def _layout(data: Path, folder: Path) -> str:
    """What lies there: folders named by wnid, or else the first truth."""
    if any(_is_wnid(name) and (folder / name).is_dir() for name in os.listdir(folder)):
        return "folders"
    path = require(
        data,
        *(name for names in _TRUTHS.values() for name in names),
        what=f"folders named by wnid in {folder.name}, or the truth of flat ones",
    )
    return next(key for key, names in _TRUTHS.items() if path.relative_to(data).as_posix() in names)


def _is_wnid(name: str) -> bool:
    return len(name) == 9 and name[0] == "n" and name[1:].isdigit()


def _folders(data: Path, folder: Path) -> tuple[Labels, list[str]]:
    wnids = sorted(name for name in os.listdir(folder) if _is_wnid(name) and (folder / name).is_dir())
    if not wnids:
        raise FormatError(f"{folder}: holds no folder named by wnid, such as n01440764. Give --set layout=devkit.")
    labels = [(f"{wnid}/{file}", wnid) for wnid in wnids for file in _pictures(folder / wnid)]
    if not labels:
        raise FormatError(f"{folder}: its {len(wnids):,} folders hold no picture. Unpack ILSVRC2012_img_val.tar there.")
    return labels, wnids


def _devkit(data: Path, folder: Path) -> tuple[Labels, list[str]]:
    """One ILSVRC2012_ID a line for the pictures in sorted order. The IDs are not the positions of the wnids."""
    path = require(data, *_TRUTHS["devkit"], what="the truth of the validation pictures")
    synsets = _meta(require(data, *_META, what="the devkit's meta.mat, which says what the IDs of the truth mean"))
    by_id = {number: wnid for number, wnid, _ in synsets}
    wnids = []
    for number, line in enumerate(read_lines(path), 1):
        known = whole_number(line)
        if known is None or known not in by_id:
            raise FormatError(f"{path}: line {number} is {line[:40]!r}, expected an ILSVRC2012_ID of meta.mat.")
        wnids.append(by_id[known])
    # By its number, so that a picture that is missing does not shift those after it.
    names = {n: f"ILSVRC2012_val_{n:08d}.JPEG" for n in range(1, len(wnids) + 1)}
    for name in _pictures(folder):
        number = _number(name)
        if number not in names:
            raise FormatError(
                f"{folder / name}: is no validation picture with a number from 1 to {len(wnids):,}, as {path.name} has "
                "lines. Expected names such as ILSVRC2012_val_00000001.JPEG."
            )
        names[number] = name
    return [(names[n], wnid) for n, wnid in enumerate(wnids, 1)], sorted(by_id.values())


def _pictures(folder: Path) -> list[str]:
    """Names of pictures; some systems leave hidden copies of each beside it."""
    return sorted(name for name in os.listdir(folder) if Path(name).suffix.lower() in IMAGES and name[0] != ".")


def _number(name: str) -> int:
    """The number in the name of a validation picture; 0 where it has none."""
    return whole_number(Path(name).stem.rpartition("_")[2]) or 0


def _meta(path: Path) -> list[tuple[int, str, str]]:
    """ILSVRC2012_ID, wnid and words of the synsets without children."""
    from scipy.io import loadmat

    if (size := path.stat().st_size) > _MAX_META:
        raise FormatError(f"{path}: has {size:,} bytes; the devkit's meta.mat has fewer than {_MAX_META:,}.")
    try:
        records = loadmat(path, squeeze_me=True)["synsets"]
        rows = [(int(r["ILSVRC2012_ID"]), str(r["WNID"]), str(r["words"]), int(r["num_children"])) for r in records]
    except Exception as error:  # the parser raises nearly anything about damaged files
        raise FormatError(
            f"{path}: is no meta.mat of ImageNet's devkit ({one_line(error)}). Fetch it again."
        ) from error
    return [(number, wnid, words) for number, wnid, words, children in rows if children == 0]


def _caffe(data: Path, folder: Path) -> tuple[Labels, list[str]]:
    """`NAME INDEX`, the index being the position of the wnid among the sorted wnids."""
    path = require(data, *_TRUTHS["caffe"], what="Caffe's truth of the validation pictures")
    wnids = _sorted_wnids(data)
    labels = []
    for number, line in enumerate(read_lines(path), 1):
        name, _, index = line.strip().rpartition(" ")
        place = whole_number(index)
        if not name or place is None or place >= len(wnids):
            raise FormatError(
                f"{path}: line {number} is {line[:60]!r}, expected NAME INDEX with an index below {len(wnids):,}."
            )
        labels.append((name, wnids[place]))
    return labels, wnids


def _kaggle(data: Path, folder: Path) -> tuple[Labels, list[str]]:
    """ImageId and `wnid x y x y ...`."""
    path = require(data, *_TRUTHS["kaggle"], what="Kaggle's truth of the validation pictures")
    labels = []
    for number, row in enumerate(read_rows(path, ("ImageId", "PredictionString")), 1):
        wnid = row["PredictionString"].strip().partition(" ")[0]
        if not _is_wnid(wnid):
            raise FormatError(f"{path}: row {number} has {row['PredictionString'][:40]!r}, expected a wnid and boxes.")
        labels.append((f"{row['ImageId']}.JPEG", wnid))
    return labels, sorted({wnid for _, wnid in labels})


def _sorted_wnids(data: Path) -> list[str]:
    path = require(data, *_SYNSETS, *_META, what="the wnids of the classes")
    if path.suffix == ".mat":
        return sorted(wnid for _, wnid, _ in _meta(path))
    wnids = [line.split(" ", 1)[0].strip() for line in read_lines(path)]
    for number, wnid in enumerate(wnids, 1):
        if not _is_wnid(wnid):
            raise FormatError(f"{path}: line {number} begins with {wnid[:40]!r}, expected a wnid such as n01440764.")
    return sorted(wnids)


def _class_names(data: Path, wanted: str, wnids: Sequence[str]) -> tuple[dict[str, str], str]:
    """By wnid, in sorted order, the name; and the file that it is from."""
    candidates = _NAMES if wanted == "auto" else (wanted,)
    path = require(data, *candidates, what="names of ImageNet's classes")
    by_wnid = _names_by_wnid(path)
    if by_wnid:
        absent = [wnid for wnid in wnids if wnid not in by_wnid]
        if absent:
            raise FormatError(f"{path}: has no name for {absent[0]}. Expected one for each of {len(wnids):,} classes.")
        return {wnid: by_wnid[wnid] for wnid in wnids}, path.name
    names = _listed_names(path)
    order = list(wnids)
    if len(names) != len(order):
        order = _sorted_wnids(data) if any((data / name).exists() for name in (*_SYNSETS, *_META)) else order
    if len(names) != len(order):
        raise ConfigError(
            f"{path}: has {len(names):,} names for {len(order):,} classes. Names without wnids stand in the order of "
            "the wnids, one a class: give a file of all, or one with wnids such as LOC_synset_mapping.txt."
        )
    named = dict(zip(order, names, strict=True))
    return {wnid: named[wnid] for wnid in wnids}, path.name


def _names_by_wnid(path: Path) -> dict[str, str]:
    """Names of a file that says whose they are: the first of a synset's words. Empty for other files."""
    if path.suffix == ".mat":
        return {wnid: words.split(",")[0].strip() for _, wnid, words in _meta(path)}
    if path.suffix != ".txt":
        return {}
    rows = [line.strip().partition(" ") for line in read_lines(path)]
    if not all(_is_wnid(wnid) and words for wnid, _, words in rows):
        return {}
    return {wnid: words.split(",")[0].strip() for wnid, _, words in rows}


def _listed_names(path: Path) -> list[str]:
    """Names in the order of the wnids: a notebook's `imagenet_classes`, a json's `imagenet1k`, or lines."""
    if path.suffix == ".ipynb":
        return _entry(path, assigned_lists(path, "\n".join(read_lines(path))), "imagenet_classes")
    if path.suffix == ".json":
        try:
            value = json.loads("\n".join(read_lines(path)))
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{path}: is no JSON ({one_line(error)}). Fetch it again.") from error
        return _entry(path, value if isinstance(value, dict) else {"imagenet1k": value}, "imagenet1k")
    return [line.strip() for line in read_lines(path) if line.strip()]


def _entry(path: Path, value: Mapping[str, Any], key: str) -> list[str]:
    names = value.get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FormatError(f"{path}: has no list of names {key!r}. It has: {', '.join(value)[:200]}.")
    return names


_LAYOUTS: dict[str, Callable[[Path, Path], tuple[Labels, list[str]]]] = {
    "folders": _folders,
    "devkit": _devkit,
    "caffe": _caffe,
    "kaggle": _kaggle,
}
