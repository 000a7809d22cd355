"""Kills at any moment: every verb that trains or writes ends in the same result as if nothing had happened.

A run is a process forked from one that has loaded everything, so that hundreds fit into minutes; it is killed by
SIGKILL after a random part of the time that a whole run takes, up to three times, and then run to its end. What it
leaves is compared with the result of a run that was not disturbed, and nothing else may lie beside it.

`python tests/faults/kills.py --kills 200 --out bench/results/faults.json`
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ISTHMUS_KERNELS", "0")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from isthmus.cli.app import run
from isthmus.demo import raw
from isthmus.recipes.closed_form import fit_closed_form_bridge
from worlds import meanings, write_space

SETTINGS = ["--set", "epochs=6", "--set", "batch_size=32", "--set", "checkpoint_seconds=0", "--quiet"]
TWO = ["a.space", "b.space", "--via", "text", "--out", "out.bridge"]
TOYS = ["--encoder=image=toy:picture", "--encoder=audio=toy:sound"]
RUNS: dict[str, list[str]] = {
    "connect c-mcr": ["connect", *TWO, "--method", "c-mcr", *SETTINGS],
    "connect auto": ["connect", *TWO, "--quiet"],
    "extend ex-mcr": ["extend", *TWO, "--method", "ex-mcr", *SETTINGS],
    "extend ridge": ["extend", *TWO, "--method", "ridge", "--quiet"],
    "ablate": ["ablate", "--config", "grid.toml", "--out", "out", "--quiet"],
    "suite": [
        *("suite", "t.bridge", "--benchmark", "own.toml", "--data", ".", "--cache", "out"),
        *("--recipes", "ours", "--seeds", "1,2", "--quiet", "--json"),
    ],
    "project": ["project", "d.bridge", "a.space", "--into", "out.space", "--quiet"],
    "import": ["import", "rows.npy", "--into", "out.space", "--modality", "image", "--quiet"],
    "encode": ["encode", "raw/image", "--encoder", "toy:picture", "--into", "out.space", "--workers", "0", "--quiet"],
    "encode processes": [
        *("encode", "raw/audio", "--encoder", "toy:sound", "--into", "out.space", "--workers", "2", "--quiet"),
        *("--batch-size", "8"),
    ],
    "join": ["join", "raw", "--out", "out.world", *TOYS, "--texts", "raw/texts.txt", "--workers", "0", "--quiet"],
}
"""Name of a run to its command; the first word is the verb."""
GRID = """via = "text"
method = "ex-mcr"
seeds = [0, 1]
[spaces]
base = "a.space"
leaf = "b.space"
[settings]
epochs = 4
batch_size = 32
checkpoint_seconds = 0.0
[grid]
noise_cosine = [0.6, 0.9]
[[evaluate]]
query = "b.space/audio"
gallery = "a.space/image"
pairs = "pairs.csv"
"""
OWN = """task = "retrieval"
reader = "embeddings"
modalities = ["audio", "image"]
[options]
query = "b.space/audio"
gallery = "a.space/image"
pairs = "pairs.csv"
"""
VOLATILE = ("seconds", "cost", "created", "trained", "found", "measured", "resumed", "versions")


def world(folder: Path) -> None:
    """Small spaces, a trained bridge, a grid and a benchmark."""
    texts, things = meanings(120, 1), meanings(120, 2)
    a = write_space(folder, "a", 12, 1, {"text": ("t", texts), "image": ("i", things)})
    b = write_space(folder, "b", 10, 2, {"text": ("t", texts), "audio": ("s", things)})
    fit_closed_form_bridge(a, b, via="text", method="ridge").save(folder / "d.bridge")
    (folder / "pairs.csv").write_text("query_id,gallery_id\n" + "".join(f"s{i},i{i}\n" for i in range(120)))
    (folder / "grid.toml").write_text(GRID)
    (folder / "own.toml").write_text(OWN)
    raw.write_memory(folder / "raw", seed=0, sizes={"image": 60, "audio": 60, "text": 80})
    np.save(folder / "rows.npy", np.random.default_rng(0).standard_normal((8_000, 16)).astype(np.float32))


def start(arguments: list[str], folder: Path) -> int:
    """Run a verb in a forked process; returns its number."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as told:
            code = run(arguments)
        if code:
            (folder / "told.txt").write_text(told.getvalue())
    finally:
        os._exit(code)


