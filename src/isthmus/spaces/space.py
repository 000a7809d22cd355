"""A pretrained space: its modalities on disk, and the checks before they are believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.core.arrays import ids_of, to_numpy
from isthmus.core.files import sha256_json
from isthmus.core.html import html_table
from isthmus.core.messages import one_line
from isthmus.core.replace import check_place, replaced_folder
from isthmus.errors import SpaceError
from isthmus.spaces.embeddings import Embeddings
from isthmus.spaces.manifest import WRITING, default_name, read_manifest
from isthmus.spaces.product import SPACE
from isthmus.spaces.remote import fetch_space, writes_space
from isthmus.spaces.remote_folder import remote_url
from isthmus.spaces.shards import SHARD_ROWS
from isthmus.spaces.writer import ModalityWriter

if TYPE_CHECKING:
    import pyarrow as pa


class Space:
    """A space on disk. `space["text"]` gives its `Embeddings`; nothing but sizes is read until it is used.

    Attributes:
        path: The folder; of a space in a store that of its copy on this machine.
        url: Where it lies, of a space in a store.
        name: Name of the space.
        dim: Length of an embedding, the same in all modalities.
        normalized: Whether all rows were measured to be of unit length.
        modalities: Names of the modalities that are whole.
        unfinished: Modalities of which rows are half written, with what is known of them; those rows are never shown.
        manifest: The content of `space.json`.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path, self.manifest = path, manifest
        self.url: str | None = None
        self.name: str = manifest["name"]
        self.dim: int = manifest["dim"]
        self.normalized: bool = bool(manifest.get("normalized"))
        entries: dict[str, dict[str, Any]] = manifest["modalities"]
        self.modalities: tuple[str, ...] = tuple(name for name, entry in entries.items() if entry["state"] != WRITING)
        self.unfinished: dict[str, dict[str, Any]] = {
            name: dict(entry.get("pending") or {}) for name, entry in entries.items() if entry["state"] != "whole"
        }
        self._embeddings = {name: Embeddings(path, name, manifest) for name in self.modalities}

    def __getitem__(self, modality: str) -> Embeddings:
        if modality in self._embeddings:
            return self._embeddings[modality]
        if modality in self.unfinished:
            raise SpaceError(unfinished(self.path, modality))
        raise SpaceError(
            f"{self.path}: space {self.name!r} has no modality {modality!r}. It has: "
            f"{', '.join(self.modalities) or 'none'}."
        )

    def __contains__(self, modality: object) -> bool:
        return modality in self._embeddings

    def __iter__(self) -> Iterator[str]:
        return iter(self.modalities)

    def __len__(self) -> int:
        return len(self.modalities)

    def fingerprint(self, modality: str) -> str:
        """Hash of what made a modality (encoder, preprocessing, dim), never of its rows."""
        return self[modality].fingerprint

    def with_modality(self, modality: str, embeddings: Embeddings) -> Space:
        """Make a view of this space in which a modality is what is given; nothing on disk changes.

        Args:
            modality: Its name, there already or new.
            embeddings: Embeddings of this space's dim.

        Raises:
            SpaceError: They have another dim.
        """
        if embeddings.dim != self.dim:
            raise SpaceError(f"space {self.name!r} has dim {self.dim}, got {embeddings!r} for its {modality!r}.")
        view = copy(self)
        view._embeddings = {**self._embeddings, modality: embeddings}
        view.modalities = tuple(view._embeddings)
        return view

    @property
    def content_hash(self) -> str:
        """Hash of all modalities that are whole: rows, ids, metadata and what made them."""
        return sha256_json({name: embeddings.content_hash for name, embeddings in self._embeddings.items()})

    def verify(self) -> dict[str, int]:
        """Hash every shard again.

        Returns:
            Bytes checked, by modality.

        Raises:
            SpaceError: A file is not the one that was written.
        """
        return {modality: embeddings.verify() for modality, embeddings in self._embeddings.items()}

    def __repr__(self) -> str:
        rows = ", ".join(f"{name} {len(embeddings):,}" for name, embeddings in self._embeddings.items())
        return f"Space({self.name!r}, dim {self.dim}: {rows})"

    def _repr_html_(self) -> str:
        rows = [
            (name, len(each), each.dtype, f"{each.info['encoder'].get('library', '')} {each.info['encoder']['id']}")
            for name, each in self._embeddings.items()
        ]
        header = ("modality", "items", "on disk", "encoder")
        return html_table(f"space {self.name}, {self.dim} dimensions", header, rows)


