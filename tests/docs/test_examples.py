"""The examples run, are short, and reach what they promise."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from snippets import ROOT, make_files

import isthmus
from isthmus.cli import main

EXAMPLES = sorted((ROOT / "examples").iterdir())


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", [p for p in EXAMPLES if p.is_file()], ids=lambda path: path.name)
def test_an_example_is_at_most_80_lines_and_says_how_to_run_it(path: Path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":  # what a reader sees of it: its cells
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    assert len(text.splitlines()) <= 80
    assert "Run: " in text


def test_arrays_to_bridge_is_far_above_chance(tmp_path: Path):
    scores = load("arrays_to_bridge").main(tmp_path)
    assert set(scores) == {"dictionary", "ridge", "ex-mcr"}
    assert min(scores.values()) > 20 / 200
    assert (tmp_path / "clap-to-clip.bridge" / "bridge.json").is_file()


def test_extend_twice_finds_shapes_by_sounds(tmp_path: Path):
    assert load("extend_twice").main(tmp_path) > 20 / 200


def test_the_command_line_example_scores_both_bridges(tmp_path: Path):
    make_files(tmp_path, spaces=False)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [str(ROOT / "examples" / "command_line.sh"), str(tmp_path)]
    subprocess.run(command, check=True, env={**os.environ, "PATH": path}, capture_output=True, timeout=300)
    for name in ("quick", "trained"):
        assert json.loads((tmp_path / f"{name}.json").read_text())["mean"]["r@1"] > 5 / 300


def test_an_encoder_of_your_own_encodes_real_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "photos").mkdir()
    for name, colour in {"red": (255, 0, 0), "rose": (230, 20, 30), "blue": (0, 0, 255)}.items():
        image.new("RGB", (32, 24), colour).save(tmp_path / "photos" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    arguments = ["encode", "photos", "--encoder", "own_encoder:ColourGrid", "--into", "colours.space"]
    assert main([*arguments, "--option", "grid=4", "--ids", "stem"]) == 0
    space = isthmus.open_space("colours.space")
    assert space.dim == 4 * 4 * 3
    blue, red, rose = space["image"].unit(space["image"].rows_of(["blue", "red", "rose"]))
    assert red @ rose > red @ blue


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "examples" / "tour.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    names: dict[str, object] = {"__name__": "__main__"}
    shown = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"], "clear the outputs before it is committed"
            *before, last = "".join(cell["source"]).splitlines()
            exec("\n".join(before), names)
            shown.append(eval(last, names))  # the last line of each cell is what a notebook shows
    space, _, bridge, hits, reasons = shown
    assert all("<table>" in value._repr_html_() for value in (space, bridge))
    assert hits._repr_html_().count("<img") == 5
    assert all(reason for _, reason in reasons)
