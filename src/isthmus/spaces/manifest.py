"""`space.json`: what a space is, who made each modality, which shards count. Read with checks, changed under a lock."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from isthmus.core.files import read_json, sha256_json, sweep, write_json
from isthmus.core.version import __version__
from isthmus.errors import FormatError, SpaceError

MANIFEST = "space.json"
FORMAT = "isthmus-space"
FORMAT_VERSION = 1
DTYPES = ("float16", "float32")
IDENTITY = ("library", "id", "revision", "weights_sha256")
WHOLE, WRITING, APPENDING = "whole", "writing", "appending"
_MODALITY = re.compile(r"[a-z][a-z0-9_]*")
_MAX_DIM = 2**20


def check_modality(name: object) -> str:
    """Return `name` if it can be a modality, that is a lower-case identifier, and raise SpaceError otherwise."""
    if not isinstance(name, str) or not _MODALITY.fullmatch(name) or len(name) > 64:
        raise SpaceError(
            f"{name!r} cannot name a modality. Expected a lower-case word such as text, image, audio or point_cloud."
        )
    return name


def is_modality(name: object) -> bool:
    """Whether a text can name a modality."""
    return isinstance(name, str) and len(name) <= 64 and bool(_MODALITY.fullmatch(name))


def check_dim(dim: int, where: object) -> None:
    """Raise SpaceError if a space cannot have a dimension: one that is written must also be read."""
    if not 1 <= dim <= _MAX_DIM:
        raise SpaceError(f"{where}: a space has a dim from 1 to {_MAX_DIM:,}, got {dim:,}. Project the rows first.")


def check_dtype(dtype: str | None) -> None:
    """Raise SpaceError if embeddings cannot be stored as `dtype`; None stands for the default."""
    if dtype is not None and dtype not in DTYPES:
        raise SpaceError(f"embeddings are stored as {' or '.join(DTYPES)}, got dtype {dtype!r}. Give one of the two.")


def today() -> str:
    """The day, UTC: enough for provenance, and two runs on one day give the same bytes."""
    return time.strftime("%Y-%m-%d", time.gmtime())


def identity(encoder: str | Mapping[str, Any] | None, *, name: str) -> dict[str, Any]:
    """The encoder identity that a modality records.

    Args:
        encoder: An identity; an id, optionally `id@revision`, that the user declares; or None when nobody knows.
        name: Name of the space, which stands in for an unknown encoder.

    Raises:
        SpaceError: The identity lacks an id or holds something else than text.
    """
    if encoder is None:
        return {"library": "unknown", "id": name, "revision": None, "weights_sha256": None}
    if isinstance(encoder, str):
        head, at, revision = encoder.partition("@")
        encoder = {"library": "declared", "id": head, "revision": revision if at and revision else None}
    known = {key: encoder.get(key) for key in IDENTITY}
    if not isinstance(known["id"], str) or not known["id"].strip():
        raise SpaceError(
            f"an encoder needs an id, got {known['id']!r}. Expected text such as 'openai/clip-vit-base-patch32'."
        )
    if wrong := [key for key, value in known.items() if not isinstance(value, str | None)]:
        raise SpaceError(
            f"the encoder's {wrong[0]} must be text, got {known[wrong[0]]!r}. Expected the keys {', '.join(IDENTITY)}."
        )
    return {
        "library": "declared",
        **{key: value for key, value in known.items() if value is not None or key != "library"},
    }


def fingerprint(entry: Mapping[str, Any], dim: int) -> str:
    """Hash of what made a modality (encoder identity, preprocessing, dim) and never of its rows."""
    encoder = {key: entry["encoder"].get(key) for key in IDENTITY}
    return sha256_json({"encoder": encoder, "preprocessing": entry.get("preprocessing") or {}, "dim": dim})


def new_manifest(name: str, dim: int) -> dict[str, Any]:
    """The manifest of a space without modalities."""
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "name": name, "dim": dim, "normalized": True}
    return {**head, "created": today(), "isthmus": __version__, "modalities": {}}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check `space.json`.

    Raises:
        SpaceError: The folder is missing or no space, of a newer format, or its manifest is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise SpaceError(_no_space(folder))
    try:
        manifest = read_json(path, kind="space manifest")
    except FormatError as error:
        raise SpaceError(str(error)) from error
    version = manifest.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise SpaceError(
            f"{path}: format_version is {version!r}, expected a number from 1 to {FORMAT_VERSION}. This is no manifest "
            "of a space."
        )
    if version > FORMAT_VERSION:
        raise SpaceError(
            f"{path}: format_version {version} is newer than the {FORMAT_VERSION} that isthmus {__version__} reads. "
            "Upgrade it: pip install -U isthmus."
        )
    if fault := _fault(manifest):
        raise SpaceError(
            f"{path}: {fault}. The manifest is damaged: restore it from a copy, or import the embeddings again."
        )
    return manifest


def _no_space(folder: Path) -> str:
    """Message for a path that is no space."""
    if not folder.exists():
        return (
            f"{folder}: no such space. Check the path, or make one with: isthmus import FILE --into {folder} "
            "--modality MODALITY."
        )
    if not folder.is_dir():
        return (
            f"{folder}: a space is a folder, got a file. Import it first: isthmus import {folder} --into NAME.space "
            "--modality MODALITY."
        )
    if next(folder.glob("*_emb"), None) is not None:
        return (
            f"{folder}: no {MANIFEST}, but it looks like a clip-retrieval folder. "
            f"Import it first: isthmus import {folder} --into NAME.space --modality MODALITY."
        )
    if (folder / "bridge.json").exists():
        return f"{folder}: is a bridge, expected a space (a folder with {MANIFEST}). Give the space itself."
    return (
        f"{folder}: is no space, it has no {MANIFEST}. Make one with: isthmus import FILE --into NAME.space --modality "
        "MODALITY."
    )


def _fault(manifest: Mapping[str, Any]) -> str | None:
    """What is wrong with a manifest of our version, or None."""
    if not isinstance(manifest.get("name"), str) or "\0" in manifest["name"]:
        return f"name is {ascii(manifest.get('name'))[:60]}, expected text"
    if not _count(manifest.get("dim"), 1, _MAX_DIM):
        return f"dim is {manifest.get('dim')!r}, expected a number from 1 to {_MAX_DIM:,}"
    modalities = manifest.get("modalities")
    if not isinstance(modalities, dict):
        return f"modalities is {type(modalities).__name__}, expected an object"
    for modality, entry in modalities.items():
        if not is_modality(modality):
            return f"{modality[:80]!r} cannot name a modality"
        if not isinstance(entry, dict):
            return f"modalities.{modality} is {type(entry).__name__}, expected an object"
        if fault := _entry_fault(entry):
            return f"modalities.{modality}.{fault}"
    return None


def _entry_fault(entry: Mapping[str, Any]) -> str | None:
    """What is wrong with a modality's entry in a manifest, or None."""
    for key in ("rows", "shards"):
        if not _count(entry.get(key), 0, 2**48):
            return f"{key} is {entry.get(key)!r}, expected a number"
    for key, allowed in (("dtype", DTYPES), ("state", (WHOLE, WRITING, APPENDING))):
        if entry.get(key) not in allowed:
            return f"{key} is {entry.get(key)!r}, expected one of {', '.join(allowed)}"
    for key in ("encoder", "preprocessing"):
        if not isinstance(entry.get(key), dict):
            return f"{key} is {type(entry.get(key)).__name__}, expected an object"
    for key in IDENTITY:
        value, needed = entry["encoder"].get(key), key in ("library", "id")
        if not isinstance(value, str if needed else str | None):
            return f"encoder.{key} is {ascii(value)[:60]}, expected text"
    return None


