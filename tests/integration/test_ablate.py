"""`isthmus ablate` as a whole: killed and resumed to the same figures, nothing trained twice, faults in one line."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from isthmus.cli import main
from isthmus.core.locks import hold
from isthmus.evaluation.ablation import ablate as run
from isthmus.spaces.space import make_space
from worlds import contrastive, meanings, three_spaces

GRID = """
title = "Tiny"
via = "text"
seeds = [0, 1]
[spaces]
base = "clip.space"
leaf = "clap.space"
[settings]
members = 1
epochs = 4
batch_size = 16
checkpoint_seconds = 0
[[evaluate]]
name = "own"
query = "clap-test.space/audio"
gallery = "clip-test.space/image"
pairs = "pairs.csv"
metrics = ["map"]
[[evaluate]]
name = "names"
query = "clap-test.space/audio"
classes = "clip-test.space/text"
labels = "labels.csv"
[[rows]]
table = "start"
name = "text"
settings = { centric = ["text"] }
expect = "worse"
[[rows]]
table = "method"
name = "dictionary"
method = "dictionary"
[[rows]]
table = "method"
name = "c-mcr"
method = "c-mcr"
settings = { dim = 8 }
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablate")
    three_spaces(folder, n=60)
    what = meanings(30, 9)
    ids = [f"q{i}" for i in range(30)]

    def put(name: str, **modalities: Any) -> None:
        encoder = {"library": "test", "id": name, "revision": None, "weights_sha256": None}
        make_space(
            folder / f"{name}-test.space", {m: (ids, x) for m, x in modalities.items()}, name=name, encoder=encoder
        )

    put("clip", image=contrastive(what, 24, 101, 1), text=contrastive(what, 24, 101, 0))
    put("clap", audio=contrastive(what, 20, 102, 1))
    (folder / "pairs.csv").write_text("query_id,gallery_id\n" + "".join(f"{i},{i}\n" for i in ids))
    (folder / "labels.csv").write_text("query_id,class_id\n" + "".join(f"{i},{i}\n" for i in ids))
    (folder / "grid.toml").write_text(GRID)
    return folder


def arguments(folder: Path, out: str) -> list[str]:
    return ["ablate", "--config", str(folder / "grid.toml"), "--out", str(folder / out), "--device", "cpu", "--quiet"]


def figures(out: Path) -> dict[str, Any]:
    """Every cell but for what it cost."""
    read = {file.name: json.loads(file.read_text()) for file in (out / "cells").glob("*.json")}
    return {name: {key: value for key, value in cell.items() if key != "cost"} for name, cell in read.items()}


@pytest.fixture(scope="module")
def whole(made: Path) -> Path:
    """The grid in one go."""
    assert main(arguments(made, "whole")) == 0
    return made / "whole"


