"""Memory banks: the the softmax averages that pseudo pairs are made of, exact or approximate and checked."""

from __future__ import annotations

from isthmus.memory.bank import METHODS, MemoryBank, Stats
from isthmus.memory.partial import Partial

__all__ = ["METHODS", "MemoryBank", "Partial", "Stats"]
