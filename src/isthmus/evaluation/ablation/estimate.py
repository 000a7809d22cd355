"""What a grid will cost, before anything is trained: pools, steps, and seconds measured here."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from isthmus.core.modality import via_list
from isthmus.core.runtime import numpy_generator, resolve_device, torch_generator
from isthmus.errors import ConfigError, OverlapError
from isthmus.evaluation.ablation.cells import World, cell_key
from isthmus.evaluation.ablation.expand import TRAINED, Row
from isthmus.evaluation.ablation.grid import Grid
from isthmus.memory import MemoryBank
from isthmus.pairs.kinds import Kind, centric_kinds, choose_kinds
from isthmus.pairs.pairs import PseudoPairs
from isthmus.pairs.side import Side, Slot, match_overlap
from isthmus.recipes.config import RecipeConfig, make_config
from isthmus.recipes.connect import ConnectConfig, InterIntra
from isthmus.recipes.extend import DenseAlignment, ExtendConfig, make_projector
from isthmus.recipes.training.loop import train
from isthmus.recipes.training.objective import Objective
from isthmus.recipes.training.projectors import ConnectProjectors, initialize
from isthmus.recipes.training.schedule import make_schedule
from isthmus.spaces.space import Space

PROBE_STEPS, PROBE_QUERIES = 8, 512
PAIR_SETTINGS = ("preset", "aggregation_temperature", "aggregation_method", "normalize_aggregates", "max_pairs")


def estimate(
    grid: Grid, rows: Sequence[Row], world: World, finished: Mapping[str, Any], *, device: str | None = None
) -> dict[str, Any]:
    """Count what a grid trains and measure what that takes.

    Args:
        grid: The grid.
        rows: Its rows.
        world: Its spaces.
        found: Cells that are finished, by key.
        device: Where it would train.

    Returns:
        `rows` (each with `pseudo_pairs`, `batch_size`, `epochs`, `steps` of all members, and
        the `fault` of one that cannot be trained), `cells` (`all`, `found`,
        `left`), `pools` (distinct centric kinds to aggregate), `seconds` and `measured` (training as in
        "finished cells", or by a "probe" of a few steps of the base row; aggregation by a part of one, whether or not a
        run before has kept its pseudo pairs).
    """
    sizes = _Sizes(world)
    lines = [sizes.line(row) for row in rows]
    todo = {
        key: n
        for n, row in enumerate(rows)
        for seed in grid.seeds
        if (key := cell_key(row, seed, world)) not in finished
    }
    pools: dict[str, int] = {}
    for number in todo.values():
        pools |= sizes.pools(rows[number])
    steps = sum(lines[number]["steps"] * lines[number]["batch_size"] for number in todo.values())
    every = {cell_key(row, seed, world) for row in rows for seed in grid.seeds}
    rate = _finished_rate(finished)
    per_row = rate if rate is not None else _probe(rows[0], world, lines[0], device)
    pair_seconds = _probe_pairs(world, device) * sum(pools.values()) if pools else 0.0
    return {
        "title": grid.title,
        "rows": lines,
        "cells": {"all": len(every), "found": len(every) - len(todo), "left": len(todo)},
        "pools": len(pools),
        "seconds": steps * per_row + pair_seconds if per_row is not None else None,
        "measured": "finished cells" if rate is not None else "probe",
    }


class _Sizes:
    """How many pseudo pairs rows have, from ids alone."""

    def __init__(self, world: World) -> None:
        self.sides = _empty_side(world.base), _empty_side(world.leaf)
        self._overlaps: dict[str, int] = {}

    def kinds(self, row: Row) -> dict[Kind, int]:
        """The centric kinds of a row, with their queries."""
        via, centric = via_list(row.via), row.config.get("centric")
        chosen = choose_kinds(*self.sides, via, centric) if centric else centric_kinds(*self.sides, via)
        limit = row.config.get("max_pairs") or np.inf
        return {kind: int(min(self._queries(kind.query, via), limit)) for kind in chosen}

    def _queries(self, slot: Slot, via: Sequence[str]) -> int:
        """Queries that a slot has, of an overlap the shared items."""
        if slot.modality not in via:
            return len(self.sides[slot.side].ids[slot.modality])
        if slot.modality not in self._overlaps:
            self._overlaps[slot.modality] = len(match_overlap(*self.sides, slot.modality)[0])
        return self._overlaps[slot.modality]

    def pools(self, row: Row) -> dict[str, int]:
        """Distinct kinds that have to be aggregated for a row, with their queries."""
        if row.method not in TRAINED or "fault" in self.line(row):
            return {}
        settings = [row.via, *(row.config[key] for key in PAIR_SETTINGS)]
        return {json.dumps([*kind.query, kind.pivot, settings]): n for kind, n in self.kinds(row).items()}

    def line(self, row: Row) -> dict[str, Any]:
        """Cost of training a row of an ablation; a closed form trains nothing."""
        about: dict[str, Any] = {"table": row.table, "name": row.name, "method": row.method}
        nothing = {"pseudo_pairs": 0, "batch_size": 0, "epochs": 0, "steps": 0}
        if row.method not in TRAINED:
            return about | nothing
        config = _config(row)
        try:
            pairs = sum(self.kinds(row).values())
            schedule = make_schedule(pairs, config)
        except (ConfigError, OverlapError) as error:
            return {**about, **nothing, "fault": str(error)}
        steps = schedule.steps * (config.members if row.method == "ex-mcr" else 1)
        return {
            **about,
            "pseudo_pairs": pairs,
            "batch_size": schedule.batch_size,
            "epochs": schedule.epochs,
            "steps": steps,
        }


def _config(row: Row) -> RecipeConfig:
    """Configuration of a row's recipe, for its sizes."""
    return make_config(TRAINED[row.method], {**row.config, "seed": 0})


