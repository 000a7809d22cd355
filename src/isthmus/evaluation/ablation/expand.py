"""The rows that a grid comes to, each with all its settings, checked before anything is trained."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from isthmus.core.messages import unknown_name
from isthmus.errors import ConfigError
from isthmus.evaluation.ablation.grid import Grid, RowEntry
from isthmus.recipes.config import RecipeConfig, make_config
from isthmus.recipes.connect import ConnectConfig
from isthmus.recipes.extend import ExtendConfig
from isthmus.recipes.solvers import METHODS as CLOSED
from isthmus.recipes.solvers import ClosedFormConfig

TRAINED: dict[str, type[RecipeConfig]] = {"ex-mcr": ExtendConfig, "c-mcr": ConnectConfig}
METHODS = (*TRAINED, *CLOSED)
CELLS = 100_000
"""Most cells of a grid: more is a slip of the keys of [grid]."""


@dataclass(frozen=True)
class Row:
    """A row, resolved.

    Attributes:
        table: Heading.
        name: Name under the heading.
        method: Method.
        via: Overlap modalities.
        changes: What was written to differ from the base.
        config: All settings of the method, without the seed.
        expect: What the papers say, or None.
        source: Where.
        on: The column that this is about.
    """

    table: str
    name: str
    method: str
    via: str
    changes: dict[str, Any]
    config: dict[str, Any]
    expect: str | None = None
    source: str = ""
    on: str = ""

    @property
    def trained(self) -> bool:
        """Whether anything is trained, and seeds so tell of chance."""
        return self.method in TRAINED

    @property
    def label(self) -> str:
        """Heading and name."""
        return f"{self.table}/{self.name}" if self.table else self.name


def expand(grid: Grid) -> list[Row]:
    """The rows of a grid, the base row first, every one's settings checked.

    Raises:
        ConfigError: A setting is unknown or out of range, a name stands twice, or a claim names no row or column.
    """
    columns = list(grid.columns)
    size = 1 + len(grid.rows) + (math.prod(map(len, grid.grid.values())) if grid.grid else 0)
    if size * len(grid.seeds) > CELLS:
        raise ConfigError(
            f"the grid has {size:,} rows over {len(grid.seeds)} seeds, expected at most {CELLS:,} trainings. "
            "Give fewer values in [grid]."
        )
    entries = [RowEntry(name=grid.base), *grid.rows, *_product(grid.grid)]
    rows = [_row(grid, entry, columns) for entry in entries]
    labels = [row.label for row in rows]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ConfigError(f"two rows are called {twice[0]!r}. Give each its own table or name.")
    for claim in grid.claims:
        for named in (claim.row, claim.against or grid.base):
            if named not in labels:
                raise ConfigError(unknown_name(f"the claim {claim.says!r} names the row", named, labels))
        _column(claim.on, columns, f"the claim {claim.says!r}")
    return rows


def _product(grid: Mapping[str, Sequence[Any]]) -> list[RowEntry]:
    """Rows of every combination of the values of [grid]."""
    if empty := [key for key, values in grid.items() if not values]:
        raise ConfigError(f"[grid] gives no value for {empty[0]!r}. Give a list of them, or leave it out.")
    rows = []
    for values in itertools.product(*grid.values()) if grid else ():
        chosen = dict(zip(grid, values, strict=True))
        name = ", ".join(f"{key} {_words(value)}" for key, value in chosen.items())
        own = {key: chosen.pop(key) for key in ("method", "via") if key in chosen}
        rows.append(RowEntry(table="grid", name=name, settings=chosen, **own))
    return rows


def _words(value: Any) -> str:
    """Value of a setting as the name of a row has it."""
    if isinstance(value, list | tuple):
        return "+".join(map(_words, value))
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _row(grid: Grid, entry: RowEntry, columns: Sequence[str]) -> Row:
    """Row of an ablation's grid, its settings resolved and checked."""
    method, where = entry.method or grid.method, f"row {entry.name!r}"
    if method not in METHODS:
        raise ConfigError(unknown_name(f"{where} has the unknown method", method, METHODS))
    known = known_settings(method)
    inherited = {key: value for key, value in grid.settings.items() if key in known or method == grid.method}
    settings = inherited | entry.settings
    if "seed" in settings:
        raise ConfigError(f"{where} sets seed. Seeds are those of the whole grid: seeds = [0, 1, 2].")
    if "engine_address" in settings:
        # Ray runs what it is sent and unpickles what it gets back, so no file may choose the machine.
        raise ConfigError(f"{where} sets engine_address, which no file may choose. Leave it out, or set RAY_ADDRESS.")
    for key in settings:
        if key not in known:
            raise ConfigError(unknown_name(f"{where} has the unknown setting", key, known))
    changes: dict[str, Any] = dict(entry.settings)
    changes |= {key: value for key in ("method", "via") if (value := getattr(entry, key)) is not None}
    on = _column(entry.on, columns, where)
    try:
        config = resolve(method, settings)
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"{where}: {error}") from error
    return Row(entry.table, entry.name, method, entry.via or grid.via, changes, config, entry.expect, entry.source, on)


def known_settings(method: str) -> list[str]:
    """Names of the settings of a method."""
    if method in TRAINED:
        return [name for name in TRAINED[method].model_fields if name != "seed"]
    return [each.name for each in fields(ClosedFormConfig) if each.name not in ("method", "seed")]


def resolve(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a method, those given over its defaults; what does not change a result is left out.

    Raises:
        ConfigError: A value is out of range.
    """
    if method in TRAINED:
        return make_config(TRAINED[method], settings).model_dump(mode="json", exclude={"seed"})
    config = asdict(ClosedFormConfig(method=method, **settings))
    return {key: value for key, value in config.items() if key not in ("method", "seed")}


def _column(wanted: str | None, columns: Sequence[str], where: str) -> str:
    """The column of a name: in full, or of an evaluation alone, whose first figure it then is."""
    if wanted is None:
        return columns[0]
    for column in columns:
        if wanted in (column, column.rpartition(" ")[0]):
            return column
    raise ConfigError(unknown_name(f"{where} is about the unknown column", wanted, columns))
