"""Kinship of a space's own modalities: do its shared items lie where its other items lie?

A space whose table of texts comes from another encoder has texts that agree with each other and with another space's,
and nothing but chance between them and its own sounds. Its support then is what a turned table of texts has, too.
"""

from __future__ import annotations

import numpy as np

from isthmus.core.geometry import Array
from isthmus.core.runtime import numpy_generator
from isthmus.recipes.posterior.support import support

TURNS = 5
_ROWS = 1500


def kinship(items: Array, memory: Array, *, neighbours: int = 5, seed: int = 0) -> float:
    """How far the support of shared items lies above that of the same items turned at random.

    Args:
        items: (n, d) centred unit rows.
        memory: (m, d) centred unit rows of another modality of the space.
        neighbours: Cosines that support is the mean of.
        seed: Seed of rows and turns.

    Returns:
        Mean support over the mean of turned items, minus 1; about 0 where the two have nothing to do with each other.
    """
    generator = numpy_generator(seed, 8)
    items = items[generator.permutation(len(items))[:_ROWS]]
    memory = memory[generator.permutation(len(memory))[:_ROWS]]
    real = float(support(items, memory, neighbours).mean())
    turned = []
    for _ in range(TURNS):
        q, r = np.linalg.qr(generator.standard_normal((items.shape[1], items.shape[1])))
        rotation = (q * np.sign(np.diag(r))).astype(np.float32)
        turned.append(float(support(items @ rotation, memory, neighbours).mean()))
    return real / max(float(np.mean(turned)), 1e-9) - 1.0
