"""The audio-visual benchmarks by name: miniatures read, encoded by the demo's encoders, scored through a bridge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from isthmus.bridges.bridge import Bridge
from isthmus.demo.world import SPLITS, phrasings
from isthmus.encoders import Item
from isthmus.encoders.pipeline.encode import encode
from isthmus.errors import CheckFailed
from isthmus.evaluation.benchmarks.declaration import load_benchmark
from isthmus.evaluation.suite.run_suite import run_suite
from isthmus.recipes.extend import extend
from isthmus.spaces.space import open_space
from miniatures_av import (
    AUDIOSET,
    AVE,
    FLICKR_CLIPS,
    NUMBERS,
    QUARTERS,
    VGGSS_CLIPS,
    VGGSS_EXTRA,
    make_audioset,
    make_ave,
    make_esc50,
    make_flickr,
    make_music,
    make_urbansound,
    make_vggss,
    save_picture,
    save_sound,
    write,
)

MAKERS = {"ave": make_ave, "flickr": make_flickr, "vggss": make_vggss, "music": make_music, "esc50": make_esc50}
MAKERS |= {"urbansound": make_urbansound, "audioset": make_audioset}


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Bridge:
    """Pictures and sounds of numbers, joined through the texts that both encoders read, without a pair."""
    folder = tmp_path_factory.mktemp("spaces")
    numbers = SPLITS["memory"].numbers
    texts = [Item(f"{n}-{i}", text=text) for n in numbers for i, text in enumerate(phrasings(n)[:4])]
    save_picture(folder / "1.png", numbers[0])
    save_sound(folder / "1.wav", numbers[0])
    for name, kind, file in (("picture", "image", "1.png"), ("sound", "audio", "1.wav")):
        common: dict[str, Any] = {
            "encoder": f"toy:{name}",
            "into": folder / f"{name}.space",
            "quiet": True,
            "workers": 0,
        }
        encode(texts, modality="text", **common)
        encode(folder / file, modality=kind, **common)
    base, leaf = (open_space(folder / f"{name}.space") for name in ("picture", "sound"))
    return extend(base, leaf, via="text", method="dictionary", quiet=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


def run(bridge: Bridge, name: str, folder: Path, tmp_path: Path, **settings: Any) -> dict[str, Any]:
    report = run_suite(bridge, name, folder, cache=tmp_path / "cache", quiet=True, bootstrap=50, **settings)
    json.dumps(report)
    assert report["published"] == [row.model_dump() for row in load_benchmark(name).published]
    return report


def row(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in report["rows"] if one["name"] == name)


@pytest.mark.parametrize(
    ("name", "folder", "n", "missing"),
    [
        ("ave", "ave", len(AVE), 0),
        ("flickr-soundnet", "flickr", len(FLICKR_CLIPS), 0),
        ("vggss", "vggss", len(VGGSS_CLIPS), 0),
    ],
)
def test_retrieval(name: str, folder: str, n: int, missing: int, bridge: Bridge, data: dict[str, Path], tmp_path: Path):
    report = run(bridge, name, data[folder], tmp_path)
    assert (report["n_query"], report["n_gallery"], report["n_pairs"], report["missing"]) == (n, n, n, missing)
    assert 0.0 <= row(report, "bridge")["mean"]["r@1"] <= 1.0
    assert row(report, "random")["mean"]["r@1"] == pytest.approx(1 / n)


def test_retrieval_finds_what_is_dialled(bridge: Bridge, data: dict[str, Path], tmp_path: Path):
    assert row(run(bridge, "ave", data["ave"], tmp_path), "bridge")["mean"]["r@1"] >= 0.5


@pytest.mark.parametrize(
    ("name", "folder", "n", "classes"),
    [("esc-50", "esc50", 6, 3), ("urbansound8k", "urbansound", 4, 3), ("audioset", "audioset", 3, 4)],
)
def test_classification(
    name: str, folder: str, n: int, classes: int, bridge: Bridge, data: dict[str, Path], tmp_path: Path
):
    report = run(bridge, name, data[folder], tmp_path)
    assert (report["n_query"], report["classes"]) == (n, classes)
    figure = "map" if name == "audioset" else "accuracy@1"
    assert 0.0 <= row(report, "bridge")[figure] <= 1.0
    assert report["missing"] == (1 if name == "audioset" else 0)
    assert report["missing_examples"] == (["gone0000000"] if name == "audioset" else [])
    assert len(AUDIOSET) == 4


def quarters(tmp_path: Path, images: list[str]) -> Path:
    """A detector that proposes the four quarters of every picture."""
    path = tmp_path / "quarters.parquet"
    names = [name for name in images for _ in QUARTERS]
    pq.write_table(pa.table({"image": names, "box": [list(box) for box in QUARTERS] * len(images)}), path)
    return path


@pytest.mark.parametrize(
    ("name", "folder", "n", "sounding", "headline"),
    [
        ("flickr-localization", "flickr", 3, 3, ("ciou", "auc")),
        ("vggss-localization", "vggss", 4, 4, ("ciou", "auc")),
        ("music-solo", "music", 3, 3, ("ciou", "auc")),
        ("extended-flickr", "flickr", 6, 3, ("ap", "max_f1", "loc_acc")),
        ("extended-vggss", "vggss", 7, 4, ("ap", "max_f1", "loc_acc")),
    ],
)
def test_localization(
    name: str,
    folder: str,
    n: int,
    sounding: int,
    headline: tuple[str, ...],
    bridge: Bridge,
    data: dict[str, Path],
    tmp_path: Path,
):
    report = run(bridge, name, data[folder], tmp_path)
    assert (report["n_samples"], report["n_sounding"]) == (n, sounding)
    assert report["n_proposals"] == 39 * report["n_images"]
    assert report["missing"] == (1 if name == "extended-vggss" else 0)
    assert any("sliding windows" in note for note in report["notes"])
    ours = row(report, "bridge")
    assert all(0.0 <= ours[figure] <= 1.0 for figure in headline)
    assert ours["n"] == n


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Extended VGGSS of 40 pictures of four numbers; the silent ones hear a number that is not in their picture."""
    folder = tmp_path_factory.mktemp("scenes")
    names = [f"clip{i:07d}_000000" for i in range(40)]
    rows = []
    for i, name in enumerate(names):
        save_picture(folder / f"frames/{name}.jpg", *NUMBERS[4 * i : 4 * i + 4])
        save_sound(folder / f"audio/{name}.wav", NUMBERS[4 * i + i % 4])
        rows.append({"file": name, "class": "dialling", "bbox": [list(QUARTERS[i % 4])]})
    write(folder / "vggss.json", json.dumps(rows))
    silent = [f"{name},{other},non-sounding\n" for name, other in zip(names, names[1:] + names[:1], strict=True)]
    write(folder / "vggss_test_plus_silent.csv", "video,audio,label\n" + "".join(silent))
    return folder


