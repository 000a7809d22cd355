"""The schedule of a run: epochs, batch size, the order of the rows, and the learning rate of every step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isthmus.core.runtime import numpy_generator
from isthmus.errors import ConfigError
from isthmus.recipes.config import RecipeConfig

_PERMUTATION, _HELD_OUT = 10, 12
"""Streams of the seed."""
_SCORED = 1024
"""Held-out pseudo pairs that are scored: enough to tell checkpoints apart, and a negligible part of an epoch."""


@dataclass(frozen=True)
class Schedule:
    """What a run comes down to once the size of the pool is known."""

    epochs: int
    batch_size: int
    train_rows: NDArray[np.int64]
    held_out_rows: NDArray[np.int64]

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch; the last incomplete batch is dropped."""
        return len(self.train_rows) // self.batch_size

    @property
    def scored_rows(self) -> NDArray[np.int64]:
        """Held-out rows that are scored."""
        return self.held_out_rows[:_SCORED]

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return self.epochs * self.steps_per_epoch

    @property
    def settings(self) -> dict[str, int]:
        """The settings that were open, as they were settled."""
        return {"epochs": self.epochs, "batch_size": self.batch_size}

    def order(self, seed: int, epoch: int, member: int) -> NDArray[np.int64]:
        """The training rows in the order of an epoch, another one in each."""
        return numpy_generator(seed, _PERMUTATION, epoch, member).permutation(self.train_rows)

    def learning_rate(self, first: float, step: int) -> float:
        """A cosine decay from `first` at step 0 to 0 after the last step (Ex-MCR, section 4.1)."""
        return 0.5 * first * (1.0 + math.cos(math.pi * step / self.steps))


def make_schedule(n: int, config: RecipeConfig) -> Schedule:
    """Split a pool of `n` pseudo pairs and settle the batch size and the epochs that were left open.

    The papers' batches of 4096 and 10240 are for millions of pairs; on a pool of 41,000 they leave ten steps an epoch.
    An open batch size aims at eighty steps an epoch within 128 to 4096, and open epochs at the method's number of steps
    of all members together, within 1 to 36: `docs/log.md` has the measurements.

    Raises:
        ConfigError: The pool is too small to hold anything out or to fill a batch.
    """
    held = min(max(int(n * config.held_out), min(_SCORED, n // 10)), n // 2)
    batch = config.batch_size or min(4096, max(128, 2 ** round(math.log2(max(n / 80, 1)))))
    if config.batch_size is None:
        batch = min(batch, n - held)
    if held < 2 or batch < 2 or n - held < batch:
        raise ConfigError(
            f"{n:,} pseudo pairs are too few for batches of {batch:,} and a held-out part. Expected at least "
            f"{batch + max(held, 2):,}: give a smaller batch_size, or more embeddings."
        )
    order = numpy_generator(config.seed, _HELD_OUT).permutation(n)
    per_epoch = (n - held) // batch
    epochs = config.epochs or min(36, max(1, round(config.steps / config.members / per_epoch)))
    return Schedule(epochs, batch, np.sort(order[held:]), order[:held])
