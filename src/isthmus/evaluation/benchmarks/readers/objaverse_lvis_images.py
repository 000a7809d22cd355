"""Objaverse-LVIS, 3D to image and back: an object's own picture is what belongs to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.core.files import sha256_json
from isthmus.core.geometry import normalize
from isthmus.core.messages import one_line
from isthmus.core.modality import IMAGE, POINT_CLOUD
from isthmus.errors import ConfigError, FormatError, SpaceError
from isthmus.evaluation.benchmarks.readers.shared.annotations import whole_number
from isthmus.evaluation.benchmarks.readers.shared.captions import Folder
from isthmus.evaluation.benchmarks.readers.shared.lookup import IMAGES, option, require
from isthmus.evaluation.benchmarks.readers.shared.objaverse import LAYOUTS, Listed, find_objects, read_list
from isthmus.evaluation.benchmarks.task import ItemSet, Reading, Retrieval
from isthmus.items import Item
from isthmus.items.decoding.object_npy import read_object_npy
from isthmus.spaces.space import open_space
from isthmus.spaces.writer import ModalityWriter

OPTIONS: dict[str, Any] = {
    "image": "",
    "view": 0,
    "source": "files",
    "images": "",
    "space": "",
    "layout": "auto",
    "objects": "",
}

STORED_ENCODER = {"library": "open_clip", "id": "ViT-bigG-14/laion2b_s39b_b160k", "revision": None}
"""What made the features that OpenShape stores beside its clouds."""

_BLOCK = 512

ListedFiles = Sequence[tuple[Listed, Path]]
"""Objects of the list with the file of each that is there."""


def read(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Read Objaverse-LVIS for retrieval between objects and their pictures.

    The papers do not say which picture of an object they took, so it must be said here.

    Args:
        data: As of `objaverse_lvis.read`, and pictures.
        options: `image`: thumbnail, view (with its number `view`) or mean (of all views), which has no default.
            `source` of the pictures: files (`thumbnails/<uid>.jpg`, `views/<uid>/<number>.png`, or the folder
            `images`); stored (OpenShape's features, which fit only encoders of ViT-bigG-14's space); or space (the
            modality image of the `space` that you encoded, its ids `<uid>` or `<uid>/<number>`, suffixes left out).
            `layout` and `objects` as of `objaverse_lvis.read`.
        work: Features that are averaged or picked are written there as a space.

    Raises:
        FormatError: The list, all objects or all pictures are missing, or a file is another one.
        ConfigError: `image` is not said, or cannot be had of the source.
    """
    kind, source = _choices(options)
    path, objects, _ = read_list(data, option(options, "layout", LAYOUTS))
    unique = list({each.uid: each for each in objects}.values())
    files, missing = find_objects(data, unique, str(options.get("objects") or ""))
    side = _SOURCES[source](data, options, work, files)
    pictured = set(side.ids)
    items = [Item(each.uid, str(file)) for each, file in files if each.uid in pictured]
    missing += [each.uid for each, _ in files if each.uid not in pictured]
    which = f"view {options['view']}" if kind == "view" else {"mean": "the mean of all views"}.get(kind, kind)
    return Reading(
        Retrieval(ItemSet(POINT_CLOUD, items), side, [(item.id, item.id) for item in items]),
        missing,
        [
            f"{len(items):,} objects of {path.name} and as many pictures: {which}, of {source}",
            "only an object's own picture counts as found; which one the papers took is not said there",
        ],
    )


def _choices(options: Mapping[str, Any]) -> tuple[str, str]:
    """Picture and source that the options choose, which the papers leave open."""
    kinds = ("thumbnail", "view", "mean")
    if options.get("image") not in kinds:
        raise ConfigError(
            f"option 'image' got {options.get('image')!r}. Expected one of {', '.join(kinds)}: the papers do not say "
            "which picture of an object they took, so say it with --set image=thumbnail (or view, mean)."
        )
    source = option(options, "source", tuple(_SOURCES))
    if options["image"] == "mean" and source == "files":
        raise ConfigError(
            "option 'image' got 'mean' with source=files. Means are of embeddings: encode the views first (isthmus "
            "encode VIEWS --ids stem ...), then give --set source=space --set space=PATH."
        )
    if options["view"] < 0:
        raise ConfigError(f"option 'view' got {options['view']}. Expected the number of a view, from 0.")
    return options["image"], source


def _files(data: Path, options: Mapping[str, Any], work: Path, objects: ListedFiles) -> ItemSet:
    """Pictures themselves."""
    given = str(options.get("images") or "")
    if options["image"] == "thumbnail":
        folder = Folder(data, [given] if given else ["thumbnails", "images"], IMAGES)
        names = {each.uid: [each.uid] for each, _ in objects}
    else:
        folder = Folder(data, [given] if given else ["views", "renders", "images"], IMAGES)
        number = options["view"]
        forms = (str(number), f"{number:02d}", f"{number:03d}")
        names = {each.uid: [f"{each.uid}/{form}" for form in forms] for each, _ in objects}
    places = {uid: place for uid, own in names.items() if (place := folder.find(own)) is not None}
    if not places:
        uid, own = next(iter(names.items()))
        raise FormatError(
            f"{data}: no picture of the {len(names):,} objects is there (looked in {', '.join(folder.folders)} for "
            f"{own[0]!r}). Expected one for {uid}, or give --set source=stored or source=space."
        )
    return ItemSet(IMAGE, [Item(uid, str(place)) for uid, place in places.items()])


