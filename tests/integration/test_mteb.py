"""A task of MTEB on the SentenceTransformer that a bridge is exported as gives the figures of `isthmus evaluate`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import isthmus
import tiny_models
from isthmus.bridges.bridge import Bridge
from isthmus.export.export import export_bridge

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
WORDS = ("a dog", "cat", "a photo of", "red", "blue", "the", "small", "big", "car", "tree")


def environment() -> dict[str, str]:
    """This process's variables without those that would lend another environment its packages."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return kept | {"HF_HUB_OFFLINE": "1"}


@pytest.fixture
def python(tmp_path: Path) -> str:
    """The interpreter of an environment with MTEB, without isthmus; `ISTHMUS_MTEB_PYTHON` names one that is there."""
    if there := os.environ.get("ISTHMUS_MTEB_PYTHON"):
        return there
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "fresh")], check=True)
    made = str(tmp_path / "fresh" / "bin" / "python")
    pins = ["-c", str(ROOT / "constraints" / "cpu.txt")]
    wanted = ["mteb>=2", "sentence-transformers>=6", "pillow"]
    subprocess.run([made, "-m", "pip", "install", "-q", *pins, *wanted], check=True, env=environment(), timeout=1500)
    return made


def test_a_task_of_local_files_has_the_figures_of_evaluate(tmp_path: Path, python: str) -> None:
    pytest.importorskip("sentence_transformers.sentence_transformer")
    from PIL import Image

    rng, names = np.random.default_rng(0), [f"p{n:02d}" for n in range(40)]
    files = tmp_path / "files"
    files.mkdir()
    for name in names:
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(files / f"{name}.png")
    captions = {name: f"{WORDS[n % 10]} {WORDS[n // 10]} {n}" for n, name in enumerate(names)}
    (files / "captions.json").write_text(json.dumps(captions))
    (tmp_path / "texts.csv").write_text("id,text\n" + "".join(f"{n},{text}\n" for n, text in captions.items()))
    (tmp_path / "pairs.csv").write_text("query_id,gallery_id\n" + "".join(f"{name},{name}\n" for name in names))

    encoder = f"clip:{tiny_models.save_clip(tmp_path / 'clip')}"
    for source, modality, ids in ((files, "image", "stem"), (tmp_path / "texts.csv", "text", "id")):
        options = {"modality": modality, "ids": ids, "dtype": "float32", "workers": 0, "quiet": True}
        isthmus.encode(source, encoder=encoder, into=tmp_path / "clip.space", **options)
    space = isthmus.open_space(tmp_path / "clip.space")
    route = [{"kind": "normalize"}, {"kind": "linear", "weight": "w", "bias": None}, {"kind": "normalize"}]
    arrays = {"w": rng.standard_normal((20, space.dim)).astype(np.float32)}
    routes = {"clip/image": route, "clip/text": route}
    bridge = replace(Bridge.over(space), dim=20, routes=routes, arrays=arrays)
    export_bridge(bridge, tmp_path / "st", format="sentence-transformers", encoders={"clip": encoder})

    task = [python, str(ROOT / "tests" / "mteb_task.py"), str(tmp_path / "st"), str(files), str(tmp_path / "out.json")]
    subprocess.run(task, check=True, env=environment(), timeout=600)
    theirs = json.loads((tmp_path / "out.json").read_text())
    pairs = tmp_path / "pairs.csv"
    ours = isthmus.evaluate_bridge(bridge, query=space["text"], gallery=space["image"], pairs=pairs)["query_to_gallery"]
    assert 0 < ours["r@1"] < 1
    for k in (1, 5, 10):
        assert theirs[f"recall_at_{k}"] == pytest.approx(ours[f"r@{k}"], abs=1e-6)
    # MTEB rounds its figures to five decimals: recalls of 40 queries have three, mean average precision has more.
    assert theirs["map_at_1000"] == pytest.approx(ours["map"], abs=5.1e-6)
