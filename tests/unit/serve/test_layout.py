"""The map: items that mean alike lie together, whatever their modality."""

from __future__ import annotations

import numpy as np
import pytest

from isthmus.core.geometry import Array, normalize
from isthmus.serve.layout import lay_out


def modalities(count: int, *, gap: float, noise: float) -> list[Array]:
    """The same meanings seen twice, each time with noise in directions of its own, and a gap between both."""
    rng = np.random.default_rng(0)
    meaning = rng.normal(size=(count, 8))
    groups = []
    for number in range(2):
        own = np.zeros((count, 32))
        own[:, :8] = meaning
        own[:, 8 + 8 * number : 16 + 8 * number] = noise * rng.normal(size=(count, 8))
        own[:, 24 + number] = gap
        groups.append(normalize(own.astype(np.float32)))
    return groups


def test_what_means_alike_lies_together_across_modalities():
    one, other = modalities(80, gap=5.0, noise=1.0)
    xy = lay_out([one, other])
    assert xy.shape == (160, 2)
    assert (xy >= 0).all()
    assert (xy <= 1).all()
    far = np.linalg.norm(xy[:80, None] - xy[None, 80:], axis=-1)
    ranks = (far < np.diag(far)[:, None]).sum(axis=1)
    assert np.median(ranks) <= 2, "at random it would be 40; islands of modalities gave as much"


def test_the_layout_is_the_same_again():
    groups = modalities(60, gap=1.0, noise=0.5)
    np.testing.assert_array_equal(lay_out(groups), lay_out(groups))


@pytest.mark.parametrize("sizes", [(1,), (2,), (1, 1), (3, 40), (1, 60), (70,), (60, 0)])
def test_any_number_of_items_has_places(sizes: tuple[int, ...]):
    rng = np.random.default_rng(1)
    groups = [normalize(rng.normal(size=(size, 5)).astype(np.float32)) for size in sizes]
    xy = lay_out(groups)
    assert xy.shape == (sum(sizes), 2)
    assert np.isfinite(xy).all()


def test_items_that_are_all_the_same_have_places():
    same = np.zeros((60, 4), np.float32)
    same[:, 0] = 1.0
    assert np.isfinite(lay_out([same, same])).all()
