"""A training that is killed for good at any moment goes on to the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from worlds import three_spaces


def command(folder: Path, out: str) -> list[str]:
    settings = [f"--set={s}" for s in ("epochs=30", "batch_size=64", "checkpoint_seconds=0")]
    spaces = [str(folder / "clip.space"), str(folder / "clap.space")]
    return [
        sys.executable,
        "-m",
        "isthmus",
        "extend",
        *spaces,
        "--via",
        "text",
        "--out",
        str(folder / out),
        "--quiet",
        *settings,
    ]


def test_a_killed_training_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    three_spaces(tmp_path, n=300)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command(tmp_path, "whole.bridge"), check=True, env=environment, capture_output=True)
    checkpoints = tmp_path / ".killed.bridge.checkpoints" / "extend-0.safetensors"
    rng, kills = random.Random(0), 0
    for _ in range(3):
        process = subprocess.Popen(command(tmp_path, "killed.bridge"), env=environment, stderr=subprocess.DEVNULL)
        before = checkpoints.stat().st_mtime_ns if checkpoints.exists() else 0
        while process.poll() is None and (not checkpoints.exists() or checkpoints.stat().st_mtime_ns == before):
            time.sleep(0.002)
        time.sleep(rng.random() * 0.1)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills, "the training was over before it could be killed"
    assert not (tmp_path / "killed.bridge").exists() or kills < 3
    done = subprocess.run(
        [*command(tmp_path, "killed.bridge"), "--overwrite"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name in ("projectors.safetensors", "history.jsonl"):
        assert (tmp_path / "whole.bridge" / name).read_bytes() == (tmp_path / "killed.bridge" / name).read_bytes()
    assert not checkpoints.parent.exists()
