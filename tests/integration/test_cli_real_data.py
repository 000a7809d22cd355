"""Real embeddings by the command line alone: spaces that were trained apart, scored on true pairs they never saw."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from isthmus.cli import main

CASES = {
    "sound": ("audio", "sound_audio", "picture_image", "pairs_sound_picture"),
    "shape": ("point_cloud", "shape_point_cloud", "picture_image_shapes", "pairs_shape_picture"),
}

MEASURED = {
    "sound": {"dictionary": (0.416, 0.022), "extend": (0.472, 0.004), "connect": (0.499, 0.022)},
    "shape": {"dictionary": (0.191, 0.014), "connect": (0.347, 0.018)},
}
"""mAP as measured (bench/results/quality.json; the dictionary by this test), and its deviation: over seeds of what is
drawn, else over draws of the test's queries. A run lies above the figure less the deviation."""


def least(leaf: str, method: str) -> float:
    figure, deviation = MEASURED[leaf][method]
    return figure - deviation


@pytest.fixture(scope="module")
def spaces(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All spaces and test items, imported; the test spaces bear the name of the space whose encoder made them."""
    work, data = tmp_path_factory.mktemp("real"), shared / "data" / "embeddings"
    before = Path.cwd()
    os.chdir(work)
    try:
        for name, modalities in {"picture": "image text", "sound": "audio text", "shape": "point_cloud text"}.items():
            for modality in modalities.split():
                take(data / name / f"{modality}.parquet", f"{name}.space", modality)
        for leaf, (modality, query, gallery, _) in CASES.items():
            take(data / "test" / f"{query}.parquet", f"{leaf}-test.space", modality, name=leaf)
            take(data / "test" / f"{gallery}.parquet", f"{leaf}-gallery.space", "image", name="picture")
    finally:
        os.chdir(before)
    return work


def take(source: Path, into: str, modality: str, name: str | None = None) -> None:
    named = ["--name", name] if name else []
    assert main(["import", str(source), "--into", into, "--modality", modality, "--quiet", *named]) == 0


def score(leaf: str, bridge: str, shared: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    modality, _, _, pairs = CASES[leaf]
    capsys.readouterr()
    truth = shared / "data" / "embeddings" / "test" / f"{pairs}.parquet"
    ends = ["--query", f"{leaf}-test.space/{modality}", "--gallery", f"{leaf}-gallery.space/image"]
    assert main(["evaluate", bridge, *ends, "--pairs", str(truth), "--json", *more]) == 0
    report = json.loads(capsys.readouterr().out)
    assert isinstance(report, dict)
    return report


def make(verb: str, leaf: str, out: str, *more: str) -> None:
    both = ["picture.space", f"{leaf}.space"]
    assert main([verb, *both, "--via", "text", "--out", out, "--quiet", "--overwrite", *more]) == 0


@pytest.mark.parametrize("leaf", list(CASES))
def test_a_closed_form_joins_real_spaces(
    leaf: str, spaces: Path, shared: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(spaces)
    assert main(["inspect", "picture.space", f"{leaf}.space", "--via", "text", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["overlap"]["text"]["shared"] == 17_427
    make("extend", leaf, f"{leaf}-dictionary.bridge", "--method", "dictionary", "--center", "leaf")
    report = score(leaf, f"{leaf}-dictionary.bridge", shared, capsys)
    assert report["mean"]["map"] > least(leaf, "dictionary")


@pytest.mark.slow
@pytest.mark.parametrize("leaf", list(CASES))
def test_training_beats_ridge_on_real_spaces(
    leaf: str, spaces: Path, shared: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(spaces)
    make("extend", leaf, f"{leaf}-trained.bridge")
    report = score(leaf, f"{leaf}-trained.bridge", shared, capsys, "--baselines")
    if "extend" in MEASURED[leaf]:
        assert report["mean"]["map"] > least(leaf, "extend")
    assert report["mean"]["map"] > report["baselines"]["ridge"]["mean"]["map"]
    make("connect", leaf, f"{leaf}-connected.bridge")
    assert score(leaf, f"{leaf}-connected.bridge", shared, capsys)["mean"]["map"] > least(leaf, "connect")
