"""ModelNet40 in its published layouts: meshes, resampled texts, hdf5, and the files of ULIP-2 and OpenShape."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.core.modality import POINT_CLOUD
from isthmus.errors import ConfigError, FormatError
from isthmus.evaluation.benchmarks.readers.shared.annotations import field, read_json_file, read_lines
from isthmus.evaluation.benchmarks.readers.shared.clouds import (
    Cloud,
    as_cloud,
    cloud_items,
    read_clouds_h5,
    refuse_pickle,
    sample,
    with_colours,
)
from isthmus.evaluation.benchmarks.readers.shared.lookup import option, require
from isthmus.evaluation.benchmarks.task import Classification, ItemSet, Reading
from isthmus.items import Rejected
from isthmus.items.decoding.object_npy import read_object_npy
from isthmus.items.decoding.point_cloud import decode_point_cloud

OPTIONS: dict[str, Any] = {
    "layout": "auto",
    "split": "test",
    "sampling": "fps",
    "points": 8192,
    "seed": 0,
    "colours": "grey",
    "swap_yz": False,
}

CLASSES = (
    *("airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone", "cup", "curtain"),
    *("desk", "door", "dresser", "flower_pot", "glass_box", "guitar", "keyboard", "lamp", "laptop", "mantel"),
    *("monitor", "night_stand", "person", "piano", "plant", "radio", "range_hood", "sink", "sofa", "stairs", "stool"),
    *("table", "tent", "toilet", "tv_stand", "vase", "wardrobe", "xbox"),
)
"""In the order of their numbers, which is that of the alphabet."""

_TXT = ("modelnet40_normal_resampled", "ModelNet40_normal_resampled", ".")
_H5 = ("modelnet40_ply_hdf5_2048", ".")
_PAIRS = {
    "ulip2": ("modelnet40_{split}_split_10k_colored.json", "modelnet40_colored_10k_pc.npy"),
    "openshape": ("{split}_split.json", "{split}_pc.npy"),
}
_PLACES = (".", "modelnet40", "meta_data/modelnet40", "test_datasets/modelnet40", "modelnet40_normal_resampled")
_INSTEAD = "the .txt files of modelnet40_normal_resampled (--set sampling=fps makes its 8,192 points anew)"


class _Found:
    """What a layout gives: names, labels and where clouds come from, each loaded when it is needed."""

    def __init__(
        self,
        names: Sequence[str],
        labels: Sequence[str],
        load: Callable[[int], Cloud],
        sources: Mapping[str, Path] | Path,
        *,
        missing: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> None:
        self.names, self.labels, self.load, self.sources = names, labels, load, sources
        self.missing, self.notes = missing, notes


def read(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Read ModelNet40.

    Args:
        data: Holds one of the layouts: `ModelNet40/<class>/test/*.off`; `modelnet40_normal_resampled`;
            `modelnet40_ply_hdf5_2048`; ULIP-2's `modelnet40_test_split_10k_colored.json` and
            `modelnet40_colored_10k_pc.npy`; OpenShape's or Uni3D's `test_split.json` and `test_pc.npy`.
        options: `layout` auto, txt, ulip2, openshape, h5 or off; `split` test or train; `sampling` of the .txt files
            fps, first or all, with `points` and the `seed` of the first point; `colours` grey (0.4, what ULIP-2 was
            measured with) or file; `swap_yz` mirrors as OpenShape's loader does.
        work: One file an object is written there.

    Raises:
        FormatError: No layout is there, only a pickled cache is, or a file is not as published.
        ConfigError: A setting has a value that it cannot have.
    """
    split = option(options, "split", ("test", "train"))
    layout = option(options, "layout", ("auto", *_LAYOUTS))
    option(options, "sampling", ("fps", "first", "all"))
    option(options, "colours", ("grey", "file"))
    if options["points"] < 1:
        raise ConfigError(f"option 'points' got {options['points']}. Expected a number from 1.")
    layout = _detect(data, split) if layout == "auto" else layout
    objects = _LAYOUTS[layout](data, split, options)
    settings = {key: options[key] for key in ("sampling", "points", "seed", "colours", "swap_yz")} | {"layout": layout}
    items = cloud_items(objects.names, objects.load, work, sources=objects.sources, settings=settings)
    return Reading(
        Classification(
            ItemSet(POINT_CLOUD, items),
            {name: name.replace("_", " ") for name in CLASSES},
            list(zip(objects.names, objects.labels, strict=True)),
        ),
        objects.missing,
        [f"ModelNet40 {split}, layout {layout}, {len(items):,} objects, y up", *objects.notes, *_notes(options)],
    )


