"""Aggregation over the shards of a memory: in one process, in several, or as Ray tasks on a cluster.

A task averages a block of queries over one shard, exactly, and returns partial sums; those of the shards merge exactly,
in the order of the shards whatever the order in which tasks end. A task is a pure function of a file and a block of
queries: one that is lost with its machine is done again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.core.ray import ray_session
from isthmus.errors import ConfigError, FormatError
from isthmus.memory import MemoryBank, OnlineSoftmax, Stats
from isthmus.memory.matrix import MatrixReader

ENGINES = ("local", "processes", "ray")
QUERY_BLOCK = 8192
"""Queries of a task: their sums over a shard of 512 dimensions are 16 MB."""

SHARD_ROWS = 16384
"""Rows of a shard of a memory that is cut up: the same whoever computes, so that the result is."""

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Engine:
    """An engine that is open: give it to every aggregation of a run, so that its workers start once.

    Attributes:
        name: One of `ENGINES`.
        submit: Takes queries, pairs of shards and a temperature; gives the sums of each pair in turn.
        reads_files: Whether its workers share this machine's files but not its memory.
    """

    name: str
    submit: Callable[..., Iterator[Arrays]]
    reads_files: bool = False


@contextmanager
def open_engine(name: str = "local", *, workers: int | None = None, address: str | None = None) -> Iterator[Engine]:
    """Start an engine and stop it at the end.

    Args:
        name: "local" (this process), "processes" or "ray".
        workers: Processes; None is one per core. Ray decides for itself.
        address: Address of a Ray cluster; None is the one this process is connected to, or else a local one.

    Raises:
        ConfigError: The engine is unknown.
        DependencyError: Ray is asked for and not installed.
    """
    if name not in ENGINES:
        raise ConfigError(f"unknown engine {name!r}. Expected one of {', '.join(ENGINES)}.")
    with _ENGINES[name](workers, address) as submit:
        yield Engine(name, submit, reads_files=name == "processes")


class ShardedMemory:
    """A memory that an open engine aggregates from, exactly, as `MemoryBank` does in one process.

    Args:
        keys: (m, d) unit rows.
        values: What is averaged under the same weights, (m, d_v) each; None is the memory itself.
        engine: An open engine.
        folder: Where shards are written for workers that read files.
    """

    def __init__(self, keys: NDArray[Any], values: Sequence[NDArray[Any]] | None, engine: Engine, folder: Path) -> None:
        self.engine, self.widths = engine, None if values is None else [v.shape[1] for v in values]
        cuts = range(0, len(keys), SHARD_ROWS)
        self.shards: list[Any] = [keys[low : low + SHARD_ROWS] for low in cuts]
        self.values: list[Any] | None = None
        if values is not None:
            self.values = [np.hstack([v[low : low + SHARD_ROWS] for v in values]) for low in cuts]
        if engine.reads_files:
            self.shards = _to_files(self.shards, folder / "keys")
            self.values = None if self.values is None else _to_files(self.values, folder / "values")

    def aggregate_with_stats(
        self, queries: NDArray[Any], *, temperature: float
    ) -> tuple[list[NDArray[np.float32]], Stats]:
        """The averages, one a matrix of values, and the effective neighbours with a report."""
        averages, stats = aggregate_shards(
            self.shards, queries, temperature=temperature, values=self.values, engine=self.engine
        )
        cuts = np.cumsum(self.widths or [0])[:-1]
        return np.split(averages, cuts, axis=1), stats


def aggregate_shards(
    shards: Sequence[str | Path | NDArray[Any]],
    queries: Any,
    *,
    temperature: float = 0.01,
    values: Sequence[str | Path | NDArray[Any]] | None = None,
    engine: str | Engine = "local",
    workers: int | None = None,
    address: str | None = None,
) -> tuple[NDArray[np.float32], Stats]:
    """Average the rows of a memory that lies in several shards, exactly.

    Args:
        shards: The memory: .npy files (which every worker must be able to read) or arrays, (m_i, d) each.
        queries: (q, d) array or memory map.
        temperature: Softmax temperature, above 0.
        values: What is averaged, a shard for each shard of the memory, row-aligned; None for the memory itself.
        engine: "local" (this process), "processes" or "ray", or one that is open.
        workers: As of `open_engine`.
        address: As of `open_engine`.

    Returns:
        (q, d_v) float32, and the effective neighbours with a report.

    Raises:
        ConfigError: An option is unknown or the shards do not fit.
        DependencyError: Ray is asked for and not installed.
        FormatError: A shard is no .npy file of a matrix.
    """
    if not shards or (values is not None and len(values) != len(shards)):
        given = "no values" if values is None else f"{len(values)} of values"
        raise ConfigError(f"got {len(shards)} shards and {given}. Expected at least one shard, and values for each.")
    reader = MatrixReader(queries, torch.device("cpu"), unit=False, name="queries", resident_bytes=0)
    pairs = list(zip(shards, values if values is not None else [None] * len(shards), strict=True))
    blocks = [slice(i, min(i + QUERY_BLOCK, reader.n)) for i in range(0, reader.n, QUERY_BLOCK)]
    averages: list[NDArray[np.float32]] = []
    neighbours: list[NDArray[np.float32]] = []
    opening = (
        nullcontext(engine) if isinstance(engine, Engine) else open_engine(engine, workers=workers, address=address)
    )
    with opening as opened:
        for block in blocks:
            merged = _merge(opened.submit(reader.block(block.start, block.stop).numpy(), pairs, temperature))
            averages.append(merged.finish()[0].numpy())
            neighbours.append(merged.effective_neighbours().numpy())
    report = {
        "asked": "exact", "used": "exact", "fell_back": None, "engine": opened.name, "shards": len(shards),
        "queries": reader.n, "temperature": temperature,
    }  # fmt: skip
    width = reader.dim if values is None else _open(values[0]).shape[1]
    average = np.concatenate(averages) if averages else np.zeros((0, width), np.float32)
    return average, Stats(np.concatenate(neighbours) if neighbours else np.zeros(0, np.float32), report)


def shard_sums(queries: NDArray[np.float32], shard: Any, values: Any, temperature: float) -> Arrays:
    """The partial sums of a block of queries over one shard, as plain arrays: the task of every engine."""
    bank = MemoryBank(_open(shard))
    partial = bank.partial(queries, temperature=temperature, values=None if values is None else _open(values))
    assert partial.moment is not None
    tensors = {"shift": partial.shift, "total": partial.total, "moment": partial.moment, "sums": partial.sums[0]}
    return {name: tensor.numpy() for name, tensor in tensors.items()} | {"rows": np.asarray([partial.rows], np.float32)}


def _open(shard: Any) -> Any:
    """A shard as an array, memory-mapped where it is a file."""
    if not isinstance(shard, (str, Path)):
        return shard
    try:
        return np.load(shard, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise FormatError(f"{shard} is no shard ({error}). Expected an (n, d) .npy file.") from error


def _to_files(arrays: Sequence[NDArray[Any]], folder: Path) -> list[Any]:
    """Arrays written as .npy files for other processes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.npy" for number in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array, allow_pickle=False)
    return paths


