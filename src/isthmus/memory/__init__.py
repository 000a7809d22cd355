"""Memory banks: the softmax averages that pseudo pairs are made of, exact or approximate and checked."""

from __future__ import annotations

from isthmus.memory.bank import MemoryBank, Stats
from isthmus.memory.method import METHODS, describe
from isthmus.memory.online_softmax import OnlineSoftmax
from isthmus.memory.sparse_weights import SparseWeights

Partial = OnlineSoftmax
"""Earlier name of `OnlineSoftmax`."""

__all__ = ["METHODS", "MemoryBank", "OnlineSoftmax", "Partial", "SparseWeights", "Stats", "describe"]
