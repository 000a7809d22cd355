"""How fast are memory banks beside the plain way and the machine's peak, and how far off are the fast ways?

    python benchmarks/aggregate.py --shared ../shared --out benchmarks/results/aggregate.json            # minutes
    python benchmarks/aggregate.py --shared ../shared --papers 0.1 --out benchmarks/results/aggregate.json

Every ratio is of medians of runs that alternate, so that a noisy machine is noisy for both. The peak is that of a
float32 product whose matrices stay in the cache. `--papers F` adds the papers' size, a fraction F of 2.3M queries over
1.3M rows of 512 in float16 on disk, in a process of its own whose memory is measured.

Larger memories are real ones resampled: a row is drawn, moved up to half way to one of its 8 nearest rows, given noise
of 2 % of its length, and turned into 512 dimensions by a random matrix of orthonormal columns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isthmus.memory import MemoryBank

DIRECTIONS = [
    ("picture/text", "picture/image"),
    ("picture/image", "picture/text"),
    ("sound/text", "sound/audio"),
    ("sound/audio", "sound/text"),
    ("shape/point_cloud", "shape/image"),
]
PAPER_QUERIES, PAPER_ROWS, PAPER_DIM = 2_300_000, 1_300_000, 512


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def real(shared: Path, name: str) -> np.ndarray:
    """Unit embeddings of the shared data."""
    import pyarrow.parquet as pq

    column = pq.read_table(shared / "data" / "embeddings" / f"{name}.parquet", columns=["embedding"])["embedding"]
    rows = column.combine_chunks().values.to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return unit(rows.astype(np.float32))


def resampler(rows: np.ndarray, dim: int, turn: np.ndarray) -> Callable[[int, np.random.Generator], np.ndarray]:
    """Draw any number of rows like these; see the module's own words."""
    _, near = MemoryBank(rows).nearest(rows, 9)

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        first = rng.integers(0, len(rows), n)
        second = near[first, rng.integers(1, 9, n)]
        x = rows[first] + 0.5 * rng.random((n, 1), dtype=np.float32) * (rows[second] - rows[first])
        x += (0.02 / np.sqrt(x.shape[1])) * rng.standard_normal(x.shape, dtype=np.float32)
        return unit(x @ turn[:, :dim]).astype(np.float32)

    return draw


def orthonormal(rows: int, columns: int) -> np.ndarray:
    """(rows, columns) with orthonormal rows."""
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((columns, rows)))
    return np.ascontiguousarray(q.T, dtype=np.float32)


