"""Do trained bridges hold on real embeddings, and what do they cost beside the papers' recipe written down literally?

Everything goes through the command line, as a user would: import, extend, connect, evaluate. The reference is a plain
script of the two papers (36 epochs, batch 1024); runs of both alternate, so that a noisy machine is noisy for both.

    python benchmarks/real_data.py --shared ../shared --seeds 0,1,2 --out benchmarks/results/real_data.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BENCHMARKS = {
    "sound-picture": ("sound", "audio", "sound_audio", "picture_image", "dev_sound"),
    "shape-picture": ("shape", "point_cloud", "shape_point_cloud", "picture_image_shapes", "dev_shape"),
}


def isthmus(*arguments: object) -> dict[str, Any]:
    """Run a verb and return its JSON, with the seconds of the whole process."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "isthmus", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return {**json.loads(done.stdout), "wall": time.perf_counter() - started}


def make_spaces(data: Path, work: Path) -> float:
    """Import every embedding file; return the seconds it took."""
    started = time.perf_counter()
    for space in ("picture", "sound", "shape"):
        for file in sorted((data / space).glob("*.parquet")):
            isthmus("import", file, "--into", work / f"{space}.space", "--modality", file.stem, "--name", space)
    for leaf, modality, query, gallery, _ in BENCHMARKS.values():
        for name, part, stem in ((leaf, modality, query), ("picture", "image", gallery)):
            file = data / "test" / f"{stem}.parquet"
            isthmus("import", file, "--into", work / f"{stem}.space", "--modality", part, "--name", name)
    return time.perf_counter() - started


def ours(work: Path, data: Path, name: str, method: str, seed: int, settings: list[str]) -> dict[str, Any]:
    """Train a bridge and evaluate it."""
    leaf, modality, query, gallery, _ = BENCHMARKS[name]
    bridge = work / f"{name}-{method}-{seed}.bridge"
    options = [part for setting in settings for part in ("--set", setting)]
    made = isthmus(
        method, work / "picture.space", work / f"{leaf}.space", "--via", "text", "--out", bridge,
        "--seed", seed, "--overwrite", "--quiet", *options,
    )  # fmt: skip
    asked = ["--query", work / f"{query}.space" / modality, "--gallery", work / f"{gallery}.space" / "image"]
    pairs = data / "test" / f"pairs_{name.replace('-', '_')}.parquet"
    found = isthmus("evaluate", bridge, *asked, "--pairs", pairs, *(["--baselines"] if seed == 0 else []))
    return {"seconds": made["wall"], "scores": found}


def reference(shared: Path, work: Path, name: str, method: str, seed: int) -> dict[str, Any]:
    """The papers' recipe written down literally, on the same embeddings."""
    script, data = shared / "tools" / "reference.py", work / f"{BENCHMARKS[name][-1]}.npz"
    started = time.perf_counter()
    command = [sys.executable, str(script), str(data), "--method", method, "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {"seconds": time.perf_counter() - started, "map": json.loads(done.stdout)["scores"]["mean"]["map"]}


def main() -> None:
    """Run everything and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("ISTHMUS_SHARED", "../shared")))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--methods", default="extend,connect")
    parser.add_argument("--set", action="append", default=[], help="setting of the recipes, key=value")
    parser.add_argument("--reference-seeds", default=None, help="default: all of --seeds; '' for none")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "real_data.json")
    given = parser.parse_args()
    data = given.shared / "data" / "embeddings"
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        imported = make_spaces(data, work)
        compared = given.seeds if given.reference_seeds is None else given.reference_seeds
        beside = {int(seed) for seed in compared.split(",") if seed}
        if beside:
            subprocess.run(
                [sys.executable, given.shared / "tools" / "tonpz.py", work], check=True, stdout=subprocess.DEVNULL
            )
        for name in BENCHMARKS:
            for method in given.methods.split(","):
                for seed in map(int, given.seeds.split(",")):
                    mine = ours(work, data, name, method, seed, given.set)
                    theirs = reference(given.shared, work, name, method, seed) if seed in beside else {}
                    rows.append(
                        {"benchmark": name, "method": method, "seed": seed, "isthmus": mine, "reference": theirs}
                    )
                    line = f"mAP {mine['scores']['mean']['map']:.4f} in {mine['seconds']:.1f} s"
                    if theirs:
                        line += f", reference {theirs['map']:.4f} in {theirs['seconds']:.1f} s"
                    print(f"{name} {method} seed {seed}: {line}", flush=True)
                    write(given.out, given.set, imported, rows)
    for line in summaries(rows):
        print(line)


def write(out: Path, settings: list[str], imported: float, rows: list[dict[str, Any]]) -> None:
    """Write what there is so far, so that a run that is cut short leaves its finished rows."""
    out.parent.mkdir(parents=True, exist_ok=True)
    result = {"settings": settings, "cpus": os.cpu_count(), "import_seconds": imported, "summary": summaries(rows)}
    out.write_text(json.dumps({**result, "runs": rows}, indent=1) + "\n")


def summaries(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A summary of every benchmark and method that was run."""
    done = dict.fromkeys((row["benchmark"], row["method"]) for row in rows)
    return [summarize(rows, name, method) for name, method in done]


def summarize(rows: list[dict[str, Any]], name: str, method: str) -> dict[str, Any]:
    """Means over seeds, and the median ratio of seconds of runs that alternated."""
    mine = [row for row in rows if (row["benchmark"], row["method"]) == (name, method)]
    maps = [row["isthmus"]["scores"]["mean"]["map"] for row in mine]
    out: dict[str, Any] = {"benchmark": name, "method": method, "seeds": len(mine), "map": statistics.mean(maps)}
    out["map_std"] = statistics.stdev(maps) if len(maps) > 1 else 0.0
    out["seconds"] = statistics.median(row["isthmus"]["seconds"] for row in mine)
    both = [row for row in mine if row["reference"]]
    if both:
        out["reference_map"] = statistics.mean(row["reference"]["map"] for row in both)
        out["reference_seconds"] = statistics.median(row["reference"]["seconds"] for row in both)
        out["time_ratio"] = statistics.median(row["isthmus"]["seconds"] / row["reference"]["seconds"] for row in both)
    return out


if __name__ == "__main__":
    main()
