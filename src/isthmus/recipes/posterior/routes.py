"""A posterior model as routes: vectors whose products are its scores, and cosines by a filler coordinate."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.bridges.routes import Route, apply_route
from isthmus.core.geometry import Array
from isthmus.recipes.posterior.concepts import sum_by
from isthmus.recipes.posterior.model import Model, sample_rows

SPARE = 8
"""Filler coordinates that stay empty, for modalities of spaces that are added later."""
_DIRECTION_ROWS = 3072
"""Memory rows of all spaces together whose leading directions make a posterior compact."""

_LENGTH_ROWS = 512
"""Memory rows of a modality whose lengths are taken, evenly spaced."""

ArraysOut = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Written:
    """Routes by `space/modality`, their arrays, the dimension that they end in, and what is worth recording."""

    routes: dict[str, Route]
    arrays: ArraysOut
    dim: int
    record: dict[str, Any]


def write_canonical(model: Model) -> Written:
    """Routes of the canonical directions alone."""
    routes: dict[str, Route] = {}
    arrays: ArraysOut = {}
    for n, member in enumerate(model.joint.members):
        step, own = _canonical_step(model, n)
        arrays |= own
        for name, memory in member.memories.items():
            arrays[f"{member.name}/mean.{name}"] = memory.mean
            routes[f"{member.name}/{name}"] = [*centring(member.name, name), *step]
    return Written(routes, arrays, sum(k for _, k in model.canonical.blocks(0)), {})


def _canonical_step(model: Model, n: int) -> tuple[Route, ArraysOut]:
    """Canonical coordinates of a space as steps: a block of unit length a pair, zeros where it takes no part."""
    space, blocks = model.joint.members[n].name, model.canonical.blocks(n)
    arrays: ArraysOut = {}
    chains: list[Route] = []
    for number, (block, k) in enumerate(blocks):
        name = f"{space}/canonical.{number}"
        arrays[name] = np.zeros((k, model.joint.members[n].items.shape[1]), np.float32)
        if block is not None:
            arrays[name] = np.ascontiguousarray(block.T)
        chains.append([_linear(name), {"kind": "normalize"}])
    if len(chains) == 1:
        return chains[0], arrays
    scale = float(1 / np.sqrt(max(model.canonical.count - 1, 1)))
    return [{"kind": "stack", "scales": [scale] * len(chains), "chains": chains}], arrays


def write_posterior(model: Model, cca_weight: float) -> Written:
    """Routes of the posterior, with canonical directions beside it where their weight is above 0."""
    arrays = _shared_arrays(model)
    values, described = _values(model)
    arrays |= values
    bodies = {
        (n, name): _body(model, n, name, cca_weight, described)
        for n, member in enumerate(model.joint.members)
        for name in member.memories
    }
    longest = {
        (n, name): _longest(apply_route(body, arrays, _spaced(model.joint.members[n].memories[name].rows)))
        for (n, name), body in bodies.items()
    }
    # One length for all modalities: the scores of several galleries are then of one scale.
    length = max(longest.values())
    routes: dict[str, Route] = {}
    for index, ((n, name), body) in enumerate(bodies.items()):
        member = model.joint.members[n]
        filler = {"kind": "filler", "length": length, "index": index, "coordinates": len(bodies) + SPARE}
        routes[f"{member.name}/{name}"] = [*centring(member.name, name), *body, filler]
    dim = _dim(routes, arrays, model)
    return Written(routes, arrays, dim, {"length": length, "scales": model.scales})


def _spaced(rows: Array) -> Array:
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _LENGTH_ROWS)).astype(np.int64))]


def _longest(rows: Array) -> float:
    return float(np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64).max()))


def centring(space: str, modality: str) -> Route:
    """Steps that remove a modality's mean."""
    return [{"kind": "normalize"}, {"kind": "center", "mean": f"{space}/mean.{modality}"}, {"kind": "normalize"}]


def packed(names: object) -> NDArray[np.uint8]:
    """Names as the bytes of their json, for an array file."""
    return np.frombuffer(json.dumps(names, ensure_ascii=False).encode("utf-8"), dtype=np.uint8)


def _linear(weight: str) -> dict[str, Any]:
    return {"kind": "linear", "weight": weight, "bias": None}


def _shared_arrays(model: Model) -> ArraysOut:
    """Means, items, biases, memories and directions of every space, and the labels of the shared items."""
    arrays: ArraysOut = {"joint/labels": packed(model.joint.labels), "joint/ids": packed(model.joint.families)}
    for n, member in enumerate(model.joint.members):
        arrays[f"{member.name}/items"] = member.items.astype(np.float16)
        if model.config.cca_weight > 0:
            arrays |= _canonical_step(model, n)[1]
        if model.config.two_sided:
            arrays |= _nothing(model, n)
        for name, memory in member.memories.items():
            arrays[f"{member.name}/mean.{name}"] = memory.mean
            arrays[f"{member.name}/bias.{name}"] = model.biases[n, name]
            if model.config.denoising and not memory.shared:
                arrays[f"{member.name}/memory.{name}"] = memory.rows.astype(np.float16)
    return arrays


def _nothing(model: Model, n: int) -> ArraysOut:
    """Zeros in the place of pairs of other spaces, which a space has no part in."""
    here = model.joint.members[n]
    others = [other for pair in model.balance if n not in pair for other in pair]
    return {
        f"{here.name}/none.{model.joint.members[k].name}": np.zeros(
            (model.joint.members[k].items.shape[1], here.items.shape[1]), np.float32
        )
        for k in others
    }


