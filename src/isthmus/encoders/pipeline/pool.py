"""Decoding processes: batches of items in, their outcomes in the same order out, a few batches ahead of the encoder.

Each process is driven by a thread of its own, so results are taken off its hands while the encoder is busy. A file that
kills its process (a fault in a C library, memory run out) is rejected alone: outcomes come one by one, so the item
that was being decoded is known, and a fresh process goes on with the next.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any

from isthmus.errors import EncoderError
from isthmus.items import Item
from isthmus.items.decoding.worker import FATAL, OK, REJECTED, DecodeOutcome, outcome, serve

CRASHED = "decoding it crashed the worker process"

Batch = Sequence[Item]
Decoder = Callable[[Item], Any]
_Task = tuple[Batch, "Future[list[DecodeOutcome]]"]

_START = threading.Lock()
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def decoded_batches(
    batches: Iterable[Batch], decoder: Decoder, workers: int
) -> Generator[list[DecodeOutcome], None, None]:
    """Decode batches.

    Args:
        batches: Lists of items.
        decoder: Picklable, when there are workers.
        workers: Number of processes; 0 decodes in this one.

    Yields:
        The outcomes of a batch, in the order of its items.

    Raises:
        EncoderError: Worker processes cannot be used here.
        IsthmusError: A fault of the set-up that a decoder raised, such as a missing dependency.
    """
    if workers == 0:
        for batch in batches:
            yield [_checked(outcome(decoder, item)) for item in batch]
        return
    with DecodePool(decoder, workers) as pool:
        waiting: deque[list[Future[list[DecodeOutcome]]]] = deque()
        for batch in batches:
            waiting.append(pool.submit(batch))
            if len(waiting) > pool.ahead:
                yield _gathered(waiting.popleft())
        while waiting:
            yield _gathered(waiting.popleft())


def _gathered(futures: list[Future[list[DecodeOutcome]]]) -> list[DecodeOutcome]:
    """Decoded items of several processes, in their order."""
    return [_checked(one) for future in futures for one in future.result()]


def _checked(result: DecodeOutcome) -> DecodeOutcome:
    """A decoded item, or the fault that ends the run."""
    if result[0] == FATAL:
        raise result[1]
    return result


class DecodePool:
    """Processes that decode, each with a thread that feeds it. A context manager.

    Args:
        decoder: Picklable function from item to decoded item.
        workers: Number of processes.

    Raises:
        EncoderError: The decoder cannot be sent, or a process cannot start.
    """

    ahead = 3
    """Batches that are decoded before the first of them is asked for."""

    def __init__(self, decoder: Decoder, workers: int) -> None:
        try:
            self._pickled = pickle.dumps(decoder)
        except Exception as error:
            raise EncoderError(f"the decoder cannot be sent to worker processes ({error}). Give workers=0.") from error
        self._keep_main = b"__main__" in self._pickled
        self._workers = workers
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._processes: dict[int, Any] = {}
        self._closed = False
        self._threads = [threading.Thread(target=self._drive, args=(i,), daemon=True) for i in range(workers)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed = True
        for _ in self._threads:
            self._tasks.put(None)
        for process in list(self._processes.values()):
            process.terminate()
        for thread in self._threads:
            thread.join(timeout=5.0)

    def submit(self, batch: Batch) -> list[Future[list[DecodeOutcome]]]:
        """Begin to decode a batch, spread over all processes."""
        size = max(1, -(-len(batch) // self._workers))
        futures = []
        for start in range(0, len(batch), size):
            future: Future[list[DecodeOutcome]] = Future()
            futures.append(future)
            self._tasks.put((batch[start : start + size], future))
        return futures

    def _drive(self, number: int) -> None:
        """One thread: hands tasks to its process until there are no more."""
        line = _Line(lambda: self._start(number))
        while (task := self._tasks.get()) is not None and not self._closed:
            items, future = task
            try:
                future.set_result(line.decode(items))
            except BaseException as error:
                future.set_exception(error)
        line.close()

    def _start(self, number: int) -> Connection:
        """Start one decoding process."""
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(there, self._pickled), daemon=True)
        with _START, _one_thread(), contextlib.nullcontext() if self._keep_main else _without_main():
            process.start()
        self._processes[number] = process
        there.close()
        try:
            state, fault = here.recv()
        except (EOFError, OSError) as error:
            raise EncoderError(
                "a decoding process ended as it started. In a script of your own put the call under "
                '`if __name__ == "__main__":`, or give workers=0.'
            ) from error
        if state != OK:
            raise fault
        return here


class _Line:
    """The connection to one process, which is started when needed and started anew when a file killed it."""

    def __init__(self, start: Callable[[], Connection]) -> None:
        self._start = start
        self._connection: Connection | None = None

    def decode(self, items: Batch) -> list[DecodeOutcome]:
        """The outcomes of items. One that kills its process twice is rejected; once may be another's doing."""
        outcomes: list[DecodeOutcome] = []
        tried = -1
        while len(outcomes) < len(items):
            current = len(outcomes)
            if not self._ask(items, outcomes) and len(outcomes) == current == tried:
                outcomes.append((REJECTED, CRASHED))
            tried = len(outcomes)
        return outcomes

    def _ask(self, items: Batch, outcomes: list[DecodeOutcome]) -> bool:
        """Decode what has no outcome yet; False when the process died over it."""
        self._connection = self._connection or self._start()
        try:
            self._connection.send(list(items[len(outcomes) :]))
            while len(outcomes) < len(items):
                outcomes.append(self._connection.recv())
        except (EOFError, OSError):
            self.close()
            return False
        return True

    def close(self) -> None:
        """Hang up, which ends the process."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Processes started inside see one thread for numerical libraries: there is a process a core already."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Processes started inside do not run the user's script again: the decoder does not come from it.

    Without this a script needs the guard `if __name__ == "__main__"`, and a script on standard input cannot work at
    all.
    """
    main = sys.modules["__main__"]
    hidden = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    for name in hidden:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)
