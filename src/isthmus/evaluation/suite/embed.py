"""The sides of a benchmark as embeddings of a bridge's spaces: encoded by the space's own encoder, once.

What is encoded lies in the cache as ordinary spaces, `encoded/NAME-MODALITY-KEY.space`; the key is of the space's
fingerprint and of the items (id, source, size and time of the file), so that nothing stale is ever taken for new.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from isthmus.bridges.bridge import Bridge
from isthmus.bridges.training_spaces import space_of, spaces_with
from isthmus.core.files import read_json, sha256_json, write_json
from isthmus.core.runtime import notifier
from isthmus.encoders import Encoder
from isthmus.encoders.pipeline.encode import encode
from isthmus.errors import EvaluationError, SpaceError
from isthmus.evaluation.benchmarks.task import ItemSet
from isthmus.evaluation.suite.settings import SuiteSettings
from isthmus.items import Item
from isthmus.spaces.embeddings import Embeddings
from isthmus.spaces.selection import EmbeddingRows, Selection
from isthmus.spaces.space import open_space


class ItemSetEmbedder:
    """Embeds sides through the encoders of bridges' spaces, each encoder loaded once and only if something is new.

    Args:
        settings: Cache, encoders by space, device and so on.
    """

    def __init__(self, settings: SuiteSettings) -> None:
        self.settings = settings
        self.encoded: dict[str, dict[str, Any]] = {}
        self._loaded: dict[str, Encoder] = {}
        self._say = notifier(settings.quiet)

    def home(self, bridge: Bridge, side: ItemSet) -> str:
        """The space of a bridge that a side is embedded in.

        Raises:
            BridgeError: None of them embeds the modality, or made the embeddings.
        """
        if side.embeddings is not None:
            return space_of(bridge, side.embeddings, force=self.settings.force, first=True)
        if side.modality in self.settings.through:
            name = self.settings.through[side.modality]
            bridge.route(name, side.modality)
            return name
        return spaces_with(bridge, side.modality)[0].name

    def embed(self, bridge: Bridge, side: ItemSet, space: str) -> EmbeddingRows:
        """A side as embeddings of one of a bridge's spaces.

        Raises:
            EvaluationError: The side is embeddings, and the space has none of the same items.
            FingerprintError: The encoder at hand is not the one that the space was made by.
            CheckFailed: Too many items were rejected.
        """
        if side.embeddings is None:
            return self._encoded(bridge, side, space)
        known = bridge.space(space)
        if known.fingerprints.get(side.modality) == side.embeddings.fingerprint:
            return side.embeddings
        if self.settings.force and known.dim == side.embeddings.dim:
            return side.embeddings
        return self._same_items(bridge, side, space)

    def _same_items(self, bridge: Bridge, side: ItemSet, space: str) -> Selection:
        """The same items by id in a training space of the bridge: the class texts of another space, say."""
        given = side.embeddings
        assert given is not None
        opened = bridge.open_space(space, self.settings.space_paths.get(space))
        try:
            selection = Selection.of_ids(opened[side.modality], given.ids)
        except SpaceError as error:
            raise EvaluationError(f"{space!r} has no embeddings of these {side.modality} items.") from error
        table = given.metadata
        columns = {"class": table["class"].to_pylist()} if "class" in table.column_names else {}
        return Selection(selection.whole, selection.rows, columns)

    def _encoded(self, bridge: Bridge, side: ItemSet, space: str) -> Embeddings:
        """Embeddings of raw items by a space's encoder, from the cache where they are there."""
        known = bridge.space(space)
        if side.modality not in known.fingerprints:
            raise EvaluationError(f"{space!r} embeds no {side.modality}.")
        forced = self.settings.encoders.get(space) if self.settings.force else None
        about = [known.fingerprints[side.modality], forced, [_about(item) for item in side.items]]
        key = sha256_json(about)[:16]
        plain = re.sub(r"[^\w.-]", "_", space)
        folder = self.settings.cache / "encoded" / f"{plain}-{side.modality}-{key}.space"
        done = folder.with_suffix(".json")
        if not done.is_file():
            report = self._encode(bridge, side, space, folder)
            write_json(done, {name: report[name] for name in ("encoder", "items", "rows", "rejected", "truncated")})
        self.encoded[f"{space}/{side.modality}"] = read_json(done, kind="record of an encoding")
        return open_space(folder)[side.modality]

    def _encode(self, bridge: Bridge, side: ItemSet, space: str, folder: Path) -> Any:
        """Encode raw items into a space of the cache."""
        encoder = self._encoder(bridge, space, side.modality)
        self._say(f"Encoding {len(side.items):,} {side.modality} items by {encoder.name} ({space})")
        return encode(
            list(side.items),
            encoder=encoder,
            into=folder,
            modality=side.modality,
            name=space,
            batch_size=self.settings.batch_size,
            max_rejected=self.settings.max_rejected,
            quiet=self.settings.quiet,
        )

    def _encoder(self, bridge: Bridge, space: str, modality: str) -> Encoder:
        """The encoder of a space, refused if it is not the one that the bridge was trained on."""
        known = bridge.space(space)
        named = self.settings.encoders.get(space)
        record = known.encoders.get(modality) or {}
        key = sha256_json([named or known.encoder_name(modality), record.get("options") or {}])
        if key not in self._loaded:
            self._loaded[key] = known.load_encoder(modality, named, device=self.settings.device)
        if not self.settings.force:
            known.check_encoder(self._loaded[key], modality)
        return self._loaded[key]


def _about(item: Item) -> list[Any]:
    """What tells an item's content from another's without reading it."""
    if item.text is not None:
        return [item.id, item.text]
    try:
        stat = os.stat(item.path or "")
    except OSError:
        return [item.id, item.place]
    return [item.id, item.place, stat.st_size, stat.st_mtime_ns]
