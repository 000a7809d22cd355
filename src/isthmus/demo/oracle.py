"""The demo's paired oracle: the bridge's own projector, trained on real pairs that the bridge never gets to see."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional as F

from isthmus.geometry import Array, noise_std
from isthmus.losses import dense_info_nce
from isthmus.projectors import LeafProjector, initialize
from isthmus.runtime import torch_generator


def paired_projector(
    x: Array, y: Array, query: Array, *, seed: int = 0, steps: int = 900, batch: int = 128, noise_cosine: float = 0.573
) -> Array:
    """Train f_m(f_l(.)) on row-aligned pairs with the noise and temperature of `extend`, and project other rows with it.

    Args:
        x: (n, d) unit rows of the leaf.
        y: (n, dim) unit rows of the base, row i the partner of row i.
        query: (q, d) rows of the leaf to project.
        seed: Of initialisation, batches and noise.
        steps: Of AdamW, with cosine decay.
        batch: Pairs a step.
        noise_cosine: As in `ExtendConfig`.

    Returns:
        (q, dim) unit rows.
    """
    generator = torch_generator(seed, 99)
    projector = LeafProjector(["leaf"], x.shape[1], y.shape[1])
    initialize(projector, generator)
    optimizer = torch.optim.AdamW(projector.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))

    def noisy(rows: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(rows.shape, generator=generator)
        return F.normalize(rows + noise_std(noise_cosine, rows.shape[1]) * noise, dim=-1)

    def project(rows: torch.Tensor) -> torch.Tensor:
        return projector.to_base([projector.to_overlap(rows, "leaf")])

    left, right = torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(np.ascontiguousarray(y))
    for _ in range(steps):
        chosen = torch.randint(len(left), (batch,), generator=generator)
        loss = dense_info_nce(project(noisy(left[chosen])), noisy(right[chosen])[None], 0.05)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    projector.eval()
    with torch.no_grad():
        return np.asarray(project(torch.from_numpy(np.ascontiguousarray(query)))[0].numpy(), dtype=np.float32)