def unfinished(path: Path, modality: str) -> str:
    """The message about a modality whose writing was interrupted."""
    return (
        f"{path}: {modality!r} is not whole, its import or encoding was interrupted or still runs. "
        "Run the same command again: it goes on where it stopped."
    )


def open_space(path: str | Path) -> Space:
    """Open a space without reading its rows; one in a store is brought here first (see `isthmus.spaces.remote`).

    Args:
        path: The folder, or a URL such as "s3://bucket/clip.space".

    Raises:
        SpaceError: The folder is no space, of a newer format, or not whole. `Space.verify` checks every byte on top.
    """
    url = remote_url(path)
    folder = Path(path) if url is None else fetch_space(url)
    manifest = read_manifest(folder)
    space = Space(folder, manifest)
    space.url = url
    if not space.modalities:
        if space.unfinished:
            raise SpaceError(unfinished(folder, next(iter(space.unfinished))))
        raise SpaceError(
            f"{folder}: the space is empty. Add to it: isthmus import FILE --into {folder} --modality MODALITY."
        )
    return space


def as_space(space: Space | str | Path) -> Space:
    """A space as it is, or the one in a folder.

    Raises:
        SpaceError: It is neither, or the folder holds no whole space.
    """
    if isinstance(space, Space):
        return space
    if isinstance(space, str | Path):
        return open_space(space)
    raise SpaceError(f"expected a space or its folder, got a {type(space).__name__}. Give isthmus.open_space(PATH).")


@writes_space("path")
def make_space(
    path: str | Path,
    modalities: Mapping[str, Sequence[Any]],
    *,
    name: str | None = None,
    encoder: str | Mapping[str, Any] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    dtype: str = "float16",
    shard_rows: int = SHARD_ROWS,
    overwrite: bool = False,
) -> Space:
    """Write arrays in memory as a space, aside and renamed whole.

    Args:
        path: Folder to make, or a URL.
        modalities: By modality `(ids, array)` or `(ids, array, metadata)`: unique ids (texts, whole numbers), (n, dim)
            floats of numpy, torch, pandas, polars or Arrow, and a pyarrow table or a mapping of columns with n rows.
        name: Name of the space, by default the folder's: `clip` for `clip.space`.
        encoder: Identity of the encoder (library, id, revision, weights_sha256), or its id.
        preprocessing: Image size, sample rate and so on: what else the embeddings depend on.
        dtype: "float16" or "float32" on disk.
        shard_rows: Most rows of a shard.
        overwrite: Replace what lies at `path`.

    Raises:
        SpaceError: Something lies at `path`, or the arrays do not fit together.
    """
    folder = check_place(path, SPACE, overwrite=overwrite)
    if not modalities:
        raise SpaceError(f"{folder}: a space needs a modality. Give for example {{'image': (ids, array)}}.")
    info = {"encoder": encoder, "preprocessing": preprocessing}
    with replaced_folder(folder, SPACE, overwrite=overwrite) as aside:
        for modality, (ids, array, *rest) in modalities.items():
            x = to_numpy(array)
            if x.ndim != 2:
                raise SpaceError(f"{folder}: {modality!r} has embeddings of shape {x.shape}, expected (rows, dim).")
            try:
                table = _table(rest[0]) if rest and rest[0] is not None else None
                with ModalityWriter(
                    aside,
                    modality,
                    dim=x.shape[1],
                    dtype=dtype,
                    info=info,
                    name=name or default_name(folder),
                    shard_rows=shard_rows,
                ) as writer:
                    writer.append(ids_of(ids, f"{folder}: {modality!r}", SpaceError), x, table)
            except SpaceError as error:  # the user knows the folder by its own name
                raise SpaceError(str(error).replace(str(aside), str(folder))) from error
    return open_space(folder)


def _table(metadata: Any) -> pa.Table:
    import pyarrow as pa

    try:
        return metadata if isinstance(metadata, pa.Table) else pa.table(dict(metadata))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise SpaceError(
            f"metadata cannot be read as a table of columns ({one_line(error)}). Give lists of one length."
        ) from error
