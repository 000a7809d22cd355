"""SIGKILL at any moment, in a batch, a shard or the last rename: the next run ends with the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isthmus.encoders.pipeline.encode import encode
from isthmus.spaces.space import open_space

ITEMS, BATCH = 120, 5
TESTS = Path(__file__).resolve().parents[1]

SCRIPT = """
import sys
from isthmus.encoders.pipeline.encode import encode
from tiny_encoder import TinyEncoder
encode(sys.argv[1], encoder=TinyEncoder(slow=0.02), into=sys.argv[2], name="s", batch_size=5, shard_rows=17,
       workers=int(sys.argv[3]), max_rejected=1.0, quiet=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(ITEMS):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    for number in (13, 60, 61, 119):
        (folder / f"{number:03d}.png").write_bytes(b"broken")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def start(folder: Path, space: Path, workers: int, log: Path) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)]), "TINY_LOG": str(log)}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), str(space), str(workers)], env=env)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize(("workers", "most"), [(0, 10), (2, 3)])
def test_killed_again_and_again_it_ends_with_the_same_bytes(folder: Path, tmp_path: Path, workers: int, most: int):
    from tiny_encoder import TinyEncoder

    encode(
        folder, encoder=TinyEncoder(), into=tmp_path / "whole.space", name="s", batch_size=BATCH, shard_rows=17,
        workers=0, max_rejected=1.0, quiet=True,
    )  # fmt: skip
    rng, log, space = random.Random(workers), tmp_path / "log", tmp_path / "s.space"
    log.touch()
    kills = 0
    while kills < most:
        process = start(folder, space, workers, log)
        # Let it come to the loop, then kill it a random few batches later: the log grows by a line a batch.
        seen, stop = log.stat().st_size, rng.choice([0, 2, 4, 6])
        deadline = time.monotonic() + 60
        while process.poll() is None and log.stat().st_size - seen < stop + 2 and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.03))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills >= most // 2, "it ended before it could be killed often enough to show anything"
    assert start(folder, space, workers, log).wait(timeout=120) == 0
    assert files(space) == files(tmp_path / "whole.space")
    assert len(open_space(space)["image"]) == ITEMS - 4
    encoded = sum(int(line) for line in log.read_text().split())
    assert encoded <= ITEMS - 4 + kills * BATCH, "more than one batch a kill was encoded twice"


def test_no_process_stays_behind_a_killed_one(folder: Path, tmp_path: Path):
    log = tmp_path / "log"
    log.touch()
    process = start(folder, tmp_path / "s.space", 2, log)
    while log.stat().st_size < 4 and process.poll() is None:
        time.sleep(0.01)
    children = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(children) >= 2
    deadline = time.monotonic() + 20
    while any(alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [child for child in children if alive(child)]


def children_of(pid: int) -> list[int]:
    task = Path(f"/proc/{pid}/task/{pid}/children")
    if not task.exists():
        pytest.skip("needs /proc")
    children = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        children |= {int(child) for child in (thread / "children").read_text().split()}
    return sorted(children)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
