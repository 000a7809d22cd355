"""`isthmus join` on a small world of raw files: found by everything, brought up to date, killed and run again."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isthmus.cli import main
from isthmus.demo import raw
from isthmus.errors import ConfigError, EncoderError
from isthmus.spaces.space import open_space
from isthmus.worlds.join import join
from isthmus.worlds.readme import is_own
from isthmus.worlds.world import open_world

ENCODERS = {"image": "toy:picture", "audio": "toy:sound", "point_cloud": "toy:shape"}
SIZES = {"image": 60, "audio": 60, "point_cloud": 60, "text": 80}
OPTIONS = [f"--encoder={name}={value}" for name, value in ENCODERS.items()]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    raw.write_memory(folder, seed=0, sizes=SIZES)
    return folder


@pytest.fixture(scope="module")
def world(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("w") / "my.world"
    arguments = ["join", str(files), "--out", str(out), *OPTIONS, "--texts", str(files / "texts.txt"), "--quiet"]
    assert main(arguments) == 0
    return out


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_everything_finds_everything(world: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    queries = [
        ["--image", str(files / "image/0003.png")],
        ["--audio", str(files / "audio/0003.wav")],
        ["--point-cloud", str(files / "point_cloud/0003.ply")],
        ["--text", "seventeen"],
    ]
    for query in queries:
        assert main(["search", str(world), *query, "-k", "8", "--json", "--explain"]) == 0
        hits = json.loads(capsys.readouterr().out)["hits"]
        assert len(hits) == 8
        assert {hit["modality"] for hit in hits} == {"image", "audio", "point_cloud", "text"}
        assert all(hit["why"] and hit["basis"] for hit in hits)
        if query[0] != "--text":
            name = query[0][2:].replace("-", "_")
            assert next(hit for hit in hits if hit["modality"] == name)["id"].split("/")[-1].startswith("0003")
    readme = (world / "README.md").read_text()
    assert "| picture | image | 60 | toy:picture |" in readme
    assert "isthmus search my.world --audio FILE" in readme
    opened = open_world(world)
    assert set(opened.spaces) == {"picture", "sound", "shape"}
    assert len(opened.index) == 180 + len(set((files / "texts.txt").read_text().split("\n")) - {""})


def test_a_second_run_takes_up_what_is_new_changed_and_gone(files: Path, world: Path, tmp_path: Path) -> None:
    def planned() -> dict[tuple[str, str], tuple[int, int, int]]:
        """What a dry run says of the same command: it writes nothing."""
        before = digests(out)
        dry = join(copy, out, dry_run=True, **arguments)
        assert digests(out) == before
        assert dry.bridge == "to keep"
        assert all((row["bytes"] > 0) == (row["new"] + row["changed"] > 0) for row in dry.spaces)
        return {(row["space"], row["modality"]): (row["new"], row["changed"], row["gone"]) for row in dry.spaces}

    copy, out = tmp_path / "raw", tmp_path / "again.world"
    shutil.copytree(files, copy)
    shutil.copytree(world, out)
    arguments = {"encoders": ENCODERS, "texts": files / "texts.txt", "quiet": True}
    assert set(planned().values()) == {(0, 0, 0)}
    # the same files in another folder: same ids, other times, same content
    same = join(copy, out, **arguments)
    assert all((row["added"], row["changed"], row["removed"]) == (0, 0, 0) for row in same.spaces)
    assert same.bridge == "kept"

    (copy / "image/0001.png").unlink()
    shutil.copy(copy / "image/0002.png", copy / "image/new.png")
    shutil.copy(copy / "audio/0005.wav", copy / "audio/0006.wav")
    before = planned()
    report = join(copy, out, **arguments)
    done = {(row["space"], row["modality"]): (row["added"], row["changed"], row["removed"]) for row in report.spaces}
    assert done == before, "what the dry run said is what was done"
    assert done["picture", "image"] == done["shape", "image"] == (1, 0, 1)
    assert done["sound", "audio"] == (0, 1, 0)
    assert done["sound", "text"] == (0, 0, 0)
    assert report.bridge == "kept"
    sounds = open_space(out / "spaces/sound.space")["audio"]
    five, six = sounds.take(sounds.rows_of(["audio/0005.wav", "audio/0006.wav"]))
    assert (five == six).all()
    index = open_world(out).index
    assert "image/new.png" in index
    assert "image/0001.png" not in index
    assert join(copy, out, **arguments).index == report.index
    assert join(copy, out, dry_run=True, **{**arguments, "seed": 1}).bridge == "to make"
    assert join(copy, out, dry_run=True, **{**arguments, "retrain": True}).bridge == "to make"


def test_a_page_of_ones_own_stays(files: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "own.world"
    shutil.copytree(world, out)
    page = out / "README.md"
    written = page.read_bytes()
    assert is_own(page)
    command = ["join", str(files), "--out", str(out), *OPTIONS, "--texts", str(files / "texts.txt")]
    for own in (b"# Holidays\n", written.replace(b"my.world", b"mine"), written + b"Call Ann before the 3rd.\n"):
        page.write_bytes(own)
        assert main(command) == 0
        assert "README.md: was written or changed by hand and stays as it is" in capsys.readouterr().err
        assert page.read_bytes() == own
    page.unlink()
    (tmp_path / "mine.md").write_text("mine")
    page.symlink_to(tmp_path / "mine.md")
    assert main(command) == 0
    assert (tmp_path / "mine.md").read_text() == "mine"
    page.unlink()
    # Pages of older versions have no hash: their first sentence says whose they are.
    page.write_bytes(written.partition(b"<!-- isthmus")[0])
    assert main(command) == 0
    assert is_own(page)
    assert page.read_bytes().replace(b"own.world", b"my.world").partition(b"<!--")[0] == written.partition(b"<!--")[0]


@pytest.mark.parametrize("most", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_and_run_again_it_ends_in_the_same_bytes(files: Path, tmp_path: Path, most: int) -> None:
    out = tmp_path / "my.world"
    command = [sys.executable, "-m", "isthmus", "join", str(files), "--out", str(out), *OPTIONS, "--quiet"]
    command += ["--texts", str(files / "texts.txt")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole = tmp_path / "whole" / "my.world"
    other = [argument if argument != str(out) else str(whole) for argument in command]
    started = time.monotonic()
    assert subprocess.run(other, env=environment, check=False).returncode == 0
    seconds = time.monotonic() - started
    chance, kills = random.Random(4), 0
    for _ in range(10):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        # A run that goes on has less to do than the whole one: early moments, so that most find it at work.
        time.sleep(chance.uniform(0.1, 0.8) * seconds)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        if kills == most:
            break
    assert kills
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert digests(out) == digests(whole)


def test_a_dry_run_writes_nothing(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    out = tmp_path / "no.world"
    assert main(["join", str(files), "--out", str(out), *OPTIONS, "--dry-run", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert not out.exists()
    rows = {(row["space"], row["modality"]): row["items"] for row in report["spaces"]}
    assert rows["picture", "image"] == rows["shape", "image"] == 60
    assert rows["picture", "text"] == rows["sound", "text"] > 20_000, "few own texts: the vocabulary is taken too"


def test_a_checkpoint_that_cannot_be_had_is_told_first(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderError, match=r"hf download openai/clip-vit-base-patch32 .*605 MB.*HF_HUB_OFFLINE=1"):
        join(files / "image", tmp_path / "x.world", texts=files / "texts.txt", quiet=True)
    assert not (tmp_path / "x.world").exists()


def test_faults(files: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match="holds something that is no world"):
        join(files, tmp_path / "mine", encoders=ENCODERS)
    with pytest.raises(ConfigError, match="names the modality 'smell'"):
        join(files, tmp_path / "w", encoders={"smell": "x"})
    (tmp_path / "e.npy").write_bytes(b"")
    with pytest.raises(ConfigError, match="holds embeddings"):
        join(tmp_path / "e.npy", tmp_path / "w")
    with pytest.raises(EncoderError, match="embeds audio, text, not image"):
        join(files / "image", tmp_path / "w", encoders={"image": "toy:sound"})
    with pytest.raises(ConfigError, match="only texts were found"):
        join(files / "texts.txt", tmp_path / "w")
