"""How fast are memory banks beside the plain way and the machine's peak, and how far off are the fast ways?

    python bench/aggregate.py --shared ../shared --out bench/results/aggregate.json      # minutes a part
    python bench/aggregate.py --shared ../shared --only papers --papers 0.1 --out bench/results/aggregate.json
    python bench/aggregate.py --only exact,papers --papers 1 --device cuda --out bench/results/gpu.json

Parts (`--only`) are written as they are done, into the file that there is. `--quick` makes all of them small.

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
from collections.abc import Callable, Iterator
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
PAPER_MEMORIES = {"text": 2_300_000, "image": 1_300_000, "audio": 1_800_000}
QUADRUPLES = 5_400_000
SMALLEST = 17_427


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


def plain(queries: np.ndarray, keys: np.ndarray, device: torch.device) -> np.ndarray:
    """The plain way: a chunk of queries against the whole memory, softmax, product."""
    k = torch.from_numpy(keys).to(device)
    chunks = torch.from_numpy(queries).to(device).split(1024)
    return torch.cat([torch.softmax(chunk @ k.T / 0.01, dim=1) @ k for chunk in chunks]).cpu().numpy()


def errors(got: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    error = np.linalg.norm(got - exact, axis=1) / np.linalg.norm(exact, axis=1)
    return {
        "mean": float(error.mean()), "p99": float(np.percentile(error, 99)), "max": float(error.max()),
        "min_cosine": float((unit(got) * unit(exact)).sum(axis=1).min()),
    }  # fmt: skip


def exact_and_bf16(queries: int, rows: int, repeats: int, device: str) -> dict[str, Any]:
    """Exact and bf16 against the plain way and the peak, on random unit vectors of 512 dimensions.

    The plain way does a fifth of the queries; its seconds are of that fifth, its ratio of a query.
    """
    place = torch.device(device)
    rng = np.random.default_rng(0)
    keys = unit(rng.standard_normal((rows, 512), dtype=np.float32))
    asking = unit(keys[rng.integers(0, rows, queries)] + 0.03 * rng.standard_normal((queries, 512), dtype=np.float32))
    few = asking[: queries // 5]
    bank = MemoryBank(torch.from_numpy(keys).to(place))
    bank.aggregate(asking[:1024])
    bank.aggregate(asking[:1024], method="bf16")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bank.aggregate(asking)
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    peaks: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    runs: dict[str, Callable[[], Any]] = {
        "peak": lambda: peaks[torch.float32].append(peak_flops(device=place)),
        "exact": lambda: bank.aggregate(asking),
        "peak again": lambda: peaks[torch.float32].append(peak_flops(device=place)),
        "bf16": lambda: bank.aggregate(asking, method="bf16"),
        "bf16 peak": lambda: peaks[torch.bfloat16].append(peak_flops(torch.bfloat16, place)),
        "plain": lambda: plain(few, keys, place),
    }
    taken, results = alternate(runs, repeats)
    report = bank.report
    work = 4 * queries * rows * 512
    peak, low = (statistics.median(peaks[dtype]) for dtype in (torch.float32, torch.bfloat16))
    share = len(few) / queries
    return {
        "queries": queries, "rows": rows, "dim": 512, "device": device, "fewer_queries": len(few),
        "seconds": {name: taken[name] for name in ("exact", "bf16", "plain")},
        "peak_gflops": peak / 1e9, "bf16_peak_gflops": low / 1e9, "bf16_products": report.get("products"),
        "share_of_peak": work / taken["exact"] / peak,
        "bf16_share_of_its_peak": work / taken["bf16"] / low,
        "extra_megabytes_with_result": extra,
        "plain_over_exact": taken["plain"] / taken["exact"] / share,
        "exact_over_bf16": taken["exact"] / taken["bf16"],
        "bf16": errors(results["bf16"], results["exact"]) | {"report": report},
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


def pair_of(shared: Path, asking: str, memory: str) -> tuple[np.ndarray, np.ndarray]:
    """Queries and memory of a direction, each with 17,427 rows at least: drawn again where there are fewer."""
    found = []
    for number, rows in enumerate((real(shared, asking), real(shared, memory))):
        if len(rows) < SMALLEST:
            draw = resampler(rows, rows.shape[1], np.eye(rows.shape[1], dtype=np.float32))
            rows = np.concatenate([rows, draw((SMALLEST, 20_000)[number] - len(rows), np.random.default_rng(number))])
        found.append(rows)
    return found[0], found[1]


def isotropic(dim: int = 256, rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Queries and memory without structure."""
    rng = np.random.default_rng(0)
    keys, queries = (unit(rng.standard_normal((n, dim), dtype=np.float32)) for n in (rows, SMALLEST))
    return queries, keys


