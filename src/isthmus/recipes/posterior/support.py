"""Support: is there anything like a shared item in a memory?"""

from __future__ import annotations

import numpy as np

from isthmus.core.geometry import Array

_BLOCK = 2048


def support(items: Array, memory: Array, neighbours: int) -> Array:
    """Mean of the largest cosines of each item with a memory.

    Args:
        items: (n, d) unit rows.
        memory: (m, d) unit rows.
        neighbours: How many cosines; all, where the memory holds fewer.

    Returns:
        (n,) float32.
    """
    k = min(neighbours, len(memory))
    out = np.empty(len(items), dtype=np.float32)
    for start in range(0, len(items), _BLOCK):
        cosines = items[start : start + _BLOCK] @ memory.T
        out[start : start + _BLOCK] = np.partition(cosines, -k, axis=1)[:, -k:].mean(axis=1)
    return out
