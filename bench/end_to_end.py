"""How long does a whole `extend` take beside the papers' recipe written down literally, and to the same quality?

    python bench/end_to_end.py --shared ../shared --out bench/results/end_to_end.json

The sound space joins the picture space through their texts: 40,905 pseudo pairs. Both are whole processes, from reading
the embeddings to trained projectors, and alternate. "equal" has the recipe's epochs (36) and batch (1024) and one
projector; "default" is what `isthmus extend` does by itself. The shorter runs say how early the recipe's own quality
(mean average precision on true pairs that no join has seen, over all seeds) is reached.
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

from aggregate import machine, write
from suite import isthmus

SETTINGS = {
    "equal": ["epochs=36", "batch_size=1024", "learning_rate=0.001", "aggregation_method=exact"],
    "default": [],
    "default, aggregated exactly": ["aggregation_method=exact"],
    "default, 4 epochs": ["epochs=4"],
}


def make_spaces(data: Path, work: Path) -> None:
    """Import the two spaces and the test items."""
    sides = {"picture": ["picture/text", "picture/image"], "sound": ["sound/text", "sound/audio"]}
    sides |= {"test_sound": ["test/sound_audio"], "test_picture": ["test/picture_image"]}
    for space, files in sides.items():
        for file in files:
            modality = Path(file).stem.split("_")[-1]
            into = ("--into", work / f"{space}.space", "--name", space.removeprefix("test_"))
            isthmus("import", data / f"{file}.parquet", *into, "--modality", modality)


def ours(work: Path, data: Path, seed: int, settings: list[str]) -> dict[str, float]:
    """Train a bridge and evaluate it: seconds of the training's process, and mAP."""
    bridge = work / "x.bridge"
    options = [part for setting in settings for part in ("--set", setting)]
    asked = ["--via", "text", "--out", bridge, "--seed", seed, "--overwrite", "--quiet", *options]
    started = time.perf_counter()
    isthmus("extend", work / "picture.space", work / "sound.space", *asked)
    spent = time.perf_counter() - started
    sides = ["--query", work / "test_sound.space" / "audio", "--gallery", work / "test_picture.space" / "image"]
    found = isthmus("evaluate", bridge, *sides, "--pairs", data / "test" / "pairs_sound_picture.parquet")
    return {"seconds": spent, "map": found["mean"]["map"]}


def reference(shared: Path, work: Path, seed: int) -> dict[str, float]:
    """The papers' recipe written down literally, on the same embeddings."""
    script, data = shared / "tools" / "reference.py", work / "dev_sound.npz"
    started = time.perf_counter()
    command = [sys.executable, str(script), str(data), "--method", "extend", "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {"seconds": time.perf_counter() - started, "map": json.loads(done.stdout)["scores"]["mean"]["map"]}


def run(shared: Path, work: Path, seed: int, names: list[str]) -> dict[str, dict[str, float]]:
    """Seconds and mAP of the recipe and of each setting, for one seed."""
    found = {"recipe": reference(shared, work, seed)}
    for name in names:
        found[name] = ours(work, shared / "data" / "embeddings", seed, SETTINGS[name])
    return found


def summary(runs: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians of the ratios of runs that stood side by side, and means of the scores, by which a quality is reached:
    a draw's own score is off by 0.01."""
    out: dict[str, Any] = {}
    for name in runs[0]:
        ratios = [one["recipe"]["seconds"] / one[name]["seconds"] for one in runs]
        out[name] = {
            "seconds": statistics.median(one[name]["seconds"] for one in runs),
            "recipe_over_this": statistics.median(ratios),
            "map": statistics.mean(one[name]["map"] for one in runs),
            "reaches_the_recipe": statistics.mean(one[name]["map"] - one["recipe"]["map"] for one in runs) >= 0.0,
        }
    good = {n: row["recipe_over_this"] for n, row in out.items() if row["reaches_the_recipe"] and n != "recipe"}
    best = max(good, key=lambda n: good[n], default=None)
    return {"rows": out, "to_its_quality": {"settings": best, "recipe_over_this": good[best] if best else None}}


def main() -> None:
    """Run seed after seed, writing what there is after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("ISTHMUS_SHARED", "../shared")))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="one seed, and none of the runs in between")
    given = parser.parse_args()
    seeds = [0] if given.quick else [int(seed) for seed in given.seeds.split(",")]
    names = ["equal", "default"] if given.quick else list(SETTINGS)
    runs: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_spaces(given.shared / "data" / "embeddings", work)
        tool = given.shared / "tools" / "tonpz.py"
        subprocess.run([sys.executable, tool, work], check=True, stdout=subprocess.DEVNULL)
        for seed in seeds:
            runs.append(run(given.shared, work, seed, names))
            found = {"machine": machine(), "seeds": seeds[: len(runs)], **summary(runs), "runs": runs}
            print(json.dumps({"seed": seed, **runs[-1]}, indent=1), flush=True)
            write(given.out, found)
    print(json.dumps(found["rows"], indent=1))


if __name__ == "__main__":
    main()
