"""Batching: what waits together is answered together, each with its own answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from isthmus.serve.batching import Batcher


def run(jobs: Sequence[int], *, most: int = 64) -> tuple[list[object], list[list[int]]]:
    """Answers (or faults) of jobs that arrive together, and the batches they were worked on in."""
    batches: list[list[int]] = []
    gate = threading.Event()

    def square(numbers: Sequence[int]) -> list[int]:
        gate.wait(5)
        batches.append(list(numbers))
        if any(number < 0 for number in numbers):
            raise ValueError("negative")
        return [number**2 for number in numbers]

    async def all_of_them() -> list[object]:
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(square, pool, most=most)
            first = asyncio.create_task(batcher(100))
            await asyncio.sleep(0.01)
            rest = [asyncio.create_task(batcher(job)) for job in jobs]
            await asyncio.sleep(0.01)
            gate.set()
            await first
            return await asyncio.gather(*rest, return_exceptions=True)

    return asyncio.run(all_of_them()), batches


def test_what_arrives_while_a_batch_runs_is_the_next_batch():
    answers, batches = run([1, 2, 3])
    assert answers == [1, 4, 9]
    assert batches == [[100], [1, 2, 3]]


def test_a_batch_has_a_largest_size():
    assert run([1, 2, 3, 4, 5], most=2)[1] == [[100], [1, 2], [3, 4], [5]]


def test_a_bad_job_fails_alone():
    answers, _ = run([1, -2, 3])
    assert (answers[0], answers[2]) == (1, 9)
    assert isinstance(answers[1], ValueError)


def test_a_job_whose_asker_is_gone_is_passed_over():
    done: list[int] = []

    async def scenario() -> None:
        gate = threading.Event()

        def work(jobs: Sequence[int]) -> list[int]:
            gate.wait(5)
            done.extend(jobs)
            return list(jobs)

        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(work, pool)
            first = asyncio.create_task(batcher(1))
            await asyncio.sleep(0.01)
            second = asyncio.create_task(batcher(2))
            await asyncio.sleep(0.01)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            gate.set()
            assert await first == 1
            await asyncio.sleep(0.05)

    asyncio.run(scenario())
    assert done == [1]
