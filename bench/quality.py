"""How good is every way of joining two spaces, on pairs that no join has seen, and does `auto` choose well?

Rows are methods, `auto`, the papers' recipe written down literally (a script given by its path) and the ceiling: what
the two spaces' own posteriors over the tested names allow. Columns are the ordered pairs of modalities, what is kept of
each space's own pair, seconds, and the estimate that needs no pairs. Finished rows are kept in --work, so that a run
that was cut short goes on; `bench/render_quality.py` writes docs/quality.md from the result.

    python bench/quality.py --shared ../shared --work ~/quality --reference reference.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "common"))

import real_spaces as real  # noqa: E402
from record import write  # noqa: E402

import isthmus  # noqa: E402
from isthmus.recipes.posterior.description import describe_leaf  # noqa: E402
from isthmus.recipes.sides import space_side  # noqa: E402

TRAINED = ("c-mcr", "ex-mcr")
CLOSED = ("procrustes", "ridge", "dictionary", "two-sided dictionary", "cca", "posterior")
CHOSEN = ("auto", "extend")
QUICK = ("dictionary", "cca", "posterior", "auto")
"""Methods that are run for every variant of the overlap; the others only for all texts and for the demo."""


def trained(benchmark: real.Benchmark, seed: int, path: Path) -> Any:
    """Train the projection of `extend` alone, or take the one that was kept at `path`."""
    if not path.exists():
        spaces = {"base": benchmark.base, "leaf": benchmark.leaf}
        config = isthmus.ExtendConfig(description=0.0)
        isthmus.extend(**spaces, via=benchmark.via, seed=seed, config=config, quiet=True).save(path)
    return isthmus.load_bridge(path)


def join(benchmark: real.Benchmark, method: str, seed: int, work: Path) -> Any:
    """Join a benchmark's spaces by a method; `extend` is its default with a frozen base."""
    options: dict[str, Any] = {"via": benchmark.via, "quiet": True}
    spaces = {"base": benchmark.base, "leaf": benchmark.leaf}
    if method in ("ex-mcr", "extend"):
        bridge = trained(benchmark, seed, work / f"{benchmark.name.replace(' ', '-')}-{seed}.bridge")
        if method == "ex-mcr":
            return bridge
        # What `extend` does after its training, with the same seed.
        sides = space_side(benchmark.base), space_side(benchmark.leaf)
        return describe_leaf(bridge, *sides, benchmark.leaf.name, [benchmark.via], weight=None, seed=seed)
    if method.endswith(("procrustes", "ridge", "dictionary")):
        sides = {"two_sided": True} if method.startswith("two-sided") else {}
        kind = method.removeprefix("two-sided ")
        return isthmus.extend(**spaces, method=kind, center=True, seed=seed, **sides, **options)
    return isthmus.connect(benchmark.base, benchmark.leaf, method=method, seed=seed, **options)


def row_of(benchmark: real.Benchmark, method: str, seed: int, work: Path) -> dict[str, Any]:
    """Join, score across and inside the spaces, and take the bridge's own estimate along."""
    started = time.perf_counter()
    bridge = join(benchmark, method, seed, work)
    seconds = time.perf_counter() - started
    if method in ("ex-mcr", "extend"):  # a training may have been kept from the row before
        seconds = bridge.record["seconds"]["all"] + (seconds if method == "extend" else 0.0)
    kept = {}
    for task in benchmark.own:
        now, before = (real.mean_map(scores) for scores in (real.scores_of(bridge, task), real.own_scores(task)))
        kept[f"{task.query.space}: {task.name}"] = {"before": before, "after": now, "kept": now / before}
    record, fresh = bridge.record, real.unseen(benchmark.cross)
    return {
        "scores": real.scores_of(bridge, benchmark.cross),
        "unseen": real.mean_map(real.scores_of(bridge, fresh)) if fresh else None,
        "kept": kept,
        "seconds": seconds,
        "estimate": record.get("estimate"),
        "chosen": record.get("chosen"),
        "description": record.get("description"),
        "used": bridge.method,
    }


def ceiling(benchmark: real.Benchmark) -> dict[str, Any]:
    """Score what both spaces say of the tested names: the chance that two items mean the same of them.

    The best of several temperatures: a ceiling may know the pairs.
    """
    found = [ceiling_at(benchmark, temperature) for temperature in (0.02, 0.05, 0.1, 0.2)]
    return max(found, key=lambda row: real.mean_map(row["scores"]))


def ceiling_at(benchmark: real.Benchmark, temperature: float) -> dict[str, Any]:
    """Score both spaces' posteriors over the tested names at one temperature."""
    posteriors = []
    for side, items in (("leaf", benchmark.cross.query), ("base", benchmark.cross.gallery)):
        memory = (benchmark.leaf if side == "leaf" else benchmark.base)[items.modality].unit()
        names = real.unit(benchmark.names[side] - benchmark.names[side].mean(axis=0))
        rows = real.unit(real.unit(items.rows) - memory.mean(axis=0))
        posteriors.append(real.softmax(rows @ names.T / temperature))
    return {"scores": real.both_directions(benchmark.cross, posteriors[0] @ posteriors[1].T), "seconds": None}


def chance(benchmark: real.Benchmark, seed: int) -> dict[str, Any]:
    """Score at random."""
    shape = benchmark.cross.relevant.shape
    scores = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return {"scores": real.both_directions(benchmark.cross, scores), "seconds": 0.0}


