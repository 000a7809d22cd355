"""The official heads of C-MCR and Ex-MCR as bridges: `clap_clip.pt`, `ulip_clip.pt`, `ex_clap.pt`, `ex_ulip.pt`.

A file is recognised by its key names and shapes. Two traps are handled here: `Head_A` is CLAP in one C-MCR head and
CLIP in the other, and the two Ex-MCR files are alike to the last shape, so that only the file name, or the caller,
knows the leaf.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.bridges.bridge import Bridge
from isthmus.bridges.member import BridgeSpace
from isthmus.bridges.routes import Route
from isthmus.core.files import sha256_file
from isthmus.core.weights import load_weights
from isthmus.errors import ConfigError, FormatError
from isthmus.spaces.manifest import fingerprint

if TYPE_CHECKING:
    from isthmus.spaces.space import Space

DIM, EPS = 512, 1e-5
"""Every official head works in 512 dimensions, with torch's own BatchNorm constant."""

Shapes = dict[str, tuple[int, ...]]
Arrays = dict[str, NDArray[np.float32]]


def _linear(name: str, wide: int, narrow: int) -> Shapes:
    """Shapes of a linear layer's parameters in an official checkpoint."""
    return {f"{name}.weight": (wide, narrow), f"{name}.bias": (wide,)}


def _batch_norm(name: str, wide: int) -> Shapes:
    """Shapes of a batch norm's parameters in an official checkpoint."""
    vectors = {f"{name}.{key}": (wide,) for key in ("weight", "bias", "running_mean", "running_var")}
    return vectors | {f"{name}.num_batches_tracked": ()}


def _mlp(name: str) -> Shapes:
    """`MLP(512, 2)`: Linear, BatchNorm, ReLU, Linear, BatchNorm."""
    wide = _linear(f"{name}.net1.0", 2 * DIM, DIM) | _batch_norm(f"{name}.net1.1", 2 * DIM)
    return wide | _linear(f"{name}.net2.0", DIM, 2 * DIM) | _batch_norm(f"{name}.net2.1", DIM)


def _mlp_half(name: str) -> Shapes:
    """`MLP_Half(512)`: Linear, BatchNorm, ReLU."""
    return _linear(f"{name}.net.0", DIM, DIM) | _batch_norm(f"{name}.net.1", DIM)


def _mlp_layers(name: str) -> Route:
    """Layers of C-MCR's MLP block (linear, batch norm, ReLU, linear, batch norm) as a route has them."""
    return [
        {"linear": [f"{name}.net1.0.weight", f"{name}.net1.0.bias"]},
        _norm_layer(f"{name}.net1.1"),
        {"relu": True},
        {"linear": [f"{name}.net2.0.weight", f"{name}.net2.0.bias"]},
        _norm_layer(f"{name}.net2.1"),
    ]


def _mlp_half_layers(name: str) -> Route:
    """Layers of the block with one linear layer as a route has them."""
    linear = {"linear": [f"{name}.net.0.weight", f"{name}.net.0.bias"]}
    return [linear, _norm_layer(f"{name}.net.1"), {"relu": True}]


def _norm_layer(name: str) -> dict[str, Any]:
    """Batch norm in evaluation mode as a route has it."""
    return {"batch_norm": [f"{name}.{key}" for key in ("weight", "bias", "running_mean", "running_var")], "eps": EPS}


def _chain(*steps: dict[str, Any]) -> Route:
    """Steps of a route between two normalisations."""
    return [{"kind": "normalize"}, *steps, {"kind": "normalize"}]


def _through(layers: Route) -> Route:
    """Route through the layers of one MLP."""
    return _chain({"kind": "mlp", "layers": layers})


_BASE: Route = [{"kind": "normalize"}]
_F_M = [*_mlp_layers("Head2.mlp1"), *_mlp_layers("Head2.mlp2")]
"""Ex-MCR's f_m: two blocks, no activation between them; its own final L2 is the last step of the route."""
_F_L = {"kind": "linear", "weight": "Head1.weight", "bias": "Head1.bias"}
_HEADS = ("Head_A", "Head_B")


