"""How fast is a training step beside the plain way written out and the machine's product peak?

    python bench/train_step.py --out bench/results/train_step.json

Ex-MCR's step: noise on four batches, a projector of two blocks, the dense alignment of four InfoNCE terms, AdamW. The
plain way is what a reader of the paper writes: two cross-entropies a term, each over a similarity matrix of its own.
Both get the same batches; runs alternate, and ratios are of medians. The peak is that of a float32 product in the
cache, measured between the runs, and the floor is the time that the products of a step alone take at it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from aggregate import alternate, machine, peak_flops, synchronize, write
from torch import Tensor
from torch.nn import functional as F

from isthmus.core.runtime import torch_generator
from isthmus.pairs.side import Slot
from isthmus.recipes.extend import DenseAlignment, ExtendConfig
from isthmus.recipes.training.loop import autocast, product_type
from isthmus.recipes.training.losses import dense_info_nce, reused_memory
from isthmus.recipes.training.projectors import LeafProjector, initialize

SLOTS = (Slot(0, "text"), Slot(0, "image"), Slot(1, "text"), Slot(1, "audio"))
NOISE = 0.0632
RATE = 1e-3
HALF = "16 bits or the same"
"""`precision = "auto"`: bfloat16 where the processor has instructions for it, else float32."""


def nce(x: Tensor, z: Tensor, tau: float) -> Tensor:
    """InfoNCE as two cross-entropies, one a direction."""
    logits = x @ z.T / tau
    own = torch.arange(len(x), device=x.device)
    return 0.5 * (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own))


def plain_loss(projector: LeafProjector, batch: dict[Slot, Tensor], tau: float) -> Tensor:
    """Ex-MCR's loss, term by term."""
    base_text, base_image, text, audio = (batch[slot] for slot in SLOTS)
    moved = projector.to_overlap(audio, "audio")
    intra = 0.5 * (moved - text).norm(dim=-1).mean()
    a, t = projector.to_base([moved, text])
    return 0.1 * intra + 0.25 * (
        nce(a, base_image, tau) + nce(a, base_text, tau) + nce(t, base_image, tau) + nce(t, base_text, tau)
    )


def noisy(x: Tensor, generator: torch.Generator) -> Tensor:
    """Noise and unit length again, as it is written."""
    return F.normalize(x + NOISE * torch.randn(x.shape, generator=generator, device=x.device), dim=-1)


class Stepper:
    """A projector, its optimiser and the loss that it is trained with; call it for a step."""

    def __init__(self, dim: int, device: torch.device, precision: str | None) -> None:
        self.projector = LeafProjector(["audio"], dim, dim)
        initialize(self.projector, torch_generator(0, 1))
        self.projector.to(device)
        self.plain = precision is None
        config = ExtendConfig(precision=precision or "float32")
        self.objective = DenseAlignment(self.projector, SLOTS, ["text"], config)
        self.config, self.device = config, device
        self.optimizer = torch.optim.AdamW(self.projector.parameters(), lr=RATE, fused=not self.plain)

    def __call__(self, clean: dict[Slot, Tensor]) -> float:
        generator = torch.Generator(clean[SLOTS[0]].device).manual_seed(0)
        batch = {slot: noisy(x, generator) for slot, x in clean.items()}
        with autocast(product_type(self.config, self.device), self.device):
            loss = self.loss(batch)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def loss(self, batch: dict[Slot, Tensor]) -> Tensor:
        """The plain loss or the fused one."""
        if self.plain:
            return plain_loss(self.projector, batch, self.config.temperature)
        return self.objective.loss(batch)[0]


def floating_operations(batch: int, dim: int) -> float:
    """Multiplications and additions of a step's products: similarities once there and once back, projectors thrice."""
    similarities = 2 * 2 * (2 * batch) ** 2 * dim
    blocks = 3 * 2 * (2 * batch) * 2 * (dim * 2 * dim * 2)
    return float(similarities + blocks + 3 * 2 * batch * dim * dim)


