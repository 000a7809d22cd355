"""Spaces in object stores, `s3://bucket/clip.space`, through fsspec: read and written by way of a copy on this machine.

Readers and writers need files that can be mapped into memory, so that a space is brought here first, below
`ISTHMUS_CACHE` (default `~/.cache/isthmus`): its manifest, then the shards whose markers differ from those that are
here already, each checked against the hash in its marker. What is written is put into a working copy that a killed
command goes on from, and sent when it is whole: shards first, then their markers, the manifest last. A reader
sees the space before or after; one that reads while shards are replaced notices it by their hashes and begins again.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from isthmus.core.files import read_json, sha256_file, write_json
from isthmus.errors import CheckFailed, ConfigError, IsthmusError, SpaceError
from isthmus.spaces.manifest import MANIFEST, lock, read_manifest
from isthmus.spaces.product import REJECTED, SOURCES, SPACE_FILES, space_files
from isthmus.spaces.remote_folder import RemoteFolder, remote_url
from isthmus.spaces.shards import Layout, link_or_copy

Args = ParamSpec("Args")
Returned = TypeVar("Returned")

_TRIES = 3


def holds_space(path: str | Path) -> bool:
    """Whether a space lies at a path or URL.

    Raises:
        SpaceError: The store does not answer.
        DependencyError: What reads the store is not installed.
    """
    url = remote_url(path)
    return (Path(path) / MANIFEST).is_file() if url is None else RemoteFolder(url).read(MANIFEST) is not None


def fetch_space(url: str) -> Path:
    """Bring a space from a store; returns the folder of its copy, which must not be written to.

    Raises:
        SpaceError: No whole space lies there, or the store does not answer.
        DependencyError: What reads the store is not installed.
    """
    remote, place = RemoteFolder(url), _copy_folder(url, "read")
    with lock(place.parent, wait=True):
        for _ in range(_TRIES):
            if _bring(remote, place):
                return place
    raise SpaceError(f"{url}: is changed while it is read. Wait for its writer to end, then run the command again.")


@contextmanager
def written_space(url: str) -> Iterator[Path]:
    """Yield the folder of a working copy of a space, which is sent to the store when the block ends well.

    A command that ends as failed after good work was kept sends it too. One that was killed leaves its copy, and the
    next one goes on from it, unless the space in the store has changed since.

    Raises:
        SpaceError: Another process of this machine writes the space, or it was changed in the store meanwhile.
    """
    remote, work = RemoteFolder(url), _copy_folder(url, "write")
    note = work.parent.parent / "begun.json"
    with lock(work.parent, wait=False) as mine:
        if not mine:
            raise SpaceError(f"{url}: another process is writing it. Wait for it to end, or stop it.")
        remote.check_writable()
        base = remote.manifest_hash()
        begun = read_json(note, kind="note") if note.is_file() and work.exists() else None
        if begun and begun["base"] == base and begun["whole"]:  # killed while it was sent
            base = _send(remote, work, note, base)
        elif begun is None or begun["base"] != base:
            shutil.rmtree(work, ignore_errors=True)
        if not work.exists() and base is not None:
            _linked(fetch_space(url), work)
        write_json(note, {"base": base, "whole": False})
        try:
            yield work
        except CheckFailed:
            _send(remote, work, note, base)
            raise
        _send(remote, work, note, base)


def writes_space(place: str) -> Callable[[Callable[Args, Returned]], Callable[Args, Returned]]:
    """Let a function that writes a space on disk write one in a store: the argument `place` may be a URL.

    What it returns and the faults that it raises name the URL; spaces are opened anew from there.
    """

    def decorate(function: Callable[Args, Returned]) -> Callable[Args, Returned]:
        parameters = inspect.signature(function)

        @functools.wraps(function)
        def sent(*args: Args.args, **kwargs: Args.kwargs) -> Returned:
            given = parameters.bind(*args, **kwargs)
            url = remote_url(given.arguments[place])
            if url is None:
                return function(*args, **kwargs)
            if _is_part(given.arguments):
                raise ConfigError(
                    f"{url}: parts of several machines (--shard, --engine ray) need a folder that all of them see. "
                    "Write a space for each, and put them together: isthmus merge."
                )
            with written_space(url) as folder:
                given.arguments[place] = folder
                try:
                    found = function(*given.args, **given.kwargs)
                except IsthmusError as error:
                    error.args = (str(error).replace(str(folder), url), *error.args[1:])
                    raise
            return cast(Returned, _renamed(found, str(folder), url))

        return sent

    return decorate


def _is_part(arguments: dict[str, Any]) -> bool:
    """Whether a call is of one part of several, by its options, further keywords or distribution."""
    options, changes = arguments.get("options"), arguments.get("changes", {})
    shard = changes.get("shard", getattr(options, "shard", None))
    engine = changes.get("engine", getattr(options, "engine", "local"))
    return bool(shard is not None or engine == "ray" or getattr(arguments.get("distribution"), "cuts", False))


def _renamed(found: Any, folder: str, url: str) -> Any:
    from isthmus.spaces.space import Space, open_space

    if isinstance(found, Space):
        return open_space(url)
    if isinstance(found, str):
        return found.replace(folder, url)
    if is_dataclass(found) and not isinstance(found, type):
        texts = {one.name: getattr(found, one.name) for one in fields(found)}
        return replace(found, **{name: _renamed(text, folder, url) for name, text in texts.items()})
    return {name: _renamed(value, folder, url) for name, value in found.items()} if type(found) is dict else found


def _copy_folder(url: str, use: str) -> Path:
    """Where the copy of a space lies; the folder that it lies in is made."""
    home = os.environ.get("ISTHMUS_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "isthmus"
    folder = Path(home).expanduser() / "spaces" / hashlib.sha256(url.encode()).hexdigest()[:20] / use
    folder.mkdir(parents=True, exist_ok=True)
    return folder / url.rpartition("/")[2]


def _bring(remote: RemoteFolder, place: Path) -> bool:
    """Make a folder the space that lies in the store; False where that was changed meanwhile."""
    text = remote.read(MANIFEST)
    if text is None:
        raise SpaceError(f"{remote.url}: no such space. Check the address: there is no {MANIFEST} in it.")
    stage = place.with_name(f".{place.name}.partial")
    stage.mkdir(exist_ok=True)
    (stage / MANIFEST).write_bytes(text)
    try:
        entries = read_manifest(stage)["modalities"]
    except SpaceError as error:
        raise SpaceError(str(error).replace(str(stage), remote.url)) from error
    beside = [place, place.parent.parent / "write" / place.name]
    for modality, entry in entries.items():
        for index in range(entry["shards"]):
            if not _bring_shard(remote, Layout(stage / modality, modality), index, stage, beside):
                return False
        for name in (f"{modality}/{REJECTED}", f"{modality}/{SOURCES}"):
            content = remote.read(name)
            if content is not None:
                (stage / name).parent.mkdir(parents=True, exist_ok=True)
                (stage / name).write_bytes(content)
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    with suppress(FileNotFoundError):
        place.rename(old)
    stage.rename(place)
    shutil.rmtree(old, ignore_errors=True)
    return True


def _bring_shard(remote: RemoteFolder, layout: Layout, index: int, stage: Path, beside: list[Path]) -> bool:
    """Link a shard from a copy that has the same marker, or bring it; False where it is not what its marker says."""
    marker = layout.marker(index)
    text = remote.read(marker.relative_to(stage).as_posix())
    try:
        seals = json.loads(text or b"")
        wanted = {path: seals[key]["sha256"] for path, key in (
            (layout.embeddings(index), "embeddings"), (layout.metadata(index), "metadata")
        )}  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise SpaceError(
            f"{remote.url}/{marker.relative_to(stage).as_posix()}: is missing or damaged. The space is not whole: send "
            "it again from where it was made."
        ) from error
    for path, expected in wanted.items():
        name = path.relative_to(stage)
        if path.is_file() and sha256_file(path) == expected:
            continue  # of a transfer that was interrupted
        path.parent.mkdir(parents=True, exist_ok=True)
        twin = next((one / name for one in beside if _reads(one / marker.relative_to(stage)) == text), None)
        if twin is not None and twin.is_file():
            path.unlink(missing_ok=True)
            link_or_copy(twin, path)
            continue
        part = path.with_name(f".{path.name}.part")
        remote.get(name.as_posix(), part)
        if sha256_file(part) != expected:
            return False
        part.replace(path)
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_bytes(text or b"")
    return True


def _reads(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _linked(source: Path, target: Path) -> None:
    """A copy of a space whose shards are shared with it."""
    for path in source.rglob("*"):
        if path.is_file():
            new = target / path.relative_to(source)
            new.parent.mkdir(parents=True, exist_ok=True)
            (link_or_copy if path.suffix == ".npy" else shutil.copy2)(path, new)


def _send(remote: RemoteFolder, work: Path, note: Path, base: str | None) -> str | None:
    """Send a working copy, the manifest last, and drop it; returns the hash of the manifest that lies there then."""
    if not (work / MANIFEST).is_file():
        shutil.rmtree(work, ignore_errors=True)
        return base
    if remote.manifest_hash() != base:
        raise SpaceError(f"{remote.url}: was changed by another machine meanwhile. Run the command again.")
    names = space_files(work)
    write_json(note, {"base": base, "whole": True})
    markers = {name for name in names if SPACE_FILES.fullmatch(name) and "/_done/" in name}
    for marker in sorted(markers):
        if remote.read(marker) != (work / marker).read_bytes():
            modality, index = marker.partition("/")[0], int(Path(marker).stem)
            layout = Layout(work / modality, modality)
            for path in (layout.embeddings(index), layout.metadata(index), layout.marker(index)):
                remote.put(path, path.relative_to(work).as_posix())
    for name in sorted(name for name in names if name.endswith((REJECTED, SOURCES))):
        remote.put(work / name, name)
    remote.put(work / MANIFEST, MANIFEST)
    remote.remove_others(names)
    fetch_space(remote.url)  # nothing is transferred: the copy for readers links what was just sent
    shutil.rmtree(work, ignore_errors=True)
    note.unlink(missing_ok=True)
    return remote.manifest_hash()
