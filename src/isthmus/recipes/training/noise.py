"""Gaussian noise on the embeddings of a batch, a function of the seed and the step alone (both papers, 3.2.2)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional as F

from isthmus.core.geometry import noise_std
from isthmus.pairs.pairs import PseudoPairs
from isthmus.pairs.side import Slot
from isthmus.recipes.training.config import TrainingConfig
from isthmus.recipes.training.objective import Batch

_NOISE = 11
"""Stream of the seed."""


def noise_deviations(pairs: PseudoPairs, config: TrainingConfig) -> dict[Slot, float]:
    """Standard deviation per coordinate for every slot, by the width of its embeddings."""
    widths = {slot: int(pairs.columns[slot].shape[1]) for slot in pairs.slots}
    return {slot: noise_std(config.noise_cosine_at(width), width) for slot, width in widths.items()}


def add_noise(batch: Batch, deviations: Mapping[Slot, float], generator: torch.Generator) -> Batch:
    """Noise on every embedding, then unit length again.

    Args:
        batch: Unit rows.
        deviations: Standard deviation per coordinate; 0 leaves a slot as it is.
        generator: Generator of the batch's device, or of the CPU, where the noise is then drawn before it is moved.
    """
    noisy: Batch = {}
    for slot, x in batch.items():
        noise = torch.empty(x.shape, dtype=x.dtype, device=generator.device).normal_(generator=generator).to(x.device)
        noisy[slot] = F.normalize(noise.mul_(deviations[slot]).add_(x), dim=-1) if deviations[slot] > 0.0 else x
    return noisy


def noise_generator(device: torch.device, seed: int, step: int, member: int) -> torch.Generator:
    """The generator of a step's noise: CUDA's own there, and the CPU's for any other device.

    Not every device has generators that a tensor of it takes (Apple's MPS refuses the CPU's); drawn on the CPU, the
    noise is the same on all of them.
    """
    place = device if device.type == "cuda" else torch.device("cpu")
    state = np.random.SeedSequence((seed, _NOISE, step, member)).generate_state(1, np.uint64)
    return torch.Generator(place).manual_seed(int(state[0] >> np.uint64(1)))
