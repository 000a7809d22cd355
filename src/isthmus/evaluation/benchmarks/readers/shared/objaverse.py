"""Objaverse-LVIS: which objects it has and under what names, in the three lists that circulate and the source's own."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.core.messages import one_line
from isthmus.core.modality import POINT_CLOUD
from isthmus.errors import FormatError
from isthmus.evaluation.benchmarks.readers.shared.annotations import MAX_BYTES, field, read_json_file, read_lines
from isthmus.evaluation.benchmarks.readers.shared.captions import Folder
from isthmus.evaluation.benchmarks.readers.shared.lookup import require
from isthmus.items.find import SUFFIXES


@dataclass(frozen=True)
class Listed:
    """An object under one category.

    Attributes:
        uid: Its 32 hexadecimal digits.
        category: Its class as the list writes it.
        names: Where its file may lie, best first.
    """

    uid: str
    category: str
    names: Sequence[str]


FOLDERS = (".", "objaverse-processed", "objaverse_lvis", "objaverse-lvis", "test_datasets/objaverse_lvis")
_SHAPES = (".npy", ".npz", *(suffix for suffix in SUFFIXES[POINT_CLOUD] if suffix not in (".npy", ".npz")))

_LISTS = {
    "uni3d": ("lvis_testset.txt", "objaverse_lvis/lvis_testset.txt", "test_datasets/objaverse_lvis/lvis_testset.txt"),
    "json": ("lvis.json", "meta_data/split/lvis.json", "objaverse-lvis/lvis.json", "split/lvis.json"),
    "source": ("lvis-annotations.json.gz", "lvis-annotations.json"),
}
_METADATA = "objaverse_lvis_metadata.json"
LAYOUTS = ("auto", *_LISTS)


def read_list(data: Path, layout: str) -> tuple[Path, list[Listed], list[str]]:
    """The objects of a list, in its order, and the categories, also those that no listed object is of.

    Args:
        data: The folder that the user downloaded.
        layout: auto (the first that is there), "uni3d", "json" (OpenShape's or ULIP-2's `lvis.json`, which differ), or
            "source" (`lvis-annotations.json.gz` of the data set's own package, with the meshes).

    Raises:
        FormatError: No list is there, or it is another file.
    """
    lists = _LISTS if layout == "auto" else {layout: _LISTS[layout]}
    names = {name: key for key, files in lists.items() for name in files}
    path = require(data, *names, what="a list of Objaverse-LVIS")
    layout_of = names[path.relative_to(data).as_posix()]
    objects = _READ[layout_of](path)
    if not objects:
        raise FormatError(f"{path}: lists no object. Fetch it again.")
    categories = {each.category for each in objects}
    beside = path.parent / _METADATA
    if layout_of == "json" and beside.is_file():
        keys = read_json_file(beside, dict, "ULIP-2's names").get("all_keys", [])
        categories |= {key for key in keys if isinstance(key, str)} if categories <= set(map(str, keys)) else set()
    return path, objects, sorted(categories)


def find_objects(data: Path, objects: Sequence[Listed], extra: str = "") -> tuple[list[tuple[Listed, Path]], list[str]]:
    """The file of each object, and the uids of those without one.

    Raises:
        FormatError: No file is there.
    """
    folder = Folder(data, [*([extra] if extra else []), *FOLDERS], _SHAPES)
    places = [folder.find(each.names) for each in objects]
    present = [(each, place) for each, place in zip(objects, places, strict=True) if place is not None]
    if not present:
        names = ", ".join(repr(name) for name in objects[0].names[:3])
        raise FormatError(
            f"{data}: none of the {len(objects):,} objects of Objaverse-LVIS is there (looked for {names}). Expected "
            "one file an object; `isthmus benchmarks` says what to download and where it goes."
        )
    return present, [each.uid for each, place in zip(objects, places, strict=True) if place is None]


def _names(uid: str, group: str, *given: str) -> list[str]:
    """Where a file may lie: where its list says, then by group, then by its uid alone."""
    stems = [name.lstrip("/") for name in given if name]
    grouped = [f"Objaverse/{group}/{uid}", f"{group}/{uid}", f"glbs/{group}/{uid}"] if group else []
    return [*stems, *grouped, uid]


def _json(path: Path) -> list[Listed]:
    """Two files are called `lvis.json`: OpenShape's is a list of records, ULIP-2's an object of paths."""
    value = read_json_file(path, object, "a list of Objaverse-LVIS")
    if isinstance(value, list):
        return [_record(record, path, number) for number, record in enumerate(value)]
    if isinstance(value, dict):
        return _ulip2(path, value)
    raise FormatError(f"{path}: holds a {type(value).__name__}, expected the lvis.json of OpenShape or of ULIP-2.")


def _record(record: Any, path: Path, number: int) -> Listed:
    """Object of a list of Objaverse, with the names that its file may have."""
    uid, category = field(record, "uid", str, path, number), field(record, "category", str, path, number)
    return Listed(uid, category, _names(uid, str(record.get("group") or ""), str(record.get("data_path") or "")))


def _ulip2(path: Path, files: Mapping[str, Any]) -> list[Listed]:
    """Names are in a file of their own beside it."""
    beside = require(path.parent, _METADATA, what="the names of ULIP-2's objects")
    names = field(read_json_file(beside, dict, "ULIP-2's names"), "value_to_key_mapping", dict, beside, 0)
    objects = []
    for uid, file in files.items():
        if not isinstance(file, str) or not isinstance(names.get(uid), str):
            raise FormatError(f"{path}: the object {uid!r} has the path {str(file)[:60]!r}; {beside.name} calls it "
                              f"{str(names.get(uid))[:60]!r}. Expected texts: fetch both again.")  # fmt: skip
        objects.append(Listed(uid, names[uid], _names(uid, file.partition("/")[0] if "/" in file else "", file)))
    return objects


def _uni3d(path: Path) -> list[Listed]:
    """`number,name,uid,/path`."""
    objects = []
    for number, line in enumerate(read_lines(path), 1):
        left, _, file = line.strip().rpartition(",")
        left, _, uid = left.rpartition(",")
        index, comma, category = left.partition(",")
        if not comma or not index.strip().isdigit() or not uid:
            raise FormatError(
                f"{path}: line {number} is {line[:80]!r}, expected NUMBER,NAME,UID,/PATH. Fetch it again."
            )
        objects.append(Listed(uid, category, _names(uid, "", file)))
    return objects


def _source(path: Path) -> list[Listed]:
    """By category, uids; the paths of their meshes are in a file beside it."""
    categories = _read_gzip(path)
    beside = next((path.parent / name for name in ("object-paths.json.gz", "object-paths.json")
                   if (path.parent / name).is_file()), None)  # fmt: skip
    paths = _read_gzip(beside) if beside is not None else {}
    objects = []
    for category, uids in categories.items():
        if not isinstance(uids, list):
            raise FormatError(f"{path}: the category {category!r} has no list of uids. Fetch it again.")
        objects += [Listed(str(uid), category, _names(str(uid), "", str(paths.get(uid, "")))) for uid in uids]
    return objects


def _read_gzip(path: Path) -> dict[str, Any]:
    """JSON of a list of Objaverse, packed or not."""
    if path.suffix != ".gz":
        value: dict[str, Any] = read_json_file(path, dict, "a list of Objaverse")
        return value
    try:
        with gzip.open(path) as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise FormatError(f"{path}: unpacks to more than {MAX_BYTES:,} bytes. This is another file.")
        value = json.loads(content)
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: cannot be read as gzipped json ({one_line(error)}). Fetch it again.") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path}: holds a {type(value).__name__}, expected an object. Fetch it again.")
    return value


_READ: dict[str, Callable[[Path], list[Listed]]] = {"uni3d": _uni3d, "json": _json, "source": _source}