@dataclass(frozen=True)
class Head:
    """Released head of C-MCR or Ex-MCR: its file, shapes and routes.

    Attributes:
        name: Name it was released under.
        method: `c-mcr` or `ex-mcr`.
        parameters: Number of trained values.
        shapes: Every key with its shape.
        routes: By space and modality, the way through the arrays, named as in the file.
    """

    name: str
    method: str
    parameters: int
    shapes: Shapes
    routes: dict[str, dict[str, Route]]


def _connect(name: str, parameters: int, shapes: Shapes, routes: dict[str, dict[str, Route]]) -> Head:
    """Released head of C-MCR, which joins two spaces in a new one."""
    return Head(name, "c-mcr", parameters, shapes, routes)


def _extend(leaf: str, alone: str, overlap: str) -> Head:
    """Released head of Ex-MCR, which projects a leaf into CLIP's space."""
    shapes = _linear("Head1", DIM, DIM) | _mlp("Head2.mlp1") | _mlp("Head2.mlp2")
    f_m = {"kind": "mlp", "layers": _F_M}
    moved = {alone: _chain(_F_L, f_m), overlap: _chain(f_m)}
    return Head(f"ex_{leaf}", "ex-mcr", 2_369_024, shapes, {"clip": {"image": _BASE, "text": _BASE}, leaf: moved})


def _both(modalities: str, route: Route) -> dict[str, Route]:
    """One route for several modalities."""
    return {modality: route for modality in modalities.split()}


HEADS = {
    "clap_clip": _connect(
        "clap_clip",
        2_106_368,
        _mlp("Head_A") | _mlp("Head_B"),
        # Head_A is CLAP here.
        {
            "clip": _both("image text", _through(_mlp_layers("Head_B"))),
            "clap": _both("audio text", _through(_mlp_layers("Head_A"))),
        },
    ),
    "ulip_clip": _connect(
        "ulip_clip",
        527_360,
        _mlp_half("Head_A") | _mlp_half("Head_B"),
        # Head_A is CLIP here.
        {
            "clip": _both("image text", _through(_mlp_half_layers("Head_A"))),
            "ulip": _both("point_cloud image", _through(_mlp_half_layers("Head_B"))),
        },
    ),
    "ex_clap": _extend("clap", "audio", "text"),
    "ex_ulip": _extend("ulip", "point_cloud", "image"),
}
"""The official heads by the name of their file."""

ENCODERS = {
    "clip": {"library": "transformers", "id": "openai/clip-vit-base-patch32"},
    "clap": {"library": "laion-clap", "id": "laion/clap 630k-fusion-best.pt (HTSAT-tiny, fusion)"},
    "ulip": {"library": "ulip", "id": "pointbert_ULIP-2.pt"},
}
"""What the heads were trained on (Ex-MCR, section 4.1, and its code). Revisions and weights were never published."""


def load_official(path: str | Path, *, leaf: str | None = None, spaces: Mapping[str, Space] | None = None) -> Bridge:
    """Read a released projector file of C-MCR or Ex-MCR as a bridge.

    Args:
        path: `clap_clip.pt`, `ulip_clip.pt`, `ex_clap.pt` or `ex_ulip.pt`, under any name.
        leaf: "clap" or "ulip": whose head an Ex-MCR file is; needed where its name does not say so.
        spaces: By "clip", "clap" and "ulip", spaces made by those encoders. Their names, fingerprints and places are
            taken over, on the caller's word that they are the encoders of the paper; without them the bridge knows the
            encoders by id alone, and projects embeddings that were made here only with `force`.

    Returns:
        A bridge. C-MCR heads project all modalities of both spaces (roles first and second); Ex-MCR heads leave CLIP as
        it is (base) and project the leaf. Every route ends at unit length, wherever the official code normalises.

    Raises:
        FormatError: The file is missing, is no plain state dict, or fits no official head; the message names the keys.
        ConfigError: Nothing says which leaf an Ex-MCR file is of, or a space has other than 512 dimensions.
    """
    path = Path(path)
    state = _read(path)
    head = _recognise(path, state, leaf)
    given = dict(spaces or {})
    if unknown := sorted(set(given) - set(head.routes)):
        raise ConfigError(f"spaces got {unknown[0]!r}. Expected some of {', '.join(head.routes)}.")
    roles = ("first", "second") if head.method == "c-mcr" else ("base", "leaf")
    known = {name: _space(name, role, head, given.get(name)) for name, role in zip(head.routes, roles, strict=True)}
    routes = {f"{known[space].name}/{m}": deepcopy(r) for space, ways in head.routes.items() for m, r in ways.items()}
    record = {
        "recipe": "official",
        "source": {"file": f"{head.name}.pt", "sha256": sha256_file(path), "license": "CC BY 4.0"},
        "parameters": head.parameters,
    }
    return Bridge(head.method, DIM, list(known.values()), routes, _arrays(path, state), {"official": head.name}, record)


