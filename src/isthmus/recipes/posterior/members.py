"""Reading what the closed forms see of the spaces that they join."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isthmus.bridges.steps.softmax import softmax_average
from isthmus.core.geometry import Array, centroid, normalize
from isthmus.core.runtime import numpy_generator
from isthmus.errors import ConfigError, OverlapError
from isthmus.recipes.posterior.joint import Joint, Link, Member, Memory
from isthmus.spaces.overlap import MINIMUM_OVERLAP, overlap

if TYPE_CHECKING:
    from isthmus.spaces.embeddings import Embeddings
    from isthmus.spaces.space import Space

MAXIMUM_ITEMS = 50_000
"""Most shared items that a posterior is over, drawn at random."""
VIRTUAL_TEMPERATURE = 0.03
"""Temperature of the average that stands for a shared item in a space that lacks it."""

Rows = NDArray[np.int64]


Vias = Mapping[tuple[int, int], Sequence[str]]
"""By the numbers of two spaces, the modalities through which they are joined."""


def gather(spaces: Sequence[Space], vias: Vias, *, memory_rows: int, seed: int) -> Joint:
    """Read what is shared by spaces, and a memory of every modality.

    The posterior's items are those of the modality that most spaces are joined through. A space that lacks it describes
    each item by the average of what it shares with a space that has it.

    Args:
        spaces: Two or more.
        vias: How they are joined; every space must be reached.
        memory_rows: Most rows of a memory.
        seed: Seed of the draws.

    Raises:
        OverlapError: Too few ids are shared, or a modality of `vias` is missing in a space.
        ConfigError: A space is joined to no other.
    """
    _check_reached(spaces, vias)
    families = _families(spaces, vias)
    having = [n for n, space in enumerate(spaces) if all(name in space for name in families)]
    shared = {name: _common(spaces, having, name, seed) for name in families}
    items: dict[int, Array] = {}
    means: dict[tuple[int, str], Array] = {}
    for n in having:
        parts = []
        for name, (_, rows) in shared.items():
            unit = spaces[n][name].unit(rows[n])
            means[n, name] = centroid(unit)
            parts.append(normalize(unit - means[n, name]))
        items[n] = np.concatenate(parts)
    links = [_link(spaces, pair, via, shared, items, means) for pair, via in vias.items()]
    virtual = _describe_the_rest(len(spaces), links, items)
    members = [
        Member(
            space.name,
            items[n],
            {
                name: memory_of(
                    space[name], means.get((n, name)), memory_rows, seed, shared=name in shared and n in having
                )
                for name in space.modalities
            },
        )
        for n, space in enumerate(spaces)
    ]
    ids = [name for name_ids, _ in shared.values() for name in name_ids]
    labels = [text for name, (_, rows) in shared.items() for text in _labels(spaces[having[0]][name], rows[having[0]])]
    counts = {name: len(name_ids) for name, (name_ids, _) in shared.items()}
    return Joint(members, links, ids, labels, counts, virtual=[spaces[n].name for n in virtual])


def _check_reached(spaces: Sequence[Space], vias: Vias) -> None:
    reached = {0}
    for _ in spaces:
        for a, b in vias:
            if a in reached or b in reached:
                reached |= {a, b}
    if missing := [space.name for n, space in enumerate(spaces) if n not in reached]:
        raise ConfigError(
            f"space {missing[0]!r} is joined to none of the others. Say through what: "
            f"--via {missing[0]},OTHER:MODALITY."
        )


def _families(spaces: Sequence[Space], vias: Vias) -> list[str]:
    """The overlap modalities that the posterior is over: those of every pair, or else the one of most spaces."""
    every = [set(via) for via in vias.values()]
    common = [name for name in next(iter(vias.values())) if all(name in via for via in every)]
    if common and all(name in space for name in common for space in spaces):
        return common
    names = dict.fromkeys(name for via in vias.values() for name in via)
    joined = {
        name: len({n for pair, via in vias.items() if name in via for n in pair if name in spaces[n]}) for name in names
    }
    return [max(joined, key=lambda name: joined[name])]


def _common(spaces: Sequence[Space], having: Sequence[int], name: str, seed: int) -> tuple[list[str], dict[int, Rows]]:
    """Ids of a modality that all of some spaces share, and their rows in each."""
    first = spaces[having[0]]
    found = {n: overlap(first, spaces[n], name) for n in having[1:]}
    if not found:
        raise OverlapError(f"only space {first.name!r} has {name!r}. Give a second one that has it.")
    everywhere = reduce(np.intersect1d, [shared.rows_a for shared in found.values()])
    if len(everywhere) < MINIMUM_OVERLAP:
        names = ", ".join(repr(spaces[n].name) for n in having)
        raise OverlapError(
            f"spaces {names} share {len(everywhere):,} {name} ids. At least {MINIMUM_OVERLAP} of the same items are "
            "needed in all of them. Encode one file with each of the encoders."
        )
    if len(everywhere) > MAXIMUM_ITEMS:
        everywhere = np.sort(numpy_generator(seed, 3).choice(everywhere, MAXIMUM_ITEMS, replace=False))
    rows = {having[0]: everywhere}
    for n, shared in found.items():
        order = np.argsort(shared.rows_a)
        rows[n] = shared.rows_b[order[np.searchsorted(shared.rows_a[order], everywhere)]]
    return first[name].id_array.take(everywhere).to_pylist(), rows


def _link(
    spaces: Sequence[Space],
    pair: tuple[int, int],
    via: Sequence[str],
    shared: Mapping[str, tuple[list[str], dict[int, Rows]]],
    items: Mapping[int, Array],
    means: dict[tuple[int, str], Array],
) -> Link:
    """The overlap of two spaces: the shared items where those are what joins them, else their own."""
    a, b = pair
    if set(via) == set(shared) and a in items and b in items:
        return Link(a, b, tuple(via), (items[a], items[b]), joint=True)
    parts = []
    for name in via:
        found = overlap(spaces[a], spaces[b], name)
        if len(found) < MINIMUM_OVERLAP:
            raise OverlapError(
                f"spaces {spaces[a].name!r} and {spaces[b].name!r} share {len(found):,} {name} ids, expected at least "
                f"{MINIMUM_OVERLAP}. Encode one file with both encoders."
            )
        both = []
        for n, rows in ((a, found.rows_a), (b, found.rows_b)):
            unit = spaces[n][name].unit(rows)
            mean = means.setdefault((n, name), centroid(unit))
            both.append(normalize(unit - mean))
        parts.append(both)
    return Link(a, b, tuple(via), (np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])))


def _describe_the_rest(count: int, links: Sequence[Link], items: dict[int, Array]) -> list[int]:
    """Shared items in spaces that lack them: averages of what they share with a space that has them."""
    virtual: list[int] = []
    while len(items) < count:
        for link in links:
            for (here, there), (near, far) in (
                ((link.first, link.second), link.rows),
                ((link.second, link.first), link.rows[::-1]),
            ):
                if here in items and there not in items:
                    near_mean = normalize(near)
                    items[there] = normalize(softmax_average(items[here], near_mean, far, VIRTUAL_TEMPERATURE))
                    virtual.append(there)
    return virtual


def memory_of(embeddings: Embeddings, mean: Array | None, most: int, seed: int, *, shared: bool) -> Memory:
    """The memory of a modality; `mean` is that of its shared items, where it is part of an overlap."""
    if mean is None:
        mean = _mean(embeddings)
    return Memory(mean, normalize(embeddings.unit(_some(len(embeddings), most, seed)) - mean), shared)


def _some(n: int, most: int, seed: int) -> Rows:
    if n <= most:
        return np.arange(n, dtype=np.int64)
    return np.sort(numpy_generator(seed, 2).choice(n, most, replace=False)).astype(np.int64)


def _mean(embeddings: Embeddings) -> Array:
    """Centroid of all rows at unit length, a block at a time."""
    total = np.zeros(embeddings.dim, dtype=np.float64)
    for block in embeddings.blocks():
        total += normalize(block).sum(axis=0, dtype=np.float64)
    return np.asarray(total / max(len(embeddings), 1), dtype=np.float32)


def _labels(embeddings: Embeddings, rows: Rows) -> list[str]:
    """What shared items are called: their texts where the space holds them, else their ids."""
    table = embeddings.metadata
    column = "text" if "text" in table.column_names else "id"
    return [str(value) for value in table.column(column).take(rows).to_pylist()]