def finish(arguments: list[str], folder: Path) -> None:
    """Run a verb to its end.

    Raises:
        RuntimeError: It did not end well.
    """
    _, status = os.waitpid(start(arguments, folder), 0)
    if status:
        told = (folder / "told.txt").read_text() if (folder / "told.txt").is_file() else ""
        raise RuntimeError(f"{arguments[0]} ended with {status}: {told[-400:]}")


def steady(value: Any) -> Any:
    """A report without what differs between two runs of the same: times and what was found done."""
    if isinstance(value, dict):
        return {key: steady(one) for key, one in value.items() if key not in VOLATILE}
    return [steady(one) for one in value] if isinstance(value, list) else value


def result(folder: Path) -> dict[str, str]:
    """What lies in a folder beside the world: names, and hashes of what does not tell of time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or not (name.startswith(("out", ".out"))):
            continue
        raw = path.read_bytes()
        if path.suffix == ".json":
            raw = json.dumps(steady(json.loads(raw)), sort_keys=True).encode()
        elif path.name in ("README.md", "table.md", "table.csv"):
            raw = b""  # the same figures as words, with seconds among them
        found[name] = hashlib.sha256(raw).hexdigest()
    return found


def campaign(kills: int, seed: int, folder: Path, verbs: list[str] | None = None) -> dict[str, dict[str, Any]]:
    """Kill runs of every verb until so many kills hit; returns counts by verb.

    Raises:
        AssertionError: A resumed result is not the undisturbed one.
    """
    torch.set_num_threads(1)
    original = folder / "original"
    original.mkdir()
    world(original)
    chosen = verbs or list(RUNS)
    if "suite" in chosen:
        finish(["extend", "a.space", "b.space", "--via", "text", "--out", "t.bridge", *SETTINGS], original)
    draw = random.Random(seed)
    counts: dict[str, dict[str, Any]] = {}
    for verb in chosen:
        label = verb.replace(" ", "-")
        calm = folder / f"{label}-calm"
        shutil.copytree(original, calm)
        begin = time.monotonic()
        finish(RUNS[verb], calm)
        whole, expected = time.monotonic() - begin, result(calm)
        hit = rounds = 0
        while hit < -(-kills // len(chosen)):
            rounds += 1
            here = folder / f"{label}-{rounds}"
            shutil.copytree(original, here)
            for _ in range(draw.randint(1, 3)):
                process = start(RUNS[verb], here)
                time.sleep(draw.random() * whole)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process, signal.SIGKILL)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
                _, status = os.waitpid(process, 0)
                hit += os.WIFSIGNALED(status)
                if not os.WIFSIGNALED(status):
                    break
            else:
                finish(RUNS[verb], here)
            got = result(here)
            differs = sorted(name for name in got.keys() | expected.keys() if got.get(name) != expected.get(name))
            assert not differs, f"{verb}, round {rounds}: {differs}"
            shutil.rmtree(here)
        counts[verb] = {"kills": hit, "rounds": rounds, "seconds of a whole run": round(whole, 2)}
        print(verb, counts[verb], file=sys.stderr, flush=True)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", default=",".join(RUNS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts = campaign(options.kills, options.seed, Path(folder), options.verbs.split(","))
    report = {
        "kills": {"all": sum(one["kills"] for one in counts.values()), "results that differ": 0, "by verb": counts},
        "seed": options.seed,
        "seconds": round(time.monotonic() - started),
    }
    print(json.dumps(report, indent=2))
    if options.out:
        known = json.loads(options.out.read_text()) if options.out.is_file() else {}
        options.out.write_text(json.dumps({**known, "campaign of kills": report}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
