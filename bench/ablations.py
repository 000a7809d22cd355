"""Do the papers' ablations keep their sign on real embeddings? `configs/ablations-paper.toml` on the shared data.

    python bench/ablations.py --shared ../shared --out bench/results/ablations.json

Imports the embeddings as spaces and runs `isthmus ablate`; killed at any moment, the same command goes on. The second
benchmark of the grid is made here: a clip's true names are those of classes and things with its label among their
synonyms ("a photo of a cello", "the sound of cello"); clips whose label is no such name enter no average.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import isthmus

ROOT = Path(__file__).resolve().parents[1]
SPACES = {
    "picture": {"text": "picture/text", "image": "picture/image"},
    "sound": {"text": "sound/text", "audio": "sound/audio"},
    "sound_audio": {"audio": "test/sound_audio"},
    "picture_image": {"image": "test/picture_image"},
}
NAME_SOURCES = ("classnames", "lvis_name")


def make_spaces(data: Path, work: Path) -> None:
    """Import what is not there yet."""
    for space, modalities in SPACES.items():
        for modality, file in modalities.items():
            if not (work / f"{space}.space" / modality).is_dir():
                put(data / f"{file}.parquet", work / f"{space}.space", modality)
    if not (work / "picture_names.space").is_dir():
        texts = pq.read_table(data / "picture" / "text.parquet")
        names = texts.filter(pc.is_in(texts["source"], pa.array(NAME_SOURCES)))
        pq.write_table(names, work / "names.parquet")
        put(work / "names.parquet", work / "picture_names.space", "text")
        sounds = pq.read_table(data / "test" / "sound_audio.parquet", columns=["id", "label"]).to_pylist()
        pq.write_table(name_pairs(names, sounds), work / "pairs_sound_names.parquet")
    shutil.copyfile(data / "test" / "pairs_sound_picture.parquet", work / "pairs_sound_picture.parquet")


def put(file: Path, space: Path, modality: str) -> None:
    """Import a file; spaces of test items bear the name of the space whose encoder made them."""
    isthmus.import_embeddings(file, space, modality=modality, name=space.stem.split("_")[0], quiet=True)


def name_pairs(names: pa.Table, sounds: list[dict[str, str]]) -> pa.Table:
    """True pairs of clips and names."""
    having: dict[str, list[str]] = {}
    for name in names.select(["id", "text"]).to_pylist():
        for synonym in re.sub("^(a photo of an? |the sound of )", "", name["text"].lower()).split(","):
            having.setdefault(synonym.strip(), []).append(name["id"])
    pairs = [(clip["id"], name) for clip in sounds for name in having.get(clip["label"].lower(), [])]
    return pa.table({"query_id": [a for a, _ in pairs], "gallery_id": [b for _, b in pairs]})


def main() -> None:
    """Import, run the grid, keep its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("ISTHMUS_SHARED", "../shared")))
    parser.add_argument("--seeds", help="default: the grid's")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "ablations", help="spaces and cells")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ablations.json")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    make_spaces(given.shared / "data" / "embeddings", given.work)
    command = [sys.executable, "-m", "isthmus", "ablate", "--config", ROOT / "configs" / "ablations-paper.toml"]
    command += ["--data", given.work, "--out", given.work / "table"]
    command += ["--seeds", given.seeds] if given.seeds else []
    subprocess.run([*command, *(["--dry-run"] if given.dry_run else [])], check=True)
    if not given.dry_run:
        shutil.copyfile(given.work / "table" / "table.json", given.out)


if __name__ == "__main__":
    main()