def _merge(tasks: Iterator[Arrays]) -> OnlineSoftmax:
    """Sums of all shards of the memory as one."""
    merged: OnlineSoftmax | None = None
    for arrays in tasks:
        part = {name: torch.tensor(array) for name, array in arrays.items()}
        partial = OnlineSoftmax(part["shift"], part["total"], part["moment"], [part["sums"]], int(part["rows"][0]))
        merged = partial if merged is None else merged.merge(partial)
    assert merged is not None
    return merged


@contextmanager
def _local(workers: int | None, address: str | None) -> Iterator[Callable[..., Iterator[Arrays]]]:
    yield lambda queries, pairs, temperature: (shard_sums(queries, k, v, temperature) for k, v in pairs)


@contextmanager
def _processes(workers: int | None, address: str | None) -> Iterator[Callable[..., Iterator[Arrays]]]:
    """A way to sum over shards in processes of this machine."""
    count = workers or os.cpu_count() or 1
    # Forking a process in which torch has started threads can hang; a spawned one starts clean.
    with ProcessPoolExecutor(count, get_context("spawn"), _one_thread) as pool:

        def submit(queries: Any, pairs: Any, temperature: float) -> Iterator[Arrays]:
            keys, values = zip(*pairs, strict=True)
            n = len(pairs)
            return pool.map(shard_sums, [queries] * n, keys, values, [temperature] * n)

        yield submit


@contextmanager
def _ray(workers: int | None, address: str | None) -> Iterator[Callable[..., Iterator[Arrays]]]:
    """A way to sum over shards as tasks of a Ray cluster."""
    with ray_session(address) as ray:
        yield _ray_submit(ray)


def _ray_submit(ray: Any) -> Callable[..., Iterator[Arrays]]:
    """The function that hands shards to Ray's tasks."""
    # A node that dies takes its tasks and their results with it; Ray runs them again elsewhere.
    task = ray.remote(num_cpus=1, max_retries=8)(_ray_task)
    # A shard that is an array is handed over once, whatever the number of blocks of queries that ask it; it is kept
    # here too, so that no other array takes its place and its id.
    given: dict[int, tuple[Any, Any]] = {}

    def once(shard: Any) -> Any:
        if not isinstance(shard, np.ndarray):
            return shard
        if id(shard) not in given:
            given[id(shard)] = (shard, ray.put(shard))
        return given[id(shard)][1]

    def submit(queries: Any, pairs: Any, temperature: float) -> Iterator[Arrays]:
        shared = ray.put(queries)
        waiting = [task.remote(shared, once(keys), once(values), temperature) for keys, values in pairs]
        return (ray.get(one) for one in waiting)

    return submit


def _ray_task(queries: NDArray[np.float32], keys: Any, values: Any, temperature: float) -> Arrays:
    """Sums over one shard, in a task of Ray."""
    _one_thread()
    return shard_sums(queries, keys, values, temperature)


def _one_thread() -> None:
    """A worker per core leaves a core per worker."""
    torch.set_num_threads(1)


_ENGINES = {"local": _local, "processes": _processes, "ray": _ray}
