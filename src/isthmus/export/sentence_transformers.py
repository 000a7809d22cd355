"""A bridge as a SentenceTransformer of stock modules: a Router with one route a modality, the encoder and Dense layers.

It loads with plain `SentenceTransformer(path)`, without isthmus and without remote code. Stock modules can tell chains
of `normalize`, `center`, `linear`, `mlp` (BatchNorm folded), `dictionary` and `posterior` with values (two Dense
layers, the first with a softmax). They cannot tell parallel chains (`blend`, `concat`, `stack`), `denoise`,
`power_average` and `filler`, nor encoders that are no models of transformers or sentence-transformers; the export then
says so. A sound longer than CLAP's ten seconds is one window there and the mean of several in isthmus.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.bridges.routes import Route, Step
from isthmus.bridges.training_spaces import spaces_with
from isthmus.errors import BridgeError, DependencyError
from isthmus.export.onnx import batch_norm, folded

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.bridges.member import BridgeSpace

NAMES = {"point_cloud": "point cloud"}
LIBRARIES = ("transformers", "sentence-transformers")


def write_sentence_transformers(
    bridge: Bridge, folder: Path, *, space: str | None = None, encoders: Mapping[str, str] | None = None
) -> list[str]:
    """Write the model.

    Args:
        bridge: The bridge.
        folder: An empty folder.
        space: The space whose encoder reads a modality that several spaces have; None is the first, the base first.
        encoders: By space, the encoder where the bridge may not name it, such as a folder of this machine.

    Returns:
        The modalities that it has a route for.

    Raises:
        BridgeError: No modality can be told in stock modules; the message says why.
        DependencyError: sentence-transformers is not installed.
    """
    modules = _modules()
    routes: dict[str, list[Any]] = {}
    reasons = []
    for modality in dict.fromkeys(key.rpartition("/")[2] for key in bridge.routes):
        having = spaces_with(bridge, modality)
        member = next((one for one in having if one.name == space), having[0])
        try:
            routes[modality] = [
                _encoder(member, modality, (encoders or {}).get(member.name), modules),
                *_layers(bridge, bridge.route(member.name, modality), modules),
            ]
        except BridgeError as error:
            reasons.append(f"{member.name}/{modality}: {error}")
    if not routes:
        raise BridgeError(f"no modality can be told in stock modules of sentence-transformers ({reasons[0]}).")
    from sentence_transformers import SentenceTransformer

    router = modules.Router(routes, default_route=next(iter(routes)))
    SentenceTransformer(modules=[router], device="cpu").save_pretrained(str(folder), create_model_card=False)
    return list(routes)


def _encoder(member: BridgeSpace, modality: str, named: str | None, modules: Any) -> Any:
    """The stock module of a space's encoder, which is loaded once here to see that it is the recorded one.

    Raises:
        BridgeError: It is no model that stock modules load.
        EncoderError: It cannot be loaded, or a file may not name it.
        FingerprintError: It is another one.
    """
    recorded = member.encoders.get(modality) or {}
    if recorded.get("library") not in LIBRARIES:
        library = recorded.get("library")
        raise BridgeError(f"its encoder {recorded.get('id')!r} is of {library!r}, not of {' or '.join(LIBRARIES)}")
    loaded = member.load_encoder(modality, named)
    member.check_encoder(loaded, modality)
    checkpoint, _, revision = str(loaded.name).partition(":")[2].partition("@")
    return modules.Transformer(
        checkpoint or str(recorded["id"]), **({"config_kwargs": {"revision": revision}} if revision else {})
    )


def _layers(bridge: Bridge, route: Route, modules: Any) -> list[Any]:
    """Dense and Normalize layers of a route, which ends at unit length."""
    layers: list[Any] = []
    for step in route:
        if step["kind"] not in _STEPS:
            raise BridgeError(f"its route has the step {step['kind']!r}, which stock modules cannot tell")
        layers += _STEPS[step["kind"]](bridge.arrays, step, modules)
    if not route or route[-1]["kind"] != "normalize":
        layers.append(modules.Normalize())
    return layers


def _dense(modules: Any, weight: Any, bias: Any = None, activation: Any = None) -> Any:
    """A Dense layer, y = activation(x W^T + b)."""
    import torch

    w = torch.from_numpy(np.array(weight, np.float32))
    b = None if bias is None else torch.from_numpy(np.array(bias, np.float32))
    return modules.Dense(
        w.shape[1],
        w.shape[0],
        bias=b is not None,
        activation_function=activation or torch.nn.Identity(),
        init_weight=w,
        init_bias=b,
    )


def _center(arrays: Any, step: Step, modules: Any) -> list[Any]:
    mean = np.asarray(arrays[step["mean"]], np.float32)
    return [_dense(modules, np.eye(len(mean), dtype=np.float32), -mean)]


def _linear(arrays: Any, step: Step, modules: Any) -> list[Any]:
    bias = step.get("bias")
    return [_dense(modules, arrays[step["weight"]], None if bias is None else arrays[bias])]


def _mlp(arrays: Any, step: Step, modules: Any) -> list[Any]:
    import torch

    out: list[tuple[Any, Any, bool]] = []
    layers, place = step["layers"], 0
    while place < len(layers):
        layer, following = layers[place], layers[place + 1] if place + 1 < len(layers) else {}
        if "linear" in layer and "batch_norm" in following:
            out.append((*folded(arrays, layer, following), False))
            place += 1
        elif "linear" in layer:
            weight, bias = layer["linear"]
            out.append((arrays[weight], None if bias is None else arrays[bias], False))
        elif "batch_norm" in layer:
            scale, shift = batch_norm(arrays, layer)
            out.append((np.diag(scale), shift, False))
        elif out:
            out[-1] = (out[-1][0], out[-1][1], True)
        else:
            raise BridgeError("its route begins with a ReLU, which stock modules cannot tell")
        place += 1
    return [_dense(modules, weight, bias, torch.nn.ReLU() if relu else None) for weight, bias, relu in out]


def _softmax(arrays: Any, step: Step, modules: Any) -> list[Any]:
    import torch

    if step.get("values") is None:
        raise BridgeError("its route has a posterior without values, whose largest entries stock modules cannot keep")
    keys = np.asarray(arrays[step["keys"]], np.float64) / step["temperature"]
    bias = None if step.get("bias") is None else arrays[step["bias"]]
    # Of a batch of rows, Softmax() without a dimension, which is what a Dense layer is loaded with, is over each row.
    weights = _dense(modules, keys.astype(np.float32), bias, torch.nn.Softmax(dim=-1))
    return [weights, _dense(modules, np.asarray(arrays[step["values"]], np.float32).T)]


_STEPS: dict[str, Any] = {
    "normalize": lambda arrays, step, modules: [modules.Normalize()],
    "center": _center,
    "linear": _linear,
    "mlp": _mlp,
    "dictionary": _softmax,
    "posterior": _softmax,
}


def _modules() -> Any:
    try:
        from sentence_transformers.sentence_transformer import modules
    except ImportError as error:
        raise DependencyError(
            "this export needs sentence-transformers 6, which is not installed. Install it: pip install "
            "'isthmus[text]' 'sentence-transformers>=6'."
        ) from error
    return modules
