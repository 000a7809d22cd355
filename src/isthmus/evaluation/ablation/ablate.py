"""The run of a grid: what is finished is kept, what was begun goes on, and the table is written after every cell."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.core.files import atomic_file, read_json, write_json
from isthmus.core.locks import hold
from isthmus.core.replace import claim_folder, remove_written
from isthmus.core.runtime import notifier
from isthmus.errors import ConfigError, OverlapError
from isthmus.evaluation.ablation.ablation_table import figure, tabulate, to_csv, to_markdown
from isthmus.evaluation.ablation.cells import World, cell_key, open_world, read_cell, run_cell
from isthmus.evaluation.ablation.estimate import estimate
from isthmus.evaluation.ablation.expand import Row, expand
from isthmus.evaluation.ablation.grid import Grid, parse_grid, read_grid
from isthmus.evaluation.ablation.reports import AblationEstimate, AblationReport
from isthmus.recipes.training.loop import CHECKPOINTS

_CHECKPOINTS = re.compile(rf"[0-9a-f]{{32}}/(?:{CHECKPOINTS.pattern})")
_PAIRS = re.compile(r"[0-9a-f]+/(?:\d+\.npy|about\.json)?")
_WRITTEN = re.compile(
    r"table\.(?:md|json|csv)|cells/(?:[0-9a-f]{32}\.json)?"
    rf"|checkpoints/(?:{_CHECKPOINTS.pattern})?|pairs/(?:{_PAIRS.pattern})?"
)
"""Relative paths of what a grid writes."""


def ablate(
    config: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    data: str | Path | None = None,
    seeds: Sequence[int] | None = None,
    device: str | None = None,
    dry_run: bool = False,
    keep_pairs: bool = False,
    quiet: bool = False,
) -> AblationReport | AblationEstimate:
    """Train and score every row of a grid over its seeds, and write one table.

    A cell, that is a row with a seed, is kept under the hash of its settings and of all rows of the spaces and
    evaluations; it is never trained again, and one that was killed goes on from its checkpoint to the same figures.
    Pseudo pairs are aggregated once for all cells that share them.

    Args:
        config: TOML file of a grid (see the page on ablations), or its table.
        out: Folder of `table.md`, `table.json`, `table.csv`, `cells/` and, until all is done, `checkpoints/` and
            `pairs/`. None is the file's name with `.ablation`, in the current folder.
        data: Folder that the paths of the grid start from; None is the file's own.
        seeds: Instead of the grid's.
        device: Where to train: cpu, cuda, cuda:N, mps or auto.
        dry_run: Train nothing and write nothing; return what there is to do.
        keep_pairs: Keep the pseudo pairs when all is done.
        quiet: Print no progress.

    Returns:
        What `table.json` holds, and where it lies; for a dry run, what there is to train and how long it takes.

    Raises:
        ConfigError: A key of the grid is unknown or out of range, or another process runs it into the same folder.
        IsthmusError: A space or an evaluation cannot be opened.
    """
    grid, root, stem = _read(config)
    if seeds is not None:
        grid = parse_grid({**grid.model_dump(exclude_unset=True), "seeds": tuple(seeds)})
    rows = expand(grid)
    world = open_world(grid, Path(data) if data is not None else root)
    place = Path(out) if out is not None else Path(f"{stem}.ablation")
    cells = _Cells(grid, rows, world, place)
    if dry_run:
        return AblationEstimate(**estimate(grid, rows, world, cells.finished_before, device=device))
    with hold(place):
        _claim(place, [config, root / grid.spaces.base, root / grid.spaces.leaf, *(task.truth for task in world.tasks)])
        cells.run(device, notifier(quiet))
        report = cells.write()
        if not cells.left():
            remove_written(place / "checkpoints", _CHECKPOINTS)
            if not keep_pairs:
                remove_written(place / "pairs", _PAIRS)
    return AblationReport(**report, path=str(place))


def _claim(place: Path, inputs: Sequence[Any]) -> None:
    """Refuse a folder that holds anything but an earlier run of a grid, and make one that is missing."""
    files = [one for one in inputs if isinstance(one, str | Path)]
    claim_folder(place, _WRITTEN, "folder of an ablation", inputs=files, option="--out")
    table = place / "table.json"
    known = table.is_file() and {"cells", "rows", "columns"} <= read_json(table, kind="table of an ablation").keys()
    if not known and (tables := sorted(each.name for each in place.glob("table.*"))):
        raise ConfigError(f"--out {place} holds {tables[0]}, which no ablation wrote. Give a folder of its own.")


def _read(config: str | Path | Mapping[str, Any]) -> tuple[Grid, Path, str]:
    """Grid of an ablation, the folder that its paths start from, and its name."""
    if isinstance(config, Mapping):
        return parse_grid(config), Path(), "grid"
    return read_grid(config), Path(config).parent, Path(config).stem


class _Cells:
    """The cells of a grid by row and seed: found on disk, trained, and put into the table."""

    def __init__(self, grid: Grid, rows: list[Row], world: World, out: Path) -> None:
        self.grid, self.rows, self.world, self.out = grid, rows, world, out
        self.keys = {(row.label, seed): cell_key(row, seed, world) for seed in grid.seeds for row in rows}
        read = {key: read_cell(out / "cells" / f"{key}.json", key) for key in set(self.keys.values())}
        self.cells: dict[str, dict[str, Any]] = {key: cell for key, cell in read.items() if cell is not None}
        self.finished_before = dict(self.cells)

    def left(self) -> dict[str, tuple[Row, int]]:
        """Cells of the ablation still to be trained, by key, seed after seed, the first seed's table first."""
        by_label, every = {row.label: row for row in self.rows}, dict[str, tuple[Row, int]]()
        for (label, seed), key in self.keys.items():
            every.setdefault(key, (by_label[label], seed))
        return {key: what for key, what in every.items() if "scores" not in self.cells.get(key, {})}

    def run(self, device: str | None, notify: Callable[[str], None]) -> None:
        """Train what is left. A cell whose settings do not fit is noted and does not stop the others."""
        left, total = self.left(), len(set(self.keys.values()))
        if self.finished_before:
            notify(f"{len(self.finished_before):,} of {total:,} cells were finished before and are kept")
        took: list[float] = []
        (self.out / "cells").mkdir(exist_ok=True)
        for number, (key, (row, seed)) in enumerate(left.items(), start=1):
            started = time.monotonic()
            try:
                cell = run_cell(row, seed, self.world, out=self.out, key=key, device=device)
                words = _words(self.grid, cell)
            except (ConfigError, OverlapError) as error:
                cell, words = {"fault": str(error)}, f"failed: {error}"
            self.cells[key] = cell
            remove_written(self.out / "checkpoints" / key, CHECKPOINTS)
            took.append(time.monotonic() - started)
            ahead = (len(left) - number) * statistics.median(took)
            place = f"[{total - len(left) + number:,}/{total:,}]"
            notify(f"{place} {row.label}, seed {seed}: {words} in {took[-1]:.1f} s, about {_minutes(ahead)} left")
            self.write()

    def write(self) -> dict[str, Any]:
        """Write the table of what there is."""
        by_place = {place: self.cells[key] for place, key in self.keys.items() if key in self.cells}
        report = tabulate(self.grid, self.rows, by_place)
        keys = set(self.keys.values())
        failed = sum("fault" in cell for cell in self.cells.values())
        report["cells"] = {
            "all": len(keys),
            "done": len(self.cells) - failed,
            "found": len(self.finished_before),
            "trained": len(self.cells) - len(self.finished_before) - failed,
            "failed": failed,
        }
        report["spaces"] = {side.name: list(side.modalities) for side in (self.world.base, self.world.leaf)}
        report["cost"] = _cost(list(self.cells.values()))
        report["versions"] = next((cell["versions"] for cell in self.cells.values() if "versions" in cell), {})
        write_json(self.out / "table.json", report)
        for name, text in (
            ("table.md", f"# {self.grid.title}\n\n{to_markdown(report)}"),
            ("table.csv", to_csv(report)),
        ):
            with atomic_file(self.out / name) as aside:
                aside.write_text(text, encoding="utf-8")
        return report


def _words(grid: Grid, cell: Mapping[str, Any]) -> str:
    """Figures of a finished cell, for the line of progress."""
    return ", ".join(f"{name} {figure(cell['scores'][task], m):.4f}" for name, (task, m) in grid.columns.items())


def _cost(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds of the cells that were trained in one go."""
    whole = [cell["cost"] for cell in cells if "cost" in cell and not cell["cost"]["resumed"]]
    if not whole:
        return {}
    medians = {f"median_{part}": statistics.median(cost[part] for cost in whole) for part in ("seconds", "training")}
    return {**medians, "sum": sum(cost["seconds"] for cost in whole)}


def _minutes(seconds: float) -> str:
    """Seconds as a person says them."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
