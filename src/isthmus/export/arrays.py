"""A bridge's weights as plain safetensors: one file a route, BatchNorm folded, with the steps as JSON metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.bridges.routes import Route, route_arrays
from isthmus.export.onnx import folded

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge


def write_safetensors(bridge: Bridge, folder: Path) -> list[Path]:
    """Write every route as `SPACE.MODALITY.safetensors`; the metadata `steps` name the arrays in order.

    Returns:
        The files.
    """
    from safetensors.numpy import save_file

    files = []
    for key, route in bridge.routes.items():
        name, _, modality = key.rpartition("/")
        arrays: dict[str, Any] = {}
        steps = fold_route(bridge, route, arrays)
        metadata = {"route": key, "dim": str(bridge.dim), "method": bridge.method, "steps": json.dumps(steps)}
        path = folder / f"{name}.{modality}.safetensors"
        save_file(arrays, str(path), metadata=metadata)
        files.append(path)
    return files


def fold_route(bridge: Bridge, route: Route, arrays: dict[str, Any]) -> Route:
    """A route whose BatchNorms behind linear layers are folded into these; its arrays are put into `arrays`."""
    steps = []
    for number, step in enumerate(route):
        if step["kind"] == "mlp":
            steps.append({"kind": "mlp", "layers": _fold_layers(bridge, step["layers"], number, arrays)})
            continue
        if "chains" in step:
            step = {**step, "chains": [fold_route(bridge, chain, arrays) for chain in step["chains"]]}
        else:
            for name in route_arrays([step]):
                arrays[name] = np.ascontiguousarray(bridge.arrays[name])
        steps.append(step)
    return steps


def _fold_layers(bridge: Bridge, layers: list[Any], number: int, arrays: dict[str, Any]) -> list[Any]:
    out: list[Any] = []
    place = 0
    while place < len(layers):
        layer, following = layers[place], layers[place + 1] if place + 1 < len(layers) else {}
        if "linear" in layer and "batch_norm" in following:
            weight, bias = folded(bridge.arrays, layer, following)
            names = [f"{layer['linear'][0]}+batch_norm", f"{layer['linear'][0]}+batch_norm.bias"]
            arrays[names[0]], arrays[names[1]] = weight, bias
            out.append({"linear": names})
            place += 2
            continue
        for name in next(iter(v for k, v in layer.items() if isinstance(v, list)), []):
            if name is not None:
                arrays[name] = np.ascontiguousarray(bridge.arrays[name])
        out.append(layer)
        place += 1
    return out
