"""Does `--preset paper` score as the papers' recipe written down literally, on both real pairs of spaces?

    python bench/paper_preset.py --shared ../shared --out bench/results/paper_preset.json
    python bench/paper_preset.py --leaves sound --seeds 0 --add --out bench/results/paper_preset.json      a part of it

Mean average precision on true pairs, both directions averaged, by seed. The papers' batches (4096, 10240) are for
millions of pairs; on pools of 40,000 they stop short of convergence, so each batch size is compared with the literal
recipe at the same one. `extend` brings in the one modality of the leaf that the literal recipe knows (`--modality`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from suite import isthmus

sys.path.insert(0, str(Path(__file__).resolve().parent / "common"))
from record import write

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
    """mAP of a bridge that the command line makes; a run that was stopped goes on where its checkpoint is."""
    modality, gallery = LEAVES[leaf]
    bridge = work / f"{method}-{leaf}-{seed}.bridge"
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


def summary(runs: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Means and deviations over the seeds, and how far apart the two recipes are in the literal one's deviations."""
    rows: dict[str, Any] = {}
    for name, scores in sorted(runs.items()):
        values = list(scores.values())
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        rows[name] = {"map": statistics.mean(values), "deviation": deviation, "seeds": dict(sorted(scores.items()))}
        beside = rows.get(name.replace(": preset", ": literal"))
        if name.endswith(": preset") and beside and beside["deviation"]:
            rows[name]["deviations_apart"] = (rows[name]["map"] - beside["map"]) / beside["deviation"]
    return rows


def earlier(out: Path | None) -> dict[str, dict[str, float]]:
    """What an earlier part of the measurement found, by row and seed."""
    if not out or not out.is_file():
        return {}
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    return {name: dict(row["seeds"]) for name, row in rows.items()}


def measured_before() -> dict[str, dict[str, float]]:
    """The literal recipe's scores on sounds, which `bench/end_to_end.py` measured with the same script and seeds."""
    found = json.loads((Path(__file__).resolve().parent / "results" / "end_to_end.json").read_text(encoding="utf-8"))
    scores = {str(seed): run["recipe"]["map"] for seed, run in zip(found["seeds"], found["runs"], strict=True)}
    return {"extend sound, batch 1024: literal": scores}


def main() -> None:
    """Run one after another, writing what there is after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("ISTHMUS_SHARED", "../shared")))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--methods", default="extend,connect")
    parser.add_argument("--leaves", default=",".join(LEAVES))
    parser.add_argument("--batches", default="1024")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--only", choices=("preset", "literal"), help="measure one of the two")
    parser.add_argument("--add", action="store_true", help="to what the result file holds; what it holds is not rerun")
    parser.add_argument("--measured", action="store_true", help="take what end_to_end.json holds of the literal recipe")
    parser.add_argument("--work", type=Path, help="folder that keeps the imported spaces for another part")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    data = given.shared / "data" / "embeddings"
    runs = {**(measured_before() if given.measured else {}), **(earlier(given.out) if given.add else {})}
    with tempfile.TemporaryDirectory() as folder:
        work = given.work or Path(folder)
        if not (work / "dev_shape.npz").exists():
            make_spaces(data, work)
            command = [sys.executable, given.shared / "tools" / "tonpz.py", work]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        cells = itertools.product(
            given.batches.split(","), given.methods.split(","), given.leaves.split(","), given.seeds.split(",")
        )
        for batch, method, leaf, seed in cells:
            settings = [f"batch_size={batch}", *given.settings]
            for side in (given.only,) if given.only else ("literal", "preset"):
                name = f"{method} {leaf}, batch {batch}: {side}"
                if seed in runs.setdefault(name, {}):
                    continue
                if side == "literal":
                    score = literal(given.shared, work, method, leaf, int(seed), int(batch))
                else:
                    score = preset(work, data, method, leaf, int(seed), settings)
                runs[name][seed] = score
                print(f"{name}, seed {seed}: {score:.4f}", flush=True)
                if given.out:
                    write(given.out, {"settings": given.settings, "rows": summary(runs)})


if __name__ == "__main__":
    main()
