"""Do the papers' ablations keep their sign on real embeddings? One row changes one thing of the defaults.

    python benchmarks/ablations.py --shared ../shared --seeds 0,1 --out benchmarks/results/ablations.json

Every row trains one projector for three epochs, a third of the default's length, so that the whole grid takes minutes.
The benchmark is sound to picture of the shared data (245 clips, 371 images), mean average precision of both directions.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import isthmus
from isthmus.recipes.extend import ExtendConfig

DENSE = ("leaf-base", "leaf-overlap", "overlap-base", "overlap-overlap")
BUDGET: dict[str, Any] = {"members": 1, "epochs": 3}
ROWS: dict[str, dict[str, dict[str, Any]]] = {
    "default": {"all of the below at their defaults": {}},
    "pseudo pairs start from": {
        "text": {"centric": ("text",)},
        "audio": {"centric": ("audio",)},
        "image": {"centric": ("image",)},
        "text and audio": {"centric": ("text", "audio")},
        "text and image": {"centric": ("text", "image")},
        "audio and image": {"centric": ("audio", "image")},
    },
    "objective": {
        "audio-image only": {"align": ("leaf-base",)},
        "audio-text only": {"align": ("leaf-overlap",)},
        "text-text only": {"align": ("overlap-overlap",)},
        "text-image only": {"align": ("overlap-base",)},
        "through the text (text-text, text-image)": {"align": ("overlap-overlap", "overlap-base")},
    },
    "f_l": {"none": {"leaf_layer": "none"}, "MLP": {"leaf_layer": "mlp"}},
    "f_m": {"one linear layer": {"blocks": 0}, "1 block": {"blocks": 1}, "3 blocks": {"blocks": 3}},
    "temperature of InfoNCE": {"0.02": {"temperature": 0.02}, "0.1": {"temperature": 0.1}},
    "weight of the intra loss": {
        "0": {"intra_weight": 0.0},
        "0.01": {"intra_weight": 0.01},
        "1": {"intra_weight": 1.0},
    },
    "noise cosine": {"1 (none)": {"noise_cosine": 1.0}, "0.8": {"noise_cosine": 0.8}, "0.4": {"noise_cosine": 0.4}},
    "ours": {
        "Xavier initialisation": {"initialization": "xavier"},
        "BatchNorm apart": {"batch_norm": "separate"},
        "aggregates not normalised": {"normalize_aggregates": False},
        "preset auto": {"preset": "auto"},
    },
}


def main() -> None:
    """Run every row over the seeds and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("ISTHMUS_SHARED", "../shared")))
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ablations.json")
    given = parser.parse_args()
    data, seeds = given.shared / "data" / "embeddings", [int(s) for s in given.seeds.split(",")]
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for space, modality in (("picture", "text"), ("picture", "image"), ("sound", "text"), ("sound", "audio")):
            source = data / space / f"{modality}.parquet"
            isthmus.import_embeddings(source, work / f"{space}.space", modality=modality, name=space, quiet=True)
        for name, file, modality in (("sound", "sound_audio", "audio"), ("picture", "picture_image", "image")):
            source = data / "test" / f"{file}.parquet"
            isthmus.import_embeddings(source, work / f"{file}.space", modality=modality, name=name, quiet=True)
        base, leaf = isthmus.open_space(work / "picture.space"), isthmus.open_space(work / "sound.space")
        query = isthmus.open_space(work / "sound_audio.space")["audio"]
        gallery = isthmus.open_space(work / "picture_image.space")["image"]
        for group, rows in ROWS.items():
            for row, settings in rows.items():
                started, scores = time.perf_counter(), []
                for seed in seeds:
                    config = ExtendConfig(**BUDGET, **settings)
                    bridge = isthmus.extend(base, leaf, via="text", config=config, seed=seed, quiet=True)
                    x, y = bridge.project(query), bridge.project(gallery)
                    pairs = data / "test" / "pairs_sound_picture.parquet"
                    found = isthmus.evaluate_retrieval((query.ids, x), (gallery.ids, y), pairs, bootstrap=0)
                    scores.append(found.to_dict()["mean"]["map"])
                results.append(
                    {
                        "group": group,
                        "row": row,
                        "settings": settings,
                        "map": statistics.mean(scores),
                        "map_std": float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0,
                        "scores": scores,
                        "seconds": time.perf_counter() - started,
                    }
                )
                print(f"{group}: {row}: {statistics.mean(scores):.4f} {scores}", flush=True)
                given.out.parent.mkdir(parents=True, exist_ok=True)
                given.out.write_text(json.dumps({"seeds": seeds, "budget": BUDGET, "rows": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
