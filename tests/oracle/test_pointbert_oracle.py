"""PointBERT against a second one, written down step by step in numpy: one cloud, one group, one head at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from isthmus.encoders.models.point_sampling import farthest_points, nearest_points
from isthmus.encoders.models.pointbert import PointBert, PointBertShape

SMALL = PointBertShape(depth=3, width=128, hidden=256, first=(16, 32), second=(64, 48), position=24, dim=40)
SMALL_COLOURED = PointBertShape(
    channels=6, depth=2, width=64, hidden=96, first=(16, 32), second=(64, 48), position=24, dim=72
)


def randomised(model: PointBert, seed: int) -> PointBert:
    """Random weights everywhere, running statistics and gains too, so that nothing is neutral."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if not value.is_floating_point():
                continue
            noise = torch.randn(value.shape, generator=generator)
            if name.endswith("running_var"):
                value.copy_(0.5 + noise.abs())
            elif value.ndim == 1 and name.endswith("weight"):
                value.copy_(1.0 + 0.3 * noise)
            elif value.ndim >= 2:
                value.copy_(noise / math.sqrt(value.shape[1] if value.ndim == 2 else value.shape[-1] + 8))
            else:
                value.copy_(0.3 * noise)
    return model


def farthest(xyz: np.ndarray, count: int) -> list[int]:
    xyz = xyz.astype(np.float32)
    best = np.full(len(xyz), np.float32(1e10), dtype=np.float32)
    picks = [0]
    while len(picks) < count:
        last = xyz[picks[-1]]
        winner, record = 0, np.float32(-1.0)
        for index, point in enumerate(xyz):
            if np.float32(point[0] ** 2 + point[1] ** 2 + point[2] ** 2) <= np.float32(1e-3):
                continue
            step = point - last
            best[index] = min(best[index], step[0] ** 2 + step[1] ** 2 + step[2] ** 2)
            if best[index] > record:
                winner, record = index, best[index]
        picks.append(winner)
    return picks


def nearest(xyz: np.ndarray, center: np.ndarray, count: int) -> list[int]:
    step = xyz.astype(np.float32) - center.astype(np.float32)
    squared = (step[:, 0] ** 2 + step[:, 1] ** 2) + step[:, 2] ** 2
    return sorted(range(len(xyz)), key=lambda index: (squared[index], index))[:count]


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * weight + bias


def gelu(x: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda v: 0.5 * v * (1.0 + math.erf(v / math.sqrt(2.0))))(x)