def _space(name: str, role: str, head: Head, space: Space | None) -> BridgeSpace:
    """Space of a released head: the user's, or what is known of the encoder that the authors used."""
    if space is not None:
        if space.dim != DIM:
            raise ConfigError(f"spaces[{name!r}] has {space.dim} dimensions. The official heads work in {DIM}.")
        return BridgeSpace.of(space, role=role)
    encoder = {**ENCODERS[name], "revision": None, "weights_sha256": None}
    modalities = list(head.routes[name])
    print_of = fingerprint({"encoder": encoder, "preprocessing": {}}, DIM)
    return BridgeSpace(name, role, DIM, dict.fromkeys(modalities, print_of), {m: dict(encoder) for m in modalities})


def _read(path: Path) -> dict[str, Any]:
    """Weights of an official checkpoint, by name."""
    import torch

    if not path.is_file():
        raise FormatError(f"{path}: no such file. Expected one of {', '.join(f'{name}.pt' for name in HEADS)}.")
    try:
        state = load_weights(path)
    except ValueError as error:
        raise FormatError(
            f"{path}: is no plain file of weights ({error}). Expected the state dict that was released; "
            "download it again."
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise FormatError(f"{path}: holds {type(state).__name__}, not a state dict. Expected names and tensors alone.")
    return dict(state)


def _recognise(path: Path, state: Mapping[str, Any], leaf: str | None) -> Head:
    """The head whose keys a file has, or a fault that says how it differs from the nearest."""
    near = max(HEADS.values(), key=lambda head: len(head.shapes.keys() & state.keys()) - len(head.shapes) / 1e6)
    if not near.shapes.keys() & state.keys():
        raise FormatError(f"{path}: has no key of an official head. Expected {', '.join(f'{n}.pt' for n in HEADS)}.")
    if missing := sorted(near.shapes.keys() - state.keys()):
        raise FormatError(f"{path}: looks like {near.name}.pt but lacks {_few(missing)}. Download it again.")
    if extra := sorted(state.keys() - near.shapes.keys()):
        raise FormatError(f"{path}: looks like {near.name}.pt but also has {_few(extra)}. This is another model.")
    for key, shape in near.shapes.items():
        if tuple(state[key].shape) != shape:
            got = tuple(state[key].shape)
            raise FormatError(f"{path}: {key} has shape {got}, {near.name}.pt has {shape}. This is another model.")
    return _leaf_head(path, leaf) if near.method == "ex-mcr" else near


def _leaf_head(path: Path, leaf: str | None) -> Head:
    """The released head of Ex-MCR that a file holds, which its name or the user says."""
    leaves = ("clap", "ulip")
    if leaf is None:
        named = [name for name in leaves if name in path.stem.lower()]
        leaf = named[0] if len(named) == 1 else None
    if leaf not in leaves:
        raise ConfigError(f"{path}: is an Ex-MCR head, but of which leaf? Pass leaf='clap' or leaf='ulip'.")
    return HEADS[f"ex_{leaf}"]


def _few(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _arrays(path: Path, state: Mapping[str, Any]) -> Arrays:
    """The arrays as float32, without BatchNorm's counters of batches."""
    arrays = {k: np.array(v.float().numpy()) for k, v in state.items() if not k.endswith("num_batches_tracked")}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise FormatError(f"{path}: {name} holds NaN or infinite values. Download it again.")
    return arrays
