"""What an import costs beside a plain copy of the file: processor seconds, the two measured in turns.

    python bench/import_speed.py [--rows 200000] [--dim 512] [--rounds 5] [--out bench/results/import_speed.json]

Writes medians over the rounds of the processor seconds (user and system) of copying
an .npy of float16 into a new file and syncing it, of its SHA-256 alone, which the format of a space asks for, of
importing it into a new space, and of the same import once more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent / "common"))
from record import write

import isthmus

OUT = Path(__file__).parent / "results" / "import_speed.json"


def seconds(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def copy(source: Path, target: Path) -> None:
    """A plain copy through main memory, on disk when it returns."""
    with source.open("rb") as read, target.open("wb") as write:
        while block := read.read(1 << 20):
            write.write(block)
        write.flush()
        os.fsync(write.fileno())


def measure(rows: int, dim: int, rounds: int, folder: Path) -> dict[str, list[float]]:
    source = folder / "e.npy"
    np.save(source, np.random.default_rng(0).normal(size=(rows, dim)).astype(np.float16))
    found: dict[str, list[float]] = {"copy": [], "sha256": [], "first_import": [], "import_again": []}

    content = source.read_bytes()

    def run(into: Path) -> object:
        return isthmus.import_embeddings(source, into, modality="image", encoder="clip:bench")

    run(folder / "warm.space")
    for number in range(rounds):
        into = folder / f"{number}.space"
        found["copy"].append(seconds(lambda: copy(source, folder / "copy.npy")))
        found["sha256"].append(seconds(lambda: hashlib.sha256(content)))
        found["first_import"].append(seconds(lambda into=into: run(into)))
        found["import_again"].append(seconds(lambda into=into: run(into)))
        shutil.rmtree(into)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("rows", 200_000), ("dim", 512), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given.rows, given.dim, given.rounds, Path(folder))
    middle = {name: round(statistics.median(values), 4) for name, values in found.items()}
    report = {
        "rows": given.rows,
        "dim": given.dim,
        "dtype": "float16",
        "rounds": given.rounds,
        "cpu_seconds": middle,
        "copy_and_sha256_over_copy": round((middle["copy"] + middle["sha256"]) / middle["copy"], 2),
        "first_over_copy": round(middle["first_import"] / middle["copy"], 2),
        "again_over_first": round(middle["import_again"] / middle["first_import"], 3),
    }
    write(given.out, report)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