def reference(
    state: dict[str, np.ndarray], xyz: np.ndarray, rgb: np.ndarray | None, groups: int, size: int
) -> np.ndarray:
    """Embedding of one cloud, (dim,)."""

    def w(name: str) -> np.ndarray:
        return state["point_encoder." + name]

    def conv(name: str, x: np.ndarray) -> np.ndarray:
        return w(f"{name}.weight")[:, :, 0] @ x + w(f"{name}.bias")[:, None]

    def batch_norm(name: str, x: np.ndarray) -> np.ndarray:
        scaled = (x - w(f"{name}.running_mean")[:, None]) / np.sqrt(w(f"{name}.running_var") + 1e-5)[:, None]
        return scaled * w(f"{name}.weight")[:, None] + w(f"{name}.bias")[:, None]

    tokens, positions = [w("cls_token")[0, 0]], [w("cls_pos")[0, 0]]
    for pick in farthest(xyz, groups):
        center = xyz[pick]
        members = nearest(xyz, center, size)
        points = (xyz[members] - center).T  # (3, size)
        if rgb is not None:
            points = np.concatenate([points, rgb[members].T])
        hidden = np.maximum(batch_norm("encoder.first_conv.1", conv("encoder.first_conv.0", points)), 0.0)
        local = conv("encoder.first_conv.3", hidden)
        overall = np.repeat(local.max(axis=1, keepdims=True), size, axis=1)
        both = np.concatenate([overall, local])
        hidden = np.maximum(batch_norm("encoder.second_conv.1", conv("encoder.second_conv.0", both)), 0.0)
        group = conv("encoder.second_conv.3", hidden).max(axis=1)
        tokens.append(w("reduce_dim.weight") @ group + w("reduce_dim.bias"))
        inner = gelu(w("pos_embed.0.weight") @ center + w("pos_embed.0.bias"))
        positions.append(w("pos_embed.2.weight") @ inner + w("pos_embed.2.bias"))
    x, place = np.stack(tokens), np.stack(positions)
    width = x.shape[1]
    depth = len({name.split(".")[3] for name in state if name.startswith("point_encoder.blocks.blocks.")})
    for n in range(depth):
        block = f"blocks.blocks.{n}"
        x = x + place
        normed = np.stack([layer_norm(row, w(f"{block}.norm1.weight"), w(f"{block}.norm1.bias")) for row in x])
        q, k, v = np.split(normed @ w(f"{block}.attn.qkv.weight").T, 3, axis=1)
        heads = []
        for head in range(width // 64):
            part = slice(64 * head, 64 * head + 64)
            scores = q[:, part] @ k[:, part].T * 64**-0.5
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            heads.append(weights / weights.sum(axis=1, keepdims=True) @ v[:, part])
        x = x + np.concatenate(heads, axis=1) @ w(f"{block}.attn.proj.weight").T + w(f"{block}.attn.proj.bias")
        normed = np.stack([layer_norm(row, w(f"{block}.norm2.weight"), w(f"{block}.norm2.bias")) for row in x])
        inner = gelu(normed @ w(f"{block}.mlp.fc1.weight").T + w(f"{block}.mlp.fc1.bias"))
        x = x + inner @ w(f"{block}.mlp.fc2.weight").T + w(f"{block}.mlp.fc2.bias")
    x = np.stack([layer_norm(row, w("norm.weight"), w("norm.bias")) for row in x])
    return np.concatenate([x[0], x[1:].max(axis=0)]) @ state["pc_projection"]


def cloud(seed: int, points: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    xyz = rng.normal(size=(points, 3)).astype(np.float32)
    xyz -= xyz.mean(axis=0)
    xyz /= np.linalg.norm(xyz, axis=1).max()
    xyz[5:15] *= 0.01  # some so near the origin that they are never picked
    return xyz, rng.random((points, 3), dtype=np.float32)


@pytest.mark.parametrize("shape", [SMALL, SMALL_COLOURED], ids=["xyz", "coloured"])
@pytest.mark.parametrize("given_colours", [True, False])
def test_the_network_agrees_with_the_reference(shape: PointBertShape, given_colours: bool) -> None:
    model = randomised(PointBert(shape, groups=20, group_size=12), seed=1)
    state = {name: value.double().numpy() for name, value in model.state_dict().items()}
    clouds = [cloud(seed, 150) for seed in (2, 3)]
    got = model(
        torch.tensor(np.stack([xyz for xyz, _ in clouds])),
        torch.tensor(np.stack([rgb for _, rgb in clouds])) if given_colours else None,
    ).numpy()
    for row, (xyz, rgb) in enumerate(clouds):
        colours = None if shape.channels == 3 else rgb if given_colours else np.full_like(rgb, 0.4)
        expected = reference(state, xyz.astype(np.float64), colours, groups=20, size=12)
        assert np.linalg.norm(got[row] - expected) <= 1e-4 * np.linalg.norm(expected)


def test_the_published_shape_agrees_with_the_reference() -> None:
    """Full width and depth, fewer groups and points so that the reference ends."""
    model = randomised(PointBert(PointBertShape(), groups=24, group_size=32), seed=4)
    state = {name: value.double().numpy() for name, value in model.state_dict().items()}
    xyz, _ = cloud(5, 200)
    got = model(torch.tensor(xyz)[None])[0].numpy()
    expected = reference(state, xyz.astype(np.float64), None, groups=24, size=32)
    assert np.linalg.norm(got - expected) <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize("grid", [False, True], ids=["scattered", "with ties"])
def test_farthest_and_nearest_points_agree_with_loops(grid: bool) -> None:
    xyz = cloud(6, 120)[0]
    if grid:  # many equal distances, and equal points
        xyz = np.round(xyz * 3) / 3
    picks = farthest_points(torch.tensor(xyz)[None], 40)
    assert picks[0].tolist() == farthest(xyz, 40)
    got = nearest_points(torch.tensor(xyz)[None], torch.tensor(xyz[picks[0]])[None], 9)
    for row, pick in zip(got[0].tolist(), picks[0].tolist(), strict=True):
        assert sorted(row) == sorted(nearest(xyz, xyz[pick], 9))
