"""Raw items embedded by the encoder that a bridge's space was made by, before they are projected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.bridges.joined import JoinedSpaces
from isthmus.bridges.training_spaces import spaces_with
from isthmus.core.geometry import Array
from isthmus.errors import FormatError

if TYPE_CHECKING:
    from isthmus.encoders.protocol import Encoder


@dataclass(frozen=True)
class EncoderChoice:
    """Which encoder embeds raw items, and how it runs; see `isthmus.Bridge.encode`.

    Attributes:
        space: Whose encoder; None is the first space that has the modality.
        encoder: An encoder, or the name to load it by; None is the recorded one.
        options: For the encoder's factory.
        batch_size: Items in one pass through the model.
        device: Where the model goes.
        force: Take another encoder than the recorded one.
    """

    space: str | None = None
    encoder: str | Encoder | None = None
    options: Mapping[str, Any] | None = None
    batch_size: int = 32
    device: str | None = None
    force: bool = False


def embed_raw(bridge: JoinedSpaces, items: Any, modality: str, choice: EncoderChoice) -> tuple[str, Array]:
    """Embed raw items in the space of their encoder, as `isthmus.Bridge.encode` does before it projects.

    Returns:
        The name of the space, and (n, d) float32 rows of it, in the order of `items`.

    Raises:
        IsthmusError: As `isthmus.Bridge.encode`.
    """
    from isthmus.encoders import embed_items
    from isthmus.items import as_items

    wrapped = as_items(items, modality)
    target = bridge.space(choice.space) if choice.space else spaces_with(bridge, modality)[0]
    bridge.route(target.name, modality)
    encoder = choice.encoder
    if encoder is None or isinstance(encoder, str):
        for each in wrapped:  # a wrong path is told before a model is loaded
            if each.path and not Path(each.path).exists():
                raise FormatError(f"{each.path}: no such file. Check the path.")
        encoder = target.load_encoder(modality, encoder, device=choice.device, options=choice.options)
    if not choice.force:
        target.check_encoder(encoder, modality)
    return target.name, embed_items(encoder, wrapped, modality=modality, batch_size=choice.batch_size)
