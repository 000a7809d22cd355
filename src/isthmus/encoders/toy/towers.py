"""The networks of the demo's encoders: small towers, each from a batch of one modality to unit embeddings.

Every tower makes a sequence of tokens (columns of an image, frames of a sound, characters of a text), reads it in three
places with learned attention, and mixes what it read into one embedding. That is enough to read numbers it never saw.
The towers of the three encoders share code, but neither weights, sizes, data nor seeds.
"""

from __future__ import annotations

from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DIMS: Final = {"picture": 128, "sound": 96, "shape": 64}
"""Dimension of each encoder's space."""

ALPHABET: Final = " -.,0123456789abcdefghijklmnopqrstuvwxyz"
"""Characters that texts are read in, after lower-casing; any other counts as one unknown. Code 0 is padding."""


class Reader(nn.Module):
    """Read a token sequence in three places and mix them: (n, tokens, width) to (n, dim) unit rows.

    The mix is a linear map of the three readings plus a small network's correction.

    Args:
        width: Channels of a token.
        dim: Dimension of the embedding.
        tokens: Longest sequence; each place has a learned position. 0: the tokens know their place already.
        hidden: Width of the correcting network.
    """

    def __init__(self, width: int, dim: int, *, tokens: int = 0, hidden: int = 128) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(tokens, width) * 0.3) if tokens else None
        self.queries = nn.Parameter(torch.randn(3, width) * width**-0.5)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, 48)
        self.mix = nn.Linear(3 * 48, dim)
        self.correct = nn.Sequential(nn.Linear(3 * 48, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
        """Embedding read from tokens by learned queries."""
        placed = tokens if self.places is None else tokens + self.places[: tokens.shape[1]]
        scores = torch.einsum("sc,ntc->nst", self.queries, self.key(placed))
        if padding is not None:
            scores = scores.masked_fill(padding[:, None], float("-inf"))
        read = torch.einsum("nst,ntc->nsc", scores.softmax(-1), torch.tanh(self.value(tokens))).flatten(1)
        return F.normalize(self.mix(read) + self.correct(read), dim=-1)


def _conv(inside: int, outside: int, *, stride: int | tuple[int, int] = 1) -> nn.Sequential:
    """Convolution with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()
    )


class ImageTower(nn.Module):
    """Grey images, (n, 28, 72) from 0 to 255, to (n, dim): convolutions, then one token every four columns."""

    def __init__(self, dim: int, *, width: int = 64) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            _conv(16, width, stride=2),
        )
        self.column = nn.Sequential(nn.Conv2d(width, 96, (7, 3), padding=(0, 1)), nn.ReLU())
        self.reader = Reader(96, dim, tokens=18)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embedding of grey pictures."""
        low, high = pixels.amin((1, 2), keepdim=True), pixels.amax((1, 2), keepdim=True)
        x = (pixels - low) / (high - low).clamp(min=1.0)
        columns = self.column(self.convolutions(x[:, None]))[:, :, 0]
        return cast(Tensor, self.reader(columns.transpose(1, 2)))


class PointTower(nn.Module):
    """Point clouds, (n, points, 3) in the unit sphere, y up, to (n, dim).

    Each point gets a learned code; codes are averaged in pillars along the line of sight (20 rows of 48 columns, as in
    PointPillars, arXiv 1812.05784) and read like an image.
    """

    rows, columns = 20, 48

    def __init__(self, dim: int, *, width: int = 64) -> None:
        super().__init__()
        self.point = nn.Sequential(nn.Linear(5, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU())
        self.convolutions = nn.Sequential(_conv(17, width // 2, stride=2), _conv(width // 2, width, stride=2))
        self.column = nn.Sequential(nn.Conv2d(width, 96, (5, 3), padding=(0, 1)), nn.ReLU())
        self.reader = Reader(96, dim, tokens=12)

    def forward(self, points: Tensor) -> Tensor:
        """Embedding of clouds, drawn into cells."""
        n, count, _ = points.shape
        column = (points[..., 0] + 1) / 2 * self.columns
        row = (0.42 - points[..., 1]) / 0.84 * self.rows
        cell_x, cell_y = column.floor().clamp(0, self.columns - 1), row.floor().clamp(0, self.rows - 1)
        inside = torch.stack([column - cell_x - 0.5, row - cell_y - 0.5], dim=-1).clamp(-1, 1)
        codes = self.point(torch.cat([points, inside], dim=-1))
        cell = (cell_y * self.columns + cell_x).long() + torch.arange(n, device=points.device)[:, None] * (
            self.rows * self.columns
        )
        flat = torch.cat([codes, torch.ones_like(codes[..., :1])], dim=-1).flatten(0, 1)
        sums = torch.zeros(n * self.rows * self.columns, 17, device=points.device, dtype=codes.dtype)
        sums = sums.index_add(0, cell.flatten(), flat)
        density = sums[:, 16:]
        pillars = torch.cat([sums[:, :16] / density.clamp(min=1), torch.log1p(density * (1024 / count))], dim=1)
        grid = pillars.view(n, self.rows, self.columns, 17).permute(0, 3, 1, 2)
        tokens = self.column(self.convolutions(grid))[:, :, 0]
        return cast(Tensor, self.reader(tokens.transpose(1, 2)))


class SoundTower(nn.Module):
    """Sounds, (n, 12000) at 8 kHz in [-1, 1], to (n, dim): log spectrum to 1.9 kHz, convolutions, a GRU both ways."""

    bins = 60

    def __init__(self, dim: int, *, width: int = 64) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(256), persistent=False)
        self.convolutions = nn.Sequential(
            nn.Conv1d(self.bins, 96, 5, stride=2, padding=2, bias=False), nn.BatchNorm1d(96), nn.ReLU(),
            nn.Conv1d(96, 96, 5, stride=2, padding=2, bias=False), nn.BatchNorm1d(96), nn.ReLU(),
        )  # fmt: skip
        self.recurrent = nn.GRU(96, width, batch_first=True, bidirectional=True)
        self.reader = Reader(2 * width, dim)

    def forward(self, samples: Tensor) -> Tensor:
        """Embedding of sounds, through their spectrum."""
        spectrum = torch.stft(samples, 256, 80, window=cast(Tensor, self.window), center=True, return_complex=True)
        power = spectrum[:, 2 : 2 + self.bins].abs()
        power = power / power.mean((1, 2), keepdim=True).clamp(min=1e-6)
        tokens = self.convolutions(torch.log(power + 0.05)).transpose(1, 2)
        return cast(Tensor, self.reader(self.recurrent(tokens)[0]))


class TextTower(nn.Module):
    """Texts as character codes, (n, length) with 0 for padding, to (n, dim).

    Args:
        dim: Dimension of the embedding.
        recurrent: A GRU both ways; otherwise two transformer layers.
    """

    longest = 48

    def __init__(self, dim: int, *, width: int = 48, recurrent: bool) -> None:
        super().__init__()
        self.characters = nn.Embedding(len(ALPHABET) + 2, 32, padding_idx=0)
        self.neighbours = nn.Conv1d(32, 2 * width, 5, padding=2)
        if recurrent:
            self.recurrent: nn.GRU | None = nn.GRU(2 * width, width, batch_first=True, bidirectional=True)
        else:
            self.recurrent = None
            self.places = nn.Parameter(torch.randn(self.longest, 2 * width) * 0.1)
            layer = nn.TransformerEncoderLayer(
                2 * width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            self.transformer = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.reader = Reader(2 * width, dim)

    def forward(self, codes: Tensor) -> Tensor:
        """Embedding of texts, character by character."""
        padding = codes == 0
        x = F.relu(self.neighbours(self.characters(codes).transpose(1, 2))).transpose(1, 2)
        if self.recurrent is not None:
            x = self.recurrent(x.masked_fill(padding[..., None], 0.0))[0]
        else:
            x = self.transformer(x + self.places[: x.shape[1]], src_key_padding_mask=padding)
        return cast(Tensor, self.reader(x, padding))


def character_codes(texts: list[str]) -> Tensor:
    """Character codes of texts, (n, 48) int64, longer texts cut: one length, so that company changes no embedding."""
    known = {character: code for code, character in enumerate(ALPHABET, start=1)}
    codes = torch.zeros(len(texts), TextTower.longest, dtype=torch.int64)
    for row, text in enumerate(texts):
        line = [known.get(c, len(ALPHABET) + 1) for c in text.lower()[: TextTower.longest]]
        codes[row, : len(line)] = torch.tensor(line, dtype=torch.int64)
    return codes


class ToySpace(nn.Module):
    """The towers of one of the demo's encoders, and the last map that both share.

    That map is no part of the contrastive training: it is the identity then, and set afterwards to a soft whitening, so
    that the ten directions that training settles the numbers with do not drown the rest of the space.

    Args:
        name: `picture`, `sound` or `shape`.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        dim = DIMS[name]
        self.towers = nn.ModuleDict(_towers(name, dim))
        self.mean: Tensor
        self.matrix: Tensor
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("matrix", torch.eye(dim))

    @property
    def modalities(self) -> tuple[str, ...]:
        """What it embeds."""
        return tuple(self.towers)

    def forward(self, inputs: Tensor, modality: str) -> Tensor:
        """Embed a batch of one modality: (n, dim) unit rows."""
        return F.normalize((self.towers[modality](inputs) - self.mean) @ self.matrix, dim=-1)

    @torch.no_grad()
    def whiten(self, embeddings: Tensor, *, floor: float) -> None:
        """Set the last map from (n, dim) embeddings made without it.

        Args:
            embeddings: Embeddings of all modalities together.
            floor: Added to the variances of the principal directions, the largest being 1, before they are evened out.
        """
        mean = embeddings.double().mean(0)
        centred = embeddings.double() - mean
        variances, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
        variances = variances.clamp(min=0) / variances.max()
        self.mean = mean.float()
        self.matrix = (directions * (variances + floor).rsqrt() @ directions.T).float()


def _towers(name: str, dim: int) -> dict[str, nn.Module]:
    """Towers of a toy encoder, by modality."""
    if name == "picture":
        return {"image": ImageTower(dim), "text": TextTower(dim, recurrent=True)}
    if name == "sound":
        return {"audio": SoundTower(dim), "text": TextTower(dim, recurrent=False)}
    return {"point_cloud": PointTower(dim), "image": ImageTower(dim, width=48)}
