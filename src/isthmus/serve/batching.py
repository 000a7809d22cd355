"""Batching: requests that arrive together are answered by one pass through the model or one product with a gallery."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Job = TypeVar("Job")
Answer = TypeVar("Answer")


class Batcher(Generic[Job, Answer]):
    """Collects jobs while the one before is at work, and runs them together in a thread.

    There is no waiting time: a lone job starts at once, and what arrives while it runs is the next batch. So latency
    is that of one pass when nobody else asks, and throughput that of full batches when many do.

    Args:
        run: Answers a batch, one answer a job in order. If it raises, the jobs are tried one by one, so that one
            bad job does not fail its neighbours.
        executor: Whose threads run it.
        most: Jobs in one batch.
    """

    def __init__(self, run: Callable[[Sequence[Job]], Sequence[Answer]], executor: Executor, *, most: int = 64) -> None:
        self._run, self._executor, self._most = run, executor, most
        self._waiting: list[tuple[Job, asyncio.Future[Answer]]] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, job: Job) -> Answer:
        """The answer to one job; it may be cancelled without harm to the others."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            batch = [(job, future) for job, future in batch if not future.done()]
            outcomes = await loop.run_in_executor(self._executor, self._outcomes, [job for job, _ in batch])
            for (_, future), (answer, fault) in zip(batch, outcomes, strict=True):
                if future.done():
                    continue
                if fault is not None:
                    future.set_exception(fault)
                else:
                    future.set_result(answer)  # type: ignore[arg-type]

    def _outcomes(self, jobs: list[Job]) -> list[tuple[Answer | None, Exception | None]]:
        if not jobs:
            return []
        try:
            return [(answer, None) for answer in self._run(jobs)]
        except Exception as error:
            if len(jobs) == 1:
                return [(None, error)]
            return [outcome for job in jobs for outcome in self._outcomes([job])]
