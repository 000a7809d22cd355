"""An overlap of texts from a list: the texts encoded by each space's own text encoder, kept for the next time.

Ids come from the texts, so that all spaces share them. Encoding goes through the same resumable run as `isthmus encode`
into a space of its own in the cache, whose name is a hash of the weights, the preprocessing and the texts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.bridges.member import BridgeSpace, encoder_words
from isthmus.core.files import sha256_json
from isthmus.core.modality import TEXT
from isthmus.encoders.protocol import embed_items
from isthmus.errors import ConfigError, EncoderError, FingerprintError
from isthmus.items.item import Item
from isthmus.items.vocabulary import read_texts, text_id
from isthmus.spaces.manifest import WHOLE, read_manifest
from isthmus.spaces.space import Space, open_space

if TYPE_CHECKING:
    from isthmus.encoders.protocol import Encoder

PROBES = 64
"""Texts of a space that are encoded again to see that an encoder is its own."""
SAME = 0.98
"""Mean cosine from which an encoder gives a space's own texts back: half precision and other kernels stay above it."""


def share_texts(
    spaces: Sequence[Space],
    texts: str | Path | Iterable[str],
    *,
    encoders: Mapping[str, str | Encoder] | None = None,
    cache: str | Path | None = None,
    device: str | None = None,
    batch_size: int = 64,
    quiet: bool = False,
) -> list[Space]:
    """Give spaces the same texts, each embedded by its space's own text encoder.

    Args:
        spaces: Open spaces; nothing in their folders changes.
        texts: "builtin" (see `isthmus.load_vocabulary`), a file of texts, or the texts.
        encoders: By the space's name, an encoder or the name to load it by, where the space does not tell its own.
        cache: Folder that keeps the embeddings; None is that of the user (`ISTHMUS_CACHE`, or `~/.cache/isthmus`).
        device: Where the models go; None leaves it to them.
        batch_size: Texts in one pass through a model.
        quiet: Show no progress.

    Returns:
        The spaces in their order, each with the texts in its modality `text`, after those it has already. A text that
        a space has under the same id is not encoded again.

    Raises:
        EncoderError: No encoder of a space is known that reads text, or it cannot be loaded.
        FingerprintError: An encoder is not the space's own.
        ConfigError: There are no texts, or `encoders` names another space.
    """
    named = dict(encoders or {})
    if unknown := sorted(set(named) - {space.name for space in spaces}):
        known = ", ".join(space.name for space in spaces)
        raise ConfigError(f"encoders name {unknown[0]!r}, which is none of the spaces. Expected one of {known}.")
    wanted = read_texts(texts)
    folder = Path(cache) if cache is not None else cache_folder()
    options = {"device": device, "batch_size": batch_size, "quiet": quiet}
    return [_with_texts(space, wanted, named.get(space.name), folder, **options) for space in spaces]


def cache_folder() -> Path:
    """Name the folder that keeps embedded texts: in `ISTHMUS_CACHE`, else the user's cache."""
    if place := os.environ.get("ISTHMUS_CACHE"):
        return Path(place) / "texts"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isthmus" / "texts"


def _with_texts(space: Space, texts: Sequence[str], named: str | Encoder | None, cache: Path, **options: Any) -> Space:
    present = set(space[TEXT].ids) if TEXT in space else set()
    missing = [text for text in texts if text_id(text) not in present]
    if not missing:
        return space
    encoder = text_encoder(space, named, options["device"])
    dtype = space[TEXT].dtype if TEXT in space else "float16"
    encoded = encode_texts(missing, encoder, cache, dtype=dtype, name=space.name, **options)
    own = space[TEXT].followed_by(encoded[TEXT]) if TEXT in space else encoded[TEXT]
    return space.with_modality(TEXT, own)


def encode_texts(
    texts: Sequence[str],
    encoder: Encoder,
    cache: str | Path,
    *,
    dtype: str = "float16",
    name: str | None = None,
    device: str | None = None,
    batch_size: int = 64,
    quiet: bool = False,
) -> Space:
    """Embed texts by an encoder, or open what an earlier run of the same encoder and texts kept.

    Args:
        texts: Distinct texts; `text_id` gives their ids.
        encoder: An encoder that reads text.
        cache: Folder that keeps the embeddings. An interrupted run goes on where it stopped.
        dtype: "float16" or "float32" on disk.
        name: Name of the space; None is the encoder's.
        device: Where the model goes; None leaves it there.
        batch_size: Texts in one pass through the model.
        quiet: Show no progress.

    Returns:
        A space with the modality `text`, rows in the order of `texts`.
    """
    from isthmus.encoders.pipeline.encode import encode

    ids = [text_id(text) for text in texts]
    made_by = {"encoder": dict(encoder.identity), "preprocessing": encoder.preprocessing(TEXT), "dim": encoder.dim}
    key = sha256_json({**made_by, "dtype": dtype, "name": name, "texts": ids})
    folder = Path(cache) / f"{key[:32]}.space"
    if (folder / "space.json").is_file():
        kept = open_space(folder) if _is_whole(folder) else None
        if kept is not None and kept[TEXT].ids == ids:
            return kept
    encode(
        [Item(id, text=text) for id, text in zip(ids, texts, strict=True)],
        encoder=encoder,
        into=folder,
        modality=TEXT,
        name=name or encoder.name,
        dtype=dtype,
        device=device,
        batch_size=batch_size,
        max_rejected=0.0,
        quiet=quiet,
    )
    return open_space(folder)


