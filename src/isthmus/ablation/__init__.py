"""Ablations: a grid of settings over seeds, every cell trained once, resumed where it was left, in one table."""

from __future__ import annotations

from isthmus.ablation.grid import Grid, parse_grid, read_grid
from isthmus.ablation.run import ablate

__all__ = ["Grid", "ablate", "parse_grid", "read_grid"]
