"""A space as a bridge knows it: enough to tell its embeddings from others', to find it and to encode more of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from isthmus.core.geometry import Array
from isthmus.encoders.recorded import (
    is_declared,
    load_named,
    load_recorded,
    loadable_name,
)
from isthmus.errors import BridgeError, FingerprintError, IsthmusWarning
from isthmus.spaces.manifest import IDENTITY, fingerprint

if TYPE_CHECKING:
    from isthmus.encoders.protocol import Encoder
    from isthmus.spaces.space import Space

ROLES = ("base", "leaf", "first", "second", "joined")
_ADVICE = "or pass --force (force=True) if you know that they agree."


class EmbeddingsLike(Protocol):
    """Modality of a space as a bridge needs it, such as `isthmus.open_space(...)[modality]` gives it."""

    @property
    def modality(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def space_name(self) -> str: ...
    @property
    def info(self) -> Mapping[str, Any]: ...
    @property
    def ids(self) -> Sequence[str]: ...
    def __len__(self) -> int: ...
    def blocks(self, size: int = ...) -> Iterable[Array]: ...


class EncoderLike(Protocol):
    """Members of an encoder that are asked before it may speak for a space."""

    @property
    def dim(self) -> int: ...
    @property
    def identity(self) -> Mapping[str, Any]: ...
    def preprocessing(self, modality: str) -> dict[str, Any]: ...


@dataclass(frozen=True)
class BridgeSpace:
    """A space of a bridge.

    Attributes:
        name: Name, unique in the bridge.
        role: `base` or `leaf` (extend), `first`, `second` or `joined`, every further one (connect).
        dim: Dimension of the space itself.
        fingerprints: By modality, the hash of encoder, preprocessing and dim.
        encoders: By modality, the encoder's `library`, `id`, `revision` and `weights_sha256`.
        path: Where the space lay, absolute; None where unknown. On disk it is relative to the bridge.
        preprocessing: By modality, what was done to an item before the encoder.
    """

    name: str
    role: str
    dim: int
    fingerprints: dict[str, str]
    encoders: dict[str, dict[str, Any]]
    path: str | None = None
    preprocessing: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, space: Space, *, role: str) -> BridgeSpace:
        """Record of an open space as a bridge keeps it."""
        info = {modality: space[modality].info for modality in space.modalities}
        return cls(
            name=space.name,
            role=role,
            dim=space.dim,
            fingerprints={modality: space.fingerprint(modality) for modality in info},
            encoders={modality: _encoder(entry) for modality, entry in info.items()},
            # A bridge names no place in a network: whoever opens one of a stranger's would send a request there.
            path=None if space.url else str(Path(space.path).resolve()),
            preprocessing={modality: dict(entry.get("preprocessing") or {}) for modality, entry in info.items()},
        )

    def encoder_name(self, modality: str) -> str:
        """The name to load the encoder of a modality by, as far as a file may name one.

        Raises:
            EncoderError: What was recorded does not tell, or names what a file may not: code, a file, a folder.
        """
        where = f"'{self.name}/{modality}'"
        return loadable_name(self.encoders.get(modality) or {}, where=where, modalities=self.encoders)

    def load_encoder(
        self,
        modality: str,
        named: str | None = None,
        *,
        device: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Encoder:
        """The encoder of a modality: the recorded one if a file may name it, or the one that the user names.

        Args:
            modality: The modality.
            named: The encoder that the user named in this call, as for `--encoder`.
            device: Where the model goes.
            options: The user's own options, with `named`.

        Raises:
            EncoderError: It cannot be loaded, or the record names code, a file or a folder; the message says what to
                pass.
        """
        record = self.encoders.get(modality) or {}
        if named is not None:
            return load_named(named, record, device=device, options=options)
        where = f"'{self.name}/{modality}'"
        return load_recorded(record, where=where, modalities=self.encoders, device=device)

    def check_encoder(self, encoder: EncoderLike, modality: str) -> None:
        """Refuse an encoder that is not the recorded one; of one that was only declared the name and dimension count.

        Raises:
            FingerprintError: Another library, id, revision, weights, preprocessing or dimension.
        """
        recorded, here = self.encoders.get(modality) or {}, f"'{self.name}/{modality}'"
        if is_declared(recorded, encoder.identity, getattr(encoder, "name", None)):
            self._check_declared(encoder, here)
            return
        for key in IDENTITY:
            if recorded.get(key) != encoder.identity.get(key):
                raise FingerprintError(
                    f"the encoder at hand is {encoder_words(encoder.identity)}, {here} was made by "
                    f"{encoder_words(recorded)}: another {key}. Load that one, {_ADVICE}"
                )
        preprocessing = encoder.preprocessing(modality)
        entry = {"encoder": dict(encoder.identity), "preprocessing": preprocessing}
        if fingerprint(entry, encoder.dim) != self.fingerprints.get(modality):
            differs = _difference(self.preprocessing.get(modality), preprocessing)
            raise FingerprintError(
                f"the encoder at hand prepares {modality} otherwise than {here} was made ({differs}). "
                f"Load it with the recorded options, {_ADVICE}"
            )

    def declares_encoder_of(self, x: EmbeddingsLike, modality: str) -> bool:
        """Whether embeddings were made by the encoder that this space only declares, or the other way about."""
        ours, theirs = self.encoders.get(modality) or {}, _encoder(x.info)
        return is_declared(ours, theirs, theirs.get("name")) or is_declared(theirs, ours, ours.get("name"))

    def _check_declared(self, encoder: EncoderLike, here: str) -> None:
        """Check an encoder that was only declared at the import: its dimension can be wrong, the rest is warned of."""
        if encoder.dim != self.dim:
            raise FingerprintError(
                f"the encoder of {here} was declared as {encoder_words(encoder.identity)}, which gives {encoder.dim} "
                f"numbers an item; the space has {self.dim}. Import the embeddings again with their own --encoder."
            )
        warnings.warn(
            f"the encoder of {here} was declared at the import: isthmus takes {encoder_words(encoder.identity)}, and "
            "cannot tell whether the same weights and preprocessing made the embeddings.",
            IsthmusWarning,
            stacklevel=3,
        )


def _encoder(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An encoder's identity with the name and the options it was loaded by, where the space tells them."""
    named = {key: entry[f"encoder_{key}"] for key in ("name", "options") if entry.get(f"encoder_{key}")}
    return {**entry["encoder"], **named}


