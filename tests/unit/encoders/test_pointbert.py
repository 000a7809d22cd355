"""ULIP-2's point encoder: sampling quirks, checkpoints' keys and shapes, batches of unequal clouds, speed."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from isthmus.encoders.models.point_sampling import farthest_points
from isthmus.encoders.models.pointbert import PointBert, PointBertShape
from isthmus.errors import EncoderError

TINY = PointBertShape(depth=2, width=64, hidden=96, first=(16, 32), second=(64, 48), position=24, dim=40)


def clouds(count: int, points: int, seed: int = 0) -> torch.Tensor:
    xyz = torch.randn(count, points, 3, generator=torch.Generator().manual_seed(seed))
    xyz -= xyz.mean(dim=1, keepdim=True)
    return xyz / xyz.norm(dim=-1).amax(dim=1)[:, None, None]


def test_points_near_the_origin_are_never_picked_but_the_first() -> None:
    xyz = clouds(1, 50)
    xyz[0, 0] = 0.0
    xyz[0, 10:20] *= 1e-3
    picks = farthest_points(xyz, 30)[0].tolist()
    assert picks[0] == 0
    assert not set(picks[1:]) & {0, *range(10, 20)}


def test_a_norm_at_the_limit_is_near_the_origin() -> None:
    limit = float(np.sqrt(np.float32(1e-3)))
    xyz = torch.tensor([[[1.0, 0, 0], [0, limit * 1.001, 0], [0, 0, limit * 0.999]]])
    assert farthest_points(xyz, 3)[0].tolist() == [0, 1, 0]  # the second is taken, the third never; equal rests go to 0


def test_a_cloud_at_the_origin_picks_its_first_point_each_time() -> None:
    assert farthest_points(torch.full((2, 9, 3), 1e-4), 5).tolist() == [[0] * 5] * 2


def test_ties_go_to_the_lower_index() -> None:
    corners = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, -1, 0], [-1, 0, 0]]])
    assert farthest_points(corners, 4)[0].tolist() == [0, 4, 1, 2]


def test_more_picks_than_points_repeat() -> None:
    assert farthest_points(clouds(1, 4), 8)[0, :4].sort().values.tolist() == [0, 1, 2, 3]


def test_the_published_variants_have_their_keys_and_sizes() -> None:
    plain = {name: tuple(value.shape) for name, value in PointBert().state_dict().items()}
    assert plain["point_encoder.encoder.first_conv.0.weight"] == (128, 3, 1)
    assert plain["point_encoder.encoder.second_conv.3.weight"] == (256, 512, 1)
    assert plain["point_encoder.encoder.first_conv.1.running_var"] == (128,)
    assert plain["point_encoder.reduce_dim.weight"] == (384, 256)
    assert plain["point_encoder.cls_token"] == plain["point_encoder.cls_pos"] == (1, 1, 384)
    assert plain["point_encoder.pos_embed.0.weight"] == (128, 3)
    assert plain["point_encoder.pos_embed.2.weight"] == (384, 128)
    assert plain["point_encoder.blocks.blocks.11.attn.qkv.weight"] == (1152, 384)
    assert "point_encoder.blocks.blocks.11.attn.qkv.bias" not in plain
    assert plain["point_encoder.blocks.blocks.11.mlp.fc1.weight"] == (1536, 384)
    assert plain["pc_projection"] == (768, 512)
    assert plain["logit_scale"] == ()
    coloured = PointBert(PointBertShape(channels=6, depth=18, dim=1280)).state_dict()
    assert PointBertShape.of(coloured) == PointBertShape(channels=6, depth=18, dim=1280)
    assert PointBertShape.of(PointBert().state_dict()) == PointBertShape()


def test_a_state_dict_makes_the_same_network_and_other_towers_are_left_alone() -> None:
    model = PointBert(TINY, groups=12, group_size=8)
    state = {**model.state_dict(), "visual.cls_token": torch.zeros(1), "token_embedding.weight": torch.zeros(2, 2)}
    again = PointBert.from_state_dict(state, groups=12, group_size=8)
    xyz = clouds(2, 60)
    assert again.shape == TINY
    assert torch.equal(model(xyz), again(xyz))


def test_a_missing_or_foreign_key_is_named() -> None:
    state = PointBert(TINY).state_dict()
    missing = {key: value for key, value in state.items() if key != "point_encoder.norm.bias"}
    with pytest.raises(EncoderError, match=r"does not fit a ULIP PointBERT.*point_encoder\.norm\.bias"):
        PointBert.from_state_dict(missing)
    with pytest.raises(EncoderError, match=r"not a ULIP PointBERT.*first_conv"):
        PointBert.from_state_dict({"visual.cls_token": torch.zeros(1)})
    with pytest.raises(EncoderError, match=r"no whole number of heads: expected a multiple of 64"):
        PointBert(PointBertShape(width=100))


def test_clouds_of_unequal_length_pad_without_a_trace() -> None:
    model = PointBert(TINY, groups=12, group_size=8)
    lengths = [40, 64, 51]
    parts = [clouds(1, n, seed=n)[0] for n in lengths]
    padded = torch.zeros(3, 64, 3)
    for row, part in enumerate(parts):
        padded[row, : len(part)] = part
    together = model(padded, lengths=torch.tensor(lengths))
    for row, part in enumerate(parts):
        assert F.cosine_similarity(together[row], model(part[None])[0], dim=0) > 1 - 1e-6


def test_a_cloud_smaller_than_a_neighbourhood_is_refused() -> None:
    with pytest.raises(EncoderError, match=r"has 7 points; the point encoder needs at least 8"):
        PointBert(TINY, groups=4, group_size=8)(clouds(1, 7))


def test_colours_count_only_where_the_variant_has_them() -> None:
    xyz, rgb = clouds(1, 60), torch.rand(1, 60, 3)
    plain = PointBert(TINY, groups=12, group_size=8)
    assert torch.equal(plain(xyz, rgb), plain(xyz))
    coloured = PointBert(
        PointBertShape(channels=6, depth=1, width=64, hidden=96, first=(16, 32), second=(64, 48), dim=40),
        groups=12,
        group_size=8,
    )
    assert not torch.allclose(coloured(xyz, rgb), coloured(xyz))
    assert torch.equal(coloured(xyz), coloured(xyz, torch.full_like(xyz, 0.4)))


def test_real_objects_take_under_two_seconds_and_do_not_change_with_the_batch(shared: Path) -> None:
    files = sorted((shared / "data" / "official").glob("*_points.npz"))
    records = [np.load(file, allow_pickle=False) for file in files]
    xyz = torch.tensor(np.stack([record["xyz"] for record in records])).float()
    assert xyz.shape == (3, 10_000, 3)
    torch.manual_seed(0)
    model = PointBert()
    alone, seconds = [], []
    for one in xyz:
        started = time.process_time()  # of the processor, so that a busy machine does not count
        alone.append(model(one[None]))
        seconds.append(time.process_time() - started)
    assert min(seconds) < 2.0, f"{seconds} s a cloud"
    cosines = F.cosine_similarity(torch.cat(alone), model(xyz))
    assert (cosines > 1 - 1e-6).all()
