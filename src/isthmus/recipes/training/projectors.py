"""The projectors of both papers as torch modules; parameter names are those of the official checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Linear, BatchNorm, ReLU: what the released ULIP-CLIP head of C-MCR is made of. Its outputs are non-negative.

    Args:
        dim_in: Width of the input.
        dim_out: Width of the output; None is `dim_in`.
    """

    def __init__(self, dim_in: int, dim_out: int | None = None) -> None:
        super().__init__()
        dim_out = dim_out or dim_in
        self.net = nn.Sequential(nn.Linear(dim_in, dim_out), nn.BatchNorm1d(dim_out), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, dim_in) to (batch, dim_out), not normalised."""
        out: Tensor = self.net(x)
        return out


class ConnectProjectors(nn.Module):
    """C-MCR's pair of projectors into a new space.

    Args:
        dims: Widths of the first and the second space.
        dim: Width of the new space.
        ratio: Width of the hidden layers as a multiple of their input.
        head: "mlp" as the released CLAP-CLIP head, or "half" as the released ULIP-CLIP one.
        own: Modules of the user's own for both sides, in the place of these.
    """

    def __init__(
        self,
        dims: tuple[int, int],
        dim: int,
        *,
        ratio: float = 2.0,
        head: str = "mlp",
        own: tuple[nn.Module, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.is_own = own is not None
        stock = [HalfMLP(d, dim) if head == "half" else MLP(d, dim, ratio=ratio) for d in dims]
        self.first: nn.Module
        self.second: nn.Module
        self.first, self.second = own or stock

    def forward(self, x: Sequence[Tensor], side: int, *, joint: bool = True) -> Tensor:
        """Project k aligned (batch, d) inputs of one side; (k, batch, dim), unit rows."""
        return _project(self.second if side else self.first, x, joint=joint)

    def steps(self, side: int, prefix: str) -> Steps:
        """The route of every modality of a side, arrays named as in `arrays(prefix)`."""
        name = "second" if side else "first"
        module = self.get_submodule(name)
        body = _own_steps(module, f"{prefix}{name}.") if self.is_own else _steps(module, f"{prefix}{name}.")
        return [{"kind": "normalize"}, *body, {"kind": "normalize"}]


class LeafProjector(nn.Module):
    """Ex-MCR's decoupled projector of a leaf space: f_l closes the leaf's own modality gap, f_m carries it to the base.

    f_l is one linear layer per modality outside the overlap, starting as the identity; its output is not normalised.
    f_m is two MLP blocks without an activation between them. The overlap skips f_l (Ex-MCR, section 3.3). The other
    shapes are those of the paper's ablations (section 4.5).

    Args:
        modalities: The leaf's modalities outside the overlap.
        dim_leaf: Width of the leaf space.
        dim_base: Width of the base space.
        ratio: Width of the hidden layers as a multiple of `dim_leaf`.
        leaf_layer: What f_l is: "linear", an "mlp" block, "mlp2" (two of them), or "none".
        blocks: MLP blocks of f_m; 0 is a single linear layer.
        own: f_m as a module of the user's own.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        dim_leaf: int,
        dim_base: int,
        *,
        ratio: float = 2.0,
        leaf_layer: str = "linear",
        blocks: int = 2,
        own: nn.Module | None = None,
    ) -> None:
        super().__init__()
        names = () if leaf_layer == "none" else modalities
        self.linear = nn.ModuleDict({name: _leaf_layer(leaf_layer, dim_leaf, ratio) for name in names})
        self._to_base = ["own"]
        if own is not None:
            self.own = own
            return
        widths = [dim_leaf] * blocks + [dim_base]
        self._to_base = [f"mlp{n}" for n in range(1, blocks + 1)] or ["straight"]
        for n, name in enumerate(self._to_base):
            whole = MLP(widths[n], widths[n + 1], ratio=ratio) if blocks else nn.Linear(dim_leaf, dim_base)
            self.add_module(name, whole)

    def to_overlap(self, x: Tensor, modality: str) -> Tensor:
        """f_l of a modality outside the overlap, in the leaf space: (batch, dim_leaf), not normalised."""
        out: Tensor = self.linear[modality](x) if modality in self.linear else x
        return out

    def to_base(self, x: Sequence[Tensor], *, joint: bool = True) -> Tensor:
        """f_m of k aligned (batch, dim_leaf) inputs: (k, batch, dim_base), unit rows."""
        return _project(nn.Sequential(*(self.get_submodule(name) for name in self._to_base)), x, joint=joint)

    def steps(self, modality: str, prefix: str) -> Steps:
        """The route of a modality: f_l where it has one, then f_m; arrays named as in `arrays(prefix)`."""
        head = _steps(self.linear[modality], f"{prefix}linear.{modality}.") if modality in self.linear else []
        if self._to_base == ["own"]:
            return [{"kind": "normalize"}, *head, *_own_steps(self.own, f"{prefix}own."), {"kind": "normalize"}]
        body = [step for name in self._to_base for step in _steps(self.get_submodule(name), f"{prefix}{name}.")]
        return [{"kind": "normalize"}, *head, *body, {"kind": "normalize"}]


