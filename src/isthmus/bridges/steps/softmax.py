"""Steps that look rows up among stored rows: dictionary, posterior, power_average, denoise."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.bridges.steps.step import Arrays, Reader, Step, is_number, kind, rename_keys
from isthmus.core.geometry import Array, normalize
from isthmus.errors import BridgeError

KEYS = 8192
"""Stored rows that are multiplied at once."""

# dictionary: softmax over the keys, average of the values


def _check_average(step: Step, reader: Reader, dim: int, *, setting: str) -> int:
    """Keys of the rows' dimension with a value each, and a setting above 0: the dimension of the values."""
    rows = reader.shape(step["keys"], None, dim)[0]
    reader.positive(setting, step[setting])
    reader.positive("the number of keys", rows)
    return reader.shape(step["values"], rows, None)[1]


def _run_dictionary(step: Step, arrays: Arrays, x: Array) -> Array:
    """Softmax average of stored values at rows: the step `dictionary`."""
    return softmax_average(x, arrays[step["keys"]], arrays[step["values"]], step["temperature"])


def softmax_average(
    x: Array, keys: NDArray[Any], values: NDArray[Any], temperature: float, bias: NDArray[Any] | None = None
) -> Array:
    """softmax(x keys^T / temperature + bias) values, exact in float32, a block of keys at a time.

    Args:
        x: (n, d) queries.
        keys: (m, d), float16 or float32.
        values: (m, D), float16 or float32.
        temperature: Divides the products.
        bias: (m,) added to the logits, such as a log prior of the keys.

    Returns:
        (n, D) float32. Memory beside it: n times `KEYS` scores.
    """
    top = np.full((len(x), 1), -np.inf, dtype=np.float32)
    mass = np.zeros((len(x), 1), dtype=np.float32)
    total = np.zeros((len(x), values.shape[1]), dtype=np.float32)
    scaled = np.asarray(x, dtype=np.float32) / np.float32(temperature)
    for start in range(0, len(keys), KEYS):
        scores = scaled @ np.asarray(keys[start : start + KEYS], dtype=np.float32).T
        if bias is not None:
            scores += np.asarray(bias[start : start + KEYS], dtype=np.float32)
        # A running maximum: what was summed so far is scaled down when a block holds a higher score.
        higher = np.maximum(top, scores.max(axis=1, keepdims=True))
        fade = np.exp(top - higher)
        np.exp(np.subtract(scores, higher, out=scores), out=scores)
        total = total * fade + scores @ np.asarray(values[start : start + KEYS], dtype=np.float32)
        mass = mass * fade + scores.sum(axis=1, keepdims=True)
        top = higher
    return np.asarray(total / mass, dtype=np.float32)


# posterior: the weights of the softmax themselves, or their product with stored rows


def _check_posterior(step: Step, reader: Reader, dim: int) -> int:
    """Check the step `posterior`: the number of keys, or the dimension of the values."""
    rows = reader.shape(step["keys"], None, dim)[0]
    reader.positive("temperature", step["temperature"])
    reader.positive("the number of keys", rows)
    if (bias := step.get("bias")) is not None:
        reader.shape(bias, rows)
    if (labels := step.get("labels")) is not None:
        reader.shape(labels, None)
    if (top := step.get("top")) is not None and not (isinstance(top, int) and not isinstance(top, bool) and top > 0):
        raise BridgeError(f"{reader.place}: top is {top!r}. Expected a whole number above 0, or null.")
    if (values := step.get("values")) is None:
        return rows
    if top is not None:
        raise BridgeError(f"{reader.place}: has both top and values. Expected one of them.")
    return reader.shape(values, rows, None)[1]


def _run_posterior(step: Step, arrays: Arrays, x: Array) -> Array:
    """Posterior of rows over stored keys, or the average of values under it: the step `posterior`."""
    keys, bias = arrays[step["keys"]], arrays[step["bias"]] if step.get("bias") is not None else None
    if step.get("values") is not None:
        return softmax_average(x, keys, arrays[step["values"]], step["temperature"], bias)
    p = posterior(x, keys, step["temperature"], bias)
    return p if step.get("top") is None else keep_largest(p, step["top"])


