"""What runs in a decoding process: items in, outcomes out. It imports nothing heavy, so it starts quickly."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from isthmus.errors import EncoderError, IsthmusError
from isthmus.items import Item, Rejected

OK, REJECTED, FATAL = "ok", "rejected", "fatal"

DecodeOutcome = tuple[str, Any]
"""`(OK, decoded)`, `(REJECTED, reason)`, or `(FATAL, exception)`: a fault of the set-up, not of the item."""


def outcome(decoder: Callable[[Item], Any], item: Item) -> DecodeOutcome:
    """Decode one item. Faults of the item are rejections, whatever a library raised; faults of the set-up are fatal."""
    try:
        return OK, decoder(item)
    except Rejected as fault:
        return REJECTED, fault.reason
    except IsthmusError as error:
        return FATAL, error
    except MemoryError:
        return REJECTED, "too large for memory"
    except Exception as error:
        return REJECTED, f"cannot be decoded ({type(error).__name__}: {error})".replace("\n", " ")[:300]


def serve(connection: Connection, pickled: bytes) -> None:
    """Answer lists of items with one outcome an item until the other end hangs up.

    Args:
        connection: To the process that encodes.
        pickled: The decoder. It comes as bytes so that a fault in loading it can be told instead of killing the
        process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end closes the connection
    try:
        decoder = pickle.loads(pickled)
    except Exception as error:
        fault = EncoderError(f"the decoder cannot be loaded in a worker process ({error}). Give workers=0.")
        connection.send((FATAL, fault))
        return
    connection.send((OK, None))
    try:
        while True:
            for item in connection.recv():
                _answer(connection, outcome(decoder, item))
    except (EOFError, OSError):
        return


def _answer(connection: Connection, result: DecodeOutcome) -> None:
    """Send a decoded item to the process that asked, or why it cannot be sent."""
    try:
        data = pickle.dumps(result, protocol=5)
    except Exception as error:
        fault = EncoderError(f"what the decoder returns cannot be sent between processes ({error}). Give workers=0.")
        data = pickle.dumps((FATAL, fault))
    connection.send_bytes(data)