def kill_in_a_training(folder: Path, out: str, delay: float) -> None:
    """Start the grid and kill it for good while it trains something that it has checkpoints of."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    before = set((folder / out).glob("checkpoints/*/*.safetensors"))
    command = [sys.executable, "-m", "isthmus", *arguments(folder, out)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while process.poll() is None and not set((folder / out).glob("checkpoints/*/*.safetensors")) - before:
        time.sleep(0.002)
    time.sleep(delay)
    assert process.poll() is None, "the grid was over before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_grid_that_is_killed_twice_ends_in_the_same_table(made: Path, whole: Path):
    rng, out = random.Random(1), made / "killed"
    for kills in range(5):
        kill_in_a_training(made, "killed", rng.random() * 0.05)
        # Where the training ended within the delay there is nothing to take up: once more.
        if kills and list((out / "checkpoints").glob("*/*.safetensors")):
            break
    finished = {file: file.stat().st_mtime_ns for file in (out / "cells").glob("*.json")}
    assert list((out / "checkpoints").glob("*/*.safetensors"))
    assert len(finished) < 8, "nothing was left to resume"
    assert main(arguments(made, "killed")) == 0
    assert figures(out) == figures(whole)
    assert len(figures(whole)) == 8
    for name in ("table.md", "table.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert {file: file.stat().st_mtime_ns for file in finished} == finished, "a finished cell was written again"
    resumed = [json.loads(file.read_text())["cost"]["resumed"] for file in (out / "cells").glob("*.json")]
    assert any(resumed), "the training in progress was not taken up"
    assert not (out / "checkpoints").exists()
    assert not (out / "pairs").exists()


def test_a_finished_grid_trains_nothing_and_new_rows_train_alone(
    made: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    trained: list[str] = []
    true = run.run_cell

    def noted(row: Any, seed: int, *rest: Any, **more: Any) -> Any:
        trained.append(f"{row.label} {seed}")
        return true(row, seed, *rest, **more)

    monkeypatch.setattr(run, "run_cell", noted)
    assert main(["ablate", "--config", str(made / "grid.toml"), "--out", str(whole), "--json", "--quiet"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert not trained
    assert shown["cells"] == {"all": 8, "done": 8, "found": 8, "trained": 0, "failed": 0}
    assert shown["columns"] == ["own map", "names accuracy@1"]
    assert json.loads((whole / "table.json").read_text()) == {k: v for k, v in shown.items() if k != "path"}

    out, grown = shutil.copytree(whole, made / "grown"), made / "grown.toml"
    grown.write_text(GRID + '[[rows]]\nname = "dense"\nsettings = { align = ["leaf-base"], epochs = 1 }\n')
    assert main(["ablate", "--config", str(grown), "--out", str(out), "--seeds", "1,2", "--quiet"]) == 0
    assert trained == [
        "dense 1", "base 2", "start/text 2", "method/dictionary 2", "method/c-mcr 2", "dense 2",
    ]  # fmt: skip


def test_a_dry_run_tells_what_the_cells_then_train_and_writes_nothing(
    made: Path, whole: Path, capsys: pytest.CaptureFixture[str]
):
    dry = ["ablate", "--config", str(made / "grid.toml"), "--dry-run", "--json"]
    assert main([*dry, "--out", str(made / "nothing")]) == 0
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert "8 cells, 0 finished, 8 to train." in printed.err
    assert not (made / "nothing").exists()
    assert told["cells"] == {"all": 8, "found": 0, "left": 8}
    assert told["pools"] == 3
    assert told["measured"] == "probe"
    assert 0 < told["seconds"] < 600
    table = json.loads((whole / "table.json").read_text())
    for line, row in zip(told["rows"], table["rows"], strict=False):
        assert (line["name"], line["steps"]) == (row["name"], row["steps"] or 0)
        assert line["pseudo_pairs"] == (row["pseudo_pairs"] or 0)
    assert main([*dry, "--out", str(whole)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["cells"]["left"], told["seconds"], told["measured"]) == (0, 0, "finished cells")


def test_rows_that_fail_are_told_and_tried_again_and_the_others_are_trained(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    text = GRID.replace("epochs = 4", "epochs = 1").replace("[0, 1]", "[0]")
    (tmp_path / "grid.toml").write_text(text + '[[rows]]\nname = "large"\nsettings = { batch_size = 4096 }\n')
    failing = ["ablate", "--config", str(tmp_path / "grid.toml"), "--data", str(made), "--out", str(tmp_path / "out")]
    assert main([*failing, "--dry-run"]) == 0
    assert "large fails: 180 pseudo pairs are too few for batches of 4,096" in capsys.readouterr().out
    for found in (0, 4):
        assert main(failing) == 1
        err = capsys.readouterr().err
        assert err.splitlines()[-1].startswith("CheckFailed: 1 of 5 cells failed, first: 180 pseudo pairs are too few")
        table = json.loads((tmp_path / "out" / "table.json").read_text())
        assert (table["cells"]["found"], table["cells"]["done"], table["cells"]["failed"]) == (found, 4, 1)
    assert "large: 180 pseudo pairs are too few" in (tmp_path / "out" / "table.md").read_text()


def test_a_damaged_cell_is_trained_again(made: Path, whole: Path, tmp_path: Path):
    before = figures(whole)
    shutil.copytree(whole, tmp_path / "out")
    cell = sorted((tmp_path / "out" / "cells").glob("*.json"))[0]
    cell.write_text(cell.read_text()[:100])
    assert main(["ablate", "--config", str(made / "grid.toml"), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    after = figures(tmp_path / "out")
    assert {name: after[name]["scores"] for name in before} == {name: before[name]["scores"] for name in before}


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        (("via =", "vai ="), [], "ConfigError: --config {grid} has the unknown key 'vai'. Did you mean via?"),
        (("epochs = 4", "epoch = 4"), [], "ConfigError: row 'base' has the unknown setting 'epoch'."),
        (('"clip.space"', '"nowhere.space"'), [], "SpaceError: {data}/nowhere.space"),
        (
            ("clip-test.space/image", "clip-test.space"),
            [],
            "ConfigError: evaluate 'own': gallery got 'clip-test.space'",
        ),
        (
            ("clip-test.space/image", "ulip.space/image"),
            [],
            "FingerprintError: evaluate 'own': gallery 'ulip.space/image'",
        ),
        (("", ""), ["--seeds", "0,x"], "ConfigError: --seeds got '0,x', expected numbers such as 0,1,2."),
        (("", ""), ["--seeds", "0,0"], "ConfigError: grid key 'seeds' got (0, 0): seeds must be different numbers"),
    ],
)
def test_faults_are_one_line_and_train_nothing(
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: tuple[str, str],
    more: list[str],
    message: str,
):
    config = tmp_path / "grid.toml"
    config.write_text(GRID.replace(*change, 1))
    code = main(["ablate", "--config", str(config), "--data", str(made), "--out", str(tmp_path / "out"), *more])
    lines = capsys.readouterr().err.splitlines()
    assert (code, len(lines)) == (2, 1), lines
    assert lines[0].startswith(message.format(grid=config, data=made))
    assert not (tmp_path / "out").exists()


def test_two_runs_into_one_folder_are_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, codes = tmp_path / "out", []
    # A thread may hold a place several times over, so the second run is another's.
    second = threading.Thread(
        target=lambda: codes.append(main(["ablate", "--config", str(made / "grid.toml"), "--out", str(out)]))
    )
    with hold(out):
        second.start()
        second.join()
    assert codes == [2]
    assert "another thread of this process is writing it. Wait for it to end." in capsys.readouterr().err