def _notes(options: Mapping[str, Any]) -> list[str]:
    """Conventions that a reader of ModelNet40's figures must know."""
    swapped = ["y and z are exchanged, which mirrors the objects"] if options["swap_yz"] else []
    return [*swapped, "encoders move the mean to the origin and scale the largest norm to 1"]


def _detect(data: Path, split: str) -> str:
    """The first layout that lies there."""
    marks = {
        "txt": [f"{place}/modelnet40_{split}.txt" for place in _TXT],
        **{key: [f"{place}/{files[1].format(split=split)}" for place in _PLACES] for key, files in _PAIRS.items()},
        "h5": [f"{place}/ply_data_{split}*.h5" for place in _H5],
        "off": [f"{place}*/{split}/*.off" for place in ("ModelNet40/", "")],
    }
    for layout, patterns in marks.items():
        if any(next(data.glob(pattern), None) for pattern in patterns):
            return layout
    for place in _PLACES:
        if cache := next(iter(sorted((data / place).glob(f"modelnet40_{split}_*.dat"))), None):
            raise refuse_pickle(cache, _INSTEAD)
    expected = ", ".join(
        (f"modelnet40_normal_resampled/modelnet40_{split}.txt", f"ply_data_{split}0.h5", f"{split}_pc.npy")
    )
    raise FormatError(
        f"{data}: holds no layout of ModelNet40. Expected one of {expected}, modelnet40_colored_10k_pc.npy, "
        f"ModelNet40/airplane/{split}/*.off; `isthmus benchmarks` says what to download and where it goes."
    )


def _txt(data: Path, split: str, options: Mapping[str, Any]) -> _Found:
    """Six numbers a line, of which the last three are normals and no colours."""
    path = require(
        data, *(f"{place}/modelnet40_{split}.txt" for place in _TXT), what="the list of modelnet40_normal_resampled"
    )
    root = path.parent
    known = _shape_names(require(root, "modelnet40_shape_names.txt", what="the names of the classes"))
    names = [line.strip() for line in read_lines(path) if line.strip()]
    labels = {name: name.rpartition("_")[0] for name in names}
    for number, name in enumerate(names, 1):
        if labels[name] not in known or len(name.split("/")) > 1:
            raise FormatError(f"{path}: line {number} is {name!r}, expected CLASS_NUMBER of a class of {root.name}.")
    sources = {name: root / labels[name] / f"{name}.txt" for name in names}
    present = [name for name in names if sources[name].is_file()]
    if not present:
        raise FormatError(
            f"{sources[names[0]] if names else path}: none of the {len(names):,} clouds is there. Expected the whole "
            "of modelnet40_normal_resampled."
        )

    def load(number: int) -> Cloud:
        name = present[number]
        cloud = as_cloud(_numbers(sources[name]), str(sources[name]), swap_yz=options["swap_yz"])
        return cloud[sample(cloud, options["sampling"], options["points"], seed=options["seed"], name=name)]

    how = {"fps": f"{options['points']:,} farthest points from a start of seed {options['seed']}", "all": "all points"}
    note = how.get(options["sampling"], f"the first {options['points']:,} points")
    absent = [name for name in names if name not in set(present)]
    return _Found(present, [labels[name] for name in present], load, sources, missing=absent, notes=[note])


def _shape_names(path: Path) -> set[str]:
    """Classes of ModelNet40 in a list beside the clouds."""
    names = [line.strip() for line in read_lines(path) if line.strip()]
    if sorted(names) != names or not set(names) <= set(CLASSES):
        raise FormatError(f"{path}: is no list of ModelNet40's classes in the order of the alphabet. Fetch it again.")
    return set(names)


