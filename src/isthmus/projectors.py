"""The projectors of both papers as torch modules; parameter names are those of the official checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

Steps = list[dict[str, Any]]


class MLP(nn.Module):
    """Linear, BatchNorm, ReLU, Linear, BatchNorm: the block that C-MCR projects with and Ex-MCR chains two of.

    Args:
        dim_in: Width of the input.
        dim_out: Width of the output; None is `dim_in`.
        ratio: Width of the hidden layer as a multiple of `dim_in`.
    """

    def __init__(self, dim_in: int, dim_out: int | None = None, *, ratio: float = 2.0) -> None:
        super().__init__()
        hidden, dim_out = round(dim_in * ratio), dim_out or dim_in
        self.net1 = nn.Sequential(nn.Linear(dim_in, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True))
        self.net2 = nn.Sequential(nn.Linear(hidden, dim_out), nn.BatchNorm1d(dim_out))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, dim_in) to (batch, dim_out), not normalised."""
        out: Tensor = self.net2(self.net1(x))
        return out


class HalfMLP(nn.Module):
    """Linear, BatchNorm, ReLU: what the released ULIP-CLIP head of C-MCR is made of. Its outputs are non-negative."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim, dim), nn.BatchNorm1d(dim), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, dim) to (batch, dim), not normalised."""
        out: Tensor = self.net(x)
        return out


class ConnectProjectors(nn.Module):
    """C-MCR's pair of projectors into a new space.

    Args:
        dims: Widths of the first and the second space.
        dim: Width of the new space.
        ratio: Width of the hidden layers as a multiple of their input.
    """

    def __init__(self, dims: tuple[int, int], dim: int, *, ratio: float = 2.0) -> None:
        super().__init__()
        self.first, self.second = MLP(dims[0], dim, ratio=ratio), MLP(dims[1], dim, ratio=ratio)

    def forward(self, x: Sequence[Tensor], side: int, *, joint: bool = True) -> Tensor:
        """Project k aligned (batch, d) inputs of one side; (k, batch, dim), unit rows."""
        return _project(self.second if side else self.first, x, joint=joint)

    def steps(self, side: int, prefix: str) -> Steps:
        """The route of every modality of a side, arrays named as in `arrays(prefix)`."""
        return _mlp_route(self.second if side else self.first, f"{prefix}{'second' if side else 'first'}.")


class LeafProjector(nn.Module):
    """Ex-MCR's decoupled projector of a leaf space: f_l closes the leaf's own modality gap, f_m carries it to the base.

    f_l is one linear layer per modality outside the overlap, starting as the identity; its output is not normalised.
    f_m is two MLP blocks without an activation between them. The overlap skips f_l (Ex-MCR, section 3.3).

    Args:
        modalities: The leaf's modalities outside the overlap.
        dim_leaf: Width of the leaf space.
        dim_base: Width of the base space.
        ratio: Width of the hidden layers as a multiple of `dim_leaf`.
    """

    def __init__(self, modalities: Sequence[str], dim_leaf: int, dim_base: int, *, ratio: float = 2.0) -> None:
        super().__init__()
        self.linear = nn.ModuleDict({name: nn.Linear(dim_leaf, dim_leaf) for name in modalities})
        self.mlp1, self.mlp2 = MLP(dim_leaf, dim_leaf, ratio=ratio), MLP(dim_leaf, dim_base, ratio=ratio)
        for layer in self.linear.values():
            nn.init.eye_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def to_overlap(self, x: Tensor, modality: str) -> Tensor:
        """f_l of a modality outside the overlap, in the leaf space: (batch, dim_leaf), not normalised."""
        out: Tensor = self.linear[modality](x)
        return out

    def to_base(self, x: Sequence[Tensor], *, joint: bool = True) -> Tensor:
        """f_m of k aligned (batch, dim_leaf) inputs: (k, batch, dim_base), unit rows."""
        return _project(nn.Sequential(self.mlp1, self.mlp2), x, joint=joint)

    def steps(self, modality: str, prefix: str) -> Steps:
        """The route of a modality: f_l where it has one, then f_m; arrays named as in `arrays(prefix)`."""
        head: Steps = []
        if modality in self.linear:
            name = f"{prefix}linear.{modality}."
            head = [{"kind": "linear", "weight": f"{name}weight", "bias": f"{name}bias"}]
        layers = _mlp_layers(self.mlp1, f"{prefix}mlp1.") + _mlp_layers(self.mlp2, f"{prefix}mlp2.")
        return [{"kind": "normalize"}, *head, {"kind": "mlp", "layers": layers}, {"kind": "normalize"}]


def initialize(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the matrices of every MLP block from `xavier_uniform_`, as the authors do, and its biases as torch does."""
    for block in module.modules():
        if not isinstance(block, (MLP, HalfMLP)):
            continue
        for layer in block.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight, generator=generator)
                bound = layer.in_features**-0.5
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def parameter_count(module: nn.Module) -> int:
    """Number of trained parameters."""
    return sum(p.numel() for p in module.parameters())


def arrays(module: nn.Module, prefix: str) -> dict[str, NDArray[np.float32]]:
    """Parameters and BatchNorm statistics as float32 arrays, for `projectors.safetensors`."""
    return {
        prefix + name: np.array(value.detach().cpu().numpy(), dtype=np.float32, copy=True)
        for name, value in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def _project(module: nn.Module, x: Sequence[Tensor], *, joint: bool) -> Tensor:
    """One pass over all modalities lets BatchNorm see their gap in training as its running statistics do afterwards."""
    y = module(torch.cat(list(x))) if joint else torch.cat([module(part) for part in x])
    return F.normalize(y, dim=-1).view(len(x), len(x[0]), -1)


def _mlp_route(mlp: MLP, prefix: str) -> Steps:
    return [{"kind": "normalize"}, {"kind": "mlp", "layers": _mlp_layers(mlp, prefix)}, {"kind": "normalize"}]


def _mlp_layers(mlp: MLP, prefix: str) -> Steps:
    def layer(name: str, kind: str) -> Mapping[str, Any]:
        keys = ("weight", "bias") if kind == "linear" else ("weight", "bias", "running_mean", "running_var")
        return {kind: [f"{prefix}{name}.{key}" for key in keys]}

    eps = float(mlp.net2[1].eps)  # type: ignore[arg-type]
    return [
        dict(layer("net1.0", "linear")),
        {**layer("net1.1", "batch_norm"), "eps": eps},
        {"relu": True},
        dict(layer("net2.0", "linear")),
        {**layer("net2.1", "batch_norm"), "eps": eps},
    ]
