"""Memory banks: the softmax averages that pseudo pairs are made of, exact or approximate and checked."""

from __future__ import annotations

from isthmus.memory.bank import METHODS, MemoryBank, Stats
from isthmus.memory.method import describe
from isthmus.memory.online_softmax import Partial
from isthmus.memory.sparse import SparseWeights

__all__ = ["METHODS", "MemoryBank", "Partial", "SparseWeights", "Stats", "describe"]
