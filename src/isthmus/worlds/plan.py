"""What joining will do: which encoder makes which space of which items, what is at hand, and what has to be fetched."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isthmus.core.modality import AUDIO, IMAGE, POINT_CLOUD, TEXT
from isthmus.encoders.registry import REGISTRY, check_installed
from isthmus.errors import ConfigError, EncoderError
from isthmus.items import Item
from isthmus.items.vocabulary import BUILTIN, read_texts, text_id
from isthmus.worlds.survey import Survey
from isthmus.worlds.world import SPACES

DEFAULTS = {IMAGE: "clip", AUDIO: "clap", POINT_CLOUD: "ulip"}
"""The encoder of each modality, where none is named."""
OWN_TEXTS = 1000
"""From so many texts of the user's own on, spaces are joined through these instead of the vocabulary that ships."""
RATES = {IMAGE: 8.0, AUDIO: 3.0, POINT_CLOUD: 1.0, TEXT: 60.0}
"""Items a second on one processor core, roughly (bench/results/encode.json); for the estimate of --dry-run."""
SIZES = {
    "openai/clip-vit-base-patch32": 605,
    "laion/clap-htsat-fused": 615,
    "pointbert_ULIP-2.pt": 10_300,
}
"""Megabytes to fetch of the default checkpoints."""
TOY_RATE = 500.0


@dataclass
class SpacePlan:
    """A space that will be made.

    Attributes:
        name: Its name and, with `.space`, its folder.
        encoder: Name of the encoder.
        modalities: What it can embed.
        items: By modality, what it embeds; texts have ids of their content.
        dim: Length of an embedding.
    """

    name: str
    encoder: str
    modalities: tuple[str, ...]
    items: dict[str, list[Item]] = field(default_factory=dict)
    dim: int = 0


@dataclass
class WorldPlan:
    """Plan of a world: what it will hold.

    Attributes:
        spaces: The spaces to make, the base first.
        existing: Spaces that exist already, which are taken as they are.
        texts: The texts that every text tower embeds.
        texts_from: Where they come from, in words.
        shown: By modality, the ids of the user's own items, which the index holds; None is all.
        options: By space, what its encoder is loaded with.
    """

    spaces: list[SpacePlan]
    existing: list[Path]
    texts: list[str]
    texts_from: str
    shown: dict[str, set[str] | None]


def make_plan(surveyed: Survey, *, encoders: Mapping[str, str], texts: str | Path | None) -> WorldPlan:
    """Choose an encoder for every modality and say what each embeds.

    Args:
        surveyed: What the paths hold.
        encoders: By modality, the encoder where it is not the default.
        texts: "builtin", a file of texts, or None: the user's own where they are many, else the vocabulary that ships.

    Raises:
        ConfigError: A modality is unknown, or has no encoder.
        EncoderError: An encoder is unknown, or does not embed its modality.
        DependencyError: Its packages are not installed.
    """
    own = [item.text or "" for item in surveyed.items.get(TEXT, [])]
    chosen = _chosen_encoders(surveyed, encoders)
    listed, source = _texts(own, texts, bool(chosen))
    spaces: dict[str, SpacePlan] = {}
    for modality, name in chosen.items():
        modalities, dim = encoder_modalities(name)
        if modality not in modalities:
            raise EncoderError(
                f"encoder {name!r} embeds {', '.join(modalities)}, not {modality}. Name another: --encoder "
                f"{modality}=NAME."
            )
        plan = spaces.setdefault(name, SpacePlan(_space_name(name, spaces), name, modalities, dim=dim))
        plan.items[modality] = surveyed.items[modality]
    every = _text_items([*dict.fromkeys([*own, *listed])])
    for plan in spaces.values():
        if TEXT in plan.modalities:
            plan.items[TEXT] = every
        else:  # no text tower: it is joined through what another space sees too
            for modality in plan.modalities:
                if modality in surveyed.items and modality != TEXT:
                    plan.items.setdefault(modality, surveyed.items[modality])
    shown: dict[str, set[str] | None] = dict.fromkeys(chosen)
    if own:
        shown[TEXT] = {text_id(text) for text in read_texts(own)}
    return WorldPlan(list(spaces.values()), list(surveyed.spaces), listed, source, shown)


def _chosen_encoders(surveyed: Survey, encoders: Mapping[str, str]) -> dict[str, str]:
    """The encoder of every modality of raw files but text, which every text tower embeds."""
    if unknown := [name for name in encoders if name not in (*DEFAULTS, TEXT)]:
        raise ConfigError(f"--encoder names the modality {unknown[0]!r}, expected one of {', '.join(DEFAULTS)}, text.")
    chosen = {name: encoders.get(name, DEFAULTS[name]) for name in surveyed.items if name in DEFAULTS}
    if not chosen and TEXT in surveyed.items:
        if TEXT not in encoders:
            raise ConfigError(
                "only texts were found. Name an encoder for them, --encoder text=NAME, or give more paths."
            )
        chosen[TEXT] = encoders[TEXT]
    return chosen