def directions(shared: Path, repeats: int) -> list[dict[str, Any]]:
    """Every real direction at 17k queries over 17k to 20k rows, and isotropic data."""
    found = []
    for asking, memory in DIRECTIONS:
        queries, keys = pair_of(shared, asking, memory)
        for temperature, times in ((0.01, repeats), (0.05, 1)):
            found.append(compressed(f"{asking} to {memory}", queries, keys, temperature, times))
    return [*found, compressed("isotropic", *isotropic(), 0.01, 1)]


def indexes(shared: Path) -> list[dict[str, Any]]:
    """What a library's compressed scan gives instead: product-quantised fast scan, the best 32 rescored in float32."""
    import faiss

    found = []
    for asking, memory in DIRECTIONS:
        queries, keys = pair_of(shared, asking, memory)
        exact_seconds, exact = seconds(lambda: MemoryBank(keys).aggregate(queries))  # noqa: B023
        for share in (4, 2):
            name = f"PQ{keys.shape[1] // share}x4fs,RFlat"
            index = faiss.index_factory(keys.shape[1], name, faiss.METRIC_INNER_PRODUCT)
            index.k_factor = 4
            built, _ = seconds(lambda: (index.train(keys), index.add(keys)))  # noqa: B023
            spent, (scores, rows) = seconds(lambda: index.search(queries, 32))  # noqa: B023
            weights = np.exp((scores - scores[:, :1]) / 0.01)
            weights /= weights.sum(axis=1, keepdims=True)
            got = np.concatenate([np.einsum("qk,qkd->qd", weights[i : i + 512], keys[rows[i : i + 512]])
                                  for i in range(0, len(rows), 512)])  # fmt: skip
            found.append({
                "direction": f"{asking} to {memory}", "index": name, "seconds": spent, "build_seconds": built,
                "exact_over_index": exact_seconds / (spent + built), "errors": errors(got, exact),
            })  # fmt: skip
    return found


def sparse(shared: Path) -> list[dict[str, Any]]:
    """Bytes on disk of sparse weights, and what 5.4 million quadruples of two aggregations each would take; a pool."""
    found = []
    for asking, memory in DIRECTIONS:
        queries, keys = pair_of(shared, asking, memory)
        for mass, most, tolerance in ((0.999, 256, 1.0), (0.99, 32, 1.0), (None, 256, 0.01)):
            weights = MemoryBank(keys).sparse(queries, mass=mass, max_k=most, tolerance=tolerance)
            with tempfile.TemporaryDirectory() as folder:
                weights.save(Path(folder) / "weights.safetensors")
                size = (Path(folder) / "weights.safetensors").stat().st_size / len(queries)
            found.append({
                "direction": f"{asking} to {memory}", "mass": weights.report["mass"], "chosen": mass is None,
                "max_k": most, "bytes_per_query": size,
                "rows_per_query": weights.report["rows_per_query"], "check": weights.report["check"],
                "gigabytes_for_the_papers": 2 * QUADRUPLES * size / 1e9,
            })  # fmt: skip
    return [*found, {"pool": pool(shared)}]