def _stored(data: Path, options: Mapping[str, Any], work: Path, objects: ListedFiles) -> ItemSet:
    """The features in OpenShape's records, written as a space."""
    kind, number = options["image"], options["view"]

    def features(at: int) -> Any:
        return _pick(_record(objects[at][1], kind), kind, number, objects[at][1])

    uids = [each.uid for each, _ in objects]
    files = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for _, file in objects]
    return _write(work, uids, features, {"kind": kind, "view": number, "files": files}, {"encoder": STORED_ENCODER})


def _record(path: Path, kind: str) -> Any:
    """Stored feature of an object's pictures, from a record of OpenShape."""
    key = "thumbnail_feat" if kind == "thumbnail" else "image_feat"
    value = read_object_npy(path) if path.suffix == ".npy" else _read_npz(path)
    if not isinstance(value, dict) or not isinstance(value.get(key), np.ndarray):
        raise FormatError(f"{path}: holds no {key}. Expected a record of OpenShape, with stored features.")
    return value[key]


def _read_npz(path: Path) -> dict[str, Any]:
    """Arrays of a .npz, never a pickle."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # zip, header and pickle faults, and what is no .npz at all
        raise FormatError(f"{path}: is no .npz of plain arrays ({one_line(error)}). Make it again.") from error


def _pick(features: Any, kind: str, number: int, place: Path | str) -> Any:
    """One embedding out of an object's: of its thumbnail, of a view, or the mean of the views' directions."""
    rows = np.atleast_2d(np.asarray(features, dtype=np.float32))
    if rows.ndim != 2 or (kind == "view" and number >= len(rows)):
        raise ConfigError(
            f"option 'view' got {number}, but {place} has {len(rows)} views. Expected 0 to {len(rows) - 1}."
        )
    return normalize(rows).mean(axis=0) if kind == "mean" else rows[number if kind == "view" else 0]


def _write(
    work: Path, uids: Sequence[str], features: Callable[[int], Any], settings: Mapping[str, Any], info: Any
) -> ItemSet:
    """Embeddings as a space in the work folder; one that was begun goes on, one that is whole is taken."""
    folder = work / f"images-{sha256_json(dict(settings))[:16]}.space"
    dim = len(features(0))
    if not (folder / "space.json").exists() or "image" not in _whole(folder):
        with ModalityWriter(folder, IMAGE, dim=dim, dtype="float32", info=info) as writer:
            todo = [at for at, uid in enumerate(uids) if uid not in writer.done_ids]
            for start in range(0, len(todo), _BLOCK):
                part = todo[start : start + _BLOCK]
                writer.append([uids[at] for at in part], np.stack([features(at) for at in part]))
    return ItemSet(IMAGE, embeddings=open_space(folder)[IMAGE])


def _whole(folder: Path) -> tuple[str, ...]:
    """Modalities of a space that is whole, or none."""
    try:
        return open_space(folder).modalities
    except SpaceError:
        return ()


def _space(data: Path, options: Mapping[str, Any], work: Path, objects: ListedFiles) -> ItemSet:
    """Pictures that the user encoded."""
    if not options.get("space"):
        raise ConfigError(
            "option 'space' is empty with source=space. Give the space of encoded pictures (--set space=PATH)."
        )
    images = open_space(require(data, str(options["space"]), what="the space of encoded pictures"))[IMAGE]
    uids = {each.uid for each, _ in objects}
    rows: dict[str, list[tuple[str, int]]] = {}
    for row, name in enumerate(images.ids):
        uid, _, view = name.partition("/")
        uid = uid if view else uid.partition(".")[0]
        if uid in uids and bool(view) == (options["image"] != "thumbnail"):
            rows.setdefault(uid, []).append((view.partition(".")[0], row))
    kind = options["image"]
    if kind == "view":
        rows = {uid: [pair for pair in own if whole_number(pair[0]) == options["view"]] for uid, own in rows.items()}
    chosen = {uid: [row for _, row in own] for uid, own in rows.items() if own}
    if not chosen:
        form = "<uid>" if kind == "thumbnail" else "<uid>/<number>"
        raise FormatError(
            f"{images.path}: no id is that of a picture of the objects. Expected ids {form}, as --ids stem gives."
        )
    names = list(chosen)

    def features(at: int) -> Any:
        return _pick(images.take(chosen[names[at]]), "mean" if kind == "mean" else "thumbnail", 0, images.path)

    settings = {
        "kind": kind,
        "view": options["view"],
        "space": str(images.path),
        "of": images.fingerprint,
        "ids": names,
    }
    return _write(work, names, features, settings, {key: images.info[key] for key in ("encoder", "preprocessing")})


_SOURCES: dict[str, Callable[[Path, Mapping[str, Any], Path, ListedFiles], ItemSet]] = {
    "files": _files,
    "stored": _stored,
    "space": _space,
}