def step_ratios(batch: int, dim: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """Seconds of a step, plain, fused, and fused in 16 bits where the processor is faster at them."""
    generator = torch.Generator(device).manual_seed(1)
    clean = {s: F.normalize(torch.randn((batch, dim), generator=generator, device=device), dim=-1) for s in SLOTS}
    steppers = {"plain": Stepper(dim, device, None), "fused": Stepper(dim, device, "float32")}
    steppers[HALF] = Stepper(dim, device, "auto")
    peaks: list[float] = []
    runs: dict[str, Callable[[], Any]] = {n: synchronous(lambda s=s: s(clean), device) for n, s in steppers.items()}
    first = {name: run() for name, run in runs.items()}
    runs["peak"] = lambda: peaks.append(peak_flops(device=device))
    taken, last = alternate(runs, repeats)
    peak = float(np.median(peaks))
    floor = floating_operations(batch, dim) / peak
    return {
        "batch": batch, "dim": dim, "device": str(device), "seconds": {k: v for k, v in taken.items() if k != "peak"},
        "peak_gflops": peak / 1e9, "floor_seconds": floor,
        "plain_over_fused": taken["plain"] / taken["fused"], "plain_over_half": taken["plain"] / taken[HALF],
        "floor_over_fused": floor / taken["fused"],
        "plain_over_floor": taken["plain"] / floor,
        "first_losses": first, "last_losses": {k: last[k] for k in first},
    }  # fmt: skip


def loss_ratios(batch: int, dim: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """Seconds of the four InfoNCE terms alone, there and back, and how far their gradients are apart."""
    generator = torch.Generator(device).manual_seed(2)
    x, z = (F.normalize(torch.randn((2, batch, dim), generator=generator, device=device), dim=-1) for _ in range(2))
    x.requires_grad_()

    def gradient(loss: Callable[[], Tensor]) -> Tensor:
        return torch.autograd.grad(loss(), x)[0]

    def half() -> Tensor:
        with autocast(product_type(ExtendConfig(precision="auto"), device), device):
            return dense_info_nce(x, z, 0.05)

    terms = {
        "plain": lambda: gradient(lambda: torch.stack([nce(a, b, 0.05) for a in x for b in z]).mean()),
        "fused": lambda: gradient(lambda: dense_info_nce(x, z, 0.05)),
        HALF: lambda: gradient(half),
    }
    for term in terms.values():
        term()
    taken, found = alternate({name: synchronous(run, device) for name, run in terms.items()}, repeats)
    size = found["plain"].norm()
    return {
        "seconds": taken,
        "plain_over": {name: taken["plain"] / taken[name] for name in ("fused", HALF)},
        "gradients_apart": {name: float((found["plain"] - found[name]).norm() / size) for name in ("fused", HALF)},
    }


def synchronous(run: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """A run that ends when its work on the device has."""

    def whole() -> Any:
        result = run()
        synchronize(device)
        return result

    return whole


def parts(options: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """What is measured, by name."""
    device, repeats = torch.device(options.device), options.repeats
    yield "machine", machine()
    yield "loss", loss_ratios(options.batch, options.dim, repeats, device)
    yield "step", step_ratios(options.batch, options.dim, repeats, device)
    yield "small", step_ratios(min(1024, options.batch), options.dim, repeats, device)


def main() -> None:
    """Measure, and write what there is after every part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="batches of 1024, three repeats")
    options = parser.parse_args()
    if options.quick:
        options.batch, options.repeats = 1024, 3
    found: dict[str, Any] = {}
    with reused_memory():  # As in training; the plain way does not know of it.
        for name, part in parts(options):
            found[name] = part
            print(json.dumps({name: part}, indent=1), flush=True)
            write(options.out, found)


if __name__ == "__main__":
    main()
