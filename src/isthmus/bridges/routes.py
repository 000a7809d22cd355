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
posterior   {keys (m, d), temperature, bias (m,), values (m, D), top, labels}
                                            p = softmax(x keys^T / temperature + bias); its product with values, or p
                                            itself, or its `top` largest entries. labels are the names of the keys, a
                                            JSON list as UTF-8 bytes
power_average  {keys (m, d), values (m, D), power}      weights max(x keys^T, 0)^power, scaled to sum one, times values
denoise     {memory (m, d), neighbours, weight}         unit(x + weight unit(mean of the nearest rows of the memory))
blend       {weights, chains}               unit length of the weighted sum of the chains' unit outputs
concat      {weights, chains}               the chains' unit outputs side by side, each times sqrt(weight):
                                            the cosines of the chains add up, weighted
stack       {scales, chains}                the chains' outputs as they are side by side, each times its scale
filler      {length, index, coordinates}    x / length and further coordinates, 0 but for one, that make it a unit row

A new idea is a new entry of `STEPS`, not a new file format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from isthmus.bridges.steps import affine, filler, softmax
from isthmus.bridges.steps.softmax import softmax_average
from isthmus.bridges.steps.step import Arrays, Reader, Route, Step, StepKind, is_number, kind
from isthmus.core.geometry import Array, normalize
from isthmus.errors import BridgeError

__all__ = [
    "STEPS",
    "Arrays",
    "Route",
    "Step",
    "apply_route",
    "rename_arrays",
    "route_arrays",
    "softmax_average",
    "validate_route",
]

ROWS = 4096
"""Rows that run through a route at once: bounds the memory of hidden layers and of softmax weights."""


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
        name = step.get("kind") if isinstance(step, dict) else None
        if not isinstance(name, str) or name not in STEPS:
            known = ", ".join(STEPS)
            raise BridgeError(f"{place}: kind {name!r} is unknown here. Expected {known}; a newer isthmus may know it.")
        place = f"{place} ({name})"
        _check_keys(step, STEPS[name], place)
        dim = STEPS[name].check(step, Reader(arrays, place), dim)
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
    """Rows at the end of a chain of steps."""
    for step in steps:
        x = STEPS[step["kind"]].run(step, arrays, x)
    return x


def _check_keys(step: Step, known: StepKind, place: str) -> None:
    """Refuse a step with a key too few or too many."""
    given = set(step) - {"kind"}
    if missing := known.required - given:
        raise BridgeError(f"{place}: key {min(missing)!r} is missing. Expected {', '.join(sorted(known.required))}.")
    if unknown := given - known.required - known.optional:
        raise BridgeError(f"{place}: key {min(unknown)!r} is unknown here; a newer isthmus may know it.")


# blend, concat and stack: several chains from the same rows


def _check_chains(step: Step, reader: Reader, dim: int) -> list[int]:
    """Check weights and chains of a blend or a concat; the dimension that each chain ends in."""
    weights, chains = step["weights"], step["chains"]
    if not isinstance(weights, list) or not isinstance(chains, list) or not chains or len(weights) != len(chains):
        raise BridgeError(f"{reader.place}: weights and chains do not match. Expected lists of one length, at least 1.")
    if not all(is_number(w) and w >= 0 for w in weights) or abs(sum(weights) - 1.0) > 1e-6:
        raise BridgeError(f"{reader.place}: weights are {weights!r}. Expected numbers of at least 0 that sum to 1.")
    return _chain_dims(chains, reader, dim)


def _chain_dims(chains: Sequence[Route], reader: Reader, dim: int) -> list[int]:
    """Dimension that each chain of a step ends in, once the chain is checked."""
    return [
        validate_route(chain, reader.arrays, dim, where=f"{reader.place}, chain {number}")
        for number, chain in enumerate(chains, start=1)
    ]


def _check_blend(step: Step, reader: Reader, dim: int) -> int:
    """Check a blend of chains: the one dimension that they all end in."""
    dims = _check_chains(step, reader, dim)
    if len(set(dims)) != 1:
        ends = ", ".join(map(str, dims))
        raise BridgeError(f"{reader.place}: chains end in {ends} dimensions. Expected the same of each.")
    return dims[0]


def _run_blend(step: Step, arrays: Arrays, x: Array) -> Array:
    """Weighted mean of the unit rows at the ends of several chains, at unit length."""
    parts = [normalize(_run(chain, arrays, x)) * np.float32(w) for w, chain in _weighted(step)]
    return normalize(np.asarray(sum(parts), dtype=np.float32))


def _check_concat(step: Step, reader: Reader, dim: int) -> int:
    """Check a concat of chains: the sum of their dimensions."""
    return sum(_check_chains(step, reader, dim))


def _run_concat(step: Step, arrays: Arrays, x: Array) -> Array:
    """Unit rows at the ends of several chains side by side, so that cosines add up by weight."""
    parts = [normalize(_run(chain, arrays, x)) * np.float32(math.sqrt(w)) for w, chain in _weighted(step)]
    return np.concatenate(parts, axis=1)


def _weighted(step: Step) -> list[tuple[float, Route]]:
    """Chains of a step with their weights."""
    return list(zip(step["weights"], step["chains"], strict=True))


def _rename_chains(step: Step, to: Callable[[str], str]) -> Step:
    """A step with the arrays of its chains renamed."""
    return {**step, "chains": [rename_arrays(chain, to) for chain in step["chains"]]}


def _check_stack(step: Step, reader: Reader, dim: int) -> int:
    """Check a stack of scaled chains: the sum of their dimensions."""
    scales, chains = step["scales"], step["chains"]
    if not isinstance(scales, list) or not isinstance(chains, list) or not chains or len(scales) != len(chains):
        raise BridgeError(f"{reader.place}: scales and chains do not match. Expected lists of one length, at least 1.")
    if not all(is_number(scale) for scale in scales):
        raise BridgeError(f"{reader.place}: scales are {scales!r}. Expected finite numbers.")
    return sum(_chain_dims(chains, reader, dim))


def _run_stack(step: Step, arrays: Arrays, x: Array) -> Array:
    """Rows at the ends of several chains side by side, each times its scale."""
    pairs = zip(step["scales"], step["chains"], strict=True)
    return np.concatenate([_run(chain, arrays, x) * np.float32(scale) for scale, chain in pairs], axis=1)


STEPS: dict[str, StepKind] = {
    **affine.KINDS,
    **softmax.KINDS,
    **filler.KINDS,
    "blend": kind("weights chains", "", _check_blend, _run_blend, _rename_chains),
    "concat": kind("weights chains", "", _check_concat, _run_concat, _rename_chains),
    "stack": kind("scales chains", "", _check_stack, _run_stack, _rename_chains),
}
"""The kinds of step, by name."""