def _same(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> bool:
    """Whether two recorded encoders are one."""
    return all((a or {}).get(key) == (b or {}).get(key) for key in IDENTITY)


def other_encoder(
    where: str, info: Mapping[str, Any], spaces: Sequence[BridgeSpace], modality: str
) -> FingerprintError:
    """The fault of embeddings that no space of the bridge has the fingerprint of.

    Args:
        where: Name of the embeddings.
        info: Their entry in the space's manifest.
        spaces: Spaces of the bridge that they were held against.
        modality: Their modality in the bridge.
    """
    known = [space for space in spaces if modality in space.fingerprints]
    names = {space.name for space in known if (space.encoders.get(modality) or {}).get("library") == "unknown"}
    if names and (info.get("encoder") or {}).get("library") == "unknown":
        return FingerprintError(
            f"{where} was imported without its encoder, and so was {' or '.join(map(repr, sorted(names)))} of the "
            f"bridge; the names differ, so nothing says that they belong together. Import it again with --name "
            f"{min(names)}, or both with --encoder ID, {_ADVICE}"
        )
    expected = " or ".join(f"{encoder_words(s.encoders.get(modality))} of {s.name!r}" for s in known) or "none"
    why = "Equal dimensions are not the same space."
    if len(known) == 1 and _same(info.get("encoder"), known[0].encoders.get(modality)):
        why = f"They differ in {_difference(known[0].preprocessing.get(modality), info.get('preprocessing'))}."
    return FingerprintError(
        f"{where} was made by {encoder_words(info.get('encoder'))}, the bridge for {expected}. {why} "
        f"Encode with that encoder, {_ADVICE}"
    )


def encoder_words(encoder: Mapping[str, Any] | None) -> str:
    """An encoder identity in a few words."""
    encoder = encoder or {}
    text = f"{encoder.get('library') or 'unknown'} {encoder.get('id') or 'encoder'}"
    if encoder.get("revision"):
        text += f" at {str(encoder['revision'])[:12]}"
    return text + (f" (weights {encoder['weights_sha256'][:12]})" if encoder.get("weights_sha256") else "")


def check_rows(x: Array, where: str, ids: Sequence[str] | None, start: int) -> None:
    """Refuse rows without a direction, naming the first: their scores would mean nothing.

    Args:
        x: (n, d) float32 rows.
        where: Name of the embeddings that they are part of.
        ids: Ids of all rows of the embeddings, or None.
        start: Number of the first row of `x` in the embeddings.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("nd,nd->n", x, x)
    if (bad := np.flatnonzero(~(np.isfinite(squares) & (squares > 0)))).size:
        row = int(bad[0])
        what = "is zero" if squares[row] == 0 else "is not finite"
        name = f" (id {ids[start + row]!r})" if ids is not None else ""
        raise BridgeError(f"{where}: row {start + row}{name} {what}. Remove it, or embed its item again.")


def _difference(ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None) -> str:
    """Names of the settings in which two preprocessings differ."""
    ours, theirs = ours or {}, theirs or {}
    keys = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    return f"the preprocessing ({', '.join(keys)})" if keys else "the dimension"
