"""One cell of a grid: a row with a seed, trained, scored, and kept under the hash of all that its figures depend on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.bridges.folder import plain
from isthmus.core.files import read_json, sha256_file, sha256_json, write_json
from isthmus.core.table_files import read_table
from isthmus.core.version import __version__, versions
from isthmus.errors import ConfigError, FingerprintError, FormatError
from isthmus.evaluation.ablation.expand import TRAINED, Row
from isthmus.evaluation.ablation.grid import Evaluation, Grid
from isthmus.evaluation.evaluate import evaluate_bridge
from isthmus.metrics.truth import Names, read_pairs
from isthmus.recipes.config import make_config
from isthmus.spaces.space import Space, open_space

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.spaces.embeddings import Embeddings

CELL_VERSION = 1


@dataclass(frozen=True)
class Task:
    """An evaluation whose sides are open: `target` are the gallery or the class texts, `truth` is the file."""

    name: str
    query: Embeddings
    target: Embeddings
    truth: Path
    zero_shot: bool

    def score(self, bridge: Bridge) -> dict[str, Any]:
        """Figures of a bridge, without intervals and without how long they took."""
        sides = ("classes", "labels") if self.zero_shot else ("gallery", "pairs")
        given: dict[str, Any] = dict(zip(sides, (self.target, self.truth), strict=True))
        report = evaluate_bridge(bridge, query=self.query, **given, bootstrap=0)
        return {key: value for key, value in report.items() if key != "seconds"}


@dataclass(frozen=True)
class World:
    """What all cells of a grid share: open spaces and evaluations, and what they are to the last row.

    Attributes:
        base: The base or first space.
        leaf: The leaf or second space.
        tasks: The evaluations.
        identity: Hashes of the content of everything read.
    """

    base: Space
    leaf: Space
    tasks: tuple[Task, ...]
    identity: dict[str, Any]


def open_world(grid: Grid, root: Path) -> World:
    """Open and check what a grid names, paths from `root`.

    Raises:
        SpaceError: A space is missing or not whole.
        ConfigError: A reference names no modality of a space.
        FingerprintError: An evaluation's embeddings come from an encoder of neither space.
        EvaluationError: Pairs name ids that are not there.
        FormatError: A file of pairs or labels cannot be read.
    """
    base, leaf = open_space(root / grid.spaces.base), open_space(root / grid.spaces.leaf)
    tasks = tuple(_open_task(each, root, (base, leaf)) for each in grid.evaluate)
    scored = [
        {
            "name": task.name,
            "query": task.query.content_hash,
            "target": task.target.content_hash,
            "truth": sha256_file(task.truth),
            "zero_shot": task.zero_shot,
        }
        for task in tasks
    ]
    spaces = {side: space.content_hash for side, space in (("base", base), ("leaf", leaf))}
    return World(base, leaf, tasks, {"spaces": spaces, "evaluate": scored})


def _open_task(task: Evaluation, root: Path, spaces: tuple[Space, Space]) -> Task:
    """Open the query, gallery and truth of an ablation's task."""
    where = f"evaluate {task.name!r}"
    query = _open_side(task.query, root, f"{where}: query", spaces)
    target = _open_side(task.gallery or task.classes or "", root, f"{where}: {_second(task)}", spaces)
    truth = root / (task.pairs or task.labels or "")
    if task.pairs:
        read_pairs(truth, Names.of("query", query.ids, len(query)), Names.of("gallery", target.ids, len(target)))
    else:
        read_table(truth)
    return Task(task.name, query, target, truth, zero_shot=task.classes is not None)


def _second(task: Evaluation) -> str:
    """Name of a task's second side, for messages."""
    return "gallery" if task.gallery else "classes"


