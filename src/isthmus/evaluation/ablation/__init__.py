"""Ablations: a grid of settings over seeds, every cell trained once, resumed where it was left, in one table."""