def posterior(x: Array, keys: NDArray[Any], temperature: float, bias: NDArray[Any] | None = None) -> Array:
    """softmax(x keys^T / temperature + bias): how probable each stored row is, given a row of x.

    Args:
        x: (n, d) queries.
        keys: (m, d), float16 or float32.
        temperature: Divides the products.
        bias: (m,) added to the logits.

    Returns:
        (n, m) float32, rows of sum one.
    """
    p = (np.asarray(x, dtype=np.float32) / np.float32(temperature)) @ np.asarray(keys, dtype=np.float32).T
    if bias is not None:
        p += np.asarray(bias, dtype=np.float32)
    p -= p.max(axis=1, keepdims=True)
    np.exp(p, out=p)
    p /= p.sum(axis=1, keepdims=True)
    return np.asarray(p, dtype=np.float32)


def keep_largest(p: Array, top: int) -> Array:
    """Keep the largest `top` entries of every row of (n, m); the others become 0."""
    if top >= p.shape[1]:
        return p
    largest = np.argpartition(p, -top, axis=1)[:, -top:]
    out = np.zeros_like(p)
    np.put_along_axis(out, largest, np.take_along_axis(p, largest, axis=1), axis=1)
    return out


# power_average: weights are powers of products; with products of posteriors, those of two meanings being the same


def _run_power_average(step: Step, arrays: Arrays, x: Array) -> Array:
    """Average of values under powers of products: the step `power_average`."""
    scores = x @ np.asarray(arrays[step["keys"]], dtype=np.float32).T
    np.maximum(scores, np.float32(0.0), out=scores)
    # The largest becomes 1 before the power, so that small products do not vanish in float32.
    scores /= np.maximum(scores.max(axis=1, keepdims=True), np.float32(1e-30))
    np.power(scores, np.float32(step["power"]), out=scores)
    scores /= np.maximum(scores.sum(axis=1, keepdims=True), np.float32(1e-30))
    return np.asarray(scores @ np.asarray(arrays[step["values"]], dtype=np.float32), dtype=np.float32)


# denoise: a row moved towards the mean of its nearest stored rows


def _check_denoise(step: Step, reader: Reader, dim: int) -> int:
    """Check the step `denoise`, which keeps the dimension."""
    rows, k = reader.shape(step["memory"], None, dim)[0], step["neighbours"]
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= rows:
        raise BridgeError(f"{reader.place}: neighbours is {k!r}. Expected a whole number from 1 to {rows}.")
    if not is_number(step["weight"]) or step["weight"] < 0:
        raise BridgeError(f"{reader.place}: weight is {step['weight']!r}. Expected a number of at least 0.")
    return dim


def _run_denoise(step: Step, arrays: Arrays, x: Array) -> Array:
    """Rows moved towards their neighbours in a memory: the step `denoise`."""
    return denoise(x, arrays[step["memory"]], step["neighbours"], step["weight"])


def denoise(x: Array, memory: NDArray[Any], neighbours: int, weight: float) -> Array:
    """unit(x + weight unit(mean of the nearest rows of a memory)).

    Args:
        x: (n, d) unit rows.
        memory: (m, d) unit rows, float16 or float32.
        neighbours: How many of the memory's rows, by cosine.
        weight: Weight of their mean.

    Returns:
        (n, d) float32 unit rows.
    """
    rows = np.asarray(memory, dtype=np.float32)
    scores = x @ rows.T
    worst = np.partition(scores, -neighbours, axis=1)[:, -neighbours, None]
    # The mean as a product: zeros and ones of the nearest rows times the memory.
    nearest = normalize(np.asarray((scores >= worst).astype(np.float32) @ rows, dtype=np.float32))
    return normalize(x + np.float32(weight) * nearest)


_check_temperature = partial(_check_average, setting="temperature")
_check_power = partial(_check_average, setting="power")

KINDS = {
    "dictionary": kind(
        "keys values temperature",
        "",
        _check_temperature,
        _run_dictionary,
        rename_keys("keys", "values"),
    ),
    "posterior": kind(
        "keys temperature",
        "bias values labels top",
        _check_posterior,
        _run_posterior,
        rename_keys("keys", "bias", "values", "labels"),
    ),
    "power_average": kind(
        "keys values power",
        "",
        _check_power,
        _run_power_average,
        rename_keys("keys", "values"),
    ),
    "denoise": kind("memory neighbours weight", "", _check_denoise, _run_denoise, rename_keys("memory")),
}