def _is_whole(folder: Path) -> bool:
    return bool(read_manifest(folder)["modalities"].get(TEXT, {}).get("state") == WHOLE)


def text_encoder(space: Space, named: str | Encoder | None = None, device: str | None = None) -> Encoder:
    """Load the encoder that reads text for a space, and see that it is the space's own.

    Args:
        space: The space.
        named: An encoder, or the name to load it by; None takes what the space records of its text, or else of another
            modality whose encoder reads text too.
        device: Where the model goes.

    Raises:
        EncoderError: None is known that reads text, or it cannot be loaded.
        FingerprintError: It is not the encoder that made the space.
    """
    member = BridgeSpace.of(space, role="leaf")
    if named is None:
        source = _recorded_encoder(space, member)
        loaded = member.load_encoder(source, device=device)
        if TEXT not in loaded.modalities:
            raise EncoderError(_no_text(space, f"its encoder {loaded.name!r} reads {', '.join(loaded.modalities)}"))
        member.check_encoder(loaded, source)
        return loaded
    loaded = member.load_encoder(TEXT, named, device=device) if isinstance(named, str) else named
    if TEXT not in loaded.modalities or loaded.dim != space.dim:
        raise EncoderError(
            f"encoder {loaded.name!r} has modalities {', '.join(loaded.modalities)} and dim {loaded.dim}; the texts of "
            f"space {space.name!r} need an encoder of text with dim {space.dim}."
        )
    _check_named(space, member, loaded)
    return loaded


def _recorded_encoder(space: Space, member: BridgeSpace) -> str:
    """The modality whose recorded encoder may be loaded, the text's own first."""
    for modality in sorted(space.modalities, key=lambda name: name != TEXT):
        try:
            member.encoder_name(modality)
        except EncoderError:
            continue
        return modality
    raise EncoderError(_no_text(space, "it records no encoder that a file may name"))


def _no_text(space: Space, reason: str) -> str:
    return (
        f"space {space.name!r} cannot embed the texts: {reason}. Name its text encoder: --text-encoder "
        f"{space.name}=ENCODER (encoders={{{space.name!r}: ENCODER}})."
    )


def _check_named(space: Space, member: BridgeSpace, encoder: Encoder) -> None:
    """Refuse an encoder that the user named and that is another one than the space's.

    Its identity is enough where it is the recorded one. Otherwise it must give the space's own texts back, where these
    are stored; an encoder that was only declared and has left no texts cannot be checked, and the user's word counts.
    """
    try:
        member.check_encoder(encoder, TEXT if TEXT in space else space.modalities[0])
    except FingerprintError:
        cosine = _cosine_with_own(space, encoder)
        recorded = space[TEXT if TEXT in space else space.modalities[0]].info["encoder"]
        if cosine is None and recorded.get("library") not in ("unknown", "declared"):
            raise
        if cosine is not None and cosine < SAME:
            raise FingerprintError(
                f"encoder {encoder.name!r} gives the texts of space {space.name!r} back at a mean cosine of "
                f"{cosine:.2f}, expected at least {SAME}. It is not the one that made them "
                f"({encoder_words(recorded)}): name that one."
            ) from None


def _cosine_with_own(space: Space, encoder: Encoder) -> float | None:
    """Mean cosine of a space's stored texts with the encoder's rows of them; None where it stores no texts."""
    if TEXT not in space or TEXT not in space[TEXT].metadata.column_names:
        return None
    stored = space[TEXT].metadata.column(TEXT).to_pylist()
    rows = [row for row in range(0, len(stored), max(1, len(stored) // PROBES)) if isinstance(stored[row], str)]
    if not rows:
        return None
    items = [Item(str(row), text=stored[row]) for row in rows]
    again = embed_items(encoder, items, modality=TEXT)
    return float(np.einsum("nd,nd->n", space[TEXT].unit(rows), again).mean())
