"""What a run needs of the machine: a device, seeded generators, and progress that suits a terminal and a pipe alike."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from isthmus.core.messages import one_line
from isthmus.core.terminal import one_cell, printable
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    import torch


def resolve_device(device: str | None = None) -> torch.device:
    """Turn a device name into a torch device; None or "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        ConfigError: The device is unknown or not on this machine.
    """
    import torch

    if device is None or device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {device!r} cannot be used here ({one_line(error)}). Give cpu, cuda, mps or auto."
        ) from error
    return chosen


def numpy_generator(seed: int, *stream: int) -> np.random.Generator:
    """A numpy generator for one purpose of a run: equal seed and stream draw alike, other streams are independent."""
    return np.random.default_rng((seed, *stream))


def torch_generator(seed: int, *stream: int) -> torch.Generator:
    """A CPU torch generator for one purpose of a run, seeded as `numpy_generator` is. Global state is never touched."""
    import torch

    words = np.random.SeedSequence((seed, *stream)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))


def notifier(quiet: bool) -> Callable[[str], None]:
    """A function that prints a line on standard error, or nothing."""

    def notify(line: str) -> None:
        if not quiet:
            print(printable(line), file=sys.stderr, flush=True)

    return notify


_interrupts = 0


@contextmanager
def heed_interrupts() -> Iterator[None]:
    """Let no Ctrl-C be lost: Python drops the exception where it strikes inside a finalizer or a callback of C code.

    The handler counts as well as raises, and `Progress.advance` raises again for an interrupt that did not arrive.
    Outside the main thread nothing changes.
    """
    global _interrupts
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: object) -> None:
        global _interrupts
        _interrupts += 1
        raise KeyboardInterrupt

    _interrupts = 0
    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        _interrupts = 0
        signal.signal(signal.SIGINT, before)


class Progress:
    """Progress of long work on standard error: one line, rewritten on a terminal or in a notebook, many in a pipe.

    Args:
        label: What is being done, such as "train".
        total: Units of work in all, or None when unknown.
        unit: Name of a unit in the plural, for the rate.
        every: Seconds between plain lines when standard error is not a terminal.
        quiet: Print nothing.
        done: Units that an earlier, interrupted run had finished; they do not count for the rate.
    """

    def __init__(
        self,
        label: str,
        total: int | None = None,
        *,
        unit: str = "items",
        every: float = 5.0,
        quiet: bool = False,
        done: int = 0,
    ) -> None:
        self.label, self.total, self.unit, self.every, self.quiet = label, total, unit, every, quiet
        self.done, self._first, self._start = done, done, time.monotonic()
        self._stream: TextIO = sys.stderr
        # A notebook is no terminal, and yet overwrites its last line after a carriage return.
        self._terminal = self._stream.isatty() or type(self._stream).__module__.startswith("ipykernel.")
        self._last = self._start

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self._show(final=True)

    def advance(self, n: int = 1, **values: float) -> None:
        """Count `n` more units as done and show `values` (loss, scores) beside them.

        Raises:
            KeyboardInterrupt: One came before and was lost; see `heed_interrupts`.
        """
        if _interrupts:
            raise KeyboardInterrupt
        self.done += n
        self._values: Mapping[str, Any] = values
        now = time.monotonic()
        if now - self._last >= (0.1 if self._terminal else self.every):
            self._last = now
            self._show()

    def _show(self, *, final: bool = False) -> None:
        """Print the line of progress."""
        if self.quiet:
            return
        elapsed = max(time.monotonic() - self._start, 1e-9)
        rate = (self.done - self._first) / elapsed
        parts = [f"{self.label} {self.done:,}" + (f"/{self.total:,}" if self.total is not None else "")]
        parts += [f"{key} {value:.4g}" for key, value in getattr(self, "_values", {}).items()]
        parts.append(f"{rate:,.1f} {self.unit}/s")
        if final:
            parts.append(f"in {elapsed:.1f} s")
        elif self.total is not None and rate > 0:
            parts.append(f"{(self.total - self.done) / rate:,.0f} s left")
        line = ", ".join(parts)
        if self._terminal:
            self._stream.write("\r\x1b[K" + one_cell(line) + ("\n" if final else ""))
        else:
            self._stream.write(one_cell(line) + "\n")
        self._stream.flush()
