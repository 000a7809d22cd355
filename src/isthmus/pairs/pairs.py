"""Pseudo pairs: rows that say the same in both spaces and all their modalities, made without any real pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isthmus.core.files import sha256_json
from isthmus.pairs.cache import digest
from isthmus.pairs.columns import Column, pick
from isthmus.pairs.side import Slot

_MOVED = 65536
"""Rows that go to a device at a time."""


@dataclass(frozen=True)
class PseudoPairs:
    """A pool of pseudo pairs.

    Attributes:
        slots: What a row holds, base side first.
        columns: Per slot (n, dim) float32 rows: held, in a memory map, or recomposed when they are taken.
        composition: Rows per centric kind.
        effective_neighbours: Per aggregation, percentiles of exp(entropy) of the softmax weights and the method; where
            that was approximate, also how it was done and how far off it was.
        identity: Hash of what the pool was made of: contents, settings and the form it is kept in, never a number that
            was computed, which may end in other digits in the next process. A pool made by hand is its own content.
        arithmetic: What made it, each way once: pairs that were taken from a folder may stem from another machine.
    """

    slots: tuple[Slot, ...]
    columns: Mapping[Slot, Column]
    composition: Mapping[str, int]
    effective_neighbours: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    identity: str = ""
    arithmetic: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        if not self.identity:
            every = np.arange(len(self))
            digests = [[*slot, digest(pick(column, every))] for slot, column in self.columns.items()]
            object.__setattr__(self, "identity", sha256_json(digests))

    def __len__(self) -> int:
        return int(self.columns[self.slots[0]].shape[0])

    def take(self, rows: NDArray[np.int64], device: torch.device) -> dict[Slot, Tensor]:
        """Rows by number, per slot (batch, dim) float32 on the device."""
        return {slot: torch.from_numpy(pick(self.columns[slot], rows)).to(device) for slot in self.slots}


class OnDevice:
    """A pool whose rows lie on the device that trains on them, all in float32: none crosses over in every epoch.

    Args:
        pairs: The pool.
        device: Where to hold it.
    """

    def __init__(self, pairs: PseudoPairs, device: torch.device) -> None:
        self.columns = {slot: _moved(column, device) for slot, column in pairs.columns.items()}

    def take(self, rows: NDArray[np.int64], device: torch.device) -> dict[Slot, Tensor]:
        """Rows of the pool, as `PseudoPairs.take` gives them."""
        return {slot: column[torch.from_numpy(rows).to(column.device)] for slot, column in self.columns.items()}


def to_device_if_it_fits(pairs: PseudoPairs, device: torch.device) -> PseudoPairs | OnDevice:
    """The pool on a CUDA device, where half of its free memory holds it; else as it is."""
    if device.type != "cuda":
        return pairs
    size = 4 * sum(int(column.shape[0]) * int(column.shape[1]) for column in pairs.columns.values())
    return OnDevice(pairs, device) if size <= torch.cuda.mem_get_info(device)[0] // 2 else pairs


def _moved(column: Column, device: torch.device) -> Tensor:
    """A column of pseudo pairs on the device, copied block by block."""
    n, width = column.shape
    column_on_device = torch.empty((n, width), device=device)
    for start in range(0, n, _MOVED):
        rows = np.arange(start, min(start + _MOVED, n))
        column_on_device[start : start + len(rows)] = torch.from_numpy(pick(column, rows))
    return column_on_device
