"""The image and text towers of ULIP: SLIP's ViT-B/16 and its text transformer (arXiv 2112.12750), in plain PyTorch.

Parameter names are those of the checkpoints (timm's `vit_base_patch16_224` below `visual.`, CLIP's names for the text),
and every size is read off the shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isthmus.encoders.models.transformer import HEAD_DIM, Block
from isthmus.errors import EncoderError

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
TOWERS = (
    "visual.",
    "image_projection",
    "token_embedding.",
    "positional_embedding",
    "transformer.",
    "ln_final.",
    "text_projection",
)


@dataclass(frozen=True)
class SlipShape:
    """The sizes of both towers; the defaults are those in ULIP's checkpoints."""

    vision_width: int = 768
    vision_depth: int = 12
    vision_hidden: int = 3072
    patch: int = 16
    patches: int = 196
    text_width: int = 512
    text_depth: int = 12
    text_hidden: int = 2048
    vocabulary: int = 49408
    context: int = 77
    dim: int = 512

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return int(self.patches**0.5) * self.patch

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> SlipShape:
        """Read the sizes off a state dict's shapes.

        Raises:
            EncoderError: A key that fixes a size is missing.
        """

        def depth(pattern: str) -> int:
            return 1 + max((int(m[1]) for key in state if (m := re.match(pattern, key))), default=-1)

        try:
            patch, positions = state["visual.patch_embed.proj.weight"].shape, state["visual.pos_embed"].shape
            vocabulary, text_width = state["token_embedding.weight"].shape
            return cls(
                vision_width=patch[0],
                vision_depth=depth(r"visual\.blocks\.(\d+)\."),
                vision_hidden=state["visual.blocks.0.mlp.fc1.weight"].shape[0],
                patch=patch[2],
                patches=positions[1] - 1,
                text_width=text_width,
                text_depth=depth(r"transformer\.resblocks\.(\d+)\."),
                text_hidden=state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
                vocabulary=vocabulary,
                context=state["positional_embedding"].shape[0],
                dim=state["image_projection"].shape[1],
            )
        except KeyError as error:
            raise EncoderError(
                f"the checkpoint's image and text towers are not whole: {error.args[0]!r} is missing."
            ) from error


class _PatchEmbed(nn.Module):
    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """One token a patch of the image."""
        return self.proj(x).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class _VisionTransformer(nn.Module):
    def __init__(self, shape: SlipShape) -> None:
        super().__init__()
        width = shape.vision_width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, shape.patches + 1, width) * 0.02)
        self.patch_embed = _PatchEmbed(width, shape.patch)
        self.blocks = nn.Sequential(
            *(Block(width, shape.vision_hidden, bias=True, eps=1e-6) for _ in range(shape.vision_depth))
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embedding of images: the class token's."""
        tokens = torch.cat([self.cls_token.expand(len(pixels), -1, -1), self.patch_embed(pixels)], dim=1)
        return self.norm(self.blocks(tokens + self.pos_embed))[:, 0]  # type: ignore[no-any-return]


class _TextMlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens through two linear layers with CLIP's quick GELU."""
        hidden = self.c_fc(x)
        return self.c_proj(hidden * torch.sigmoid(1.702 * hidden))  # type: ignore[no-any-return]  # CLIP's quick GELU


class _TextBlock(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, width // HEAD_DIM, batch_first=True)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = _TextMlp(width, hidden)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Tokens through attention and MLP."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class _TextTransformer(nn.Module):
    def __init__(self, shape: SlipShape) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_TextBlock(shape.text_width, shape.text_hidden) for _ in range(shape.text_depth))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens through all blocks, each reading what stands before it."""
        mask = torch.full((x.shape[1], x.shape[1]), float("-inf"), device=x.device, dtype=x.dtype).triu_(1)
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Slip(nn.Module):
    """Images and captions to embeddings. In evaluation mode from the start; there is no training here.

    Args:
        shape: Sizes of both towers.
    """

    def __init__(self, shape: SlipShape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or SlipShape()
        for width in (shape.vision_width, shape.text_width):
            if width % HEAD_DIM:
                raise EncoderError(
                    f"a tower {width} wide has no whole number of heads: expected a multiple of {HEAD_DIM}."
                )
        self.visual = _VisionTransformer(shape)
        self.image_projection = nn.Parameter(torch.randn(shape.vision_width, shape.dim) * shape.vision_width**-0.5)
        self.token_embedding = nn.Embedding(shape.vocabulary, shape.text_width)
        self.positional_embedding = nn.Parameter(torch.randn(shape.context, shape.text_width) * 0.01)
        self.transformer = _TextTransformer(shape)
        self.ln_final = nn.LayerNorm(shape.text_width)
        self.text_projection = nn.Parameter(torch.randn(shape.text_width, shape.dim) * shape.text_width**-0.5)
        self.eval().requires_grad_(False)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> Slip:
        """Build the towers that a state dict fits and load them. Keys of the point encoder are left alone.

        Raises:
            EncoderError: The towers' keys are not exactly those of SLIP.
        """
        own = {key: value for key, value in state.items() if key.startswith(TOWERS)}
        model = cls(SlipShape.of(own))
        try:
            model.load_state_dict(own, strict=True)
        except RuntimeError as error:
            detail = " ".join(str(error).split())
            raise EncoderError(f"the checkpoint's image and text towers are not SLIP's: {detail[:400]}") from error
        return model

    @torch.inference_mode()
    def encode_image(self, pixels: Tensor) -> Tensor:
        """(n, 3, size, size) normalised pixels to (n, dim), not normalised."""
        return self.visual(pixels) @ self.image_projection  # type: ignore[no-any-return]

    @torch.inference_mode()
    def encode_text(self, tokens: Tensor) -> Tensor:
        """(n, length) tokens to (n, dim), not normalised; the end token, the highest number, is where a text ends."""
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        x = self.ln_final(self.transformer(x))
        ends = x[torch.arange(len(x), device=x.device), tokens.argmax(dim=-1)]
        return ends @ self.text_projection  # type: ignore[no-any-return]
