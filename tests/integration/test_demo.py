"""The demo: a thin one from files to picture, its commands, its refusals; and, slowly, the claims it makes."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest

from isthmus.bridges.bridge import load_bridge
from isthmus.cli import main
from isthmus.demo import raw, run_demo, story, world
from isthmus.errors import ConfigError
from isthmus.recipes.extend import ExtendConfig
from isthmus.spaces.space import open_space

THIN = story.Size(
    memory={"image": 200, "audio": 200, "point_cloud": 200, "text": 240},
    numbers=40,
    config=ExtendConfig(epochs=6, batch_size=128),
    oracle_steps=30,
)


@pytest.fixture(scope="module")
def thin(tmp_path_factory):
    out = tmp_path_factory.mktemp("thin") / "a demo"
    lines: list[str] = []
    return out, story.run(out, say=lines.append, size=THIN), lines


def test_it_writes_real_files(thin):
    from PIL import Image

    out, _, _ = thin
    names = sorted(path.stem for path in (out / "raw/test/image").iterdir())
    assert len(names) == 40
    assert {int(name) for name in names} < set(world.SPLITS["test"].numbers)
    assert Image.open(out / f"raw/test/image/{names[0]}.png").size == (72, 28)
    with wave.open(str(out / f"raw/test/audio/{names[0]}.wav")) as file:
        assert (file.getframerate(), file.getnchannels()) == (8000, 1)
    assert (out / f"raw/test/point_cloud/{names[0]}.ply").read_bytes().startswith(b"ply\nformat binary_little_endian")
    assert len((out / "raw/memory/texts.txt").read_text().splitlines()) == 240
    assert sorted(path.stem for path in (out / "raw/test/audio").iterdir()) == sorted(names)
    assert Image.open(out / "demo.png").size[0] > 1200


def test_its_spaces_and_bridge_are_whole(thin):
    out, _, _ = thin
    for name, (encoder, _, modalities) in story.SPACES.items():
        space = open_space(out / f"spaces/{name}.space")
        space.verify()
        assert sorted(space.modalities) == sorted(modalities)
        assert {space[m].info["encoder"]["id"] for m in modalities} == {encoder}
    for name in ("unified.bridge", "trained.bridge"):
        bridge = load_bridge(out / name)
        assert [space.name for space in bridge.spaces] == ["picture", "sound", "shape"]
    assert load_bridge(out / "unified.bridge").record["chosen"]["candidates"]
    assert load_bridge(out / "trained.bridge").history


def test_memory_and_test_share_no_number(thin):
    out, _, _ = thin
    with open(out / "pairs/audio-image.csv", newline="") as file:
        shown = {row["query_id"][:3] for row in csv.DictReader(file)}
    assert len(shown) == 40
    assert {int(number) for number in shown} < set(world.SPLITS["test"].numbers)
    spoken = {text for n in world.SPLITS["test"].numbers for text in world.phrasings(n)}
    lines = (out / "raw/memory/texts.txt").read_text().splitlines()
    assert not spoken & set(lines)


def test_its_report_and_its_words(thin):
    out, report, lines = thin
    assert json.loads((out / "demo.json").read_text()) == json.loads(json.dumps(report))
    assert set(report["tasks"]) == {"audio-image", "point_cloud-audio", "point_cloud-text"}
    for task in report["tasks"].values():
        assert {"random", "procrustes", "ridge", "cca", "paired_ridge", "paired_cca", "ex-mcr"} <= set(
            task["baselines"]
        )
        for name in ("procrustes", "ridge", "cca", "dictionary", "paired_ridge"):
            assert "r@1" in task["baselines"][name], task["baselines"][name]
        assert task["times_chance"] == pytest.approx(task["mean"]["r@1"] * 40)
    assert "paired_projector" in report["tasks"]["audio-image"]["baselines"]
    text = "\n".join(lines)
    assert "ridge through the overlap" in text
    assert "expected without labels: mAP" in text
    assert len(report["reasons"]) == 3
    for each in report["reasons"]:
        assert f"  {each['query']} finds {each['hit']} by {each['words']}" in lines
        assert 0 < sum(share for _, share in each["why"]) <= 1 + 1e-6
    assert "Not one audio-image, audio-3D or 3D-text pair" in text
    assert report["tasks"]["audio-image"]["times_chance"] > 5


def test_the_commands_it_prints_work(thin, capsys):
    _, report, lines = thin
    assert len(report["next"]) == 6
    assert f"  {report['serve']}" in lines
    for gallery in report["serve"].split(" --gallery ")[1:]:
        assert Path(shlex.split(gallery)[0]).is_dir()
    for command in report["next"]:
        assert f"  {command}" in lines
        program, *arguments = shlex.split(command)
        # What a person pastes is this very isthmus, whether or not its environment is active.
        found = shutil.which(program)
        assert found
        assert Path(found).resolve() == Path(sys.executable).with_name("isthmus").resolve()
        assert main([*arguments, "--json"]) == 0, command
        assert json.loads(capsys.readouterr().out)


def test_it_replaces_an_earlier_demo_and_nothing_else(thin, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match=r"is not empty and holds no earlier demo. Give --out another folder"):
        run_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    assert story._is_demo(thin[0])


def test_everything_follows_from_the_seed(thin, tmp_path):
    _, first, _ = thin
    again = story.run(tmp_path / "again", quiet=True, size=THIN)
    for name, task in first["tasks"].items():
        assert again["tasks"][name]["mean"] == task["mean"]


def test_the_memories_are_drawn_apart_and_pairs_are_found_by_number(tmp_path):
    memory = raw.write_memory(tmp_path, seed=1, sizes={"image": 50, "audio": 50})
    assert not np.array_equal(memory.numbers["image"], memory.numbers["audio"])
    for i, j in raw.pair_rows(memory.numbers["audio"], memory.numbers["image"]):
        assert memory.numbers["audio"][i] == memory.numbers["image"][j]
    assert len(raw.pair_rows([3, 4], np.array([4, 3, 4]), each=1)) == 2


@pytest.mark.slow
def test_the_claims_of_the_demo(tmp_path):
    start = time.monotonic()
    report = run_demo(tmp_path / "demo", quiet=True)
    assert time.monotonic() - start < 120
    heard, felt, read = (report["tasks"][n] for n in ("audio-image", "point_cloud-audio", "point_cloud-text"))
    assert heard["n_gallery"] == 240
    assert heard["times_chance"] >= 20
    assert heard["share_of_oracle"] >= 0.9
    assert heard["mean"]["map"] >= max(0.8, heard["baselines"]["ex-mcr"]["map"])
    assert felt["mean"]["map"] >= felt["baselines"]["ex-mcr"]["map"] - 0.01
    assert felt["times_chance"] >= 10
    assert read["times_chance"] >= 10
