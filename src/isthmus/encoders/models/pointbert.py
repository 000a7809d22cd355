"""The point encoder of ULIP-2 (PointBERT, arXiv 2305.08275) in plain PyTorch: no compiled extension, any device.

Both published variants are read off the shapes of a checkpoint: points as xyz (12 blocks into 512 dimensions) and as
xyz with rgb (18 blocks into 1280). Parameter names are those of the checkpoints, so that weights load strictly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.encoders.models.point_sampling import farthest_points, nearest_points, take_points
from isthmus.encoders.models.transformer import HEAD_DIM, Block
from isthmus.errors import EncoderError

GROUPS = 512
GROUP_SIZE = 32
GREY = 0.4
"""Colour of points without one, as the coloured variant was trained on."""


class _MiniPointNet(nn.Module):
    """One embedding a neighbourhood: (groups, points, channels) to (groups, `out`)."""

    def __init__(self, channels: int, first: tuple[int, int], second: tuple[int, int]) -> None:
        super().__init__()
        self.first_conv = nn.Sequential(
            nn.Conv1d(channels, first[0], 1), nn.BatchNorm1d(first[0]), nn.ReLU(), nn.Conv1d(first[0], first[1], 1)
        )
        self.second_conv = nn.Sequential(
            nn.Conv1d(2 * first[1], second[0], 1),
            nn.BatchNorm1d(second[0]),
            nn.ReLU(),
            nn.Conv1d(second[0], second[1], 1),
        )

    def forward(self, groups: Tensor) -> Tensor:
        """One token a group of points."""
        local = self._two_layers(self.first_conv, groups, None)
        return self._two_layers(self.second_conv, local, local.amax(dim=1, keepdim=True)).amax(dim=1)

    @staticmethod
    def _two_layers(layers: nn.Sequential, local: Tensor, overall: Tensor | None) -> Tensor:
        """Convolutions of width one are products, and BatchNorm in evaluation folds into the first of them."""
        conv, norm, _, last = (cast(Any, layer) for layer in layers)
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight = conv.weight[:, :, 0] * scale[:, None]
        bias = (conv.bias - norm.running_mean) * scale + norm.bias
        if overall is None:
            hidden = F.linear(local, weight, bias)
        else:
            # The group's maximum is repeated beside every point: its half of the product is done once a group.
            width = overall.shape[-1]
            hidden = F.linear(local, weight[:, width:]) + F.linear(overall, weight[:, :width], bias)
        return F.linear(hidden.relu_(), last.weight[:, :, 0], last.bias)


class _Blocks(nn.Module):
    def __init__(self, depth: int, width: int, hidden: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, hidden, bias=False, eps=1e-5) for _ in range(depth))

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Tokens through all transformer blocks."""
        for block in self.blocks:
            x = block(x + positions)  # positions enter before every block, not once
        return x


@dataclass(frozen=True)
class PointBertShape:
    """The sizes of a PointBERT; the defaults are ULIP-2's variant without colours."""

    channels: int = 3
    depth: int = 12
    width: int = 384
    hidden: int = 1536
    first: tuple[int, int] = (128, 256)
    second: tuple[int, int] = (512, 256)
    position: int = 128
    dim: int = 512

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> PointBertShape:
        """Read the sizes off a state dict's shapes (keys `point_encoder.*` and `pc_projection`).

        Raises:
            EncoderError: A key that fixes a size is missing.
        """
        depths = [int(m[1]) for key in state if (m := re.match(r"point_encoder\.blocks\.blocks\.(\d+)\.", key))]
        try:
            sizes = {key: tuple(state[f"point_encoder.{key}.weight"].shape) for key in _SIZED}
            dim = int(state["pc_projection"].shape[1])
        except KeyError as error:
            raise EncoderError(
                f"the checkpoint is not a ULIP PointBERT: none of its {len(state)} arrays is {error.args[0]!r}."
                " Give pointbert_ULIP-2.pt or the coloured 10k variant."
            ) from error
        if not depths:
            raise EncoderError("the checkpoint is not a ULIP PointBERT: it has no transformer blocks.")
        a, b, c, d, reduce, position, fc1 = (sizes[key] for key in _SIZED)
        return cls(
            channels=a[1],
            depth=max(depths) + 1,
            width=reduce[0],
            hidden=fc1[0],
            first=(a[0], b[0]),
            second=(c[0], d[0]),
            position=position[0],
            dim=dim,
        )


_SIZED = (
    "encoder.first_conv.0",
    "encoder.first_conv.3",
    "encoder.second_conv.0",
    "encoder.second_conv.3",
    "reduce_dim",
    "pos_embed.0",
    "blocks.blocks.0.mlp.fc1",
)


