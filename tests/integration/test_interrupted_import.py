"""An import killed at any moment is never opened half, and the same command again gives the uninterrupted bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isthmus import import_embeddings, open_space
from isthmus.errors import SpaceError

ROWS, SHARD_ROWS = 300, 100
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

# Imports into FOLDER/N/s.space for every second N, killed by SIGKILL at the N-th call of a function that changes the
# disk, until one import comes to its end. Each runs in a fork of its own, made before any thread.
SCRIPT = """
import os, signal, sys
import pyarrow.compute, pyarrow.parquet
from isthmus.spaces import shards
from isthmus.spaces.importing import importer as importing
source, folder, shard_rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
points = [int(point) for point in sys.argv[4:]] or range(1, 1000, 2)

def watch(module, name, at):
    real = getattr(module, name)
    def watched(*args, **kwargs):
        calls[0] += 1
        if calls[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    setattr(module, name, watched)

calls = [0]
for at in points:
    child = os.fork()
    if not child:
        for name in ("replace", "mkdir", "unlink", "fsync"):
            watch(os, name, at)
        watch(shards.ShardWriter, "write", at)
        into = os.path.join(folder, str(at), "s.space") if len(sys.argv) == 4 else folder
        importing.import_embeddings(source, into, modality="image", shard_rows=shard_rows)
        os._exit(0)
    if os.waitpid(child, 0)[1] != signal.SIGKILL:
        print(at)
        break
"""

PLAIN = "import sys; from isthmus import import_embeddings as i; i(*sys.argv[1:], modality='image', shard_rows=50)"


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def start(source: Path, folder: Path, shard_rows: int = SHARD_ROWS, *points: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(source), str(folder), str(shard_rows), *map(str, points)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def write_source(path: Path, rows: int = ROWS, dim: int = 8) -> Path:
    x = np.random.default_rng(0).normal(size=(rows, dim)).astype(np.float32)
    table = pa.table({"id": [f"i{row}" for row in range(rows)], "embedding": [row for row in x], "n": range(rows)})
    pq.write_table(table, path)
    return path


def test_a_kill_at_every_change_of_the_disk(tmp_path: Path):
    source = write_source(tmp_path / "a.parquet")
    import_embeddings(source, tmp_path / "whole" / "s.space", modality="image", shard_rows=SHARD_ROWS)
    whole = content(tmp_path / "whole" / "s.space")
    out, error = start(source, tmp_path).communicate()
    assert out, error
    assert int(out) > 30
    for at in range(1, int(out), 2):
        into = tmp_path / str(at) / "s.space"
        try:
            rows = len(open_space(into)["image"])
        except SpaceError as error:
            rows, told = 0, str(error)
        else:
            told = "is not whole"  # killed after the last change that counts
        assert rows in (0, ROWS)
        assert any(words in told for words in ("is not whole", "no such space", "no space.json"))
        import_embeddings(source, into, modality="image", shard_rows=SHARD_ROWS)
        assert content(into) == whole, f"killed at {at} of {out}"
        assert not into.parent.exists() or {path.name for path in into.parent.iterdir()} == {"s.space"}


def test_kills_at_random_moments_one_after_another(tmp_path: Path):
    source = write_source(tmp_path / "a.parquet", rows=3_000, dim=64)
    import_embeddings(source, tmp_path / "whole" / "s.space", modality="image", shard_rows=50)
    into, rng, kills = tmp_path / "s.space", random.Random(0), 0
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", PLAIN, str(source), str(into)])
        shards = into / "image" / "_done"
        seen = len(list(shards.glob("*"))) if shards.exists() else 0
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:  # until it has written some more shards
            if shards.exists() and len(list(shards.glob("*"))) > seen + rng.randrange(5):
                break
            time.sleep(0.002)
        process.kill()
        process.wait()
        kills += process.returncode == -signal.SIGKILL
    assert kills >= 2
    assert import_embeddings(source, into, modality="image", shard_rows=50)["total_rows"] == 3_000
    assert content(into) == content(tmp_path / "whole" / "s.space")
    open_space(into).verify()


def test_an_append_that_is_killed_leaves_the_rows_before_it(tmp_path: Path):
    source = write_source(tmp_path / "a.parquet")
    table = pq.read_table(source)
    pq.write_table(table.slice(0, 120), tmp_path / "first.parquet")
    pq.write_table(table.slice(120), tmp_path / "second.parquet")
    into = tmp_path / "s.space"
    import_embeddings(tmp_path / "first.parquet", into, modality="image", shard_rows=SHARD_ROWS)
    for at in (3, 14, 25):
        start(tmp_path / "second.parquet", into, SHARD_ROWS, at).communicate()
        assert open_space(into)["image"].ids == table.column("id").to_pylist()[:120]
    assert open_space(into).unfinished.keys() == {"image"}
    import_embeddings(tmp_path / "second.parquet", into, modality="image", shard_rows=SHARD_ROWS)
    assert open_space(into)["image"].ids == table.column("id").to_pylist()
    open_space(into).verify()