def _empty_side(space: Space) -> Side:
    """Side of pseudo pairs with ids alone, for counting."""
    ids = {name: space[name].ids for name in space.modalities}
    return Side(space.name, ids, {name: np.empty((0, space.dim), np.float32) for name in space.modalities})


def _finished_rate(finished: Mapping[str, Any]) -> float | None:
    """Seconds a pseudo pair and step, of cells that were trained in one go."""
    rates = [
        (cell["cost"]["seconds"] - cell["cost"]["pairs"]) / (cell["steps"] * cell["batch_size"])
        for cell in finished.values()
        if cell.get("steps") and cell.get("batch_size") and not cell["cost"]["resumed"]
    ]
    return statistics.median(rates) if rates else None


def _probe(row: Row, world: World, line: Mapping[str, Any], device: str | None) -> float | None:
    """Seconds a pseudo pair and step of a row: a few real steps on random rows."""
    if not line["steps"]:
        return None
    place, config = resolve_device(device or "auto"), _config(row)
    spaces, via = (world.base, world.leaf), via_list(row.via)
    slots = tuple(Slot(side, name) for side, space in enumerate(spaces) for name in space.modalities)
    size, rng = line["batch_size"], numpy_generator(0)
    n = size * PROBE_STEPS + max(64, size * PROBE_STEPS // 8)
    columns = {slot: rng.standard_normal((n, spaces[slot.side].dim), dtype=np.float32) for slot in slots}
    short = config.model_copy(update={"epochs": 1, "batch_size": size, "members": 1})
    pairs = PseudoPairs(slots, columns, {})
    schedule = make_schedule(n, short)
    for _ in range(2):  # the first time loads what torch needs
        module, objective = _untrained(short, slots, spaces, via)
        done = train(module.to(place), objective, pairs, short, schedule, device=place, quiet=True)
    return float(done.seconds / (schedule.steps * size))


def _untrained(
    config: RecipeConfig, slots: Sequence[Slot], spaces: Sequence[Space], via: Sequence[str]
) -> tuple[nn.Module, Objective]:
    """Untrained projectors of a method and what trains them."""
    if isinstance(config, ExtendConfig):
        base, leaf = (_empty_side(space) for space in spaces)
        projector = make_projector(leaf, base, via, config, 0)
        return projector, DenseAlignment(projector, slots, via, config)
    assert isinstance(config, ConnectConfig)
    both = ConnectProjectors((spaces[0].dim, spaces[1].dim), config.dim, ratio=config.hidden_ratio)
    initialize(both, torch_generator(0), scheme=config.initialization)
    return both, InterIntra(both, slots, via, config)


def _probe_pairs(world: World, device: str | None) -> float:
    """Seconds a query: one aggregation from the largest modality for each modality there is."""
    place, seconds = resolve_device(device or "auto"), 0.0
    for space in (world.base, world.leaf):
        name = max(space.modalities, key=lambda each: len(space[each]))
        rows = space[name].unit()
        bank, queries = MemoryBank(rows, device=place), rows[:PROBE_QUERIES]
        bank.aggregate(queries[:2], temperature=0.01)
        started = time.monotonic()
        bank.aggregate(queries, temperature=0.01)
        seconds += (time.monotonic() - started) / len(queries) * (len(space.modalities) - 1)
    return seconds
