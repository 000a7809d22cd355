"""A thread per core, each working alone on queries of its own: better than all of them on one small product."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def threads(device: torch.device) -> Iterator[tuple[ThreadPoolExecutor | None, int]]:
    """A thread per core that torch may use, in which torch itself uses one; none on an accelerator."""
    count = torch.get_num_threads()
    if device.type != "cpu" or count == 1:
        yield None, 1
        return
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool, count


def limited_threads(count: int, name: str, cores: int) -> ThreadPoolExecutor:
    """Threads in each of which torch uses some of the cores."""
    return ThreadPoolExecutor(count, name, initializer=torch.set_num_threads, initargs=(cores,))


def share_of_cores(workers: int) -> int:
    """Cores for each of several workers, at least one.

    A product that is spread over all cores waits for its slowest part, and beside another such product every part is
    slow: on two cores, two threads of one core each answer several times as much as two that both use two.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)


def blocks_of(n: int, workers: int, most: int | None = None, multiple: int = 1) -> list[slice]:
    """Even blocks of n things, as many for each worker.

    Args:
        n: How many.
        workers: Threads.
        most: Things of a block at most; None is one block a worker.
        multiple: What the size of a block is rounded up to.
    """
    count = max(1, -(-n // ((most or n or 1) * workers))) * workers
    size = max(1, -(-n // count))
    if size > multiple:
        size = -(-size // multiple) * multiple
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]
