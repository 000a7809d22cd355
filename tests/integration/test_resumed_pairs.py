"""One seed gives one bridge, whatever stopped the run on the way: pseudo pairs and training, on several threads."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from isthmus.core import kernels
from isthmus.core.products import SWITCH, WAYS
from isthmus.spaces.space import make_space

THREADS = "2"


class Run:
    """A verb of the command line on two spaces, in processes of its own."""

    def __init__(self, folder: Path, verb: str, way: str, *settings: str) -> None:
        self.folder, self.verb, self.settings = folder, verb, settings
        self.environment = {**os.environ, "OMP_NUM_THREADS": THREADS, SWITCH: way}

    def command(self, out: str) -> list[str]:
        spaces = [str(self.folder / f"{name}.space") for name in ("picture", "sound")]
        line = [sys.executable, "-m", "isthmus", self.verb, *spaces, "--via", "text", "--out", str(self.folder / out)]
        trained = {"connect": ["--method", "c-mcr"], "extend": ["--method", "ex-mcr"]}[self.verb]
        return [*line, *trained, "--quiet", "--overwrite", *(f"--set={setting}" for setting in self.settings)]

    def finish(self, out: str) -> str:
        """Run to the end; the hash of what was learned."""
        done = subprocess.run(self.command(out), env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        files = [(self.folder / out / name).read_bytes() for name in ("projectors.safetensors", "history.jsonl")]
        return hashlib.sha256(b"".join(files)).hexdigest()

    def kill(self, out: str, after: float, *, once: str | None = None) -> bool:
        """Start and kill for good some seconds later, counted from when a file of that name is there; False if done."""
        process = subprocess.Popen(self.command(out), env=self.environment, stderr=subprocess.DEVNULL)
        checkpoints = self.folder / f".{out}.checkpoints"
        while once and process.poll() is None and not list(checkpoints.rglob(once)):
            time.sleep(0.005)
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
        return False


def low_rank_spaces(folder: Path) -> None:
    """Spaces as real encoders make them, few directions of many: what a compressed scan is for."""
    rng = np.random.default_rng(0)
    meanings = {name: rng.standard_normal((n, 8)) for name, n in (("text", 1500), ("image", 1200), ("audio", 900))}
    for space, dim, names in (("picture", 48, ("text", "image")), ("sound", 40, ("text", "audio"))):
        axes = rng.standard_normal((8, dim))
        items = {}
        for name in names:
            rows = (meanings[name] @ axes + 0.05 * rng.standard_normal((len(meanings[name]), dim))).astype(np.float32)
            items[name] = ([f"{name}{i}" for i in range(len(rows))], rows)
        make_space(folder / f"{space}.space", items, name=space, encoder=f"test:{space}")


def test_a_compressed_run_repeats_and_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    low_rank_spaces(tmp_path)
    settings = ("aggregation_method=compressed", "epochs=2", "batch_size=256", "checkpoint_seconds=0")
    run = Run(tmp_path, "extend", "", *settings)
    whole = run.finish("a.bridge")
    record = json.loads((tmp_path / "a.bridge" / "bridge.json").read_text(encoding="utf-8"))
    hops = record["record"]["effective_neighbours"] if "record" in record else record["effective_neighbours"]
    assert {hop["method"] for hop in hops.values()} == {"compressed"}
    assert run.finish("b.bridge") == whole
    assert run.kill("c.bridge", 0.0, once="extend-0.safetensors")
    # What was aggregated lies beside the checkpoint, and other threads do not make it anew.
    assert list((tmp_path / ".c.bridge.checkpoints" / "pairs").glob("*/about.json"))
    assert run.finish("c.bridge") == whole


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("verb", ["extend", "connect"])
def test_default_runs_on_real_spaces_end_in_the_same_bytes(shared: Path, tmp_path: Path, verb: str, way: str) -> None:
    """Default settings and real sizes: three runs of one seed, and one that is killed ten times on its way."""
    if way == "integer" and not kernels.available():
        pytest.skip(str(kernels.missing()))
    for space, modality in (("picture", "text"), ("picture", "image"), ("sound", "text"), ("sound", "audio")):
        source = shared / "data" / "embeddings" / space / f"{modality}.parquet"
        into = [str(source), "--into", str(tmp_path / f"{space}.space"), "--modality", modality, "--quiet"]
        subprocess.run([sys.executable, "-m", "isthmus", "import", *into], check=True, capture_output=True)
    run, rng = Run(tmp_path, verb, way), random.Random(verb + way)
    started = time.monotonic()
    whole = run.finish("a.bridge")
    seconds = time.monotonic() - started
    assert {run.finish("b.bridge"), run.finish("c.bridge")} == {whole}
    # Later kills strike later, for each run goes on from the last checkpoint; none is let to its end.
    killed = sum(run.kill("killed.bridge", 0.2 * seconds * rng.random()) for _ in range(10))
    assert killed == 10
    assert run.finish("killed.bridge") == whole
