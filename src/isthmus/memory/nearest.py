"""Exact nearest rows, without sorting what cannot be among them."""

from __future__ import annotations

import torch

from isthmus.memory.matrix import MatrixReader

_QUERIES = 256
_GROUP = 32


def nearest_rows(keys: MatrixReader, queries: MatrixReader, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k rows of largest product with each query, best first.

    Returns:
        scores (q, k) float32 and rows (q, k) int64, on the device of the memory.
    """
    device = keys.device
    scores = torch.full((queries.n, k), -torch.inf, device=device)
    rows = torch.zeros((queries.n, k), dtype=torch.int64, device=device)
    size = _QUERIES if device.type == "cpu" else 8192
    for begin in range(0, queries.n, 64 * size):
        block = queries.block(begin, min(begin + 64 * size, queries.n))
        for start, chunk in keys.chunks():
            for first in range(0, len(block), size):
                largest, where = _largest(block[first : first + size] @ chunk.T, k)
                part = slice(begin + first, begin + first + len(largest))
                best, order = torch.cat([scores[part], largest], dim=1).topk(k, dim=1)
                rows[part] = torch.cat([rows[part], where + start], dim=1).gather(1, order)
                scores[part] = best
    return scores, rows


def _largest(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """At most k largest per row, in no order.

    The k largest lie in the k groups of largest maximum, and the maximum of strided groups is a plain vector operation;
    sorting is left with k groups instead of all.
    """
    n, m = scores.shape
    groups = m // _GROUP
    if scores.device.type != "cpu" or groups < 4 * k:
        top = scores.topk(min(k, m), dim=1)
        return top.values, top.indices
    body = scores[:, : groups * _GROUP].reshape(n, _GROUP, groups)
    chosen = body.amax(dim=1).topk(k, dim=1).indices
    columns = (torch.arange(_GROUP)[:, None] * groups + chosen[:, None, :]).flatten(1)
    rest = torch.arange(groups * _GROUP, m).expand(n, -1)
    columns = torch.cat([columns, rest], dim=1)
    best = scores.gather(1, columns).topk(k, dim=1)
    return best.values, columns.gather(1, best.indices)
