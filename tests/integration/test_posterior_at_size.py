"""A bridge of posteriors and 20,000 items: projected, searched, explained, saved, loaded, grown by a third space.

Its vectors in a flat inner-product index, as any vector store is, find what `isthmus search` finds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.worlds import meanings, three_spaces, write_space

import isthmus
from isthmus.search.index import SearchIndex
from isthmus.spaces.selection import Selection

ITEMS, QUERIES, TEXTS = 20_000, 400, 2000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[isthmus.Space, isthmus.Space, isthmus.Space, Path]:
    """clip and clap of 2,000 texts, a gallery of 20,000 images by clip's encoder, and the folder."""
    folder = tmp_path_factory.mktemp("world")
    clip, clap, _ = three_spaces(folder, TEXTS)
    big = write_space(
        folder / "big", "clip", 24, 101, {"text": ("x", meanings(8, 7)), "image": ("g", meanings(ITEMS, 8))}
    )
    return clip, clap, big, folder


def test_vectors_in_any_index_find_what_search_finds(world: tuple[isthmus.Space, isthmus.Space, isthmus.Space, Path]):
    faiss = pytest.importorskip("faiss")
    clip, clap, big, folder = world
    made = isthmus.connect(clip, clap, via="text", method="posterior")
    made.save(folder / "b.bridge")
    bridge = isthmus.load_bridge(folder / "b.bridge")
    isthmus.project(bridge, big, into=folder / "u.space", modalities="image")
    stored = np.asarray(isthmus.open_space(folder / "u.space")["image"], np.float32)
    assert stored.shape == (ITEMS, bridge.dim)
    query = bridge.project(clap["audio"], space="clap")[:QUERIES]
    flat = faiss.IndexFlatIP(bridge.dim)
    flat.add(np.ascontiguousarray(stored))
    _, near = flat.search(np.ascontiguousarray(query), 10)
    own = SearchIndex.from_bridge(bridge, big["image"])
    ids = big["image"].ids
    same = [
        {hit.id for hit in hits} == {ids[number] for number in numbers}
        for hits, numbers in zip(own.search(query, k=10), near, strict=True)
    ]
    assert np.mean(same) >= 0.99

    # Why the best hit matches: shares of shared texts that are texts, and sum to no more than one.
    best = near[0, 0]
    why = bridge.explain(Selection(clap["audio"], [0]), Selection(big["image"], [int(best)]), top=5)
    assert why.exact
    assert {name for name, _ in why.shares} <= set(clip["text"].ids)
    assert 0 < sum(share for _, share in why.shares) <= 1 + 1e-6

    # A third space comes in, and no stored vector is out of date.
    touch = write_space(folder, "tact", 18, 104, {"touch": ("h", meanings(300, 5)), "text": ("t", meanings(TEXTS, 1))})
    grown = isthmus.extend(bridge, touch, via="text")
    again = grown.project(big["image"], space="clip")
    np.testing.assert_array_equal(again.astype(np.float16), stored.astype(np.float16))
    felt = grown.project(touch["touch"], space="tact")
    found = (felt @ stored.T).argmax(axis=1)
    cosine = np.einsum("nd,nd->n", meanings(300, 5), meanings(ITEMS, 8)[found])
    assert np.mean(cosine > 0.9) > 0.5
