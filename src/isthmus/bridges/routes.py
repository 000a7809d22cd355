"""Routes: chains of named steps that carry one modality of one space into the unified space, run by numpy alone.

A route is a list of dicts. Each dict has a `kind` and the keys of that kind; a key that holds an array holds its NAME,
the array itself lies in the bridge's `projectors.safetensors`, so several routes can share it. For rows x of (n, d):

normalize   {}                              rows of unit length
center      {mean (d,)}                     x - mean
linear      {weight (D, d), bias (D,)}      x W^T + b; the bias may be null
mlp         {layers: [...]}                 the layers in turn, each one of
                {"linear": [weight, bias]}
                {"batch_norm": [weight, bias, mean, var], "eps": 1e-5}, with its running statistics
                {"relu": true}
dictionary  {keys (m, d), values (m, D), temperature}   softmax(x keys^T / temperature) values
blend       {weights, chains}               unit length of the weighted sum of the chains' unit outputs
concat      {weights, chains}               the chains' unit outputs side by side, each times sqrt(weight):
                                            the cosines of the chains add up, weighted

A new idea is a new entry of `STEPS`, not a new file format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import Array, normalize
from isthmus.errors import BridgeError

Step = dict[str, Any]
Route = list[Step]
Arrays = Mapping[str, NDArray[Any]]
"""Arrays by name. A mapping with a method `shape(name)` is asked for that alone, and checks values on reading them."""

ROWS = 4096
"""Rows that run through a route at once: bounds the memory of hidden layers and of softmax weights."""
KEYS = 8192
"""Dictionary keys that are multiplied at once."""


class StepKind(NamedTuple):
    """What a kind of step is made of.

    Attributes:
        required: Keys that must be there, besides `kind`.
        optional: Keys that may be there.
        check: (step, reader, dim_in) to dim_out; raises BridgeError where keys or shapes do not fit.
        run: (step, arrays, rows) to rows, trusting what `check` has seen.
        rename: (step, function of a name) to the step with every array name replaced.
    """

    required: frozenset[str]
    optional: frozenset[str]
    check: Callable[[Step, _Reader, int], int]
    run: Callable[[Step, Arrays, Array], Array]
    rename: Callable[[Step, Callable[[str], str]], Step]


def apply_route(steps: Sequence[Step], arrays: Arrays, x: Array, *, where: str = "route") -> Array:
    """Carry rows along a route.

    Args:
        steps: The route.
        arrays: Arrays by name.
        x: (n, d) embeddings.
        where: What to call the route in a fault.

    Returns:
        (n, D) float32, of unit length only where the last step leaves it so.

    Raises:
        BridgeError: A step is unknown, lacks an array, or does not fit.
    """
    x = np.asarray(x)
    if x.ndim != 2:
        raise BridgeError(f"{where}: got embeddings of shape {x.shape}. Expected two dimensions, (items, dimensions).")
    out = np.empty((len(x), validate_route(steps, arrays, x.shape[1], where=where)), dtype=np.float32)
    for start in range(0, len(x), ROWS):
        out[start : start + ROWS] = _run(steps, arrays, np.asarray(x[start : start + ROWS], dtype=np.float32))
    return out


def validate_route(steps: Sequence[Step], arrays: Arrays, dim_in: int, *, where: str = "route") -> int:
    """Check a route against its arrays and return the dimension that it ends in.

    Raises:
        BridgeError: A kind or key is unknown or missing, an array is missing, misshapen or not finite. One line names
            the step.
    """
    if not isinstance(steps, Sequence) or isinstance(steps, str):
        raise BridgeError(f"{where}: got {type(steps).__name__}. Expected a list of steps.")
    dim = dim_in
    for number, step in enumerate(steps, start=1):
        place = f"{where}, step {number}"
        kind = step.get("kind") if isinstance(step, dict) else None
        if not isinstance(kind, str) or kind not in STEPS:
            known = ", ".join(STEPS)
            raise BridgeError(f"{place}: kind {kind!r} is unknown here. Expected {known}; a newer isthmus may know it.")
        place = f"{place} ({kind})"
        _check_keys(step, STEPS[kind], place)
        dim = STEPS[kind].check(step, _Reader(arrays, place), dim)
    return dim


def route_arrays(steps: Sequence[Step]) -> list[str]:
    """Names of the arrays that a route uses, each once, in the order of first use."""
    names: dict[str, None] = {}

    def note(name: str) -> str:
        names[name] = None
        return name

    rename_arrays(steps, note)
    return list(names)


def rename_arrays(steps: Sequence[Step], rename: Callable[[str], str]) -> Route:
    """A copy of a route with every array name passed through `rename`."""
    return [STEPS[step["kind"]].rename(step, rename) for step in steps]


def _run(steps: Sequence[Step], arrays: Arrays, x: Array) -> Array:
    for step in steps:
        x = STEPS[step["kind"]].run(step, arrays, x)
    return x


def _check_keys(step: Step, kind: StepKind, place: str) -> None:
    given = set(step) - {"kind"}
    if missing := kind.required - given:
        raise BridgeError(f"{place}: key {min(missing)!r} is missing. Expected {', '.join(sorted(kind.required))}.")
    if unknown := given - kind.required - kind.optional:
        raise BridgeError(f"{place}: key {min(unknown)!r} is unknown here; a newer isthmus may know it.")


class _Reader:
    """Looks arrays up for the checks, so that every fault names the step and the array."""

    def __init__(self, arrays: Arrays, place: str) -> None:
        self.arrays, self.place = arrays, place

    def shape(self, name: Any, *expected: int | None) -> tuple[int, ...]:
        """Shape of an array that must be there, finite, and of the expected shape (None: any length)."""
        if not isinstance(name, str) or name not in self.arrays:
            raise BridgeError(f"{self.place}: array {name!r} is not among the bridge's {len(self.arrays)} arrays.")
        lazy = getattr(self.arrays, "shape", None)
        shape = tuple(lazy(name) if lazy else self.arrays[name].shape)
        if len(shape) != len(expected) or any(e not in (None, s) for s, e in zip(shape, expected, strict=True)):
            wanted = ", ".join("any" if e is None else str(e) for e in expected)
            raise BridgeError(f"{self.place}: array {name!r} has shape {shape}. Expected ({wanted}).")
        if not lazy and not np.isfinite(self.arrays[name]).all():
            raise BridgeError(f"{self.place}: array {name!r} holds NaN or infinite values. Train it again.")
        return shape

    def positive(self, key: str, value: Any) -> None:
        """Raise unless value is a finite number above zero."""
        if not _is_number(value) or value <= 0:
            raise BridgeError(f"{self.place}: {key} is {value!r}. Expected a number above 0.")


def _is_number(value: Any) -> bool:
    # up to 1e300: what is beyond has no square, and an integer of that size is no float
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 1e300  # NaN is not


def _rename_keys(*keys: str) -> Callable[[Step, Callable[[str], str]], Step]:
    def rename(step: Step, to: Callable[[str], str]) -> Step:
        return {key: to(value) if key in keys and value is not None else value for key, value in step.items()}

    return rename


# normalize, center, linear


def _run_normalize(step: Step, arrays: Arrays, x: Array) -> Array:
    return normalize(x)


def _check_center(step: Step, reader: _Reader, dim: int) -> int:
    reader.shape(step["mean"], dim)
    return dim


def _run_center(step: Step, arrays: Arrays, x: Array) -> Array:
    return x - np.asarray(arrays[step["mean"]], dtype=np.float32)


def _check_linear(step: Step, reader: _Reader, dim: int) -> int:
    return _linear_shape(reader, step["weight"], step.get("bias"), dim)


def _run_linear(step: Step, arrays: Arrays, x: Array) -> Array:
    return _linear(arrays, x, step["weight"], step.get("bias"))


def _linear_shape(reader: _Reader, weight: Any, bias: Any, dim: int) -> int:
    out = reader.shape(weight, None, dim)[0]
    if bias is not None:
        reader.shape(bias, out)
    return out


def _linear(arrays: Arrays, x: Array, weight: str, bias: str | None) -> Array:
    y = x @ np.asarray(arrays[weight], dtype=np.float32).T
    if bias is not None:
        y += np.asarray(arrays[bias], dtype=np.float32)
    return np.asarray(y, dtype=np.float32)


# mlp: layers as torch has them; BatchNorm is never folded, so that the arrays stay the trained ones


def _check_mlp(step: Step, reader: _Reader, dim: int) -> int:
    if not isinstance(step["layers"], list):
        raise BridgeError(f"{reader.place}: layers is {type(step['layers']).__name__}. Expected a list.")
    for number, layer in enumerate(step["layers"], start=1):
        place = f"{reader.place}, layer {number}"
        names = set(layer) - {"eps"} if isinstance(layer, dict) else set()
        if len(names) != 1 or next(iter(names)) not in _LAYERS:
            known = ", ".join(_LAYERS)
            raise BridgeError(f"{place}: got {layer!r}. Expected one of {known}; a newer isthmus may know it.")
        dim = _LAYERS[next(iter(names))](layer, _Reader(reader.arrays, place), dim)
    return dim


def _names(layer: Step, key: str, count: int, place: str) -> list[Any]:
    if not isinstance(layer[key], list) or len(layer[key]) != count:
        raise BridgeError(f"{place}: {key} is {layer[key]!r}. Expected {count} array names.")
    return list(layer[key])


def _check_mlp_linear(layer: Step, reader: _Reader, dim: int) -> int:
    weight, bias = _names(layer, "linear", 2, reader.place)
    return _linear_shape(reader, weight, bias, dim)


def _check_batch_norm(layer: Step, reader: _Reader, dim: int) -> int:
    for name in _names(layer, "batch_norm", 4, reader.place):
        reader.shape(name, dim)
    reader.positive("eps", layer.get("eps"))
    if (reader.arrays[layer["batch_norm"][3]] < 0).any():
        raise BridgeError(f"{reader.place}: array {layer['batch_norm'][3]!r} holds negative variances.")
    return dim


def _check_relu(layer: Step, reader: _Reader, dim: int) -> int:
    if layer["relu"] is not True:
        raise BridgeError(f"{reader.place}: relu is {layer['relu']!r}. Expected true.")
    return dim


_LAYERS: dict[str, Callable[[Step, _Reader, int], int]] = {
    "linear": _check_mlp_linear,
    "batch_norm": _check_batch_norm,
    "relu": _check_relu,
}


def _run_mlp(step: Step, arrays: Arrays, x: Array) -> Array:
    for layer in step["layers"]:
        if "linear" in layer:
            x = _linear(arrays, x, *layer["linear"])
        elif "batch_norm" in layer:
            x = _batch_norm(arrays, x, layer["batch_norm"], layer["eps"])
        else:
            x = np.maximum(x, np.float32(0.0))
    return x


def _batch_norm(arrays: Arrays, x: Array, names: Sequence[str], eps: float) -> Array:
    weight, bias, mean, var = (np.asarray(arrays[name], dtype=np.float32) for name in names)
    return np.asarray((x - mean) * (weight / np.sqrt(var + np.float32(eps))) + bias, dtype=np.float32)


def _rename_mlp(step: Step, to: Callable[[str], str]) -> Step:
    def names(value: Any) -> Any:
        return [to(v) if v is not None else None for v in value] if isinstance(value, list) else value

    return {**step, "layers": [{key: names(value) for key, value in layer.items()} for layer in step["layers"]]}


# dictionary: softmax over the keys, average of the values


def _check_dictionary(step: Step, reader: _Reader, dim: int) -> int:
    rows = reader.shape(step["keys"], None, dim)[0]
    reader.positive("temperature", step["temperature"])
    reader.positive("the number of keys", rows)
    return reader.shape(step["values"], rows, None)[1]


def _run_dictionary(step: Step, arrays: Arrays, x: Array) -> Array:
    return softmax_average(x, arrays[step["keys"]], arrays[step["values"]], step["temperature"])


def softmax_average(x: Array, keys: NDArray[Any], values: NDArray[Any], temperature: float) -> Array:
    """softmax(x keys^T / temperature) values, exact in float32, a block of keys at a time with a running maximum.

    Args:
        x: (n, d) queries.
        keys: (m, d), float16 or float32.
        values: (m, D), float16 or float32.
        temperature: Divides the products.

    Returns:
        (n, D) float32. Memory beside it: n times `KEYS` scores.
    """
    top = np.full((len(x), 1), -np.inf, dtype=np.float32)
    mass = np.zeros((len(x), 1), dtype=np.float32)
    total = np.zeros((len(x), values.shape[1]), dtype=np.float32)
    scaled = np.asarray(x, dtype=np.float32) / np.float32(temperature)
    for start in range(0, len(keys), KEYS):
        scores = scaled @ np.asarray(keys[start : start + KEYS], dtype=np.float32).T
        higher = np.maximum(top, scores.max(axis=1, keepdims=True))
        fade = np.exp(top - higher)
        np.exp(np.subtract(scores, higher, out=scores), out=scores)
        total = total * fade + scores @ np.asarray(values[start : start + KEYS], dtype=np.float32)
        mass = mass * fade + scores.sum(axis=1, keepdims=True)
        top = higher
    return np.asarray(total / mass, dtype=np.float32)


# blend and concat: several chains from the same rows


def _check_chains(step: Step, reader: _Reader, dim: int) -> list[int]:
    weights, chains = step["weights"], step["chains"]
    if not isinstance(weights, list) or not isinstance(chains, list) or not chains or len(weights) != len(chains):
        raise BridgeError(f"{reader.place}: weights and chains do not match. Expected lists of one length, at least 1.")
    if not all(_is_number(w) and w >= 0 for w in weights) or abs(sum(weights) - 1.0) > 1e-6:
        raise BridgeError(f"{reader.place}: weights are {weights!r}. Expected numbers of at least 0 that sum to 1.")
    return [
        validate_route(chain, reader.arrays, dim, where=f"{reader.place}, chain {number}")
        for number, chain in enumerate(chains, start=1)
    ]


def _check_blend(step: Step, reader: _Reader, dim: int) -> int:
    dims = _check_chains(step, reader, dim)
    if len(set(dims)) != 1:
        ends = ", ".join(map(str, dims))
        raise BridgeError(f"{reader.place}: chains end in {ends} dimensions. Expected the same of each.")
    return dims[0]


def _run_blend(step: Step, arrays: Arrays, x: Array) -> Array:
    parts = [normalize(_run(chain, arrays, x)) * np.float32(w) for w, chain in _weighted(step)]
    return normalize(np.asarray(sum(parts), dtype=np.float32))


def _check_concat(step: Step, reader: _Reader, dim: int) -> int:
    return sum(_check_chains(step, reader, dim))


def _run_concat(step: Step, arrays: Arrays, x: Array) -> Array:
    parts = [normalize(_run(chain, arrays, x)) * np.float32(math.sqrt(w)) for w, chain in _weighted(step)]
    return np.concatenate(parts, axis=1)


def _weighted(step: Step) -> list[tuple[float, Route]]:
    return list(zip(step["weights"], step["chains"], strict=True))


def _rename_chains(step: Step, to: Callable[[str], str]) -> Step:
    return {**step, "chains": [rename_arrays(chain, to) for chain in step["chains"]]}


def _kind(required: str, optional: str, check: Any, run: Any, rename: Any) -> StepKind:
    return StepKind(frozenset(required.split()), frozenset(optional.split()), check, run, rename)


STEPS: dict[str, StepKind] = {
    "normalize": _kind("", "", lambda step, reader, dim: dim, _run_normalize, _rename_keys()),
    "center": _kind("mean", "", _check_center, _run_center, _rename_keys("mean")),
    "linear": _kind("weight", "bias", _check_linear, _run_linear, _rename_keys("weight", "bias")),
    "mlp": _kind("layers", "", _check_mlp, _run_mlp, _rename_mlp),
    "dictionary": _kind(
        "keys values temperature", "", _check_dictionary, _run_dictionary, _rename_keys("keys", "values")
    ),
    "blend": _kind("weights chains", "", _check_blend, _run_blend, _rename_chains),
    "concat": _kind("weights chains", "", _check_concat, _run_concat, _rename_chains),
}
"""The kinds of step, by name."""