def pool(shared: Path) -> dict[str, Any]:
    """What a pool of pseudo pairs of the real sounds and pictures takes on disk, and by kind what the papers' would.

    "as_here" takes as many bytes a query as here. "grown" lets the rows of a query grow with the memory as they do
    from a quarter of the real memory to all of it: a power that is stretched over two orders of magnitude.
    """
    import pyarrow.parquet as pq

    from isthmus.pairs.builder import Builder
    from isthmus.pairs.kinds import choose_kinds
    from isthmus.pairs.side import Side
    from isthmus.recipes.config import RecipeConfig

    sides = []
    for name, other in (("picture", "image"), ("sound", "audio")):
        files = {m: shared / "data" / "embeddings" / name / f"{m}.parquet" for m in ("text", other)}
        ids = {m: pq.read_table(path, columns=["id"])["id"].to_pylist() for m, path in files.items()}
        sides.append(Side(name, ids, {m: real(shared, f"{name}/{m}") for m in files}))
    config, kinds = RecipeConfig(pair_storage="sparse"), []
    for kind in choose_kinds(*sides, ["text"], None):
        builder = Builder(*sides, ["text"], config, device=torch.device("cpu"))
        with tempfile.TemporaryDirectory() as folder:
            spent, pairs = seconds(lambda: builder.build([kind], Path(folder)))  # noqa: B023
            size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        slow, fast = take_seconds(pairs, builder, kind)
        steps = [
            at_papers_memory(shared, *name.partition(" (from ")[0].split(": "), row["weights"])
            for name, row in pairs.effective_neighbours.items()
        ]
        count = PAPER_MEMORIES[kind.query.modality]
        kinds.append({
            "kind": next(iter(pairs.composition)), "queries": len(pairs), "bytes_per_query": size / len(pairs),
            "build_seconds": spent, "take_seconds": slow, "take_dense_seconds": fast, "aggregations": steps,
            "papers_queries": count, "gigabytes_as_here": count * size / len(pairs) / 1e9,
            "gigabytes_grown": count * sum(4 + 4 * step["rows_grown"] for step in steps) / 1e9,
        })  # fmt: skip
    totals = {name: sum(kind[name] for kind in kinds) for name in ("gigabytes_as_here", "gigabytes_grown")}
    dense = sum(PAPER_MEMORIES.values()) * 4 * PAPER_DIM * 2 / 1e9
    return {"kinds": kinds, **totals, "gigabytes_dense_float16": dense}


def take_seconds(pairs: Any, builder: Any, kind: Any) -> tuple[float, float]:
    """Median seconds of drawing 4,096 pseudo pairs from sparse weights, and from dense float32 ones."""
    from isthmus.pairs.pairs import PseudoPairs

    place, rng = torch.device("cpu"), np.random.default_rng(0)
    rows = rng.integers(0, len(pairs), 4096)
    whole = pairs.take(np.arange(len(pairs)), place)
    dense = PseudoPairs(pairs.slots, {slot: x.numpy() for slot, x in whole.items()}, {})
    taken, _ = alternate({"sparse": lambda: pairs.take(rows, place), "dense": lambda: dense.take(rows, place)}, 5)
    return taken["sparse"], taken["dense"]


