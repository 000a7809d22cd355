"""C-MCR and Ex-MCR as the papers write them: losses and gradients in float64, a term at a time, of plain tensors.

Nothing here is shared with what is tested: parameters come in by their names, BatchNorm, projectors and losses are
written out, and a loss is the mean over rows of a softmax's logarithm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Params = dict[str, Tensor]
Key = tuple[int, str]
"""Side and modality: 0 is the base or first space, 1 the leaf or second."""


@dataclass
class Switches:
    """What a recipe can be told; the papers' values."""

    temperature: float = 0.05
    pseudo_temperature: float | None = None
    intra_weight: float = 0.1
    squared: bool = False
    joint: bool = True
    align: tuple[str, ...] = ("leaf-base", "leaf-overlap", "overlap-base", "overlap-overlap")
    leaf_layer: str = "linear"
    blocks: int = 2
    head: str = "mlp"


def parameters(module: torch.nn.Module) -> Params:
    """A module's parameters in float64, by name, wanting gradients."""
    return {name: p.detach().double().requires_grad_() for name, p in module.named_parameters()}


def linear(p: Params, name: str, x: Tensor) -> Tensor:
    """x W^T + b."""
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def batch_norm(p: Params, name: str, x: Tensor) -> Tensor:
    """A batch's own mean and variance, as in training; eps is torch's."""
    centred = x - x.mean(0)
    return p[f"{name}.weight"] * centred / (centred.square().mean(0) + 1e-5).sqrt() + p[f"{name}.bias"]


def mlp(p: Params, name: str, x: Tensor) -> Tensor:
    """Linear, BatchNorm, ReLU, Linear, BatchNorm."""
    hidden = batch_norm(p, f"{name}.net1.1", linear(p, f"{name}.net1.0", x)).clamp(min=0)
    return batch_norm(p, f"{name}.net2.1", linear(p, f"{name}.net2.0", hidden))


def half(p: Params, name: str, x: Tensor) -> Tensor:
    """Linear, BatchNorm, ReLU."""
    return batch_norm(p, f"{name}.net.1", linear(p, f"{name}.net.0", x)).clamp(min=0)


def unit(x: Tensor) -> Tensor:
    """Rows of length one."""
    return x / x.square().sum(-1, keepdim=True).sqrt()


def info_nce(x: Tensor, z: Tensor, temperature: float) -> Tensor:
    """Ex-MCR, equation 6."""
    logits = x @ z.T / temperature
    own = torch.arange(len(x))
    both = torch.log_softmax(logits, 1)[own, own] + torch.log_softmax(logits, 0)[own, own]
    return -both.sum() / (2 * len(x))


def attraction(x: Tensor, target: Tensor, squared: bool) -> Tensor:
    """Half the mean distance (Ex-MCR, equation 3), or half the mean squared distance (C-MCR)."""
    distance = (x - target).square().sum(1)
    return 0.5 * (distance if squared else distance.sqrt()).mean()


def f_l(p: Params, modality: str, x: Tensor, switches: Switches) -> Tensor:
    """What closes a leaf's modality gap."""
    name = f"linear.{modality}"
    if switches.leaf_layer == "none":
        return x
    if switches.leaf_layer == "linear":
        return linear(p, name, x)
    if switches.leaf_layer == "mlp":
        return mlp(p, name, x)
    return mlp(p, f"{name}.1", mlp(p, f"{name}.0", x))


def f_m(p: Params, x: Tensor, switches: Switches) -> Tensor:
    """What carries a leaf to the base."""
    if not switches.blocks:
        return linear(p, "straight", x)
    for n in range(1, switches.blocks + 1):
        x = mlp(p, f"mlp{n}", x)
    return x


def together(function, rows: Sequence[Tensor], joint: bool) -> list[Tensor]:
    """A function with BatchNorm in it, over all modalities in one batch or over each in its own; unit rows."""
    if joint:
        return list(unit(function(torch.cat(list(rows)))).split(len(rows[0])))
    return [unit(function(x)) for x in rows]