def seconds(f: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = f()
    return time.perf_counter() - start, result


def peak_flops(dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> float:
    """Floating-point operations per second of a product, best of several; larger ones on an accelerator."""
    device = torch.device(device)
    m, n, d = (1024, 2048, 512) if device.type == "cpu" else (8192, 16384, 512)
    a, b = torch.ones((m, d), dtype=dtype, device=device), torch.ones((n, d), dtype=dtype, device=device)
    out = torch.empty((m, n), dtype=dtype, device=device)

    def product() -> None:
        torch.mm(a, b.T, out=out)
        synchronize(device)

    slow = device.type == "cpu" and dtype != torch.float32
    return 2 * m * n * d / min(seconds(product)[0] for _ in range(4 if slow else 20))


def synchronize(device: torch.device) -> None:
    """Wait until a device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def alternate(runs: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds of each run, the runs taking turns, and what each returned last."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    results: dict[str, Any] = {}
    for _ in range(repeats):
        for name, run in runs.items():
            spent, results[name] = seconds(run)
            taken[name].append(spent)
    return {name: statistics.median(spent) for name, spent in taken.items()}, results


def plain(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The plain way: a chunk of queries against the whole memory, softmax, product."""
    k = torch.from_numpy(keys)
    chunks = torch.from_numpy(queries).split(1024)
    return torch.cat([torch.softmax(chunk @ k.T / 0.01, dim=1) @ k for chunk in chunks]).numpy()


def errors(got: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    error = np.linalg.norm(got - exact, axis=1) / np.linalg.norm(exact, axis=1)
    return {
        "mean": float(error.mean()), "p99": float(np.percentile(error, 99)), "max": float(error.max()),
        "min_cosine": float((unit(got) * unit(exact)).sum(axis=1).min()),
    }  # fmt: skip


def exact_and_bf16(queries: int, rows: int, repeats: int) -> dict[str, Any]:
    """Exact and bf16 against the plain way and the peak, on random unit vectors of 512 dimensions."""
    rng = np.random.default_rng(0)
    keys = unit(rng.standard_normal((rows, 512), dtype=np.float32))
    asking = unit(keys[rng.integers(0, rows, queries)] + 0.03 * rng.standard_normal((queries, 512), dtype=np.float32))
    bank = MemoryBank(keys)
    bank.aggregate(asking[:1024])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bank.aggregate(asking)
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    peaks: list[float] = []
    runs = {
        "peak": lambda: peaks.append(peak_flops()),
        "exact": lambda: bank.aggregate(asking),
        "bf16": lambda: bank.aggregate(asking, method="bf16"),
        "plain": lambda: plain(asking, keys),
    }
    taken, results = alternate(runs, repeats)
    peak = statistics.median(peaks)
    return {
        "queries": queries, "rows": rows, "dim": 512, "seconds": taken,
        "peak_gflops": peak / 1e9,
        "share_of_peak": 4 * queries * rows * 512 / taken["exact"] / peak,
        "extra_megabytes_with_result": extra,
        "plain_over_exact": taken["plain"] / taken["exact"],
        "exact_over_bf16": taken["exact"] / taken["bf16"],
        "bf16": errors(results["bf16"], results["exact"]) | {"report": bank.report},
    }  # fmt: skip


def compressed(name: str, queries: np.ndarray, keys: np.ndarray, temperature: float, repeats: int) -> dict[str, Any]:
    """Compressed against exact, errors over all queries."""
    bank = MemoryBank(keys)
    runs = {
        "exact": lambda: bank.aggregate(queries, temperature=temperature),
        "compressed": lambda: bank.aggregate(queries, temperature=temperature, method="compressed"),
    }
    taken, results = alternate(runs, repeats)
    return {
        "direction": name, "queries": len(queries), "rows": len(keys), "dim": keys.shape[1], "temperature": temperature,
        "seconds": taken, "exact_over_compressed": taken["exact"] / taken["compressed"],
        "errors": errors(results["compressed"], results["exact"]), "report": bank.report,
    }  # fmt: skip


def directions(shared: Path, repeats: int) -> list[dict[str, Any]]:
    """Every real direction with at least 17,427 queries (drawn again where there are fewer), and isotropic data."""
    found = []
    for asking, memory in DIRECTIONS:
        queries, keys = real(shared, asking), real(shared, memory)
        if len(queries) < 17_427:
            draw = resampler(queries, queries.shape[1], np.eye(queries.shape[1], dtype=np.float32))
            queries = np.concatenate([queries, draw(17_427 - len(queries), np.random.default_rng(0))])
        for temperature, times in ((0.01, repeats), (0.05, 1)):
            found.append(compressed(f"{asking} to {memory}", queries, keys, temperature, times))
    rng = np.random.default_rng(0)
    keys, queries = (unit(rng.standard_normal((n, 256), dtype=np.float32)) for n in (20_000, 17_427))
    return [*found, compressed("isotropic", queries, keys, 0.01, 1)]


def sizes(shared: Path, largest: int) -> list[dict[str, Any]]:
    """Microseconds per query against the size of the memory, on resampled real embeddings of 512 dimensions."""
    turn = orthonormal(256, PAPER_DIM)
    draw_keys = resampler(real(shared, "picture/image"), PAPER_DIM, turn)
    draw_queries = resampler(real(shared, "picture/text"), PAPER_DIM, turn)
    rng = np.random.default_rng(1)
    found = []
    for rows in (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_300_000):
        if rows > largest:
            break
        keys = np.concatenate(
            [draw_keys(min(100_000, rows - i), rng).astype(np.float16) for i in range(0, rows, 100_000)]
        )
        queries = draw_queries(8192, rng)
        bank = MemoryBank(keys)
        few = queries[: min(8192, max(512, 400_000_000 // rows // 8))]
        taken, results = alternate(
            {
                "exact": lambda: bank.aggregate(few),  # noqa: B023
                "compressed": lambda: bank.aggregate(queries, method="compressed"),  # noqa: B023
            },
            1,
        )
        found.append(
            {
                "rows": rows, "exact_us_per_query": taken["exact"] / len(few) * 1e6,
                "compressed_us_per_query": taken["compressed"] / len(queries) * 1e6,
                "errors": errors(results["compressed"][: len(few)], results["exact"]), "report": bank.report,
            }
        )  # fmt: skip
        print(json.dumps(found[-1]), file=sys.stderr)
    return found


def tolerances(shared: Path) -> list[dict[str, Any]]:
    """Time against error."""
    queries, keys = real(shared, "picture/text"), real(shared, "picture/image")
    bank = MemoryBank(keys)
    exact_seconds, exact = seconds(lambda: bank.aggregate(queries))
    found = []
    for tolerance in (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1):
        run = lambda t=tolerance: bank.aggregate(queries, method="compressed", tolerance=t)  # noqa: E731
        spent, got = seconds(run)
        row = {"tolerance": tolerance, "exact_over_compressed": exact_seconds / spent, "errors": errors(got, exact)}
        found.append(row | {"report": bank.report})
    return found


def papers(shared: Path, fraction: float, folder: Path) -> dict[str, Any]:
    """The papers' text-image size from float16 on disk, a fraction of the queries, in a process that is measured."""
    turn = orthonormal(256, PAPER_DIM)
    for stem, source, rows in (
        ("keys", "picture/image", PAPER_ROWS),
        ("queries", "picture/text", int(PAPER_QUERIES * fraction)),
    ):
        draw, rng = resampler(real(shared, source), PAPER_DIM, turn), np.random.default_rng(len(stem))
        target = np.lib.format.open_memmap(folder / f"{stem}.npy", "w+", np.float16, (rows, PAPER_DIM))
        for start in range(0, rows, 100_000):
            target[start : start + 100_000] = draw(min(100_000, rows - start), rng)
        del target
    code = f"""
import json, resource, sys, time, numpy as np, torch
from isthmus.memory import MemoryBank
torch.set_num_threads({torch.get_num_threads()})
keys, queries = (np.load({str(folder)!r} + "/" + n + ".npy", mmap_mode="r") for n in ("keys", "queries"))
out = np.lib.format.open_memmap({str(folder)!r} + "/out.npy", "w+", np.float16, queries.shape)
bank = MemoryBank(keys)
start = time.perf_counter()
bank.aggregate(queries, method="compressed", out=out)
spent = time.perf_counter() - start
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({{"seconds": spent, "gigabytes": memory, "report": bank.report}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    # The check of 256 queries is done once whatever the fraction; it is counted in full, so the estimate is high.
    return found | {"fraction": fraction, "minutes_for_all": found["seconds"] / fraction / 60}


def machine() -> dict[str, Any]:
    name = next(
        (x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), ""
    )
    return {
        "processor": name or platform.processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability(),
        "float32_gflops": peak_flops() / 1e9, "bf16_gflops": peak_flops(torch.bfloat16) / 1e9,
        "load": os.getloadavg()[0],
    }  # fmt: skip


def write(out: Path | None, found: dict[str, Any]) -> None:
    """Write what there is so far, so that a run that is cut short leaves its finished parts."""
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--largest", type=int, default=1_300_000)
    parser.add_argument("--papers", type=float, default=0.0)
    parser.add_argument("--only", default="exact,directions,tolerances,sizes,papers")
    options = parser.parse_args()
    parts: dict[str, Callable[[], Any]] = {
        "exact": lambda: exact_and_bf16(options.queries, options.rows, options.repeats),
        "directions": lambda: directions(options.shared, options.repeats),
        "tolerances": lambda: tolerances(options.shared),
        "sizes": lambda: sizes(options.shared, options.largest),
    }
    found = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    found["machine"] = machine()
    for name in options.only.split(","):
        if name in parts:
            found[name] = parts[name]()
        elif options.papers:
            with tempfile.TemporaryDirectory() as folder:
                found["papers"] = papers(options.shared, options.papers, Path(folder))
        write(options.out, found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
