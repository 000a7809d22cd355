"""Does the estimate that needs no pairs rank bridges as the pairs do, and does it flag links that are broken?

Bridges of every benchmark by several methods, overlaps and damages are joined; each tells its estimate and verdict, and
the pairs tell the truth. Damage is done to the leaf's texts: ids shuffled in part or wholly, a tower that collapsed,
another encoder's texts under the same ids. Finished rows are kept in --work, so that a run that was cut short goes on.

    python bench/estimate.py --shared ../shared --work ~/quality --out bench/results/estimate.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "common"))

import real_spaces as real  # noqa: E402
from record import write  # noqa: E402

import isthmus  # noqa: E402
from isthmus.spaces.space import Space  # noqa: E402

METHODS = ("posterior", "cca")
RANKED = ("posterior", "cca", "dictionary", "procrustes")
DAMAGES = {"shuffled": 1.0, "half shuffled": 0.5, "collapsed": None, "foreign": None}
"""What is flagged, and the share of ids that are shuffled."""
MILD = {"a tenth shuffled": 0.1, "a quarter shuffled": 0.25}
"""Damage that lowers the quality and need not be flagged."""
GOOD = "good"


def damaged(space: Space, kind: str, seed: int, work: Path) -> Space:
    """Copy a space with its texts damaged.

    Args:
        space: The space.
        kind: One of `DAMAGES` or `MILD`.
        seed: Of what is shuffled or drawn.
        work: Folder for the copy.
    """
    folder = work / f"{kind}-{seed}".replace(" ", "-") / f"{space.name}.space"
    if not folder.exists():
        modalities = {name: (space[name].ids, np.asarray(space[name])) for name in space.modalities}
        ids, rows = modalities["text"]
        modalities["text"] = (ids, damage(rows, kind, np.random.default_rng(seed)))
        isthmus.make_space(folder, modalities, name=space.name)
    return isthmus.open_space(folder)


def damage(rows: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Damage the rows of texts, (n, d)."""
    share = {**DAMAGES, **MILD}[kind]
    if share is not None:
        some = rng.choice(len(rows), int(share * len(rows)), replace=False)
        out = rows.copy()
        out[some] = rows[rng.permutation(some)]
        return out
    noise = rng.normal(size=rows.shape).astype(np.float32)
    if kind == "collapsed":  # every text nearly the same vector
        return real.unit(real.unit(rows).mean(axis=0) + 0.01 * real.unit(noise))
    # Another encoder: the same meanings in directions of its own, bent by a layer that the space never saw
    turned = np.linalg.qr(rng.normal(size=(rows.shape[1], rows.shape[1])))[0].astype(np.float32)
    return real.unit(np.tanh(3.0 * real.unit(rows) @ turned) + 0.1 * real.unit(noise))


def plan(given: argparse.Namespace) -> Iterator[tuple[str, str, str, str, int]]:
    """Yield benchmark, overlap, damage, method and seed of every bridge."""
    for seed in range(given.seeds):
        for name in real.REAL:
            for kind in DAMAGES:
                yield name, "all", kind, given.judged, seed
    for name in real.REAL:
        for method in RANKED:
            for variant in ("all", "captions", "names"):
                yield name, variant, "", method, 0
            for kind in (*MILD, "half shuffled"):
                yield name, "all", kind, method, 0
        for seed in range(given.seeds):
            for variant in real.FEW:
                for method in METHODS:
                    yield name, variant, "", method, seed


def row_of(benchmark: real.Benchmark, method: str, seed: int) -> dict[str, Any]:
    """Join and take the estimate, the verdict and the truth."""
    started = time.perf_counter()
    if method in ("dictionary", "procrustes"):
        spaces = {"base": benchmark.base, "leaf": benchmark.leaf}
        bridge = isthmus.extend(**spaces, via=benchmark.via, method=method, center=True, seed=seed, quiet=True)
    else:
        spaces_ = benchmark.base, benchmark.leaf
        bridge = isthmus.connect(*spaces_, via=benchmark.via, method=method, seed=seed, quiet=True)
    found = bridge.record.get("estimate") or {}
    truth = real.mean_map(real.scores_of(bridge, benchmark.cross))
    return {"estimate": found, "map": truth, "seconds": time.perf_counter() - started}


def measure(given: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Make every bridge that is not kept yet."""
    spaces, rows = real.RealSpaces(given.shared, work), []
    (work / "estimates").mkdir(parents=True, exist_ok=True)
    for name, variant, kind, method, seed in dict.fromkeys(plan(given)):
        kept = work / "estimates" / f"{name}-{variant}-{kind}-{method}-{seed}.json".replace(" ", "_")
        if given.kept and not kept.is_file():
            continue
        if not kept.is_file():
            benchmark = spaces.benchmark(name, variant, seed)
            if kind:
                benchmark = replace(benchmark, leaf=damaged(benchmark.leaf, kind, seed, work))
            row = row_of(benchmark, method, seed)
            head = {"benchmark": name, "variant": variant, "damage": kind, "method": method, "seed": seed}
            kept.write_text(json.dumps({**head, **row}, default=str))
        rows.append(json.loads(kept.read_text()))
        told = rows[-1]["estimate"]
        print(name, variant, kind, method, seed, f"{rows[-1]['map']:.3f}", told.get("map"), told.get("verdict"),
              file=sys.stderr, flush=True)  # fmt: skip
    return rows


def ranks(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Spearman's correlation of estimates and truth, over all bridges and within each pair of spaces."""
    known = [row for row in rows if isinstance(row["estimate"].get("map"), float)]
    groups = {"all": known, **{name: [row for row in known if row["benchmark"] == name] for name in real.REAL}}
    return {
        name: {
            "bridges": len(group),
            "spearman": float(spearmanr([row["estimate"]["map"] for row in group], [row["map"] for row in group])[0]),
        }
        for name, group in groups.items()
        if len(group) > 2
    }


def flags(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Count verdicts by damage; a verdict other than good is a flag."""
    found = {}
    for kind in ("", *MILD, *DAMAGES):
        verdicts = Counter(str(row["estimate"].get("verdict")) for row in rows if row["damage"] == kind)
        if verdicts:
            flagged = sum(count for verdict, count in verdicts.items() if verdict != GOOD)
            found[kind or "healthy"] = {"bridges": sum(verdicts.values()), "flagged": flagged, "verdicts": verdicts}
    return found


def main() -> None:
    """Measure what is not measured yet and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("ISTHMUS_SHARED", "../shared")))
    parser.add_argument("--work", type=Path, help="keeps spaces and finished rows; default: nowhere")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--kept", action="store_true", help="measure nothing: write the rows that --work keeps")
    parser.add_argument("--judged", default="auto", help="the method whose bridges are flagged")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "estimate.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(given, given.work or Path(folder))
        write(given.out, {"spearman": ranks(rows), "flags": flags(rows), "rows": rows})


if __name__ == "__main__":
    main()
