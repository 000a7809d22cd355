"""What a person reads of every verb fits a terminal of 80 columns; only a word that cannot be broken is longer."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.csv import write_csv

from isthmus import open_space
from isthmus.cli import main
from isthmus.cli.app import VERBS
from small_world import make_small_world

WIDTH = 80
SPACES = "spaces/{}.space"
PICTURE, SOUND, SHAPE = (SPACES.format(name) for name in ("picture", "sound", "shape"))
PICTURES, SOUNDS = SPACES.format("picture-test") + "/image", SPACES.format("sound-test") + "/audio"
TASK = ["--query", SOUNDS, "--gallery", PICTURES, "--pairs", "pairs.csv"]
ENCODERS = ["--encoder", "image=toy:picture", "--encoder", "audio=toy:sound"]
BENCHMARK = ["--benchmark", "own.toml", "--data", ".", "--force"]

COMMANDS: dict[str, list[list[str]]] = {
    "join": [["raw/test/image", "raw/test/audio", "--out", "my.world", "--texts", "raw/memory/texts.txt", *ENCODERS]],
    "encode": [["raw/test/image", "--encoder", "toy:picture", "--into", "new.space", "--modality", "image"]],
    "import": [["rows.npy", "--into", "imported.space", "--modality", "image", "--name", "mine", "--ids", "ids.txt"]],
    "inspect": [[PICTURE], [PICTURE, SOUND, "--via", "text"], [PICTURE, "--verify"]],
    "update": [["new.space", "raw/test/image", "--modality", "image", "--encoder", "toy:picture"]],
    "rename": [["imported.space", "--name", "another"]],
    "remove": [["imported.space", "item-0", "--modality", "image"]],
    "merge": [[SOUND, SPACES.format("sound-test"), "--into", "merged.space"]],
    "connect": [
        [PICTURE, SOUND, "--via", "text", "--out", "connected.bridge"],
        [PICTURE, SOUND, SHAPE, "--via", "picture,sound:text", "--via", "picture,shape:image", "--out", "three.bridge"],
        [PICTURE, SOUND, "--via", "text", "--method", "c-mcr", "--set", "epochs=2", "--out", "mcr.bridge"],
    ],
    "extend": [[PICTURE, SOUND, "--via", "text", "--method", "dictionary", "--out", "extended.bridge"]],
    "project": [["connected.bridge", PICTURE, "--into", "unified.space"]],
    "evaluate": [["connected.bridge", *TASK, "--baselines"], ["connected.bridge", *TASK]],
    "search": [
        ["connected.bridge", "--id", SOUNDS + "/{first}", "--gallery", PICTURES, "--explain"],
        ["three.bridge", "--text", "three hundred and forty", "--gallery", PICTURES, "--gallery", SOUNDS],
    ],
    "report": [["connected.bridge", *TASK, "--out", "report.html"]],
    "export": [["connected.bridge", "--format", "safetensors", "--out", "exported"]],
    "benchmarks": [[], ["esc-50"]],
    "suite": [["connected.bridge", *BENCHMARK]],
    "compare": [["connected.bridge", "extended.bridge", *BENCHMARK]],
    "ablate": [["--config", "grid.toml", "--dry-run"]],
    "vocabulary": [[], ["--search", "violin"]],
    "encoders": [[]],
    "doctor": [[]],
}
ELSEWHERE = {"demo": "takes half a minute: tests/integration/test_demo.py", "serve": "prints its address alone"}
ELSEWHERE["official"] = "needs the authors' file: tests/unit/cli/test_cli_official.py"


def too_wide(text: str) -> list[str]:
    """Lines that are wider than a terminal although they could be broken."""
    return [line for line in text.splitlines() if len(line) > WIDTH and " " in line.strip()]


GRID = """
title = "Tiny"
via = "text"
seeds = [0]
[spaces]
base = "spaces/picture.space"
leaf = "spaces/sound.space"
[settings]
epochs = 2
[[evaluate]]
name = "own"
query = "spaces/sound-test.space/audio"
gallery = "spaces/picture-test.space/image"
pairs = "pairs.csv"
[[rows]]
name = "one"
"""
OWN = """
title = "sounds and pictures of our own"
task = "retrieval"
reader = "embeddings"
modalities = ["audio", "image"]
headline = ["map", "r@1", "r@5", "r@10"]
[data]
place = "sounds.parquet, pictures.parquet, pairs.parquet"
[options]
query = "sounds.parquet"
query_space = "sound"
gallery = "pictures.parquet"
gallery_space = "picture"
pairs = "pairs.parquet"
"""


def prepare(folder: Path) -> str:
    """Write what the verbs read beside the world's spaces; the id of the first sound."""
    spaces = {name: open_space(folder / f"spaces/{name}-test.space") for name in ("sound", "picture")}
    sounds, pictures = spaces["sound"]["audio"], spaces["picture"]["image"]
    for name, items in (("sounds", sounds), ("pictures", pictures)):
        rows = pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(items, np.float32).ravel()), items.dim)
        pq.write_table(pa.table({"id": items.ids, "embedding": rows}), folder / f"{name}.parquet")
    pairs = pa.table({"query_id": sounds.ids, "gallery_id": pictures.ids})
    pq.write_table(pairs, folder / "pairs.parquet")
    write_csv(pairs, folder / "pairs.csv")
    (folder / "grid.toml").write_text(GRID)
    (folder / "own.toml").write_text(OWN)
    (folder / "ids.txt").write_text("".join(f"item-{row}\n" for row in range(len(pictures))))
    np.save(folder / "rows.npy", np.asarray(pictures, np.float32))
    return sounds.ids[0]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What a person reads of every verb on standard output, by verb, in a window of 80 columns."""
    folder = make_small_world(tmp_path_factory.mktemp("world"))
    first = prepare(folder)
    answers: dict[str, list[str]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", str(WIDTH))
        for verb, commands in COMMANDS.items():
            for arguments in commands:
                words, notes = io.StringIO(), io.StringIO()
                given = [each.format(first=first) if "{" in each else each for each in arguments]
                with redirect_stdout(words), redirect_stderr(notes):
                    code = main([verb, *given])
                assert code == 0, (verb, notes.getvalue()[-600:])
                answers.setdefault(verb, []).append(words.getvalue())
    return answers


def test_every_verb_is_looked_at():
    assert set(COMMANDS) | set(ELSEWHERE) == set(VERBS)


@pytest.mark.parametrize("verb", list(COMMANDS))
def test_what_a_person_reads_fits_eighty_columns(shown: dict[str, list[str]], verb: str):
    for text in shown[verb]:
        assert text.strip(), "it says nothing"
        assert too_wide(text) == []


@pytest.mark.parametrize("verb", list(VERBS))
def test_help_fits_eighty_columns(verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    assert main([verb, "--help"]) == 0
    assert too_wide(capsys.readouterr().out) == []
