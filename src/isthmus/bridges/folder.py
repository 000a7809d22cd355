"""The bridge folder: bridge.json, projectors.safetensors, history.jsonl, README.md. Written whole, read lazily."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.files import read_json, sha256_file, write_json
from isthmus.core.json_text import json_limit, parse_json
from isthmus.core.messages import one_line
from isthmus.core.replace import Product, replaced_folder
from isthmus.core.version import __version__
from isthmus.errors import BridgeError, FormatError

FORMAT = "isthmus-bridge"
FORMAT_VERSION = 1
MANIFEST, ARRAYS, HISTORY, CARD = "bridge.json", "projectors.safetensors", "history.jsonl", "README.md"
FILES = (MANIFEST, ARRAYS, HISTORY, CARD)
DTYPES = {"F16": "float16", "F32": "float32", "U8": "uint8"}


class LazyArrays(Mapping[str, NDArray[Any]]):
    """The arrays of a safetensors file, each read, and checked to be finite, when it is first asked for.

    The file stays open, so that a bridge saved over the one that it was loaded from can still be read.
    """

    def __init__(self, path: Path) -> None:
        import safetensors

        self.path = path
        try:
            file: Any = safetensors.safe_open(str(path), framework="numpy")
            slices = {name: file.get_slice(name) for name in list(file.keys())}
        except safetensors.SafetensorError as error:
            raise BridgeError(
                f"{path}: no safetensors file, or a damaged one ({one_line(error)}). Copy the bridge again."
            ) from error
        self._file = file
        self._shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        self._dtypes = {name: str(part.get_dtype()) for name, part in slices.items()}
        self._read: dict[str, NDArray[Any]] = {}
        for name, dtype in self._dtypes.items():
            if dtype not in DTYPES:
                raise BridgeError(f"{path}: array {name!r} is {dtype}. Expected {' or '.join(DTYPES.values())}.")

    def __reduce__(self) -> tuple[type[LazyArrays], tuple[Path]]:
        # Another process opens the file for itself.
        return LazyArrays, (self.path.resolve(),)

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._read:
            if name not in self._shapes:
                raise KeyError(name)
            array = self._file.get_tensor(name)
            if not np.isfinite(array).all():
                raise BridgeError(f"{self.path}: array {name!r} holds NaN or infinite values. Train the bridge again.")
            array.flags.writeable = False
            self._read[name] = array
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def __contains__(self, name: object) -> bool:
        return name in self._shapes

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array, known without reading it."""
        return self._shapes[name]

    def dtype(self, name: str) -> str:
        """Dtype of an array, known without reading it."""
        return DTYPES[self._dtypes[name]]


def write_folder(
    path: Path,
    manifest: Mapping[str, Any],
    *,
    arrays: Mapping[str, NDArray[Any]],
    history: Iterable[Mapping[str, Any]],
    card: str,
    overwrite: bool = False,
) -> None:
    """Write a bridge folder beside `path` and rename it whole.

    Args:
        path: The folder to be.
        manifest: What `bridge.json` says; the format version and the hash of the arrays are put in front.
        arrays: float16 or float32 arrays by name.
        history: Lines of `history.jsonl`.
        card: Text of the model card.
        overwrite: Replace a bridge that lies at `path`. Anything else that lies there is never replaced.

    Raises:
        BridgeError: Something lies at `path`, or an array is not finite.
        OSError: The disk refuses (full, no permission); nothing is left behind and `path` is as it was.
    """
    checked = {name: _savable(name, array) for name, array in arrays.items()}
    from safetensors.numpy import save_file

    with replaced_folder(path, BRIDGE, overwrite=overwrite) as folder:
        save_file(checked, str(folder / ARRAYS))
        with open(folder / HISTORY, "w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(plain(line), allow_nan=False) + "\n" for line in history)
        (folder / CARD).write_text(_sealed(card), encoding="utf-8")
        # safetensors writes for the owner alone; a bridge is shared like any other file.
        shutil.copymode(folder / CARD, folder / ARRAYS)
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, "projectors_sha256": sha256_file(folder / ARRAYS)}
        write_json(folder / MANIFEST, head | plain(manifest))