def _count(value: object, low: int, high: int) -> bool:
    """Whether a value is a whole number within bounds."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def default_name(folder: Path) -> str:
    """Name of a space from its folder: `clip` for `clip.space`."""
    return folder.absolute().stem


def _hidden(path: Path, folder: Path) -> bool:
    """Whether a file lies in a hidden folder."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def check_target(
    folder: Path, modality: str, *, dim: int, info: Mapping[str, Any], name: str | None = None
) -> dict[str, Any] | None:
    """Check that rows of a modality may be added at `folder`; returns the space's manifest, or None.

    Raises:
        SpaceError: The space has another name or dim, the modality was made by another encoder or preprocessing, or
            something else than a space lies there.
    """
    if not (folder / MANIFEST).exists():
        # A writer that was killed before its first manifest leaves empty folders, hidden files and hidden folders.
        if folder.is_file() or any(path.is_file() and not _hidden(path, folder) for path in folder.rglob("*")):
            raise SpaceError(f"{folder}: exists and is no space. Give a new path, such as NAME.space.")
        return None
    known = read_manifest(folder)
    if known["dim"] != dim:
        raise SpaceError(
            f"{folder}: embeddings of dim {dim} do not belong in a space of dim {known['dim']}. Give another folder."
        )
    if name is not None and name != known["name"]:
        raise SpaceError(
            f"{folder}: the space is named {known['name']!r}, got the name {name!r}. Leave the name out, or give "
            "another folder."
        )
    entry = known["modalities"].get(modality)
    if entry is None:
        return known
    pairs = [("encoder", identity(info["encoder"], name=known["name"]))] if info.get("encoder") is not None else []
    pairs += [("preprocessing", info["preprocessing"])] if info.get("preprocessing") is not None else []
    for key, new in pairs:
        old = {k: entry[key].get(k) for k in new} if key == "encoder" else entry[key]
        if old != new:
            raise SpaceError(
                f"{folder}: {modality!r} was made with {key} {_brief(old)}, got {_brief(new)}. "
                "Embeddings of two encoders are two spaces: give another folder."
            )
    return known


def _brief(value: Mapping[str, Any]) -> str:
    """What is known of an encoder, in one line."""
    return str({k: v for k, v in value.items() if v is not None})


@contextmanager
def change(folder: Path, *, name: str, dim: int) -> Iterator[dict[str, Any]]:
    """Yield the manifest (a new one where there is none) to be changed; it is written when the block ends well.

    Other processes that change the same manifest wait, so that two modalities can be written side by side.
    """
    with lock(folder, wait=True):
        sweep(folder / MANIFEST, held=True)
        manifest = read_manifest(folder) if (folder / MANIFEST).exists() else new_manifest(name, dim)
        yield manifest
        entries = manifest["modalities"].values()
        manifest["normalized"] = all(entry.get("normalized", True) for entry in entries)
        write_json(folder / MANIFEST, manifest)


@contextmanager
def lock(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a folder against other processes; a killed one lets go by itself. Without `wait`, False if another holds it.

    Where the system or the file system knows no such lock, nobody is kept out.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield True
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError:  # some network file systems
            pass
        yield True
    finally:
        with suppress(OSError):
            os.close(handle)