def _numbers(path: Path) -> Any:
    """Table of numbers of a text file of ModelNet40."""
    try:
        return np.loadtxt(path, delimiter=",", dtype=np.float32, ndmin=2)
    except (ValueError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: is no table of numbers ({str(error)[:100]}). Fetch it again.") from error


def _h5(data: Path, split: str, options: Mapping[str, Any]) -> _Found:
    """All parts in the order of their names; the label is a number in the order of the alphabet."""
    first = require(data, *(f"{place}/ply_data_{split}*.h5" for place in _H5), what="modelnet40_ply_hdf5_2048")
    paths = sorted(first.parent.glob(f"ply_data_{split}*.h5"))
    names, labels, clouds = [], [], []
    sources: dict[str, Path] = {}
    for path in paths:
        points, numbers = read_clouds_h5(path)
        for row, number in enumerate(numbers):
            if not 0 <= number < len(CLASSES):
                raise FormatError(f"{path}: row {row} has the label {number}, expected 0 to {len(CLASSES) - 1}.")
            names.append(f"{path.stem}:{row}")
            labels.append(CLASSES[number])
            clouds.append(points[row])
            sources[names[-1]] = path

    def load(number: int) -> Cloud:
        return as_cloud(clouds[number], names[number], swap_yz=options["swap_yz"])

    return _Found(names, labels, load, sources, notes=["the 2,048 points of each object as they are"])


def _pair(layout: str) -> Callable[[Path, str, Mapping[str, Any]], _Found]:
    """Reader of a layout of ModelNet40 with a list and stored clouds."""

    def read_pair(data: Path, split: str, options: Mapping[str, Any]) -> _Found:
        """A list of records with a category, and as many dicts with points and colours."""
        listed, stored = (name.format(split=split) for name in _PAIRS[layout])
        path = require(data, *(f"{place}/{listed}" for place in _PLACES), what=f"the list of layout {layout}")
        source = require(path.parent, stored, what=f"the clouds beside {path.name}")
        records = read_json_file(path, list, "the list of ModelNet40's objects")
        # Read only when a cloud is not there yet: the file of all of them is large.
        values = cache(lambda: _objects(source, path, len(records)))
        if not records:
            raise FormatError(f"{path}: lists no object. Fetch it again.")
        labels = [_category(record, path, number) for number, record in enumerate(records)]
        names = [f"{number:05d}-{label}" for number, label in enumerate(labels)]

        def load(number: int) -> Cloud:
            where, value = f"{source}: object {number}", values()[number]
            if not isinstance(value, dict) or "xyz" not in value:
                raise FormatError(f"{where}: has no xyz. Fetch the file again.")
            cloud = as_cloud(value["xyz"], where, swap_yz=options["swap_yz"])
            if options["colours"] == "grey":
                return cloud
            return with_colours(cloud, value.get("rgb"), where, scale=255.0)

        note = "colours of the file" if options["colours"] == "file" else "grey 0.4 in place of the file's colours"
        return _Found(names, labels, load, source, notes=["all points as they are", note])

    return read_pair


def _objects(source: Path, listed: Path, count: int) -> list[Any]:
    """Stored clouds of ModelNet40, as many as are listed."""
    values = read_object_npy(source)
    if not isinstance(values, list) or len(values) != count:
        got = len(values) if isinstance(values, list) else type(values).__name__
        raise FormatError(f"{source}: holds {got} objects, {listed.name} lists {count:,}. Fetch both again.")
    return values


def _category(record: Any, path: Path, number: int) -> str:
    """The category of a record, by name and never by number: the layouts number them differently."""
    name: str = field(record, "category", str, path, number).strip().replace(" ", "_")
    if name not in CLASSES:
        raise FormatError(f"{path}: record {number} has the category {name!r}, which is none of ModelNet40's 40.")
    return name


def _off_meshes(data: Path, split: str, options: Mapping[str, Any]) -> _Found:
    """ModelNet40 as the .off meshes of its authors, z up, whose points are drawn by area."""
    root = require(data, "ModelNet40", ".", what="the folders of ModelNet40")
    names, labels = [], []
    sources: dict[str, Path] = {}
    for label in (name for name in CLASSES if (root / name / split).is_dir()):
        for file in sorted(os.listdir(root / label / split)):
            if file.lower().endswith(".off") and file[0] != ".":
                names.append(Path(file).stem)
                labels.append(label)
                sources[names[-1]] = root / label / split / file
    if not names:
        raise FormatError(f"{root}: holds no mesh. Expected <class>/{split}/<class>_0001.off, such as airplane.")

    def load(number: int) -> Cloud:
        path = sources[names[number]]
        try:
            cloud = decode_point_cloud(path, points=options["points"], up="z")
        except Rejected as rejected:
            raise FormatError(f"{path}: {rejected.reason}. Fetch it again.") from rejected
        return as_cloud(cloud, str(path), swap_yz=options["swap_yz"])

    note = (
        f"{options['points']:,} points drawn from each mesh by area, seeded by its bytes, and z turned up to y: "
        "figures differ from those of the resampled clouds"
    )
    return _Found(names, labels, load, sources, notes=[note])


_LAYOUTS: dict[str, Callable[[Path, str, Mapping[str, Any]], _Found]] = {
    "txt": _txt,
    "ulip2": _pair("ulip2"),
    "openshape": _pair("openshape"),
    "h5": _h5,
    "off": _off_meshes,
}
