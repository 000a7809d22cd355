"""Does a search index stay right while it lives, and from which size does approximate search pay?

    python bench/search_index.py --out bench/results/search_index.json [--steps 1000] [--parts life,sizes]

Life: random adds, updates and deletes on an index of `--rows` rows, each followed by a search, a filtered search and a
comparison of all ids with a plain Python model (a dict and a float64 product); every 100 steps a process that saves is
killed in the middle, and what lies on disk is opened and compared. Size: seconds a query of exact and approximate
search in turns, with recall, the seconds to build, and the queries after which the build has paid for itself. Rows are
points around random centres. Parts that are not run stay in the result file as they are.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from common.record import record, write

from isthmus.core.geometry import normalize
from isthmus.search.filters import matches, parse_filter
from isthmus.search.index import SearchIndex

FILTER = 'year > 2010 and label in ("dog", "cat")'
LABELS = ["dog", "cat", "bird", None]


def about(rng: np.random.Generator) -> dict[str, Any]:
    return {"year": int(rng.integers(2000, 2021)), "label": LABELS[rng.integers(4)]}


def clustered(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    """Unit rows around centres, as embeddings lie."""
    centres = rng.standard_normal((max(16, rows // 200), dim)).astype(np.float32)
    x = centres[rng.integers(len(centres), size=rows)]
    return normalize(x + 0.8 * rng.standard_normal((rows, dim), dtype=np.float32))


class Model:
    """Ids, vectors and metadata in plain Python, in the order in which they came."""

    def __init__(self, vectors: np.ndarray, rows: list[dict[str, Any]]) -> None:
        self.items = {f"i{n}": (vector, row) for n, (vector, row) in enumerate(zip(vectors, rows, strict=True))}

    def search(self, query: np.ndarray, k: int, passes: Any = None) -> list[str]:
        keys = [key for key, (_, row) in self.items.items() if passes is None or passes(row)]
        # The index scales what it is given to unit length, whatever it is given.
        x = normalize(np.stack([self.items[key][0] for key in keys])).astype(np.float64)
        scores = x @ normalize(query).astype(np.float64)
        return [keys[place] for place in np.lexsort((np.arange(len(keys)), -scores))[:k]]


def step(rng: np.random.Generator, index: SearchIndex, model: Model, keys: list[str], number: int) -> None:
    kind = rng.choice(["add", "update", "delete"])
    vector, row = normalize(rng.standard_normal(index.dim).astype(np.float32)), about(rng)
    if kind == "add":
        index.add([f"new{number}"], vector[None], [row])
        model.items[f"new{number}"] = (vector, row)
        keys.append(f"new{number}")
        return
    place = int(rng.integers(len(keys)))
    if kind == "update":
        index.update([keys[place]], vector[None], [row])
        model.items[keys[place]] = (vector, row)
    else:
        index.delete([keys[place]])
        del model.items[keys[place]]
        keys[place] = keys[-1]
        keys.pop()


def compare(rng: np.random.Generator, index: SearchIndex, model: Model) -> None:
    tree = parse_filter(FILTER)
    query = rng.standard_normal(index.dim).astype(np.float32)
    assert index.ids == list(model.items)
    assert [hit.id for hit in index.search(query, 10)[0]] == model.search(query, 10)
    filtered = index.search(query, 10, filter=tree)[0]
    assert [hit.id for hit in filtered] == model.search(query, 10, lambda row: matches(tree, row))
    assert all(hit.metadata == model.items[hit.id][1] for hit in filtered)


def save(index: SearchIndex, folder: Path) -> None:
    index.save(folder)


def killed_save(index: SearchIndex, folder: Path, seconds: float) -> bool:
    """Save in a process that is killed after some time; whether it was done before."""
    process = multiprocessing.get_context("fork").Process(target=save, args=(index, folder))
    process.start()
    time.sleep(seconds)
    done = not process.is_alive()
    if not done:
        os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    return done


def life(rows: int, steps: int, dim: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    vectors, metadata = clustered(rng, rows, dim), [about(rng) for _ in range(rows)]
    model = Model(vectors, metadata)
    index = SearchIndex(vectors, list(model.items), pa.Table.from_pylist(metadata))
    keys, kills, seconds = list(model.items), 0, 0.0
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "index")
        begin = time.perf_counter()
        index.save(folder)
        save_seconds = time.perf_counter() - begin
        before = list(model.items)
        for number in range(steps):
            begin = time.perf_counter()
            step(rng, index, model, keys, number)
            seconds += time.perf_counter() - begin
            compare(rng, index, model)
            if number % 100 == 99:
                done = killed_save(index, folder, random.Random(number).uniform(0, save_seconds))
                kills += not done
                found = SearchIndex.open(folder, verify=True)
                assert found.ids == (list(model.items) if done else before), "neither the old index nor the new one"
                index.save(folder)
                index = SearchIndex.open(folder, verify=True)
                before = list(model.items)
                compare(rng, index, model)
    return {
        "rows": rows, "dim": dim, "steps": steps, "compared_after_every_step": True, "killed_saves": kills,
        "seconds_a_change": round(seconds / steps, 6), "seconds_to_save": round(save_seconds, 3),
    }  # fmt: skip


def sizes(counts: list[int], dim: int, queries: int = 50) -> list[dict[str, Any]]:
    out = []
    for rows in counts:
        rng = np.random.default_rng(1)
        x = clustered(rng, rows, dim)
        index = SearchIndex(x)
        q = normalize(
            x[rng.integers(rows, size=queries)] + 0.05 * rng.standard_normal((queries, dim), dtype=np.float32)
        )
        row: dict[str, Any] = {"rows": rows, "dim": dim}
        exact = [[hit.id for hit in index.search(one, 10, exact=True)[0]] for one in q]
        for kind in ("ivf", "hnsw"):
            if kind == "hnsw" and rows > 50_000:
                continue  # minutes to an hour on two cores
            begin = time.perf_counter()
            settings = index.build_ann(kind, recall=0.95)
            built = time.perf_counter() - begin
            times: dict[str, list[float]] = {"exact": [], kind: []}
            found = []
            for one in q:
                for name in times:  # in turns, so that other work on the machine weighs on both
                    begin = time.perf_counter()
                    hits = index.search(one, 10, exact=name == "exact")[0]
                    times[name].append(time.perf_counter() - begin)
                found.append([hit.id for hit in hits])
            recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, exact, strict=True)])
            slow, fast = (float(np.median(times[name])) for name in times)
            row["exact_seconds"] = round(slow, 5)
            row[kind] = {
                "seconds": round(fast, 5), "recall_of_sample": settings.recall, "recall": round(float(recall), 4),
                "effort": settings.effort, "build_seconds": round(built, 1),
                "queries_until_it_pays": round(built / (slow - fast)) if slow > fast else None,
            }  # fmt: skip
        print(json.dumps(row), flush=True)
        out.append(row)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--sizes", default="10000,50000,100000,200000,500000,1000000")
    parser.add_argument("--size-dim", type=int, default=512)
    parser.add_argument("--parts", default="life,sizes")
    given = parser.parse_args()
    report = json.loads(given.out.read_text()) if given.out.is_file() else {}
    for part in given.parts.split(","):
        if part == "life":
            report["life"] = life(given.rows, given.steps, given.dim)
        else:
            report["sizes"] = sizes([int(n) for n in given.sizes.split(",")], given.size_dim)
        print(json.dumps(report[part]), flush=True)
        report.setdefault("records", {})[part] = record()
        report.pop("record", None)
        write(given.out, report)


if __name__ == "__main__":
    main()
