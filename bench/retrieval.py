"""What does a large retrieval cost beside its matrix product: 50,000 pictures and 250,000 captions, five a picture?

Each measure runs in a process of its own, so that its peak memory is its own. Rounds alternate, so that a noisy machine
is noisy for all:

- product: all scores in blocks of the same size, thrown away: the least that any way could cost;
- score: ranks in both directions, figures and 1,000 bootstrap resamples, from arrays in memory;
- suite: `isthmus suite` on spaces on disk, projected through a bridge first.

    python bench/retrieval.py --queries 50000 --rounds 3 --out bench/results/retrieval.json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

CAPTIONS = 5


def embeddings(count: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows of pictures and of captions that lie near them, in the order of the pictures."""
    rng = np.random.default_rng(0)
    pictures = rng.standard_normal((count, dim), dtype=np.float32)
    captions = np.repeat(pictures, CAPTIONS, axis=0)
    for start in range(0, len(captions), 8192):
        part = captions[start : start + 8192]
        part += 3.0 * rng.standard_normal(part.shape, dtype=np.float32)
    for rows in (pictures, captions):
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return pictures, captions


def product(work: Path, count: int) -> None:
    """The matrix product alone, blocks written over each other."""
    from isthmus.metrics.retrieval import BLOCK

    pictures, captions = np.load(work / "pictures.npy"), np.load(work / "captions.npy")
    out = np.empty((max(1, BLOCK // len(captions)), len(captions)), np.float32)
    for start in range(0, len(pictures), len(out)):
        part = pictures[start : start + len(out)]
        np.matmul(part, captions.T, out=out[: len(part)])


def score(work: Path, count: int) -> None:
    """Both directions with intervals."""
    from isthmus.metrics.results import score_retrieval

    pictures, captions = np.load(work / "pictures.npy"), np.load(work / "captions.npy")
    columns = np.arange(len(captions))
    score_retrieval(pictures, captions, (columns // CAPTIONS, columns)).to_dict()


def suite(work: Path, count: int) -> None:
    """The whole verb."""
    from isthmus.cli import main

    arguments = ["--benchmark", str(work / "large.toml"), "--data", str(work), "--cache", str(work / "cache")]
    if main(["suite", str(work / "x.bridge"), *arguments, "--quiet"]):
        raise SystemExit("isthmus suite failed")


MEASURES = {"product": product, "score": score, "suite": suite}


def prepare(work: Path, count: int, dim: int) -> None:
    """Arrays, spaces, a bridge that leaves its base as it is, and the benchmark's TOML."""
    import isthmus
    from isthmus.recipes.closed_form import fit_closed_form_bridge

    pictures, captions = embeddings(count, dim)
    np.save(work / "pictures.npy", pictures)
    np.save(work / "captions.npy", captions)
    ids = [f"p{i}" for i in range(count)], [f"c{i}" for i in range(count * CAPTIONS)]
    base = isthmus.make_space(work / "large.space", {"image": (ids[0], pictures), "text": (ids[1], captions)})
    few = slice(0, 64)
    leaf = isthmus.make_space(work / "leaf.space", {"text": (ids[1][few], captions[few])}, encoder="another")
    fit_closed_form_bridge(base, leaf, via="text", method="procrustes").save(work / "x.bridge")
    pairs = "".join(f"p{i // CAPTIONS},c{i}\n" for i in range(count * CAPTIONS))
    (work / "pairs.csv").write_text("query_id,gallery_id\n" + pairs)
    options = 'query = "large.space/image"\ngallery = "large.space/text"\npairs = "pairs.csv"\n'
    head = 'task = "retrieval"\nreader = "embeddings"\nmodalities = ["image", "text"]\n[options]\n'
    (work / "large.toml").write_text(head + options)


def peak() -> float:
    """Peak memory of this process in GB. The system's own count survives an exec, so it would be the parent's too."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(name: str, work: Path, count: int) -> dict[str, float]:
    """Run one measure in a process of its own: seconds without its start, and its peak memory."""
    command = [sys.executable, __file__, "--measure", name, "--work", str(work), "--queries", str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Prepare, measure in turn and write the result file; with --measure, one of the measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "retrieval.json")
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        started = time.perf_counter()
        MEASURES[given.measure](given.work, given.queries)
        taken = time.perf_counter() - started
        print(json.dumps({"seconds": taken, "gb": peak()}))
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), given.queries, given.dim)
        rounds = [{name: measure(name, Path(folder), given.queries) for name in MEASURES} for _ in range(given.rounds)]
    summary: dict[str, Any] = {
        name: {
            "seconds": statistics.median(one[name]["seconds"] for one in rounds),
            "gb": max(one[name]["gb"] for one in rounds),
            "ratio": statistics.median(one[name]["seconds"] / one["product"]["seconds"] for one in rounds),
        }
        for name in MEASURES
    }
    result = {"queries": given.queries, "gallery": given.queries * CAPTIONS, "dim": given.dim, "cpus": os.cpu_count()}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({**result, "summary": summary, "rounds": rounds}, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