def read_folder(path: Path) -> tuple[dict[str, Any], LazyArrays, list[dict[str, Any]]]:
    """Read a bridge folder: manifest, arrays (lazily) and history.

    Raises:
        BridgeError: The folder is missing, is no bridge, is not whole, is of a newer format, or was changed.
    """
    path = Path(path)
    if not (path / MANIFEST).is_file():
        raise BridgeError(_no_bridge(path))
    try:
        manifest = read_json(path / MANIFEST, kind="bridge manifest")
    except FormatError as error:
        raise BridgeError(str(error)) from error
    _check_version(path / MANIFEST, manifest.get("format_version"))
    for name in (ARRAYS, HISTORY):
        if not (path / name).is_file():
            raise BridgeError(f"{path}: {name} is missing, the bridge is not whole. Copy or download it again.")
    if manifest.get("projectors_sha256") != (got := sha256_file(path / ARRAYS)):
        wanted = str(manifest.get("projectors_sha256"))[:12]
        raise BridgeError(
            f"{path / ARRAYS}: its sha256 is {got[:12]}..., {MANIFEST} says {wanted}.... Copy the bridge again."
        )
    return manifest, LazyArrays(path / ARRAYS), _read_history(path / HISTORY)


def plain(value: Any) -> Any:
    """The value as json can hold it: numpy numbers and arrays, tuples and paths become plain ones, NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


_SEAL = "<!-- written by isthmus, sha256 of the text above: "


def _sealed(card: str) -> str:
    """A card with a hash of its text in a comment at its end, which tells a card that somebody edited."""
    card = card.rstrip("\n") + "\n\n"
    return f"{card}{_SEAL}{hashlib.sha256(card.encode()).hexdigest()} -->\n"


def bridge_files(path: Path) -> set[str]:
    """Names of the files of a whole bridge.

    Raises:
        BridgeError: It is no whole bridge, or its card was edited since: that is the user's own text.
    """
    read_folder(path)
    if (path / CARD).is_file():
        text = (path / CARD).read_text(encoding="utf-8", errors="replace")
        if text != _sealed(text.partition(_SEAL)[0]):
            raise BridgeError(f"its {CARD} was edited")
    return set(FILES)


BRIDGE = Product("bridge", MANIFEST, bridge_files, BridgeError)


def _savable(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """An array as it is written to the bridge's folder, refused if it is not finite or of another type."""
    array = np.ascontiguousarray(array)
    if array.dtype.name not in DTYPES.values():
        raise BridgeError(
            f"array {name!r} is {array.dtype}. Expected {' or '.join(DTYPES.values())}; a bridge holds nothing else."
        )
    if not np.isfinite(array).all():
        raise BridgeError(f"array {name!r} holds NaN or infinite values, so the bridge is not saved. Train it again.")
    return array


def _no_bridge(path: Path) -> str:
    """Message for a path that is no bridge's folder."""
    if not path.exists():
        return f"{path}: no such bridge. Check the path, or make one: isthmus extend BASE LEAF --via M --out {path}."
    if not path.is_dir():
        return f"{path}: a bridge is a folder, got a file. Give the folder that holds {MANIFEST}."
    if (path / "space.json").exists():
        return f"{path}: is a space, expected a bridge (a folder with {MANIFEST}). Make one with: isthmus extend."
    return f"{path}: is no bridge, or not a whole one: it has no {MANIFEST}. Copy it again, or make it again."


def _check_version(path: Path, version: Any) -> None:
    """Refuse a bridge's folder of a format that this version does not read."""
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BridgeError(
            f"{path}: format_version is {version!r}, expected a number from 1 to {FORMAT_VERSION}. This is no bridge."
        )
    if version > FORMAT_VERSION:
        raise BridgeError(
            f"{path}: format_version {version} is newer than the {FORMAT_VERSION} that isthmus {__version__} reads. "
            "Upgrade it: pip install -U isthmus."
        )


def _read_history(path: Path) -> list[dict[str, Any]]:
    """The lines of a history, each a json object.

    Raises:
        BridgeError: It is longer than a history is, or a line is none.
    """
    if (size := path.stat().st_size) > json_limit():
        raise BridgeError(
            f"{path}: has {size:,} bytes, more than {json_limit():,}. Copy the bridge again; ISTHMUS_MAX_JSON raises "
            "the limit."
        )
    lines = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            value = parse_json(line)
        except (ValueError, RecursionError) as error:
            raise BridgeError(
                f"{path}, line {number}: is no json ({one_line(error)}). Copy the bridge again."
            ) from error
        if not isinstance(value, dict):
            raise BridgeError(
                f"{path}, line {number}: got a {type(value).__name__}, expected a json object. Copy the bridge again."
            )
        lines.append(value)
    return lines


def relative_place(path: str | None, start: Path) -> str | None:
    """Place of a space as it is written into the bridge's folder, relative to that folder."""
    if path is None:
        return None
    try:
        return Path(os.path.relpath(path, start)).as_posix()
    except ValueError:  # another drive
        return path


def absolute_place(path: str | None, start: Path) -> str | None:
    """Place of a space as it is read from the bridge's folder."""
    return None if path is None else os.path.realpath(os.path.join(os.path.realpath(start), path))