def at_papers_memory(shared: Path, space: str, hop: str, report: dict[str, Any]) -> dict[str, Any]:
    """Rows of a query over the real memory, and over one of the papers' size if they go on growing as they do here."""
    asking, memory = hop.split(" to ")
    queries, keys = real(shared, f"{space}/{asking}"), real(shared, f"{space}/{memory}")
    rng = np.random.default_rng(0)
    queries, keys = queries[rng.permutation(len(queries))[:2048]], keys[rng.permutation(len(keys))]
    few, many = (
        MemoryBank(keys[: len(keys) // part].copy()).sparse(queries, mass=0.99, tolerance=1.0).report["rows_per_query"]
        for part in (4, 1)
    )
    power = max(0.0, float(np.log(many / few) / np.log(4)))
    there = PAPER_MEMORIES[memory]
    grown = report["rows_per_query"] * (there / len(keys)) ** power
    return {
        "aggregation": f"{space}/{asking} to {space}/{memory}", "memory": len(keys), "papers_memory": there,
        "rows_per_query": report["rows_per_query"], "power": power, "rows_grown": grown, "check": report["check"],
    }  # fmt: skip


def sizes(shared: Path, largest: int) -> Iterator[list[dict[str, Any]]]:
    """Microseconds per query against the size of the memory: resampled real embeddings of 512 dimensions, isotropic."""
    turn = orthonormal(256, PAPER_DIM)
    draw_keys = resampler(real(shared, "picture/image"), PAPER_DIM, turn)
    draw_queries = resampler(real(shared, "picture/text"), PAPER_DIM, turn)

    def directionless(n: int, rng: np.random.Generator) -> np.ndarray:
        return unit(rng.standard_normal((n, PAPER_DIM), dtype=np.float32))

    found: list[dict[str, Any]] = []
    for rows in (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_300_000):
        if rows <= largest:
            found.append({"data": "real", **at_size(rows, draw_keys, draw_queries)})
            yield found
        if rows <= min(largest, 30_000):
            found.append({"data": "isotropic", **at_size(rows, directionless, directionless)})
            yield found


def at_size(
    rows: int,
    draw_keys: Callable[[int, np.random.Generator], np.ndarray],
    draw_queries: Callable[[int, np.random.Generator], np.ndarray],
) -> dict[str, Any]:
    """Exact on as many queries as are soon done, compressed on 8,192, over a memory of `rows` rows."""
    rng = np.random.default_rng(1)
    keys = np.concatenate([draw_keys(min(100_000, rows - i), rng).astype(np.float16) for i in range(0, rows, 100_000)])
    queries = draw_queries(8192, rng)
    bank = MemoryBank(keys)
    few = queries[: min(8192, max(512, 50_000_000 // rows))]
    taken, results = alternate(
        {"exact": lambda: bank.aggregate(few), "compressed": lambda: bank.aggregate(queries, method="compressed")}, 1
    )
    return {
        "rows": rows, "exact_us_per_query": taken["exact"] / len(few) * 1e6,
        "compressed_us_per_query": taken["compressed"] / len(queries) * 1e6,
        "errors": errors(results["compressed"][: len(few)], results["exact"]), "report": bank.report,
    }  # fmt: skip


def tolerances(shared: Path) -> list[dict[str, Any]]:
    """Time against error, on real and on isotropic data."""
    found = []
    for name, (queries, keys) in (("real", pair_of(shared, *DIRECTIONS[0])), ("isotropic", isotropic())):
        bank = MemoryBank(keys)
        exact_seconds, exact = seconds(lambda: bank.aggregate(queries))  # noqa: B023
        for method, tolerance in [("bf16", 0.01)] + [("compressed", t) for t in (0.001, 0.003, 0.01, 0.03, 0.1)]:
            run = lambda m=method, t=tolerance: bank.aggregate(queries, method=m, tolerance=t)  # noqa: E731, B023
            spent, got = seconds(run)
            row = {"data": name, "method": method, "tolerance": tolerance, "us_per_query": spent / len(queries) * 1e6}
            row |= {"exact_us_per_query": exact_seconds / len(queries) * 1e6, "errors": errors(got, exact)}
            found.append(row | {"report": bank.report})
    return found


def papers(shared: Path, fraction: float, folder: Path, device: str) -> dict[str, Any]:
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
    method = "compressed" if device == "cpu" else "auto"
    code = f"""
import json, resource, sys, time, numpy as np, torch
from isthmus.memory import MemoryBank
torch.set_num_threads({torch.get_num_threads()})
keys, queries = (np.load({str(folder)!r} + "/" + n + ".npy", mmap_mode="r") for n in ("keys", "queries"))
out = np.lib.format.open_memmap({str(folder)!r} + "/out.npy", "w+", np.float16, queries.shape)
bank = MemoryBank(keys, device={device!r})
start = time.perf_counter()
bank.aggregate(queries[:256], method={method!r})
once = time.perf_counter() - start
start = time.perf_counter()
bank.aggregate(queries, method={method!r}, out=out)
spent = time.perf_counter() - start
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({{"seconds": spent, "seconds_once": once, "gigabytes": memory, "report": bank.report}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    # What 256 queries take, nearly all of it the choice of a method and its check, is paid once.
    once = found["seconds_once"]
    minutes = (once + (found["seconds"] - once) / fraction) / 60
    return found | {"fraction": fraction, "minutes_for_all": minutes}


def at_papers_size(shared: Path, fraction: float, device: str) -> dict[str, Any]:
    """`papers` in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        return papers(shared, fraction, Path(folder), device)


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
    parser.add_argument("--papers", type=float, default=0.0, help="fraction of the papers' queries")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="exact,directions,indexes,tolerances,sparse,sizes,papers")
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.queries, options.rows, options.largest = 1, 5_000, 30_000, 30_000
    parts: dict[str, Callable[[], Any]] = {
        "exact": lambda: exact_and_bf16(options.queries, options.rows, options.repeats, options.device),
        "directions": lambda: directions(options.shared, options.repeats),
        "indexes": lambda: indexes(options.shared),
        "tolerances": lambda: tolerances(options.shared),
        "sparse": lambda: sparse(options.shared),
        "sizes": lambda: sizes(options.shared, options.largest),
        "papers": lambda: at_papers_size(options.shared, options.papers, options.device),
    }
    found = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    found |= {"machine": machine(), "quick": options.quick}
    for name in options.only.split(","):
        if name == "papers" and not options.papers:
            continue
        started = time.perf_counter()
        result = parts[name]()
        # A part that grows is written as it does.
        for found[name] in result if isinstance(result, Iterator) else [result]:
            write(options.out, found)
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