def _texts(own: Sequence[str], texts: str | Path | None, any_raw: bool) -> tuple[list[str], str]:
    """Shared texts of a world, and where they come from."""
    if not any_raw:
        return [], "the texts that the spaces share"
    if texts is not None:
        return read_texts(texts), "the vocabulary that ships" if texts == BUILTIN else str(Path(texts).name)
    if len(own) >= OWN_TEXTS:
        return read_texts(own), "the texts that were given"
    return read_texts(BUILTIN), "the vocabulary that ships"


def _text_items(texts: Sequence[str]) -> list[Item]:
    """Texts as items, by their hash."""
    if not texts:
        return []
    return [Item(text_id(text), text=text) for text in read_texts(texts)]


def encoder_modalities(name: str) -> tuple[tuple[str, ...], int]:
    """Modalities and dimension of an encoder, without loading its weights where the registry knows them.

    Raises:
        EncoderError: There is no such encoder.
        DependencyError: Its packages are not installed.
    """
    kind, _, rest = name.partition(":")
    if kind in REGISTRY:
        check_installed(kind)
        entry = REGISTRY[kind]
        if not rest or rest == entry.checkpoint:
            return entry.modalities, entry.dim
    loaded = load_chosen(name)
    return tuple(loaded.modalities), int(loaded.dim)


def load_chosen(name: str, *, device: str | None = None) -> Any:
    """Load an encoder that the user named, or a default.

    Raises:
        EncoderError: It cannot be had; the message says how large it is and how to fetch it elsewhere.
    """
    from isthmus.encoders.registry import load_encoder

    try:
        return load_encoder(name, device=device)
    except EncoderError as error:
        raise EncoderError(f"{str(error).rstrip('.')}. {fetch_advice(name)}") from error


def check_at_hand(plan: WorldPlan) -> list[str]:
    """Load every encoder once, before anything is embedded, so that one that cannot be had is told at once.

    Returns:
        Names of the encoders.

    Raises:
        EncoderError: A checkpoint cannot be had; the message says how large it is and how to fetch it elsewhere.
    """
    for space in plan.spaces:
        load_chosen(space.encoder)
    return [space.encoder for space in plan.spaces]


def missing_checkpoint(name: str) -> int | None:
    """Megabytes that have to be fetched for an encoder, None where nothing has to or nobody knows."""
    kind, _, rest = name.partition(":")
    entry = REGISTRY.get(kind)
    if entry is None or kind == "toy":
        return None
    checkpoint = rest or entry.checkpoint
    if Path(checkpoint).expanduser().exists() or _in_hub_cache(checkpoint):
        return None
    return SIZES.get(checkpoint, 0)


def _in_hub_cache(repository: str) -> bool:
    """Whether a model is in the cache of the Hugging Face Hub."""
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    cache = os.environ.get("HF_HUB_CACHE", f"{home}/hub")
    folder = Path(cache).expanduser() / f"models--{repository.partition('@')[0].replace('/', '--')}" / "snapshots"
    return folder.is_dir() and any(folder.iterdir())


def fetch_advice(name: str) -> str:
    """Advice on how to bring a checkpoint here from a machine that has a network."""
    kind, _, rest = name.partition(":")
    entry = REGISTRY.get(kind)
    checkpoint = rest or (entry.checkpoint if entry else name)
    size = f" ({SIZES[checkpoint]:,} MB)" if checkpoint in SIZES else ""
    if kind == "ulip":
        return f"Fetch it{size} elsewhere, copy it here, and name it: --encoder point_cloud=ulip:FILE."
    return (
        f"Elsewhere run: hf download {checkpoint} --local-dir MODEL{size}; copy MODEL here, set HF_HUB_OFFLINE=1, and "
        f"name it: --encoder MODALITY={kind}:MODEL."
    )


def _space_name(encoder: str, taken: Mapping[str, SpacePlan]) -> str:
    """A plain name from an encoder's: `picture` for `toy:picture`, `clip` for `clip`."""
    kind, _, rest = encoder.partition(":")
    name = re.sub(r"[^\w-]+", "-", Path(rest).stem if rest else kind).strip("-") or "space"
    names = {plan.name for plan in taken.values()}
    number = 2
    unique = name
    while unique in names:
        unique, number = f"{name}-{number}", number + 1
    return unique


def plan_rows(plan: WorldPlan, folder: Path) -> list[dict[str, Any]]:
    """The plan as rows of a table: what is embedded by what, how long it takes, and how large it gets.

    Args:
        plan: The plan.
        folder: The world: what its spaces hold already is not embedded again.
    """
    from isthmus.encoders.pipeline.update import compare_items

    rows = []
    for space in plan.spaces:
        for modality, items in space.items.items():
            there = compare_items(items, folder / SPACES / f"{space.name}.space", modality, content=modality != TEXT)
            new = len(there.added) + len(there.changed)
            rate = TOY_RATE if space.encoder.startswith("toy:") else RATES.get(modality, 1.0)
            rows.append(
                {
                    "space": space.name,
                    "modality": modality,
                    "encoder": space.encoder,
                    "items": len(items),
                    "new": len(there.added),
                    "changed": len(there.changed),
                    "gone": len(there.gone),
                    "seconds": round(new / rate, 1),
                    "bytes": new * space.dim * 2,
                    "download_mb": missing_checkpoint(space.encoder) or 0,
                }
            )
    return rows