def extend_loss(p: Params, batch: Mapping[Key, Tensor], via: Sequence[str], switches: Switches) -> Tensor:
    """Ex-MCR: lambda L_intra + the mean of the InfoNCE of every aligned pair (equations 3 to 7)."""
    own = [modality for side, modality in batch if side == 1 and modality not in via]
    moved = {modality: f_l(p, modality, batch[1, modality], switches) for modality in own}
    names = [*own, *via]
    rows = [moved.get(modality, batch[1, modality]) for modality in names]
    leaf = dict(zip(names, together(lambda x: f_m(p, x, switches), rows, switches.joint), strict=True))
    terms = []
    for mine in names:
        for side, other in batch:
            kind = f"{'overlap' if mine in via else 'leaf'}-{'overlap' if other in via else 'base'}"
            if side == 0 and kind in switches.align:
                terms.append(info_nce(leaf[mine], batch[0, other], switches.temperature))
    loss = torch.stack(terms).mean()
    if own:
        intra = [attraction(moved[modality], batch[1, via[0]], switches.squared) for modality in own]
        loss = loss + switches.intra_weight * torch.stack(intra).mean()
    return loss


def connect_loss(p: Params, batch: Mapping[Key, Tensor], via: Sequence[str], switches: Switches) -> Tensor:
    """C-MCR: InfoNCE of native pairs (tau 2) and of pseudo pairs (tau 3), and lambda L_intra."""
    body = half if switches.head == "half" else mlp
    z: dict[Key, Tensor] = {}
    for side, name in enumerate(("first", "second")):
        keys = [key for key in batch if key[0] == side]
        rows = together(lambda x, name=name: body(p, name, x), [batch[key] for key in keys], switches.joint)
        z |= dict(zip(keys, rows, strict=True))
    own = [[key for key in batch if key[0] == side and key[1] not in via] for side in (0, 1)]
    loss = torch.stack([info_nce(z[0, name], z[1, name], switches.temperature) for name in via]).mean()
    if not own[0] and not own[1]:
        return loss
    # A space that is all overlap lends its overlap.
    firsts, seconds = own[0] or [(0, via[0])], own[1] or [(1, via[0])]
    tau = switches.pseudo_temperature or switches.temperature
    loss = loss + torch.stack([info_nce(z[a], z[b], tau) for a in firsts for b in seconds]).mean()
    inside = [attraction(z[key], z[key[0], via[0]], switches.squared) for keys in own for key in keys]
    sides = sum(1 for keys in own if keys)
    return loss + switches.intra_weight * sides * torch.stack(inside).mean()


def learning_rate(first: float, step: int, steps: int) -> float:
    """Cosine decay from the first step's rate to nothing."""
    return first * (1 + torch.cos(torch.tensor(torch.pi * step / steps, dtype=torch.float64)).item()) / 2


class AdamW:
    """Loshchilov and Hutter's AdamW, algorithm 2, with torch's betas and eps."""

    def __init__(self, p: Params, weight_decay: float) -> None:
        self.p, self.decay, self.step_number = p, weight_decay, 0
        self.m = {name: torch.zeros_like(value) for name, value in p.items()}
        self.v = {name: torch.zeros_like(value) for name, value in p.items()}

    def step(self, gradients: Params, rate: float) -> None:
        """One step at a learning rate."""
        self.step_number += 1
        for name, g in gradients.items():
            self.m[name] = 0.9 * self.m[name] + 0.1 * g
            self.v[name] = 0.999 * self.v[name] + 0.001 * g * g
            mean = self.m[name] / (1 - 0.9**self.step_number)
            spread = (self.v[name] / (1 - 0.999**self.step_number)).sqrt() + 1e-8
            with torch.no_grad():
                self.p[name] -= rate * (mean / spread + self.decay * self.p[name])
