"""What a newcomer types first: paths that are not there, names that collide, encoders that were only declared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from string import ascii_lowercase, digits

import numpy as np
import pytest
from tests.tiny_models import save_clip

from isthmus.cli import main
from isthmus.encoders.registry import load_encoder

TEXTS = [f"{word} {sign}" for word in ("red", "blue", "old", "wet") for sign in ascii_lowercase + digits]
N = len(TEXTS)
CHECKPOINT = "openai/clip-vit-base-patch32"


def imported(folder: Path, space: str, modality: str, rows: np.ndarray, *, ids: bool = True, **options: str) -> int:
    """Save rows and import them by the command line."""
    file = folder / f"{space}-{modality}.npy"
    np.save(file, rows.astype(np.float32))
    line = ["import", str(file), "--into", str(folder / f"{space}.space"), "--modality", modality, "--quiet"]
    if ids:
        names = file.with_suffix(".txt")
        names.write_text("".join(f"{modality}{i}\n" for i in range(len(rows))), encoding="utf-8")
        line += ["--ids", str(names)]
    return main([*line, *(part for key, value in options.items() for part in (f"--{key}", value))])


def rows_of(seed: int, dim: int, n: int = N) -> np.ndarray:
    """Few directions of many, the same items whatever the width."""
    meanings = np.random.default_rng(7).standard_normal((n, 6))
    return np.tanh(meanings @ np.random.default_rng(seed).standard_normal((6, dim)))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the Hub that holds a tiny model of CLIP's architecture under the name of the real one."""
    commit, repository = "0" * 40, tmp_path / "hub" / f"models--{CHECKPOINT.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    save_clip(repository / "snapshots" / commit)
    for name, value in (("HF_HUB_CACHE", str(tmp_path / "hub")), ("HF_HUB_OFFLINE", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def test_a_declared_encoder_of_the_registry_is_loaded_by_its_name(
    hub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(hub)
    clip = load_encoder(f"clip:{CHECKPOINT}", device="cpu")
    own = clip.encode(TEXTS, modality="text")
    assert imported(hub, "clip", "text", own, encoder=f"clip:{CHECKPOINT}") == 0
    assert imported(hub, "other", "text", rows_of(1, 16), encoder="mine") == 0
    assert main(["extend", "clip.space", "other.space", "--via", "text", "--method", "ridge", "--out", "x.bridge"]) == 0
    capsys.readouterr()
    search = ["search", "x.bridge", "--gallery", "clip.space/text", "--text", TEXTS[40], "-k", "1", "--json"]
    assert main(search) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["hits"][0]["id"] == "text40"
    # What cannot be verified is said, and said once.
    assert said.err.count("cannot tell whether the same weights and preprocessing made the embeddings") == 1
    assert main([*search, "--encoder", f"clip:{CHECKPOINT}"]) == 0

    # New items join the imported ones, in their modality and beside it.
    (hub / "new.txt").write_text("a new caption\n", encoding="utf-8")
    into = ["--encoder", f"clip:{CHECKPOINT}", "--into", "clip.space", "--quiet"]
    assert main(["encode", "new.txt", *into, "--modality", "text"]) == 0
    # A gallery that this encoder made belongs to the space that declares it.
    into = ["--encoder", f"clip:{CHECKPOINT}", "--into", "later.space", "--quiet"]
    assert main(["encode", "new.txt", *into, "--modality", "text"]) == 0
    capsys.readouterr()
    assert main(["search", "x.bridge", "--gallery", "later.space/text", "--text", "a new caption", "-k", "1"]) == 0


def test_another_encoder_than_the_declared_one_is_refused(
    hub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(hub)
    assert imported(hub, "clip", "text", rows_of(0, 24), encoder="clip:openai/clip-vit-large-patch14") == 0
    assert imported(hub, "wide", "text", rows_of(1, 16), encoder=f"clip:{CHECKPOINT}") == 0
    assert main(["extend", "clip.space", "wide.space", "--via", "text", "--method", "ridge", "--out", "x.bridge"]) == 0
    search = ["search", "x.bridge", "--gallery", "clip.space/text", "--text", "red a"]
    assert main([*search, "--encoder", f"clip:{CHECKPOINT}"]) == 2
    assert "was made by declared clip:openai/clip-vit-large-patch14" in capsys.readouterr().err
    assert main(["connect", "wide.space", "clip.space", "--via", "text", "--method", "ridge", "--out", "y.bridge"]) == 0
    assert main(["search", "y.bridge", "--gallery", "wide.space/text", "--text", "red a"]) == 2
    assert "which gives 24 numbers an item; the space has 16" in capsys.readouterr().err


def test_same_named_spaces_are_refused_before_training_and_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    imported(tmp_path, "clip", "text", rows_of(0, 24))
    imported(tmp_path, "other", "text", rows_of(1, 16), name="clip")
    both = ["clip.space", "other.space", "--via", "text"]
    for line in (
        ["extend", *both],
        ["extend", *both, "--method", "ridge"],
        ["connect", *both],
        ["connect", *both, "--method", "c-mcr"],
    ):
        assert main([*line, "--out", "x.bridge"]) == 2
        err = capsys.readouterr().err
        assert "two spaces are called 'clip'" in err
        assert "isthmus rename S.space --name NAME" in err
        assert "train" not in err.replace("trained", "")
        assert "pseudo pairs" not in err
    assert main(["rename", "other.space", "--name", "clap"]) == 0
    assert main(["extend", *both, "--method", "ridge", "--out", "x.bridge"]) == 0


def test_a_test_set_in_a_folder_of_its_own_is_told_name_or_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for space, dim in (("clip", 24), ("clap", 16)):
        imported(tmp_path, space, "text", rows_of(dim, dim))
        imported(tmp_path, space, "image" if space == "clip" else "audio", rows_of(dim, dim))
    assert main(["extend", "clip.space", "clap.space", "--via", "text", "--method", "ridge", "--out", "x.bridge"]) == 0
    imported(tmp_path, "test", "image", rows_of(24, 24)[:20])
    search = ["search", "x.bridge", "--id", "clap.space/audio/audio3", "-k", "1", "--json"]
    assert main([*search, "--gallery", "test.space/image"]) == 2
    err = capsys.readouterr().err
    assert "Import it again with --name clip, or both with --encoder ID" in err
    imported(tmp_path, "named", "image", rows_of(24, 24)[:20], name="clip")
    assert main([*search, "--gallery", "named.space/image"]) == 0
    assert json.loads(capsys.readouterr().out)["hits"][0]["id"] == "image3"


@pytest.mark.parametrize(
    "line",
    [
        ["encode", "nothing-there", "--encoder", "clip", "--into", "n.space"],
        ["encode", "nothing-there", "--encoder", "clip", "--into", "n.space", "--modality", "image"],
        ["search", "x.bridge", "--gallery", "clip.space/text", "--audio", "nothing-there.wav", "--encoder", "clap"],
    ],
)
def test_a_path_is_looked_at_before_a_model_is_loaded(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    imported(tmp_path, "clip", "text", rows_of(0, 24))
    imported(tmp_path, "clap", "text", rows_of(1, 16))
    imported(tmp_path, "clap", "audio", rows_of(1, 16))
    assert main(["extend", "clip.space", "clap.space", "--via", "text", "--method", "ridge", "--out", "x.bridge"]) == 0

    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("isthmus.encoders.recorded.load_encoder", load)
    monkeypatch.setattr("isthmus.encoders.pipeline.encode.load_encoder", load)
    assert main(line) == 2
    assert "nothing-there" in (err := capsys.readouterr().err)
    assert "no such file" in err


@pytest.mark.parametrize("method", ["ridge", "ex-mcr", "posterior", "cca"])
def test_a_leaf_with_nothing_of_its_own_warns_at_extend(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    imported(tmp_path, "clip", "text", rows_of(0, 24))
    imported(tmp_path, "clip", "image", rows_of(0, 24))
    imported(tmp_path, "leaf", "text", rows_of(1, 16))
    more = ["--set", "epochs=1", "--set", "members=1"] if method == "ex-mcr" else []
    line = ["extend", "clip.space", "leaf.space", "--via", "text", "--method", method, "--out", "x.bridge", *more]
    assert main(line) == 0
    assert "space 'leaf' has nothing beside the overlap (text)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        ["extend", "--method", "ridge"],
        ["extend", "--method", "posterior"],
        ["extend", "--set", "epochs=1", "--set", "members=1"],
        ["connect", "--method", "c-mcr", "--set", "epochs=1"],
    ],
)
def test_other_captions_under_the_same_generated_ids_are_caught(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shuffled = np.random.default_rng(3).permutation(N)
    for space, rows in (("clip", rows_of(0, 24)), ("clap", rows_of(1, 16)[shuffled])):
        imported(tmp_path, space, "text", rows, ids=False)
    verb, *more = line
    assert main([verb, "clip.space", "clap.space", "--via", "text", "--out", "x.bridge", *more]) == 0
    err = capsys.readouterr().err
    assert "clip and clap, text: shared items have their neighbours in common no more often than chance" in err
    assert main(["inspect", "clip.space", "clap.space", "--via", "text"]) == 0
    assert "no more often than chance" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("setting", "answer"),
    [
        ("aggregation_temperature={pictur=0.02}", "names the space 'pictur', expected some of clip, clap"),
        ("align=[leaf-bse]", "got 'leaf-bse'"),
        ("align=[leaf-base,", "align"),
        ("epoch=2", "Did you mean epochs?"),
    ],
)
def test_typos_in_settings_are_answered_before_training(
    setting: str,
    answer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    imported(tmp_path, "clip", "text", rows_of(0, 24))
    imported(tmp_path, "clap", "text", rows_of(1, 16))
    line = ["extend", "clip.space", "clap.space", "--via", "text", "--out", "x.bridge", "--set", setting]
    assert main(line) == 2
    err = capsys.readouterr().err
    assert answer in err
    assert "train" not in err


def test_no_score_is_told_before_there_is_one(tmp_path: Path) -> None:
    """The line of progress says nothing of held-out rows before they were scored."""
    imported(tmp_path, "clip", "text", rows_of(0, 24))
    imported(tmp_path, "clap", "text", rows_of(1, 16))
    command = [sys.executable, "-m", "isthmus", "extend", "clip.space", "clap.space", "--via", "text"]
    command += ["--out", "x.bridge", "--set", "epochs=2", "--set", "members=1", "--set", "batch_size=4"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "loss" in done.stderr
    assert "inf" not in done.stderr
