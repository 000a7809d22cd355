"""Encoders by name: what there is, what each needs, and how one is loaded."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from isthmus.errors import DependencyError, EncoderError

if TYPE_CHECKING:
    from isthmus.encoders.protocol import Encoder


@dataclass(frozen=True)
class Entry:
    """Entry of the registry of encoders.

    Attributes:
        factory: `module:function`; the function is called as `function(checkpoint, device=..., **options)`.
        checkpoint: What the bare short name stands for: the papers' checkpoint where they name one.
        modalities: Modalities of that checkpoint.
        dim: Dimension of that checkpoint.
        extra: The extra of isthmus that installs what it needs; None when the core is enough.
        requires: Modules that must be importable.
    """

    factory: str
    checkpoint: str
    modalities: tuple[str, ...]
    dim: int
    extra: str | None = None
    requires: tuple[str, ...] = ()


REGISTRY: dict[str, Entry] = {
    "clip": Entry(
        "isthmus.encoders.clip:load",
        "openai/clip-vit-base-patch32",
        ("image", "text"),
        512,
        "hf",
        ("transformers", "PIL"),
    ),
    "clap": Entry(
        "isthmus.encoders.clap:load",
        "laion/clap-htsat-fused",
        ("audio", "text"),
        512,
        "hf",
        ("transformers", "soundfile", "soxr"),
    ),
    "ulip": Entry(
        "isthmus.encoders.ulip:load", "pointbert_ULIP-2.pt", ("point_cloud", "image", "text"), 512, "mesh", ("trimesh",)
    ),
    "text": Entry(
        "isthmus.encoders.sentence_transformers:load_text",
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
        ("text",),
        384,
        "text",
        ("sentence_transformers",),
    ),
    "openclip": Entry(
        "isthmus.encoders.openclip:load",
        "ViT-bigG-14/laion2b_s39b_b160k",
        ("image", "text"),
        1280,
        "openclip",
        ("open_clip",),
    ),
    "sentence-transformers": Entry(
        "isthmus.encoders.sentence_transformers:load",
        "sentence-transformers/clip-ViT-B-32",
        ("image", "text"),
        512,
        "text",
        ("sentence_transformers",),
    ),
    "toy": Entry("isthmus.encoders.toy.encoder:load", "picture", ("image", "text"), 128, "demo", ("PIL",)),
}


def load_encoder(name: str, *, device: str | None = None, **options: Any) -> Encoder:
    """Load an encoder by name.

    Args:
        name: `clip` (the papers' checkpoint), `clip:openai/clip-vit-base-patch32`, `clap:/a/folder`, `ulip:/a/file.pt`,
            `toy:picture`, or `module:Class` for a class of your own, which is called as `Class(device=..., **options)`
            (without `device` when its constructor takes none).
        device: Where the model goes; None leaves the choice to the encoder.
        **options: Passed to the encoder's factory.

    Raises:
        EncoderError: There is no such encoder, or what was loaded is not one.
        DependencyError: Its packages are not installed; the message holds the command that installs them.
    """
    kind, _, rest = name.partition(":")
    if kind in REGISTRY:
        entry = REGISTRY[kind]
        check_installed(kind)
        encoder = _target(entry.factory, name)(rest or entry.checkpoint, device=device, **options)
    elif rest:
        encoder = _load_user_class(name, device, options)
    else:
        raise EncoderError(
            f"there is no encoder {name!r}. Expected one of {', '.join(REGISTRY)}, as NAME or NAME:CHECKPOINT, "
            "or module:Class for a class of your own. `isthmus encoders` lists them."
        )
    missing = [member for member in _MEMBERS if not hasattr(encoder, member)]
    if missing:
        raise EncoderError(f"{name!r} is not an encoder: it lacks {', '.join(missing)}. See isthmus.encoders.Encoder.")
    return cast("Encoder", encoder)


_MEMBERS = ("name", "modalities", "dim", "identity", "preprocessing", "decode", "encode")


def check_installed(kind: str) -> None:
    """Raise a DependencyError with the exact pip command unless the packages of a registered encoder are there."""
    entry = REGISTRY[kind]
    missing = [module for module in entry.requires if not _importable(module)]
    if missing:
        raise DependencyError(
            f"encoder {kind!r} needs {', '.join(missing)}, not installed here. "
            f"Run: pip install 'isthmus[{entry.extra}]'"
        )


def list_encoders() -> list[dict[str, Any]]:
    """List of the registered encoders: name, modalities, dim, extra, installed, cached, checkpoint of its short name.

    `cached` is None where nothing needs to be downloaded, else whether the checkpoint lies on this machine.
    """
    return [
        {
            "name": name,
            "modalities": list(entry.modalities),
            "dim": entry.dim,
            "extra": entry.extra,
            "installed": all(_importable(module) for module in entry.requires),
            "cached": _cached(name, entry),
            "checkpoint": entry.checkpoint,
        }
        for name, entry in REGISTRY.items()
    ]


def _importable(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _cached(name: str, entry: Entry) -> bool | None:
    """Whether a checkpoint is a local path or in the Hugging Face cache; only folders are looked at."""
    if name == "toy":
        return None
    if Path(entry.checkpoint).exists():
        return True
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    snapshots = hub / f"models--{entry.checkpoint.replace('/', '--')}" / "snapshots"
    return snapshots.is_dir() and any(snapshots.iterdir())


def _load_user_class(name: str, device: str | None, options: dict[str, Any]) -> Any:
    """Encoder of a user's own class."""
    package = name.partition(":")[0].partition(".")[0]
    if package in sys.stdlib_module_names or package in sys.builtin_module_names:
        raise EncoderError(
            f"{name!r} is of Python's own library, which has no encoders. Expected module:Class for a class of your "
            f"own, or one of {', '.join(REGISTRY)}."
        )
    factory = _target(name, name)
    if device is not None:
        options = {"device": device, **options}
    try:
        return factory(**options)
    except TypeError as error:
        given = ", ".join(options) or "no options"
        raise EncoderError(f"encoder {name!r} cannot be made with {given}: {error}.") from error


def _target(path: str, name: str) -> Any:
    """The object at `module:attribute`."""
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise
        raise EncoderError(
            f"encoder {name!r}: there is no module {module_name!r} here. Expected one of {', '.join(REGISTRY)}, or "
            "module:Class with a module that Python can import (PYTHONPATH=. for one in this folder)."
        ) from error
    if not hasattr(module, attribute):
        raise EncoderError(
            f"encoder {name!r}: module {module_name!r} has no {attribute!r}. Expected a class or a function."
        )
    return getattr(module, attribute)
