"""Ctrl-C: exit code 130, one line, the checkpoints kept; the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import isthmus

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    texts = [f"t{i}" for i in range(300)]
    for name, modality, dim in (("clip", "image", 16), ("clap", "audio", 12)):
        content = {"text": (texts, rng.normal(size=(300, dim))), modality: (texts, rng.normal(size=(300, dim)))}
        isthmus.make_space(folder / f"{name}.space", content)
    return folder


def command(out: str, *, checkpoint_seconds: float = 30) -> list[str]:
    settings = [
        "--set",
        "members=1",
        "--set",
        "epochs=80",
        "--set",
        "batch_size=64",
        "--set",
        f"checkpoint_seconds={checkpoint_seconds}",
    ]
    both = ["clip.space", "clap.space", "--via", "text"]
    return [sys.executable, "-m", "isthmus", "extend", *both, "--out", out, *settings, "--seed", "3", "--quiet"]


def test_an_interrupted_training_says_so_and_goes_on_by_the_same_command(world: Path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    checkpoints = world / ".x.bridge.checkpoints"
    busy = command("x.bridge", checkpoint_seconds=0.05)
    process = subprocess.Popen(busy, cwd=world, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 120
    while not any(checkpoints.glob("*.safetensors")):
        assert process.poll() is None, f"the training ended before it was stopped: {process.communicate()[1]}"
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.splitlines() == ["Interrupted: the same command goes on from the last checkpoint or whole shard."]
    assert any(checkpoints.iterdir())
    assert not (world / "x.bridge").exists()
    subprocess.run(command("x.bridge"), cwd=world, check=True, timeout=300, env=environment)
    assert (world / "x.bridge" / "bridge.json").is_file()
    assert not checkpoints.exists()
