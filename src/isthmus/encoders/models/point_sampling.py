"""Farthest points and nearest points of clouds: how a point encoder cuts a cloud into neighbourhoods. Plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

_NEAR_ORIGIN = 1e-3
_FAR = 1e10


def farthest_points(xyz: Tensor, count: int, *, lengths: Tensor | None = None) -> Tensor:
    """Sample points that are far from one another, as the kernel behind the published weights does it.

    The first pick is point 0; each next is the point farthest from all picks so far, by squared distance in float32,
    ties to the lower index. Points with a squared norm of at most 1e-3 are never picked after that: a quirk of the
    kernel that the published embeddings contain. Where nothing is left to pick, point 0 is picked again.

    Args:
        xyz: (batch, points, 3) float32 coordinates.
        count: Points to pick from each cloud; may exceed the points there are.
        lengths: (batch,) points of each cloud that are real; the rest is padding and is never picked. None: all.

    Returns:
        (batch, count) int64 indices.
    """
    x, y, z = (plane.contiguous() for plane in xyz.float().unbind(-1))
    eligible = (x * x + y * y + z * z) > _NEAR_ORIGIN
    if lengths is not None:
        eligible &= _real(lengths, xyz.shape[1])
    # A point that may not be picked keeps a distance below any real one; argmax of equal values is the first.
    distance = torch.where(eligible, _FAR, -1.0)
    picks = torch.zeros(xyz.shape[0], count, dtype=torch.int64, device=xyz.device)
    for step in range(1, count):
        last = picks[:, step - 1 : step]
        moved = _squared_distance((x, y, z), tuple(plane.gather(1, last) for plane in (x, y, z)))
        torch.minimum(distance, moved, out=distance)
        picks[:, step] = distance.argmax(dim=1)
    return picks


def nearest_points(xyz: Tensor, centers: Tensor, count: int, *, lengths: Tensor | None = None) -> Tensor:
    """The `count` points nearest to each centre by squared distance in float32, ties to the lower index.

    Args:
        xyz: (batch, points, 3) float32 coordinates.
        centers: (batch, centres, 3) float32 coordinates.
        count: Neighbours of each centre, at most the points of the smallest cloud.
        lengths: (batch,) points of each cloud that are real, as for `farthest_points`.

    Returns:
        (batch, centres, count) int64 indices, in no particular order.
    """
    real = [xyz.shape[1]] * len(xyz) if lengths is None else lengths.tolist()
    # One cloud at a time: a table of all distances of a batch would take gigabytes.
    rows = [_nearest(cloud[:n], around, count) for cloud, around, n in zip(xyz, centers, real, strict=True)]
    return torch.stack(rows)


def _nearest(cloud: Tensor, centers: Tensor, count: int) -> Tensor:
    points = tuple(plane[None, :] for plane in cloud.float().unbind(-1))
    queries = tuple(plane[:, None] for plane in centers.float().unbind(-1))
    # Bits of a float that is not negative order as the float does; with the index below them every key is unique, so
    # that equal distances (common in clouds stored in half precision) are settled alike on every device.
    keys = _squared_distance(points, queries).view(torch.int32).to(torch.int64)
    keys <<= 32
    keys |= torch.arange(len(cloud), device=cloud.device)
    return keys.topk(count, dim=-1, largest=False, sorted=False).values & 0xFFFFFFFF


def _squared_distance(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> Tensor:
    """Squared distances of points given as broadcastable coordinate planes, summed x, y, z in this order."""
    total = (a[0] - b[0]).square_()
    total += (a[1] - b[1]).square_()
    total += (a[2] - b[2]).square_()
    return total


def _real(lengths: Tensor, points: int) -> Tensor:
    """Which points of padded clouds are there."""
    return torch.arange(points, device=lengths.device) < lengths[:, None]


def take_points(values: Tensor, index: Tensor) -> Tensor:
    """Rows `index` (batch, ...) of `values` (batch, points, channels), as (batch, ..., channels)."""
    flat = index.flatten(1)
    rows = values.gather(1, flat[..., None].expand(-1, -1, values.shape[-1]))
    return rows.view(*index.shape, values.shape[-1])
