"""What a run of encoding is asked for, and what it reports."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from isthmus.core.modality import TEXT
from isthmus.encoders.protocol import Encoder
from isthmus.encoders.recorded import is_declared
from isthmus.errors import EncoderError, IsthmusWarning
from isthmus.items import Item
from isthmus.spaces.manifest import MANIFEST, read_manifest
from isthmus.spaces.shards import SHARD_ROWS
from isthmus.spaces.writer import ModalityWriter

if TYPE_CHECKING:
    import pyarrow as pa

_FEW = 64
_MOST_WORKERS = 16


class EncodeReport(TypedDict):
    """Report of `encode`, json-ready.

    Attributes:
        space: The space's folder.
        modality: What was encoded.
        encoder: Name of the encoder.
        rows: Rows of the modality in the space now, or in this part of it when the run was one shard of several.
        items: Items that were named.
        encoded: Rows that this run added.
        present: Items that were in the space, or in the journal of an interrupted run, before.
        rejected: Items that are in `rejected_file`.
        duplicates: Rows that were not encoded since their content was (`duplicates="once"`).
        truncated: Texts that were longer than the encoder takes and lost their end.
        rejected_file: Path of `rejected.parquet`; None when nothing was rejected.
        waiting_for: Shards that are not encoded yet; the space is joined when there are none.
        seconds: Wall-clock time, loading the encoder included.
        items_per_second: Over decoding and encoding alone.
        passed_over: Files and members that lay there and were not taken, by suffix.
        notes: What else was left out or is worth a look, a line each.
    """

    space: str
    modality: str
    encoder: str
    rows: int
    items: int
    encoded: int
    present: int
    rejected: int
    duplicates: int
    truncated: int
    rejected_file: str | None
    waiting_for: list[int]
    seconds: float
    items_per_second: float
    passed_over: dict[str, int]
    notes: list[str]


@dataclass(frozen=True)
class Settings:
    """Settings by which one modality is encoded into a space's folder.

    Attributes:
        encoder: The encoder.
        modality: One of the encoder's.
        info: What the manifest records.
        types: Arrow types of the items' further columns.
        name: Name of the space; None is the folder's.
        dtype: Type of the stored rows; None is that of the space.
        shard_rows: Most rows of a shard on disk; None is the default.
        batch_size: Items in one pass through the model.
        workers: Decoding processes; None chooses.
        once: Encode equal content once.
        quiet: Show no progress.
    """

    encoder: Encoder
    modality: str
    info: dict[str, Any]
    types: dict[str, pa.DataType]
    name: str | None = None
    dtype: str | None = None
    shard_rows: int | None = None
    batch_size: int = 32
    workers: int | None = None
    once: bool = False
    quiet: bool = False

    @property
    def group(self) -> int:
        """Items that are decoded, encoded and journalled together; more of texts, which are sorted by length inside."""
        return self.batch_size * (16 if self.modality == TEXT else 1)

    def writer(self, into: Path) -> ModalityWriter:
        """The writer of the modality in a space.

        Raises:
            SpaceError: The space does not take it.
        """
        return ModalityWriter(
            into,
            self.modality,
            dim=self.encoder.dim,
            dtype=self.dtype,
            info=self.info,
            name=self.name,
            shard_rows=self.shard_rows or SHARD_ROWS,
        )

    def decoder(self) -> Callable[[Item], Any]:
        """The encoder's decoder: without the model where the encoder offers it so, else its `decode`."""
        make = getattr(self.encoder, "decoder", None)
        return make(self.modality) if make is not None else _Decode(self.encoder, self.modality)

    def processes(self, items: int) -> int:
        """Number of processes that decode: none for texts, a few items, or a decoder that cannot leave its encoder."""
        if self.workers is not None:
            return self.workers
        if self.modality == TEXT or items < _FEW or not hasattr(self.encoder, "decoder"):
            return 0
        return min(cores(), _MOST_WORKERS)


@dataclass(frozen=True)
class _Decode:
    """`encoder.decode` for one modality."""

    encoder: Encoder
    modality: str

    def __call__(self, item: Item) -> Any:
        return self.encoder.decode(item, self.modality)


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def encoder_info(encoder: Encoder, modality: str, options: dict[str, Any]) -> dict[str, Any]:
    """Record that a space keeps of the encoder of one modality.

    Raises:
        EncoderError: The encoder's identity is no identity.
    """
    identity = {key: encoder.identity.get(key) for key in ("library", "id", "revision", "weights_sha256")}
    if not identity["library"] or not identity["id"]:
        raise EncoderError(
            f"encoder {encoder.name!r} has the identity {identity}. Expected at least a library and an id, as text."
        )
    info = {"encoder": identity, "preprocessing": encoder.preprocessing(modality), "encoder_name": encoder.name}
    return {**info, "encoder_options": options} if options else info


def as_declared(into: Path, modality: str, info: dict[str, Any]) -> dict[str, Any]:
    """What is recorded of an encoder whose rows join imported ones: as the import declared it, where it is that one."""
    entry = read_manifest(into)["modalities"].get(modality) if (into / MANIFEST).is_file() else None
    if entry is None or not is_declared(entry["encoder"], info["encoder"], info["encoder_name"]):
        return info
    warnings.warn(
        f"{into}: the encoder of its {modality!r} was declared at the import: rows of {info['encoder_name']!r} join "
        "them, and isthmus cannot tell whether the same weights and preprocessing made both.",
        IsthmusWarning,
        stacklevel=2,
    )
    return {"encoder": entry["encoder"], "preprocessing": entry.get("preprocessing") or {}}


def check_one_space(into: Path, manifest: dict[str, Any] | None, info: dict[str, Any]) -> None:
    """Refuse an encoder that is not the one of the space's other modalities. Identities that were only declared, or are
    unknown, cannot be compared.

    Raises:
        EncoderError: Another modality was made by another encoder.
    """
    new = info["encoder"]
    for other, entry in (manifest or {"modalities": {}})["modalities"].items():
        old = {key: entry["encoder"].get(key) for key in new}
        if old["library"] not in ("unknown", "declared") and old != new:
            differs = next(key for key in new if old[key] != new[key])
            raise EncoderError(
                f"{into}: its {other!r} was encoded by {old['id']!r}, got {new['id']!r} (another {differs}: "
                f"{old[differs]!r}, got {new[differs]!r}). Two encoders are two spaces: give another folder, or "
                "same_space=True if the two were trained into one space."
            )
