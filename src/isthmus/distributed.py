"""Aggregation over the shards of a memory: in one process, in several, or as Ray tasks on a cluster.

A task averages a block of queries over one shard, exactly, and returns partial sums; those of the shards merge exactly,
in the order of the shards whatever the order in which tasks end. A task is a pure function of a file and a block of
queries: one that is lost with its machine is done again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.errors import ConfigError, DependencyError, FormatError
from isthmus.memory import MemoryBank, Partial, Stats
from isthmus.memory.rows import Rows

ENGINES = ("local", "processes", "ray")
QUERY_BLOCK = 8192
"""Queries of a task: their sums over a shard of 512 dimensions are 16 MB."""

Arrays = dict[str, NDArray[np.float32]]
Task = Callable[..., Arrays]


def aggregate_shards(
    shards: Sequence[str | Path | NDArray[Any]],
    queries: Any,
    *,
    temperature: float = 0.01,
    values: Sequence[str | Path | NDArray[Any]] | None = None,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
) -> tuple[NDArray[np.float32], Stats]:
    """Average the rows of a memory that lies in several shards, exactly.

    Args:
        shards: The memory: .npy files (which every worker must be able to read) or arrays, (m_i, d) each.
        queries: (q, d) array or memory map.
        temperature: Softmax temperature, above 0.
        values: What is averaged, a shard for each shard of the memory, row-aligned; None for the memory itself.
        engine: "local" (this process), "processes" or "ray".
        workers: Processes; None is one per core. Ray decides for itself.
        address: Of a Ray cluster; None is the one this process is connected to, or else a local one.

    Returns:
        (q, d_v) float32, and the effective neighbours with a report.

    Raises:
        ConfigError: An option is unknown or the shards do not fit.
        DependencyError: Ray is asked for and not installed.
        FormatError: A shard is no .npy file of a matrix.
    """
    if engine not in ENGINES:
        raise ConfigError(f"unknown engine {engine!r}. Expected one of {', '.join(ENGINES)}.")
    if not shards or (values is not None and len(values) != len(shards)):
        given = "no values" if values is None else f"{len(values)} of values"
        raise ConfigError(f"got {len(shards)} shards and {given}. Expected at least one shard, and values for each.")
    asked = Rows(queries, torch.device("cpu"), unit=False, name="queries", resident_bytes=0)
    pairs = list(zip(shards, values if values is not None else [None] * len(shards), strict=True))
    blocks = [slice(i, min(i + QUERY_BLOCK, asked.n)) for i in range(0, asked.n, QUERY_BLOCK)]
    averages: list[NDArray[np.float32]] = []
    neighbours: list[NDArray[np.float32]] = []
    with _ENGINES[engine](workers, address) as submit:
        for block in blocks:
            merged = _merge(submit(asked.block(block.start, block.stop).numpy(), pairs, temperature))
            averages.append(merged.finish()[0].numpy())
            neighbours.append(merged.effective_neighbours().numpy())
    report = {
        "asked": "exact", "used": "exact", "fell_back": None, "engine": engine, "shards": len(shards),
        "queries": asked.n, "temperature": temperature,
    }  # fmt: skip
    found = np.concatenate(averages) if averages else np.zeros((0, asked.dim), np.float32)
    return found, Stats(np.concatenate(neighbours) if neighbours else np.zeros(0, np.float32), report)


def shard_sums(queries: NDArray[np.float32], shard: Any, values: Any, temperature: float) -> Arrays:
    """The partial sums of a block of queries over one shard, as plain arrays: the task of every engine."""
    bank = MemoryBank(_open(shard))
    partial = bank.partial(queries, temperature=temperature, values=None if values is None else _open(values))
    assert partial.moment is not None
    tensors = {"shift": partial.shift, "total": partial.total, "moment": partial.moment, "sums": partial.sums[0]}
    return {name: tensor.numpy() for name, tensor in tensors.items()} | {"rows": np.asarray([partial.rows], np.float32)}


def _open(shard: Any) -> Any:
    if not isinstance(shard, (str, Path)):
        return shard
    try:
        return np.load(shard, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise FormatError(f"{shard} is no shard ({error}). Expected an (n, d) .npy file.") from error


def _merge(tasks: Iterator[Arrays]) -> Partial:
    merged: Partial | None = None
    for arrays in tasks:
        part = {name: torch.tensor(array) for name, array in arrays.items()}
        found = Partial(part["shift"], part["total"], part["moment"], [part["sums"]], int(part["rows"][0]))
        merged = found if merged is None else merged.merge(found)
    assert merged is not None
    return merged


@contextmanager
def _local(workers: int | None, address: str | None) -> Iterator[Callable[..., Iterator[Arrays]]]:
    yield lambda queries, pairs, temperature: (shard_sums(queries, k, v, temperature) for k, v in pairs)


@contextmanager
def _processes(workers: int | None, address: str | None) -> Iterator[Callable[..., Iterator[Arrays]]]:
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
    try:
        import ray
    except ImportError as error:
        raise DependencyError(
            f"the engine 'ray' needs ray, not installed here ({error}). Run: pip install 'isthmus[ray]'"
        ) from error
    mine = not ray.is_initialized()
    if mine:
        ray.init(address=address, include_dashboard=False, log_to_driver=False)
    # A node that dies takes its tasks and their results with it; Ray runs them again elsewhere.
    task = ray.remote(num_cpus=1, max_retries=8)(_ray_task)

    def submit(queries: Any, pairs: Any, temperature: float) -> Iterator[Arrays]:
        shared = ray.put(queries)
        waiting = [task.remote(shared, keys, values, temperature) for keys, values in pairs]
        return (ray.get(one) for one in waiting)

    try:
        yield submit
    finally:
        if mine:
            ray.shutdown()


def _ray_task(queries: NDArray[np.float32], keys: Any, values: Any, temperature: float) -> Arrays:
    _one_thread()
    return shard_sums(queries, keys, values, temperature)


def _one_thread() -> None:
    """A worker per core leaves a core per worker."""
    torch.set_num_threads(1)


_ENGINES = {"local": _local, "processes": _processes, "ray": _ray}