def _body(model: Model, n: int, name: str, cca_weight: float, posterior: list[tuple[float, dict[str, Any]]]) -> Route:
    """Steps from centred unit rows to the vector, before its filler."""
    config, member = model.config, model.joint.members[n]
    look_up = {"kind": "posterior", "keys": f"{member.name}/items", "bias": f"{member.name}/bias.{name}"}
    look_up["labels"] = "joint/labels"
    chains: list[Route] = []
    scales: list[float] = []
    for scale, head in posterior:
        steps: Route = [{**look_up, "temperature": config.temperature, **head}]
        chains.append(steps)
        scales.append(scale)
    if config.two_sided:
        for pair, weight in model.balance.items():
            for k in pair:
                other = model.joint.members[k].name
                image = {**look_up, "temperature": config.two_sided_temperature, "values": f"{other}/items"}
                there: Route = [image, {"kind": "normalize"}] if n in pair else [_linear(f"{member.name}/none.{other}")]
                chains.append([] if k == n else there)
                scales.append(np.sqrt(weight / model.scales["two"][1]))
    steps = [{"kind": "stack", "scales": [float(s) for s in scales], "chains": chains}]
    memory = member.memories[name]
    if config.denoising and not memory.shared and len(memory.rows) > 1:
        k = min(config.denoising_neighbours, len(memory.rows))
        still = {"kind": "denoise", "memory": f"{member.name}/memory.{name}"}
        steps.insert(0, {**still, "neighbours": k, "weight": config.denoising_weight})
    if cca_weight > 0:
        canonical, _ = _canonical_step(model, n)
        both = [1.0, float(np.sqrt(cca_weight / model.scales["cca"][1]))]
        steps = [{"kind": "stack", "scales": both, "chains": [steps, canonical]}]
    return steps


def _values(model: Model) -> tuple[ArraysOut, list[tuple[float, dict[str, Any]]]]:
    """What posteriors are multiplied by, and the heads of the posterior steps with their scales."""
    config = model.config
    if not (config.mix or config.concepts):
        return {}, []
    if config.size == "compact":
        return {"joint/values": leading_directions(model)}, [(1.0, {"values": "joint/values"})]
    arrays: ArraysOut = {}
    heads: list[tuple[float, dict[str, Any]]] = []
    if config.mix:
        top = {"top": min(config.top, len(model.joint.ids))} if config.size == "sparse" else {}
        heads.append((1 / np.sqrt(model.scales["mix"][1]), top))
    if config.concepts:
        arrays["joint/concepts"] = _memberships(model)
        heads.append((1 / np.sqrt(model.scales["bag"][1]), {"values": "joint/concepts"}))
    return arrays, heads


def _memberships(model: Model) -> NDArray[np.float16]:
    """(items, clusters of all runs) of zeros and ones."""
    ends = np.cumsum([0, *(int(numbers.max()) + 1 for numbers in model.concepts)])
    out = np.zeros((len(model.joint.ids), ends[-1]), dtype=np.float16)
    for start, numbers in zip(ends, model.concepts, strict=False):
        out[np.arange(len(out)), start + numbers] = 1
    return out


def _features(model: Model, p: Array) -> Array:
    """Posteriors and their sums by concept, scaled so that products are mix and bag in deviations."""
    parts = []
    if model.config.mix:
        parts.append(p / np.float32(np.sqrt(model.scales["mix"][1])))
    if model.config.concepts:
        scale = np.float32(1 / np.sqrt(model.scales["bag"][1]))
        parts += [sum_by(p, numbers, int(numbers.max()) + 1) * scale for numbers in model.concepts]
    return np.concatenate(parts, axis=1)


def leading_directions(model: Model) -> NDArray[np.float16]:
    """(items, dim) matrix that carries posteriors to their leading directions over memory rows (uncentred SVD)."""
    from scipy.linalg import eigh

    share = _DIRECTION_ROWS // len(model.joint.members)
    features = []
    for n, member in enumerate(model.joint.members):
        for name, rows in sample_rows(member, share, 1).items():
            features.append(_features(model, model.describe(n, name, rows).p))
    f = np.concatenate(features)
    k = min(model.config.dim, len(f), f.shape[1])
    # By the Gram matrix of the rows: there are fewer of them than features.
    values, vectors = eigh(f @ f.T, subset_by_index=[len(f) - k, len(f) - 1], overwrite_a=True, check_finite=False)
    good = values > max(values[-1], 1e-30) * 1e-7
    u = (vectors[:, good] / np.sqrt(values[good])).astype(np.float32)[:, ::-1]
    directions = f.T @ u
    return _transposed_features(model, directions).astype(np.float16)


def _transposed_features(model: Model, directions: Array) -> Array:
    """The matrix M of `_features(p) @ directions == p @ M`."""
    items = len(model.joint.ids)
    out = np.zeros((items, directions.shape[1]), dtype=np.float32)
    start = 0
    if model.config.mix:
        out += directions[:items] / np.float32(np.sqrt(model.scales["mix"][1]))
        start = items
    if model.config.concepts:
        for numbers in model.concepts:
            count = int(numbers.max()) + 1
            out += directions[start : start + count][numbers] / np.float32(np.sqrt(model.scales["bag"][1]))
            start += count
    return out


def _dim(routes: dict[str, Route], arrays: ArraysOut, model: Model) -> int:
    from isthmus.bridges.routes import validate_route

    key, route = next(iter(routes.items()))
    member = next(m for m in model.joint.members if m.name == key.rpartition("/")[0])
    return validate_route(route, arrays, member.items.shape[1])
