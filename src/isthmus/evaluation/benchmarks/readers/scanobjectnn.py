"""ScanObjectNN: scanned objects of 15 classes, in its hdf5 variants, the file of OpenShape, and the raw scans."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.core.modality import POINT_CLOUD
from isthmus.errors import ConfigError, FormatError
from isthmus.evaluation.benchmarks.readers.shared.annotations import read_lines, whole_number
from isthmus.evaluation.benchmarks.readers.shared.clouds import (
    Cloud,
    as_cloud,
    cloud_items,
    open_h5,
    read_clouds_h5,
    refuse_pickle,
    with_colours,
)
from isthmus.evaluation.benchmarks.readers.shared.lookup import option, require
from isthmus.evaluation.benchmarks.task import Classification, ItemSet, Reading
from isthmus.items.decoding.object_npy import read_object_npy

OPTIONS: dict[str, Any] = {
    "layout": "auto",
    "variant": "pb_t50_rs",
    "background": True,
    "split": "test",
    "fold": "main_split",
    "colours": "grey",
    "swap_yz": False,
}

CLASSES = (
    *("bag", "bin", "box", "cabinet", "chair", "desk", "display", "door", "shelf", "table", "bed", "pillow", "sink"),
    *("sofa", "toilet"),
)
"""In the order of their numbers, which is not that of the alphabet."""

_VARIANTS = {
    "obj_bg": "_objectdataset",
    "obj_only": "_objectdataset",
    "pb_t25": "_objectdataset_augmented25_norot",
    "pb_t25_r": "_objectdataset_augmented25rot",
    "pb_t50_r": "_objectdataset_augmentedrot",
    "pb_t50_rs": "_objectdataset_augmentedrot_scale75",
}
_SPLITS = {"test": "test", "train": "training"}
_NPY = ("xyz_label.npy", "scanobjectnn/xyz_label.npy", "test_datasets/scanobjectnn/xyz_label.npy")
_LISTS = ("main_split.txt", "training_data/main_split.txt", "object_dataset/split.txt", "split.txt", "split_new.txt")
_COLUMNS = 11  # x y z, normal, colour, instance, semantic class
_MAX_BIN = 2**30

Loaded = tuple[Sequence[str], Sequence[int], Callable[[int], Cloud], Mapping[str, Path] | Path, list[str], list[str]]
"""Names, labels, how to load one, where they are from, notes, and the names of what is missing."""


def read(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Read ScanObjectNN.

    Args:
        data: Holds `h5_files/main_split/...h5`, or OpenShape's and Uni3D's `xyz_label.npy`, or `object_dataset/*.bin`
            with `main_split.txt`.
        options: `layout` auto, h5, npy or bin; for h5 the `variant` obj_bg, obj_only, pb_t25, pb_t25_r, pb_t50_r or
            pb_t50_rs (called hardest), whether an augmented one has `background`, the `split` test or train, and the
            `fold` main_split or split1 to split4; `colours` grey (0.4) or file; `swap_yz` mirrors as OpenShape's
            loader does.
        work: One file an object is written there.

    Raises:
        FormatError: No layout is there, only a pickled cache is, or a file is not as published.
        ConfigError: A setting has a value that it cannot have.
        DependencyError: h5py is not installed.
    """
    layout = option(options, "layout", ("auto", *_LAYOUTS))
    option(options, "colours", ("grey", "file"))
    layout = _detect(data) if layout == "auto" else layout
    names, labels, load, sources, notes, missing = _LAYOUTS[layout](data, options)
    for name, label in zip(names, labels, strict=True):
        if not 0 <= label < len(CLASSES):
            raise FormatError(f"{data}: {name} has the label {label}, expected 0 to {len(CLASSES) - 1}.")

    def loaded(number: int) -> Cloud:
        cloud = load(number)
        return cloud[:, [0, 2, 1, *range(3, cloud.shape[1])]] if options["swap_yz"] else cloud

    settings = {"layout": layout, "swap_yz": options["swap_yz"], "colours": options["colours"]}
    items = cloud_items(names, loaded, work, sources=sources, settings=settings)
    truth = [(name, CLASSES[label]) for name, label in zip(names, labels, strict=True)]
    return Reading(
        Classification(ItemSet(POINT_CLOUD, items), {name: name for name in CLASSES}, truth),
        missing,
        [
            *notes,
            f"{len(items):,} objects, y up; encoders move the mean to the origin and scale the largest norm to 1",
            *(["y and z are exchanged, which mirrors the objects"] if options["swap_yz"] else []),
        ],
    )


def _detect(data: Path) -> str:
    """Layout of ScanObjectNN that a folder has."""
    marks = {
        "h5": ("h5_files/*/*.h5", "main_split*/*.h5", "split[1-4]*/*.h5"),
        "npy": _NPY,
        "bin": _LISTS,
    }
    for layout, patterns in marks.items():
        if any(next(data.glob(pattern), None) for pattern in patterns):
            return layout
    if cache := next(iter(sorted([*data.glob("*.pkl"), *data.glob("*/*.pkl"), *data.glob("*/*/*.pkl")])), None):
        raise refuse_pickle(cache, "the .h5 files of h5_files")
    raise FormatError(
        f"{data}: holds no layout of ScanObjectNN. Expected h5_files/main_split/"
        f"test{_VARIANTS['pb_t50_rs']}.h5, {_NPY[1]} or main_split.txt with object_dataset; `isthmus benchmarks` says "
        "what to download and where it goes."
    )


