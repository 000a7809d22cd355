"""Captions, ImageNet and 3D by name: miniatures read, encoded by the demo's encoders, scored through one bridge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from isthmus.bridges.bridge import Bridge
from isthmus.demo.world import SPLITS, phrasings
from isthmus.encoders import Item
from isthmus.encoders.pipeline.encode import encode
from isthmus.errors import FormatError
from isthmus.evaluation.benchmarks.declaration import load_benchmark
from isthmus.evaluation.benchmarks.templates import own_templates
from isthmus.evaluation.suite.run_suite import run_suite
from isthmus.recipes.extend import extend
from isthmus.spaces.space import open_space
from miniatures_3d import SCANOBJECTNN, make_lvis_pictures, make_lvis_uni3d, make_modelnet_txt
from miniatures_av import save_picture, save_sound, write
from miniatures_text import MAKERS as CAPTION_MAKERS

MAKERS = {
    **CAPTION_MAKERS,
    "modelnet40": make_modelnet_txt,
    "scanobjectnn": SCANOBJECTNN["h5"],
    "objaverse-lvis": make_lvis_uni3d,
    "objaverse-lvis-images": make_lvis_pictures,
}


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Bridge:
    """Pictures, sounds and shapes of numbers: sounds joined through texts, shapes through pictures, without a pair."""
    folder = tmp_path_factory.mktemp("spaces")
    numbers = SPLITS["memory"].numbers
    texts = [Item(f"{n}-{i}", text=text) for n in numbers for i, text in enumerate(phrasings(n)[:3])]
    for number in numbers:
        save_picture(folder / f"pictures/{number}.png", number)
    save_sound(folder / "1.wav", numbers[0])
    shape = make_modelnet_txt(folder / "shapes")
    tasks = {
        "picture": (("text", texts), ("image", folder / "pictures")),
        "sound": (("text", texts), ("audio", folder / "1.wav")),
        "shape": (("image", folder / "pictures"), ("point_cloud", _one_cloud(shape))),
    }
    for name, sides in tasks.items():
        for modality, what in sides:
            into = folder / f"{name}.space"
            encode(what, encoder=f"toy:{name}", into=into, modality=modality, quiet=True, workers=0)
    base, sound, shapes = (open_space(folder / f"{name}.space") for name in tasks)
    joined = extend(base, sound, via="text", method="dictionary", quiet=True)
    return extend(joined, shapes, via="image", method="dictionary", quiet=True)


def _one_cloud(folder: Path) -> list[Item]:
    reading = load_benchmark("modelnet40").read(folder, folder / "work", {"points": 64})
    return list(reading.task.query.items[:1])  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


def run(bridge: Bridge, name: str, folder: Path, tmp_path: Path, **settings: Any) -> dict[str, Any]:
    options = {"modelnet40": {"points": 256}, "objaverse-lvis-images": {"image": "thumbnail"}}.get(name, {})
    settings = {"options": options, **settings}
    report = run_suite(bridge, name, folder, cache=tmp_path / "cache", quiet=True, bootstrap=20, **settings)
    json.dumps(report)
    return report


def row(report: dict[str, Any], name: str = "bridge") -> dict[str, Any]:
    return next(one for one in report["rows"] if one["name"] == name)


@pytest.mark.parametrize(
    ("name", "queries", "gallery", "missing", "least"),
    [
        ("audiocaps", 25, 5, 1, 0.6),
        ("clotho", 25, 5, 1, 0.6),
        ("coco", 31, 6, 0, 0.6),
        ("flickr30k", 20, 4, 0, 0.6),
        ("xm3600", 23, 5, 1, 0.4),
        ("objaverse-lvis-images", 4, 4, 1, 0.4),
    ],
)
def test_retrieval(name, queries, gallery, missing, least, bridge, data, tmp_path):
    report = run(bridge, name, data[name], tmp_path)
    assert (report["n_query"], report["n_gallery"], report["missing"]) == (queries, gallery, missing)
    assert row(report)["mean"]["r@1"] >= least
    assert report["published"] == [one.model_dump() for one in load_benchmark(name).published]


@pytest.mark.parametrize(
    ("name", "n", "classes", "templates"),
    [
        ("imagenet", 6, 3, "images"),
        ("modelnet40", 5, 40, "shapes"),
        ("scanobjectnn", 5, 15, "shapes"),
        ("objaverse-lvis", 5, 4, "shapes"),
    ],
)
def test_classification(name, n, classes, templates, bridge, data, tmp_path):
    report = run(bridge, name, data[name], tmp_path)
    assert (report["n_query"], report["classes"], report["missing"]) == (n, classes, 0)
    assert 0.0 <= row(report)["accuracy@1"] <= row(report).get("accuracy@5", 1.0) <= 1.0
    assert row(report, "random")["accuracy@1"] == pytest.approx(1 / classes)
    assert report["templates"] == own_templates(templates).record()


def test_numbers_are_told_apart_by_their_names(bridge, data, tmp_path):
    """With the names alone for prompts, as the demo's encoder reads few frames."""
    prompts = write(tmp_path / "prompts.json", json.dumps({"a": ["{}"], "b": ["room {c}"]}))
    report = run(bridge, "imagenet", data["imagenet"], tmp_path, templates=f"{prompts}:a")
    assert row(report)["accuracy@1"] >= 0.6
    assert report["templates"]["name"] == "a"
    assert report["templates"]["source"] == "prompts.json"


def test_a_second_run_encodes_and_writes_nothing(bridge, data, tmp_path):
    run(bridge, "modelnet40", data["modelnet40"], tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.np*")}
    run(bridge, "modelnet40", data["modelnet40"], tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.np*")}
    assert any(path.suffix == ".npz" for path in before)


@pytest.mark.parametrize("name", MAKERS)
def test_a_folder_without_the_data_set_is_told_what_is_expected(name, bridge, tmp_path):
    with pytest.raises(FormatError, match=r"not found|holds no layout.*Expected"):
        run(bridge, name, tmp_path, tmp_path)
