"""No Ctrl-C is lost, and none is heeded that was not asked for."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest

from isthmus.core.runtime import Progress, heed_interrupts


class Swallows:
    """Its finalizer is interrupted, where Python prints the exception and goes on."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):  # the handler runs between two instructions, while the finalizer is still at work
            pass


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_a_finalizer_swallowed_strikes_at_the_next_step():
    with heed_interrupts(), Progress("work", 3, quiet=True) as progress:
        progress.advance()
        one = Swallows()
        del one
        with pytest.raises(KeyboardInterrupt):
            progress.advance()
    assert progress.done == 1


def test_the_handler_of_before_comes_back_and_old_interrupts_are_forgotten():
    before = signal.getsignal(signal.SIGINT)
    with heed_interrupts():
        assert signal.getsignal(signal.SIGINT) is not before
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    with Progress("work", quiet=True) as progress:
        progress.advance()


def test_another_thread_leaves_the_handler_alone():
    seen: list[object] = []

    def work() -> None:
        with heed_interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]