def _open_side(reference: str, root: Path, where: str, spaces: tuple[Space, Space]) -> Embeddings:
    """Open one side of a task, which must be of the encoder of a space that is joined."""
    folder, slash, modality = reference.rpartition("/")
    if not slash or not folder or not modality:
        raise ConfigError(f"{where} got {reference!r}, expected SPACE/MODALITY such as test.space/audio.")
    opened = open_space(root / folder)[modality]
    known = [space.fingerprint(modality) for space in spaces if modality in space]
    if opened.fingerprint not in known:
        names = " or ".join(repr(space.name) for space in spaces)
        raise FingerprintError(
            f"{where} {reference!r} is not of the encoder of {names}. Expected embeddings of the same encoder: import "
            "them with the same --name or --encoder."
        )
    return opened


def cell_key(row: Row, seed: int, world: World) -> str:
    """Hash of all that a cell's figures depend on; rows of equal settings share their cells."""
    settings = {key: value for key, value in row.config.items() if key != "checkpoint_seconds"}
    identity = {"method": row.method, "via": row.via, "settings": settings, "seed": seed, "isthmus": __version__}
    return sha256_json({**identity, **world.identity, "cell_version": CELL_VERSION})[:32]


def read_cell(path: Path, key: str) -> dict[str, Any] | None:
    """Finished cell of an ablation, or None where there is none that is whole."""
    try:
        cell = read_json(path, kind="cell of an ablation")
    except (OSError, FormatError):
        return None
    return cell if cell.get("key") == key and cell.get("cell_version") == CELL_VERSION else None


def run_cell(row: Row, seed: int, world: World, *, out: Path, key: str, device: str | None) -> dict[str, Any]:
    """Train and score a cell, from its checkpoint where there is one, and write it as `cells/KEY.json`.

    Raises:
        ConfigError: Its settings do not fit the spaces, or its loss is no longer finite.
    """
    started, checkpoints = time.monotonic(), out / "checkpoints" / key
    resumed = checkpoints.is_dir() and any(checkpoints.glob("*.safetensors"))
    bridge = make_bridge(row, seed, world, checkpoints=checkpoints, pairs=out / "pairs", device=device)
    scores = {task.name: task.score(bridge) for task in world.tasks}
    record = bridge.record
    cell = {
        "cell_version": CELL_VERSION,
        "key": key,
        "method": row.method,
        "via": row.via,
        "settings": row.config,
        "seed": seed,
        "scores": scores,
        "held_out": record.get("held_out"),
        "pseudo_pairs": (record.get("pseudo_pairs") or {}).get("rows"),
        "steps": record.get("steps"),
        "batch_size": bridge.config.get("batch_size"),
        "epochs": bridge.config.get("epochs"),
        "parameters": record.get("parameters"),
        "versions": versions(),
        "cost": {
            "seconds": time.monotonic() - started,
            "training": record["seconds"].get("training", 0.0),
            "pairs": record["seconds"].get("pairs", 0.0),
            "resumed": resumed,
        },
    }
    cell_record: dict[str, Any] = plain(cell)
    write_json(out / "cells" / f"{key}.json", cell_record)
    return cell_record


def make_bridge(
    row: Row, seed: int, world: World, *, checkpoints: Path, pairs: Path, device: str | None = None
) -> Bridge:
    """The bridge of a row and a seed."""
    if row.method not in TRAINED:
        from isthmus.recipes.closed_form import fit_closed_form_bridge

        return fit_closed_form_bridge(world.base, world.leaf, via=row.via, method=row.method, seed=seed, **row.config)
    settings: Mapping[str, Any] = {**row.config, "seed": seed}
    common: dict[str, Any] = {"checkpoint_dir": checkpoints, "pairs_dir": pairs, "device": device, "quiet": True}
    common["estimate"] = False  # a grid is measured on pairs
    if row.method == "c-mcr":
        from isthmus.recipes.connect import ConnectConfig, connect

        config = make_config(ConnectConfig, settings)
        return connect(world.base, world.leaf, via=row.via, config=config, **common)
    from isthmus.recipes.extend import ExtendConfig, extend

    return extend(world.base, world.leaf, via=row.via, config=make_config(ExtendConfig, settings), **common)
