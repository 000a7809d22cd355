"""How many searches a second does the service answer, how late, and does its memory stay flat?

    python bench/serve.py --rows 100000 --seconds 30 --soak 600 --out bench/results/serve.json

A bridge of random maps over random vectors, the toy text encoder, a gallery of many rows; a service in a process of its
own; clients that each wait for their answer before they ask again. Texts are different each time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common.record import write

from isthmus import extend, make_space
from isthmus.encoders import load_encoder

WORDS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "room",
    "call",
    "line",
    "number",
    "please",
    "hundred",
]


def make(folder: Path, rows: int) -> None:
    """A gallery of random rows of the toy picture space, and the bridge that is this space alone with a random leaf."""
    rng = np.random.default_rng(0)
    encoder = load_encoder("toy:picture")
    texts = [f"{a} {b}" for a in WORDS for b in WORDS]
    embedded = encoder.encode([encoder.decode(item, "text") for item in _items(texts)], modality="text")
    picture = make_space(
        folder / "picture.space",
        {"text": (texts, embedded), "image": ([str(i) for i in range(rows)], rng.normal(size=(rows, encoder.dim)))},
        encoder=dict(encoder.identity),
        preprocessing=encoder.preprocessing("text"),
    )
    leaf = make_space(folder / "leaf.space", {"text": (texts, rng.normal(size=(len(texts), 64)))})
    extend(base=picture, leaf=leaf, via="text", method="procrustes").save(folder / "x.bridge")


def _items(texts: list[str]) -> list[object]:
    from isthmus.encoders import Item

    return [Item(id=str(i), text=text) for i, text in enumerate(texts)]


def resident(process: int) -> float:
    """Resident memory of a process, in MB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def search_of(rng: np.random.Generator) -> bytes:
    """A search for a text of four words, as it goes over the line."""
    body = json.dumps({"queries": [{"text": " ".join(rng.choice(WORDS, 4))}], "k": 10}).encode()
    return request_of("/search", body, "application/json")


def upload_of(rng: np.random.Generator) -> bytes:
    """An upload of a picture of 256 x 256 pixels of its own as JPEG."""
    from PIL import Image

    file = io.BytesIO()
    small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(small).resize((256, 256)).save(file, "jpeg")
    return request_of("/embed?modality=image&name=a.jpg", file.getvalue(), "application/octet-stream")


def request_of(path: str, body: bytes, kind: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def load(port: int, clients: int, seconds: float, requests: list[bytes]) -> list[float]:
    """Latencies in seconds of all requests that clients made in a time, each over a connection of its own.

    The client writes bytes made before and reads the answer's length and bytes, no more: a client library takes as much
    of the processor as the service, and both share it here.
    """
    late: list[float] = []
    end = time.monotonic() + seconds
    left = itertools.cycle(requests)

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (begin := time.monotonic()) < end:
            writer.write(next(left))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            body = await reader.readexactly(length)
            assert head.startswith(b"HTTP/1.1 200"), head + body
            late.append(time.monotonic() - begin)
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return late


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--soak", type=float, default=600.0, help="seconds over which memory is watched")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), given.rows)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "isthmus", "serve", f"{folder}/x.bridge", "-q", "--port", str(port)]
        command += ["--gallery", f"{folder}/picture.space/image", "--encoder", "picture=toy:picture"]
        server = subprocess.Popen(command)
        try:
            result = measure(port, server.pid, given)
        finally:
            server.terminate()
            server.wait(20)
    write(given.out, result | {"rows": given.rows, "clients": given.clients})


def measure(port: int, process: int, given: argparse.Namespace) -> dict[str, object]:
    """Throughput, latencies and memory."""
    wait_for(port)
    rng = np.random.default_rng(0)
    searches = [search_of(rng) for _ in range(4096)]
    uploads = [upload_of(rng) for _ in range(256)]
    asyncio.run(load(port, given.clients, 5.0, searches))  # the encoder is loaded by the first
    result: dict[str, object] = {"searches": rates(port, process, given.clients, given.seconds, searches)}
    result["one_client"] = rates(port, process, 1, 5.0, searches)
    asyncio.run(load(port, 1, 2.0, uploads))
    result["picture_uploads"] = rates(port, process, given.clients, given.seconds, uploads)
    memory = [resident(process)]
    for part in range(max(1, round(given.soak / 60))):
        both = searches if part % 2 == 0 else [*searches[:256], *uploads]
        asyncio.run(load(port, given.clients, min(60.0, given.soak), both))
        memory.append(resident(process))
    return result | {
        "soak_seconds": given.soak,
        "memory_mb": [round(each, 1) for each in memory],
        "memory_growth": round(memory[-1] / memory[0] - 1, 4),
    }


def rates(port: int, process: int, clients: int, seconds: float, requests: list[bytes]) -> dict[str, float]:
    """Requests a second, latencies in milliseconds, and the cores that the service and its client kept busy."""
    service, client, begin = processor_seconds(process), time.process_time(), time.monotonic()
    late = np.array(asyncio.run(load(port, clients, seconds, requests)))
    took = time.monotonic() - begin
    return {
        "per_second": round(len(late) / took, 1),
        "p50_ms": round(1000 * float(np.quantile(late, 0.5)), 1),
        "p95_ms": round(1000 * float(np.quantile(late, 0.95)), 1),
        "service_cores": round((processor_seconds(process) - service) / took, 2),
        "client_cores": round((time.process_time() - client) / took, 2),
    }


def processor_seconds(process: int) -> float:
    """Seconds of processor time that a process has taken, its children that ended not counted."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for(port: int) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise TimeoutError("the service did not start")


if __name__ == "__main__":
    main()
