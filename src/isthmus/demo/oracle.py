"""The demo's paired oracle: the bridge's own network, trained on real pairs that the bridge never gets to see."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from isthmus.core.geometry import Array, noise_std
from isthmus.core.runtime import torch_generator
from isthmus.evaluation.evaluate import evaluate_retrieval
from isthmus.metrics.truth import Names, read_pairs
from isthmus.recipes.training.losses import dense_info_nce
from isthmus.recipes.training.projectors import LeafProjector, initialize
from isthmus.spaces.embeddings import Embeddings

NOISE_COSINE = 0.573
TEMPERATURE = 0.05
BATCH = 128
RATE = 2e-3
"""As `extend` settles them on a pool of this size."""

Pair = tuple[Embeddings, Embeddings]


def paired_projector_row(
    memory: Pair, test: Pair, *, real_pairs: Path, truth: Path, seed: int, steps: int
) -> dict[str, Any]:
    """Train on all real pairs of two memories and score on the test: a row as those of `evaluate_bridge`'s baselines.

    Args:
        memory: Query and gallery modality of the memories.
        test: Query and gallery of the evaluation.
        real_pairs: Pairs of the memories, query_id and gallery_id.
        truth: Pairs of the test.
        seed: Seed of training.
        steps: Steps of training.
    """
    started = time.perf_counter()
    names = [Names.of(each.modality, each.ids, len(each)) for each in memory]
    x, y = (each.unit(rows) for each, rows in zip(memory, read_pairs(real_pairs, *names), strict=True))
    projected = paired_projector(x, y, test[0].unit(), seed=seed, steps=steps)
    scores = evaluate_retrieval((test[0].ids, projected), test[1], truth).to_dict()
    return {**scores["mean"], **scores, "seconds": time.perf_counter() - started}


def paired_projector(x: Array, y: Array, query: Array, *, seed: int, steps: int) -> Array:
    """Train f_m(f_l(.)) on row-aligned pairs with `extend`'s noise and temperature, and project other rows with it.

    Args:
        x: (n, d) unit rows of the leaf.
        y: (n, dim) unit rows of the base, row i the partner of row i.
        query: (q, d) rows of the leaf to project.
        seed: Seed of initialisation, batches and noise.
        steps: Steps of AdamW, with cosine decay.

    Returns:
        (q, dim) unit rows.
    """
    generator = torch_generator(seed, 99)
    projector = LeafProjector(["leaf"], x.shape[1], y.shape[1])
    initialize(projector, generator)
    optimizer = torch.optim.AdamW(projector.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    left, right = torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(np.ascontiguousarray(y))
    for _ in range(steps):
        chosen = torch.randint(len(left), (BATCH,), generator=generator)
        target = _noisy(right[chosen], generator)[None]
        loss = dense_info_nce(_project(projector, _noisy(left[chosen], generator)), target, TEMPERATURE)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    projector.eval()
    with torch.no_grad():
        return np.asarray(_project(projector, torch.from_numpy(np.ascontiguousarray(query)))[0].numpy())


def _project(projector: LeafProjector, rows: Tensor) -> Tensor:
    """Rows of the leaf at the end of a projector."""
    return projector.to_base([projector.to_overlap(rows, "leaf")])


def _noisy(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Rows with the noise that `extend` trains with."""
    noise = torch.randn(rows.shape, generator=generator)
    return F.normalize(rows + noise_std(NOISE_COSINE, rows.shape[1]) * noise, dim=-1)
