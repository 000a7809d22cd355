"""Does `--preset paper` score as the papers' recipe written down literally, on both real pairs of spaces?

    python bench/paper_preset.py --shared ../shared --out bench/results/paper_preset.json

Mean average precision on true pairs, both directions averaged, by seed. The papers' batches (4096, 10240) are for
millions of pairs; on pools of 40,000 they stop short of convergence, so each batch size is compared with the literal
recipe at the same one. `extend` brings in the one modality of the leaf that the literal recipe knows (`--modality`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from aggregate import machine, write
from suite import isthmus

LEAVES = {"sound": ("audio", "image"), "shape": ("point_cloud", "image_shapes")}
FILES = ("picture/text", "picture/image", "sound/text", "sound/audio", "shape/text", "shape/image", "shape/point_cloud")
TESTS = ("sound_audio", "picture_image", "shape_point_cloud", "picture_image_shapes")


def make_spaces(data: Path, work: Path) -> None:
    """Import the three spaces, and each file of test items as a space of its own."""
    for file in FILES:
        space, modality = file.split("/")
        source, into = data / f"{file}.parquet", work / f"{space}.space"
        isthmus("import", source, "--into", into, "--name", space, "--modality", modality)
    for file in TESTS:
        space, _, modality = file.removesuffix("_shapes").partition("_")
        source, into = data / "test" / f"{file}.parquet", work / f"{file}.space"
        isthmus("import", source, "--into", into, "--name", space, "--modality", modality)


def preset(work: Path, data: Path, method: str, leaf: str, seed: int, settings: list[str]) -> float:
    """mAP of a bridge that the command line makes."""
    modality, gallery = LEAVES[leaf]
    bridge = work / "x.bridge"
    asked = ["--via", "text", "--out", bridge, "--seed", seed, "--overwrite", "--quiet", "--preset", "paper"]
    asked += ["--modality", modality] if method == "extend" else []
    options = [part for setting in settings for part in ("--set", setting)]
    isthmus(method, work / "picture.space", work / f"{leaf}.space", *asked, *options)
    sides = ["--query", work / f"{leaf}_{modality}.space" / modality]
    sides += ["--gallery", work / f"picture_{gallery}.space" / "image"]
    found = isthmus("evaluate", bridge, *sides, "--pairs", data / "test" / f"pairs_{leaf}_picture.parquet")
    return float(found["mean"]["map"])


def literal(shared: Path, work: Path, method: str, leaf: str, seed: int, batch: int) -> float:
    """mAP of the papers' recipe written down literally, on the same embeddings."""
    script, data = shared / "tools" / "reference.py", work / f"dev_{leaf}.npz"
    asked = ["--method", method, "--seed", str(seed), "--batch", str(batch)]
    done = subprocess.run([sys.executable, str(script), str(data), *asked], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["scores"]["mean"]["map"])


def summary(runs: dict[str, list[float]]) -> dict[str, Any]:
    """Means and deviations over the seeds, and how far apart the two are in the literal recipe's deviations."""
    rows: dict[str, Any] = {}
    for name, scores in runs.items():
        deviation = statistics.stdev(scores) if len(scores) > 1 else 0.0
        rows[name] = {"map": statistics.mean(scores), "deviation": deviation, "seeds": scores}
    return rows


def main() -> None:
    """Run one after another, writing what there is after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("ISTHMUS_SHARED", "../shared")))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--methods", default="extend")
    parser.add_argument("--batches", default="1024,4096")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--skip-literal", action="store_true", help="measure the preset alone")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    data = given.shared / "data" / "embeddings"
    runs: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_spaces(data, work)
        subprocess.run(
            [sys.executable, given.shared / "tools" / "tonpz.py", work], check=True, stdout=subprocess.DEVNULL
        )
        for batch in map(int, given.batches.split(",")):
            for method in given.methods.split(","):
                for leaf in LEAVES:
                    for seed in map(int, given.seeds.split(",")):
                        name = f"{method} {leaf}, batch {batch}"
                        settings = [f"batch_size={batch}", *given.settings]
                        runs.setdefault(f"{name}: preset", []).append(preset(work, data, method, leaf, seed, settings))
                        if not given.skip_literal:
                            score = literal(given.shared, work, method, leaf, seed, batch)
                            runs.setdefault(f"{name}: literal", []).append(score)
                        print(json.dumps({key: runs[key][-1] for key in runs if key.startswith(name)}), flush=True)
                        write(given.out, {"machine": machine(), "rows": summary(runs)})


if __name__ == "__main__":
    main()