class _PointTransformer(nn.Module):
    def __init__(self, shape: PointBertShape, groups: int, group_size: int) -> None:
        super().__init__()
        self.groups, self.group_size = groups, group_size
        self.encoder = _MiniPointNet(shape.channels, shape.first, shape.second)
        self.reduce_dim = nn.Linear(shape.second[1], shape.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.cls_pos = nn.Parameter(torch.randn(1, 1, shape.width))
        self.pos_embed = nn.Sequential(nn.Linear(3, shape.position), nn.GELU(), nn.Linear(shape.position, shape.width))
        self.blocks = _Blocks(shape.depth, shape.width, shape.hidden)
        self.norm = nn.LayerNorm(shape.width)

    def forward(self, xyz: Tensor, rgb: Tensor | None, lengths: Tensor | None) -> Tensor:
        """Embedding of clouds, through groups of neighbouring points."""
        centers = take_points(xyz, farthest_points(xyz, self.groups, lengths=lengths))
        index = nearest_points(xyz, centers, self.group_size, lengths=lengths)
        near = take_points(xyz, index) - centers[:, :, None]
        if rgb is not None:
            near = torch.cat([near, take_points(rgb, index)], dim=-1)
        dtype = self.cls_token.dtype  # sampling and grouping stay in float32, only the network runs in less
        local = self.encoder(near.flatten(0, 1).to(dtype)).view(*centers.shape[:2], -1)
        tokens = torch.cat([self.cls_token.expand(len(xyz), -1, -1), self.reduce_dim(local)], dim=1)
        positions = torch.cat([self.cls_pos.expand(len(xyz), -1, -1), self.pos_embed(centers.to(dtype))], dim=1)
        out = self.norm(self.blocks(tokens, positions))
        return torch.cat([out[:, 0], out[:, 1:].amax(dim=1)], dim=-1)


class PointBert(nn.Module):
    """Point clouds to embeddings. In evaluation mode from the start; there is no training here.

    Args:
        shape: Sizes of the network.
        groups: Neighbourhoods a cloud is cut into.
        group_size: Points of a neighbourhood.
    """

    def __init__(
        self, shape: PointBertShape | None = None, *, groups: int = GROUPS, group_size: int = GROUP_SIZE
    ) -> None:
        super().__init__()
        shape = shape or PointBertShape()
        if shape.width % HEAD_DIM:
            raise EncoderError(
                f"a PointBERT {shape.width} wide has no whole number of heads: expected a multiple of {HEAD_DIM}."
            )
        self.shape = shape
        self.point_encoder = _PointTransformer(shape, groups, group_size)
        self.pc_projection = nn.Parameter(torch.randn(2 * shape.width, shape.dim) * shape.dim**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(0.0))  # of the contrastive training, unused here
        self.eval().requires_grad_(False)

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Tensor], *, groups: int = GROUPS, group_size: int = GROUP_SIZE
    ) -> PointBert:
        """Build the network that a state dict fits and load it. Keys of other towers are left alone.

        Raises:
            EncoderError: The point encoder's keys are not exactly those of a PointBERT.
        """
        own = {
            key: value
            for key, value in state.items()
            if key.startswith("point_encoder.") or key in ("pc_projection", "logit_scale")
        }
        model = cls(PointBertShape.of(own), groups=groups, group_size=group_size)
        own.setdefault("logit_scale", model.logit_scale)
        try:
            model.load_state_dict(own, strict=True)
        except RuntimeError as error:
            detail = " ".join(str(error).split())
            raise EncoderError(f"the checkpoint does not fit a ULIP PointBERT: {detail[:400]}") from error
        return model

    @torch.inference_mode()
    def forward(self, xyz: Tensor, rgb: Tensor | None = None, *, lengths: Tensor | None = None) -> Tensor:
        """Embed a batch of clouds.

        Args:
            xyz: (batch, points, 3) coordinates: mean at the origin, farthest point at distance 1.
            rgb: (batch, points, 3) colours in 0..1. The variant without colours ignores them; the coloured one
                takes grey where there are none.
            lengths: (batch,) real points of each cloud; the rest is padding. None: all are real.

        Returns:
            (batch, dim) embeddings, not normalised.

        Raises:
            EncoderError: A cloud has fewer points than a neighbourhood.
        """
        xyz = xyz.float()
        fewest = int(lengths.min()) if lengths is not None else xyz.shape[1]
        size = self.point_encoder.group_size
        if fewest < size:
            raise EncoderError(f"a point cloud has {fewest} points; the point encoder needs at least {size}.")
        if self.shape.channels == 3:
            rgb = None
        elif rgb is None:
            rgb = torch.full_like(xyz, GREY)
        return self.point_encoder(xyz, rgb, lengths) @ self.pc_projection  # type: ignore[no-any-return]