def test_a_sound_is_found_in_its_quarter(bridge: Bridge, scenes: Path, tmp_path: Path):
    images = [path.stem for path in (scenes / "frames").iterdir()]
    report = run(bridge, "vggss-localization", scenes, tmp_path, proposals=quarters(tmp_path, images), baselines=True)
    assert report["n_proposals"] == 160
    assert row(report, "bridge")["ciou"] >= 0.6
    assert row(report, "random")["ciou"] == pytest.approx(0.25)
    assert row(report, "whole picture")["ciou"] == 0.0


def test_what_sounds_is_told_from_what_does_not(bridge: Bridge, scenes: Path, tmp_path: Path):
    """A picture is surer of its own sound than of another's, and its place is found besides."""
    images = [path.stem for path in (scenes / "frames").iterdir()]
    report = run(bridge, "extended-vggss", scenes, tmp_path, proposals=quarters(tmp_path, images))
    ours = row(report, "bridge")
    assert (report["n_sounding"], ours["n"]) == (40, 80)
    assert ours["loc_acc"] >= 0.6
    assert ours["ap"] >= 0.45


def test_a_silent_sound_is_counted_as_lost(bridge: Bridge, tmp_path: Path):
    folder = make_vggss(tmp_path / "data")
    soundfile.write(folder / f"audio/{VGGSS_EXTRA}.wav", np.zeros(8000), 8000)
    with pytest.raises(CheckFailed, match=r"1 of 5 audio items \(20\.0%\) were rejected"):
        run(bridge, "extended-vggss", folder, tmp_path)
    ours = row(run(bridge, "extended-vggss", folder, tmp_path, max_rejected=0.5), "bridge")
    assert (ours["n"], ours["lost"]) == (6, 1)


def test_crops_are_encoded_once(bridge: Bridge, data: dict[str, Path], tmp_path: Path):
    first = run(bridge, "flickr-localization", data["flickr"], tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}
    again = run(bridge, "flickr-localization", data["flickr"], tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}
    ours, same = (dict(row(report, "bridge"), seconds=0) for report in (first, again))
    assert ours == same
    assert not list((tmp_path / "cache").rglob("*.jpg")), "no part of a picture is written"
