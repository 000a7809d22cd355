"""The verb `official`: a released head as a bridge."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import isthmus
from isthmus.bridges.official import HEADS
from isthmus.cli import main


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights under the names and shapes of `ex_clap.pt`."""
    monkeypatch.chdir(tmp_path)
    draw = torch.Generator().manual_seed(0)
    state = {name: torch.rand(tuple(shape), generator=draw) for name, shape in HEADS["ex_clap"].shapes.items()}
    counts = {name: torch.tensor(3080) for name in state if name.endswith("num_batches_tracked")}
    torch.save({**state, **counts}, "ex_clap.pt")
    return Path("ex_clap.pt")


def test_a_released_head_becomes_a_bridge_of_the_users_spaces(head: Path, capsys: pytest.CaptureFixture[str]):
    rows = np.random.default_rng(0).standard_normal((6, 512)).astype(np.float32)
    ids = [f"sound-{row}" for row in range(6)]
    clap = isthmus.make_space("mine.space", {"audio": (ids, rows), "text": (ids, rows)}, encoder="clap:of-the-paper")
    assert main(["official", str(head), "--space", "clap=mine.space", "--out", "official.bridge", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["record"]["recipe"] == "official"
    assert set(report["routes"]) == {"clip/image", "clip/text", "mine/audio", "mine/text"}
    projected = isthmus.load_bridge("official.bridge").project(clap["audio"])
    same = isthmus.load_official(head, spaces={"clap": clap}).project(clap["audio"])
    np.testing.assert_array_equal(projected, same)


def test_what_is_no_released_head_is_one_line(head: Path, capsys: pytest.CaptureFixture[str]):
    torch.save({"weight": torch.zeros(3)}, "other.pt")
    assert main(["official", "other.pt", "--out", "x.bridge"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("FormatError: other.pt")
    assert line.count("\n") == 1
    assert not Path("x.bridge").exists()