class _Identity(nn.Linear):
    """A linear layer that starts as the identity and a bias (Ex-MCR's f_l)."""


def initialize(module: nn.Module, generator: torch.Generator, *, scheme: str = "torch") -> None:
    """Draw the weights and biases of every linear layer; f_l's weights are the identity, as the authors' are.

    Before a BatchNorm only the direction of a weight matters, so its size sets how far a step turns it: torch's smaller
    weights learn faster at the same learning rate than Xavier's, which the authors use (`docs/log.md`).

    Args:
        module: Projectors.
        generator: What the draws come from.
        scheme: Initialisation of weights: "torch", the default of torch's linear layers, or "xavier"
            (`xavier_uniform_`); biases are torch's default either way.
    """
    own = {id(layer) for part in module.modules() for layer in _own_parts(part)}
    for layer in module.modules():
        if not isinstance(layer, nn.Linear) or id(layer) in own:
            continue
        bound = layer.in_features**-0.5
        if isinstance(layer, _Identity):
            nn.init.eye_(layer.weight)
        elif scheme == "xavier":
            nn.init.xavier_uniform_(layer.weight, generator=generator)
        else:
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def _own_parts(module: nn.Module) -> list[nn.Module]:
    """Layers that keep what they were drawn with: those of the user's own projectors."""
    if isinstance(module, ConnectProjectors) and module.is_own:
        return list(module.modules())
    return list(module.own.modules()) if isinstance(module, LeafProjector) and hasattr(module, "own") else []


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
    # Under autocast the products are in bfloat16; lengths and losses are not.
    return F.normalize(y.to(torch.promote_types(y.dtype, torch.float32)), dim=-1).view(len(x), len(x[0]), -1)


def _leaf_layer(kind: str, dim: int, ratio: float) -> nn.Module:
    if kind == "mlp":
        return MLP(dim, ratio=ratio)
    if kind == "mlp2":
        return nn.Sequential(MLP(dim, ratio=ratio), MLP(dim, ratio=ratio))
    return _Identity(dim, dim)


def _steps(module: nn.Module, prefix: str) -> Steps:
    if isinstance(module, nn.Sequential):
        return [step for number, part in module.named_children() for step in _steps(part, f"{prefix}{number}.")]
    if isinstance(module, (MLP, HalfMLP)):
        return [{"kind": "mlp", "layers": _mlp_layers(module, prefix)}]
    return [{"kind": "linear", "weight": f"{prefix}weight", "bias": f"{prefix}bias"}]


def _own_steps(module: nn.Module, prefix: str) -> Steps:
    return [{"kind": "mlp", "layers": own_layers(module, prefix)}]


def own_layers(module: nn.Module, prefix: str) -> Steps:
    """Layers of a route for a module of the user's own, arrays named as in `arrays(prefix)`.

    Only classes whose arithmetic a route knows are taken, and no subclass: one may compute something else.

    Raises:
        ValueError: It holds another class, or a layer without what a route needs.
    """
    layers: Steps = []
    parts = module.named_children() if type(module) is nn.Sequential else [("", module)]
    for number, part in parts:
        name = f"{prefix}{number}." if number else prefix
        if type(part) is nn.Sequential:
            layers += own_layers(part, name)
        elif type(part) is nn.Linear and part.bias is not None:
            layers.append({"linear": [f"{name}weight", f"{name}bias"]})
        elif type(part) is nn.BatchNorm1d and part.affine and part.track_running_stats:
            keys = ("weight", "bias", "running_mean", "running_var")
            layers.append({"batch_norm": [name + key for key in keys], "eps": float(part.eps)})
        elif type(part) is nn.ReLU:
            layers.append({"relu": True})
        else:
            raise ValueError(
                f"holds a {type(part).__name__}, which no route of a bridge computes. Expected nn.Linear with a bias, "
                "nn.BatchNorm1d as it is by default, nn.ReLU, in nn.Sequential."
            )
    return layers


def _mlp_layers(block: MLP | HalfMLP, prefix: str) -> Steps:
    nets = {"net1": block.net1, "net2": block.net2} if isinstance(block, MLP) else {"net": block.net}
    layers: Steps = []
    for net, parts in nets.items():
        for number, part in parts.named_children():
            name = f"{prefix}{net}.{number}."
            if isinstance(part, nn.Linear):
                layers.append({"linear": [f"{name}weight", f"{name}bias"]})
            elif isinstance(part, nn.BatchNorm1d):
                keys = ("weight", "bias", "running_mean", "running_var")
                layers.append({"batch_norm": [name + key for key in keys], "eps": float(part.eps)})
            else:
                layers.append({"relu": True})
    return layers
