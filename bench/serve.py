"""How many searches a second does the service answer, how late, and does its memory stay flat?

    python bench/serve.py --rows 100000 --seconds 30 --soak 600 --out bench/results/serve.json

A bridge of random maps over random vectors, the toy text encoder, a gallery of many rows; a service in a process of its
own; clients that each wait for their answer before they ask again. Texts are different each time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
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


async def load(address: str, clients: int, seconds: float, seed: int) -> list[float]:
    """Latencies in seconds of all searches that clients made in a time."""
    late: list[float] = []
    end = time.monotonic() + seconds

    async def client(number: int, http: httpx.AsyncClient) -> None:
        rng = np.random.default_rng([seed, number])
        while time.monotonic() < end:
            text = " ".join(rng.choice(WORDS, 4))
            started = time.monotonic()
            answer = await http.post("/search", json={"queries": [{"text": text}], "k": 10})
            assert answer.status_code == 200, answer.text
            late.append(time.monotonic() - started)

    async with httpx.AsyncClient(base_url=address, timeout=60) as http:
        await asyncio.gather(*(client(number, http) for number in range(clients)))
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
            result = measure(f"http://127.0.0.1:{port}", server.pid, given)
        finally:
            server.terminate()
            server.wait(20)
    write(given.out, result | {"rows": given.rows, "clients": given.clients})


def measure(address: str, process: int, given: argparse.Namespace) -> dict[str, object]:
    """Throughput, latencies and memory."""
    for _ in range(600):
        try:
            httpx.get(f"{address}/health", timeout=1)
            break
        except httpx.HTTPError:
            time.sleep(0.2)
    asyncio.run(load(address, given.clients, 5.0, 0))  # the encoder is loaded by the first
    started = time.monotonic()
    late = np.array(asyncio.run(load(address, given.clients, given.seconds, 1)))
    rate = len(late) / (time.monotonic() - started)
    alone = np.array(asyncio.run(load(address, 1, 5.0, 2)))
    memory = [resident(process)]
    for minute in range(max(1, round(given.soak / 60))):
        asyncio.run(load(address, given.clients, min(60.0, given.soak), 3 + minute))
        memory.append(resident(process))
    return {
        "per_second": round(rate, 1),
        "p50_ms": round(1000 * float(np.quantile(late, 0.5)), 1),
        "p95_ms": round(1000 * float(np.quantile(late, 0.95)), 1),
        "alone_p50_ms": round(1000 * float(np.quantile(alone, 0.5)), 1),
        "memory_mb": [round(each, 1) for each in memory],
        "memory_growth": round(memory[-1] / memory[0] - 1, 4),
    }


if __name__ == "__main__":
    main()