def literal(benchmark: real.Benchmark, script: Path, method: str, work: Path) -> dict[str, Any]:
    """Run the papers' recipe as an external script on the same arrays."""
    shared = isthmus.spaces.overlap.overlap(benchmark.base, benchmark.leaf, benchmark.via)
    query, gallery = benchmark.cross.query, benchmark.cross.gallery
    data = work / "literal.npz"
    np.savez(
        data,
        base_text=benchmark.base[benchmark.via].unit(shared.rows_a),
        leaf_text=benchmark.leaf[benchmark.via].unit(shared.rows_b),
        base_other=benchmark.base[gallery.modality].unit(),
        leaf_other=benchmark.leaf[query.modality].unit(),
        test_base_other=gallery.rows,
        test_leaf_other=query.rows,
        rel=benchmark.cross.relevant,
    )
    command = [sys.executable, str(script), str(data), "--method", method]
    done = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    names = {
        f"{query.modality} > {gallery.modality}": done["scores"]["leaf->base"],
        f"{gallery.modality} > {query.modality}": done["scores"]["base->leaf"],
    }
    scores = {name: {key: row[key] for key in ("map", "r@1", "r@5", "r@10")} for name, row in names.items()}
    return {"scores": scores, "seconds": done["seconds"]}


def plan(given: argparse.Namespace) -> Iterator[tuple[str, str, str, int]]:
    """Yield benchmark, variant, method and seed of every row, the cheap and telling ones first."""
    seeds = range(given.seeds)
    for name in real.REAL:
        for method in ("auto", *CLOSED, "ceiling", "chance"):
            yield name, "all", method, 0
    for seed in seeds:
        for name in ("demo audio-image", "demo 3D-text"):
            for method in (*CHOSEN, *CLOSED, *TRAINED, "chance"):
                yield name, "all", method, seed
    for name in real.REAL:
        for variant in real.VARIANTS[1:]:
            for seed in seeds if variant in real.FEW else (0,):
                for method in QUICK:
                    yield name, variant, method, seed
    for name in real.REAL:
        for seed in range(given.trained_seeds):
            for method in ("ex-mcr", "extend", "c-mcr"):
                yield name, "all", method, seed
        if given.reference:
            yield from ((name, "all", f"literal {method}", 0) for method in ("extend", "connect"))


class Worlds:
    """Benchmarks by name, variant and seed, made when they are first asked for."""

    def __init__(self, given: argparse.Namespace, work: Path) -> None:
        self.spaces, self.work = real.RealSpaces(given.shared, work), work

    def __call__(self, name: str, variant: str, seed: int) -> real.Benchmark:
        if name in real.REAL:
            return self.spaces.benchmark(name, variant, seed)
        folder = self.work / f"demo-{seed}"
        if not (folder / "demo.json").is_file():
            from isthmus.demo.story import Size, run

            # Its spaces and pairs are wanted here, its own bridge is not.
            run(folder, seed=seed, quiet=True, size=Size(config=isthmus.ExtendConfig(epochs=1), oracle_steps=1))
        return {benchmark.name: benchmark for benchmark in real.demo_benchmarks(folder)}[name]


def measure(given: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Make every row that is not kept yet; a row that fails says why and stays open."""
    worlds, rows = Worlds(given, work), []
    (work / "rows").mkdir(parents=True, exist_ok=True)
    wanted, overlaps = (set(each.split(",")) if each else None for each in (given.methods, given.variants))
    for name, variant, method, seed in dict.fromkeys(plan(given)):
        if overlaps and variant not in overlaps:
            continue
        if (wanted and method not in wanted) or (given.only and not name.startswith(given.only)):
            continue
        kept = work / "rows" / f"{name}-{variant}-{method}-{seed}.json".replace(" ", "_")
        if given.kept and not kept.is_file():
            continue
        if not kept.is_file():
            benchmark = worlds(name, variant, seed)
            steps: dict[str, Callable[[], dict[str, Any]]] = {
                "ceiling": lambda benchmark=benchmark: ceiling(benchmark),
                "chance": lambda benchmark=benchmark, seed=seed: chance(benchmark, seed),
            }
            if method.startswith("literal"):
                row = literal(benchmark, given.reference, method.split()[1], work)
            else:
                row = steps.get(method, lambda benchmark=benchmark, m=method, s=seed: row_of(benchmark, m, s, work))()
            head = {"benchmark": name, "variant": variant, "method": method, "seed": seed}
            kept.write_text(json.dumps({**head, "map": real.mean_map(row["scores"]), **row}, default=str))
        rows.append(json.loads(kept.read_text()))
        print(f"{name} {variant} {method} {seed}: {rows[-1]['map']:.3f}", file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Measure what is not measured yet and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("ISTHMUS_SHARED", "../shared")))
    parser.add_argument("--work", type=Path, help="keeps spaces and finished rows; default: nowhere")
    parser.add_argument("--seeds", type=int, default=5, help="drawings of the demo's world and of few texts")
    parser.add_argument("--trained-seeds", type=int, default=3, help="seeds of the trained methods on real spaces")
    parser.add_argument("--reference", type=Path, help="the papers' recipe as a script that takes an .npz")
    parser.add_argument("--kept", action="store_true", help="measure nothing: write the rows that --work keeps")
    parser.add_argument("--methods", help="only these, with commas")
    parser.add_argument("--variants", help="only these overlaps, with commas")
    parser.add_argument("--only", help="only benchmarks whose name begins so")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "quality.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = given.work or Path(folder)
        write(given.out, {"rows": measure(given, work)})


if __name__ == "__main__":
    main()
