"""Steps that act on each row by itself: normalize, center, linear, mlp."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from isthmus.bridges.steps.step import Arrays, Reader, Step, kind, rename_keys
from isthmus.core.geometry import Array, normalize
from isthmus.errors import BridgeError

# normalize, center, linear


def _run_normalize(step: Step, arrays: Arrays, x: Array) -> Array:
    """Rows at unit length."""
    return normalize(x)


def _check_center(step: Step, reader: Reader, dim: int) -> int:
    """Check the step `center`, whose mean is of the rows' dimension."""
    reader.shape(step["mean"], dim)
    return dim


def _run_center(step: Step, arrays: Arrays, x: Array) -> Array:
    """Rows minus a mean."""
    return x - np.asarray(arrays[step["mean"]], dtype=np.float32)


def _check_linear(step: Step, reader: Reader, dim: int) -> int:
    """Check the step `linear`: the dimension of its output."""
    return _linear_shape(reader, step["weight"], step.get("bias"), dim)


def _run_linear(step: Step, arrays: Arrays, x: Array) -> Array:
    """Rows through a linear map."""
    return _linear(arrays, x, step["weight"], step.get("bias"))


def _linear_shape(reader: Reader, weight: Any, bias: Any, dim: int) -> int:
    """Output dimension of a linear map whose arrays fit."""
    out = reader.shape(weight, None, dim)[0]
    if bias is not None:
        reader.shape(bias, out)
    return out


def _linear(arrays: Arrays, x: Array, weight: str, bias: str | None) -> Array:
    """Rows through a linear map with an optional bias, in float32."""
    y = x @ np.asarray(arrays[weight], dtype=np.float32).T
    if bias is not None:
        y += np.asarray(arrays[bias], dtype=np.float32)
    return np.asarray(y, dtype=np.float32)


# mlp: layers as torch has them; BatchNorm is never folded, so that the arrays stay the trained ones


def _check_mlp(step: Step, reader: Reader, dim: int) -> int:
    """Check the layers of the step `mlp`: the dimension of its output."""
    if not isinstance(step["layers"], list):
        raise BridgeError(f"{reader.place}: layers is {type(step['layers']).__name__}. Expected a list.")
    for number, layer in enumerate(step["layers"], start=1):
        place = f"{reader.place}, layer {number}"
        names = set(layer) - {"eps"} if isinstance(layer, dict) else set()
        if len(names) != 1 or next(iter(names)) not in _LAYERS:
            known = ", ".join(_LAYERS)
            raise BridgeError(f"{place}: got {layer!r}. Expected one of {known}; a newer isthmus may know it.")
        dim = _LAYERS[next(iter(names))](layer, Reader(reader.arrays, place), dim)
    return dim


def _names(layer: Step, key: str, count: int, place: str) -> list[Any]:
    """Names of a layer's arrays, as many as it needs."""
    if not isinstance(layer[key], list) or len(layer[key]) != count:
        raise BridgeError(f"{place}: {key} is {layer[key]!r}. Expected {count} array names.")
    return list(layer[key])


def _check_mlp_linear(layer: Step, reader: Reader, dim: int) -> int:
    """Check a linear layer of an MLP: the dimension of its output."""
    weight, bias = _names(layer, "linear", 2, reader.place)
    return _linear_shape(reader, weight, bias, dim)


def _check_batch_norm(layer: Step, reader: Reader, dim: int) -> int:
    """Check a batch norm layer of an MLP."""
    for name in _names(layer, "batch_norm", 4, reader.place):
        reader.shape(name, dim)
    reader.positive("eps", layer.get("eps"))
    if (reader.arrays[layer["batch_norm"][3]] < 0).any():
        raise BridgeError(f"{reader.place}: array {layer['batch_norm'][3]!r} holds negative variances.")
    return dim


def _check_relu(layer: Step, reader: Reader, dim: int) -> int:
    """Check a ReLU layer of an MLP."""
    if layer["relu"] is not True:
        raise BridgeError(f"{reader.place}: relu is {layer['relu']!r}. Expected true.")
    return dim


_LAYERS: dict[str, Callable[[Step, Reader, int], int]] = {
    "linear": _check_mlp_linear,
    "batch_norm": _check_batch_norm,
    "relu": _check_relu,
}


def _run_mlp(step: Step, arrays: Arrays, x: Array) -> Array:
    """Rows through the layers of an MLP in evaluation mode."""
    for layer in step["layers"]:
        if "linear" in layer:
            x = _linear(arrays, x, *layer["linear"])
        elif "batch_norm" in layer:
            x = _batch_norm(arrays, x, layer["batch_norm"], layer["eps"])
        else:
            x = np.maximum(x, np.float32(0.0))
    return x


def _batch_norm(arrays: Arrays, x: Array, names: Sequence[str], eps: float) -> Array:
    """Rows through a batch norm with its running mean and variance."""
    weight, bias, mean, var = (np.asarray(arrays[name], dtype=np.float32) for name in names)
    return np.asarray((x - mean) * (weight / np.sqrt(var + np.float32(eps))) + bias, dtype=np.float32)


def _rename_mlp(step: Step, to: Callable[[str], str]) -> Step:
    """The step `mlp` with the arrays of its layers renamed."""

    def names(value: Any) -> Any:
        return [to(v) if v is not None else None for v in value] if isinstance(value, list) else value

    return {**step, "layers": [{key: names(value) for key, value in layer.items()} for layer in step["layers"]]}


KINDS = {
    "normalize": kind("", "", lambda step, reader, dim: dim, _run_normalize, rename_keys()),
    "center": kind("mean", "", _check_center, _run_center, rename_keys("mean")),
    "linear": kind("weight", "bias", _check_linear, _run_linear, rename_keys("weight", "bias")),
    "mlp": kind("layers", "", _check_mlp, _run_mlp, _rename_mlp),
}