def _h5(data: Path, options: Mapping[str, Any]) -> Loaded:
    """One variant. Its folder is part of it: files of one name lie in the folders with and without background."""
    variant = "pb_t50_rs" if options["variant"] == "hardest" else option(options, "variant", tuple(_VARIANTS))
    split, fold = option(options, "split", tuple(_SPLITS)), str(options["fold"])
    if fold not in ("main_split", "split1", "split2", "split3", "split4"):
        raise ConfigError(f"option 'fold' got {fold!r}. Expected main_split, or split1 to split4 (--set fold=...).")
    background = {"obj_bg": True, "obj_only": False}.get(variant, bool(options["background"]))
    folder = fold if background else f"{fold}_nobg"
    file = f"{_SPLITS[split]}{_VARIANTS[variant]}.h5"
    path = require(data, f"h5_files/{folder}/{file}", f"{folder}/{file}", what=f"the variant {variant} of ScanObjectNN")
    clouds, labels = read_clouds_h5(path)
    names = [f"{folder}/{path.stem}:{row}" for row in range(len(labels))]
    note = f"ScanObjectNN {variant} {split}, {folder}, {'with' if background else 'without'} background"
    return names, labels, lambda row: as_cloud(clouds[row], names[row]), path, [note, *_mask_note(path)], []


def _mask_note(path: Path) -> list[str]:
    """How much of the points is background, where the file says so."""
    with open_h5(path) as get:
        try:
            mask = get("mask", 2)
        except FormatError:
            return []
    return [f"{float((mask == -1).mean()):.1%} of the points are background by the file's mask; all are kept"]


def _npy(data: Path, options: Mapping[str, Any]) -> Loaded:
    """A dict of clouds and labels. It holds the training and the test objects together."""
    path = require(data, *_NPY, what="the clouds of OpenShape and Uni3D")
    value = read_object_npy(path)
    xyz, labels = (value.get("xyz"), value.get("label")) if isinstance(value, dict) else (None, None)
    numbers = labels.reshape(-1).tolist() if isinstance(labels, np.ndarray) else labels
    if not isinstance(xyz, np.ndarray | list) or not isinstance(numbers, list) or len(xyz) != len(numbers):
        raise FormatError(f"{path}: expected a dict of xyz and as many labels. Fetch it again.")
    if not all(type(number) is int for number in numbers):
        raise FormatError(f"{path}: has labels that are no whole numbers. Fetch it again.")
    names = [f"{path.stem}:{row}" for row in range(len(numbers))]
    rgb = value.get("rgb") if options["colours"] == "file" else None
    if rgb is not None and (not isinstance(rgb, np.ndarray | list) or len(rgb) != len(numbers)):
        raise FormatError(f"{path}: has rgb, but not for each of its {len(numbers):,} objects. Fetch it again.")

    def load(row: int) -> Cloud:
        cloud = as_cloud(xyz[row], f"{path}: object {row}")
        if rgb is None:
            return cloud
        colours = np.asarray(rgb[row], np.float32)
        scale = 255.0 if colours.size and float(colours.max()) > 1.0 else 1.0
        return with_colours(cloud, colours, f"{path}: object {row}", scale=scale)

    note = (
        f"{path.name}: {len(names):,} objects of OpenShape and Uni3D, training and test objects of the plain variant "
        "together: not a test set, though those papers report on it"
    )
    return names, numbers, load, path, [note], []


def _raw_scans(data: Path, options: Mapping[str, Any]) -> Loaded:
    """ScanObjectNN as raw scans: `id.bin`, a tab, the label, and `t` for a test object."""
    split = option(options, "split", tuple(_SPLITS))
    path = require(data, *_LISTS, what="the split of ScanObjectNN's raw scans")
    root = require(data, "object_dataset", ".", what="the raw scans of ScanObjectNN")
    places = {
        file: Path(parent) / file for parent, _, files in os.walk(root) for file in files if file.endswith(".bin")
    }
    names, labels, missing = [], [], []
    for number, line in enumerate(read_lines(path), 1):
        parts = line.split("\t")
        label = whole_number(parts[1]) if len(parts) > 1 else None
        if label is None:
            raise FormatError(f"{path}: line {number} is {line[:60]!r}, expected ID.bin, a tab and a label.")
        if (len(parts) > 2 and parts[2].strip() == "t") != (split == "test"):
            continue
        name = parts[0].strip()
        if name in places:
            names.append(name)
            labels.append(label)
        else:
            missing.append(name)
    if not names:
        raise FormatError(f"{root}: none of the {len(missing):,} scans of {path.name} is there, such as {missing[:1]}.")

    def load(row: int) -> Cloud:
        return _read_bin(places[names[row]], colours=options["colours"] == "file")

    return names, labels, load, places, [f"raw scans, {split}: all points of each"], missing


def _read_bin(path: Path, *, colours: bool) -> Cloud:
    """float32: how many points, then eleven numbers a point."""
    if path.stat().st_size > _MAX_BIN:
        raise FormatError(f"{path}: has {path.stat().st_size:,} bytes, more than {_MAX_BIN:,}.")
    values = np.fromfile(path, "<f4")
    count = int(values[0]) if len(values) and np.isfinite(values[0]) else -1
    if count < 1 or len(values) != count * _COLUMNS + 1:
        raise FormatError(
            f"{path}: has {len(values):,} numbers, expected {_COLUMNS} a point and their count first. Fetch it again."
        )
    rows = values[1:].reshape(count, _COLUMNS)
    cloud = as_cloud(rows, str(path))
    return with_colours(cloud, rows[:, 6:9], str(path), scale=255.0) if colours else cloud


_LAYOUTS: dict[str, Callable[[Path, Mapping[str, Any]], Loaded]] = {"h5": _h5, "npy": _npy, "bin": _raw_scans}
