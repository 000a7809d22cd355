"""Benchmarks from the command line: tiny models of real architectures, raw files, one TOML file, every row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from isthmus.cli import main
from tiny_models import save_clap, save_clip

N = 8
WORDS = ["rain", "dog", "engine", "bird", "door", "bell", "wind", "horn"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP and a CLAP of random weights, spaces of texts made by them, a bridge, and a benchmark's files."""
    home = tmp_path_factory.mktemp("suite")
    rng = np.random.default_rng(0)
    (home / "texts.csv").write_text("id,text\n" + "".join(f"t{i},{WORDS[i % 8]} number {i}\n" for i in range(40)))
    for folder in ("sounds", "pictures"):
        (home / "data" / folder).mkdir(parents=True)
    rows = ["audio,image,label,split"]
    for i in range(N):
        soundfile.write(home / "data" / "sounds" / f"{i}.wav", rng.normal(0, 0.1, 4800), 48_000)
        picture = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(picture).save(home / "data" / "pictures" / f"{i}.png")
        rows.append(f"sounds/{i}.wav,pictures/{i}.png,{WORDS[i % 4]},{'ab'[i % 2]}")
    rows.append("sounds/lost.wav,pictures/0.png,rain,a")
    (home / "data" / "clips.csv").write_text("\n".join(rows) + "\n")
    (home / "retrieval.toml").write_text(
        'task = "retrieval"\nreader = "files"\nmodalities = ["audio", "image"]\n'
        '[options]\nquery = "clips.csv"\nquery_column = "audio"\ngallery_column = "image"\n'
        '[[published]]\nmodel = "Somebody"\nfigures = { "r@1" = 0.25 }\nsource = "a paper"\n'
    )
    (home / "names.toml").write_text(
        'task = "classification"\nreader = "files"\nmodalities = ["audio"]\ntemplates = "sounds"\n'
        '[data]\nitems = 9\n[options]\nquery = "clips.csv"\nquery_column = "audio"\n'
    )
    clip, clap = save_clip(home / "clip"), save_clap(home / "clap", fused=False)
    for name, encoder, what in (("clip", f"clip:{clip}", "pictures"), ("clap", f"clap:{clap}", "sounds")):
        into = ["--encoder", encoder, "--into", str(home / f"{name}.space"), "--quiet"]
        assert main(["encode", str(home / "texts.csv"), "--modality", "text", *into]) == 0
        assert main(["encode", str(home / "data" / what), *into]) == 0
    both = [str(home / "clip.space"), str(home / "clap.space"), "--via", "text", "--quiet"]
    assert main(["extend", *both, "--out", str(home / "ridge.bridge"), "--method", "ridge"]) == 0
    small = ["--set", "epochs=1", "--set", "members=1", "--set", "batch_size=32"]
    assert main(["extend", *both, "--out", str(home / "trained.bridge"), *small]) == 0
    return home


def told(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> Any:
    """Run a verb: its JSON where it succeeds, its one line where it does not."""
    capsys.readouterr()
    got = main([*arguments, *(["--json"] if code == 0 else [])])
    said = capsys.readouterr()
    assert got == code, said.err
    if code:
        assert not said.out
        return said.err.strip().splitlines()[-1]
    return json.loads(said.out)


def suite(world: Path, name: str, *more: str, bridge: str = "ridge") -> list[str]:
    given = ["--benchmark", str(world / f"{name}.toml"), "--data", str(world / "data"), "--cache", str(world / "cache")]
    return ["suite", str(world / f"{bridge}.bridge"), *given, *more]


def test_a_retrieval_of_raw_files_with_every_row(world: Path, capsys: pytest.CaptureFixture[str]):
    rows = ["--baselines", "--recipes", "c-mcr,ex-mcr,ours", "--seeds", "0,1"]
    train = ["--train", "epochs=1", "--train", "batch_size=16"]
    arguments = suite(world, "retrieval", *rows, *train, bridge="trained")
    report = told(arguments, capsys)
    assert (report["n_query"], report["n_gallery"], report["n_pairs"], report["missing"]) == (N, N, N, 1)
    assert report["missing_examples"] == ["sounds/lost.wav"]
    assert report["encoded"]["clap/audio"]["encoder"].startswith("clap:")
    found = {row["name"]: row for row in report["rows"]}
    assert report["rows"][0]["name"] == "trained.bridge"
    for name in ("trained.bridge", "random", "ridge", "dictionary", "c-mcr (paper)", "ex-mcr (paper)"):
        assert 0.0 <= found[name]["r@1"] <= 1.0
    assert "reason" in found["own pair"]
    assert found["ours, trained again"]["seeds"] == [0, 1]
    assert report["published"][0]["figures"] == {"r@1": 0.25}
    # Again: nothing is encoded or trained a second time, and the figures are the same.
    capsys.readouterr()
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "Encoding" not in said.err
    assert "Training" not in said.err
    assert "Somebody (a paper)" in said.out
    again = {row["name"]: row for row in told(arguments, capsys)["rows"]}
    assert {name: row.get("map") for name, row in again.items()} == {
        name: row.get("map") for name, row in found.items()
    }


def test_a_classification_fills_templates(world: Path, capsys: pytest.CaptureFixture[str]):
    report = told(suite(world, "names", "--baselines"), capsys)
    assert (report["classes"], report["n_query"], report["published_items"]) == (4, N, 9)
    assert report["templates"]["name"] == "sounds"
    assert report["n_texts"] == 4 * report["templates"]["count"]
    assert report["spaces"] == {"query": "clap", "target": "clip"}
    own = next(row for row in report["rows"] if row["name"] == "own pair (clap)")
    assert 0.0 <= own["accuracy@1"] <= 1.0
    (world / "mine.txt").write_text("hear {}\n{} again\n")
    report = told(suite(world, "names", "--templates", str(world / "mine.txt"), "--through", "text=clap"), capsys)
    assert (report["templates"]["source"], report["n_texts"]) == ("mine.txt", 8)
    assert report["spaces"] == {"query": "clap", "target": "clap"}


def test_several_bridges_and_a_limit(world: Path, capsys: pytest.CaptureFixture[str]):
    report = told([*suite(world, "retrieval", "--limit", "3"), str(world / "trained.bridge")], capsys)
    assert [row["name"] for row in report["rows"]] == ["ridge.bridge", "trained.bridge", "random"]
    assert (report["n_query"], report["n_gallery"]) == (3, 3)
    assert report["notes"][0].startswith("Limited to the first 3")


def test_bridges_are_compared(world: Path, capsys: pytest.CaptureFixture[str]):
    given = suite(world, "retrieval", "--resamples", "100")[2:]
    ridge, trained = str(world / "ridge.bridge"), str(world / "trained.bridge")
    report = told(["compare", ridge, trained, *given], capsys)
    assert set(report["figures"]) == {"r@1", "r@5", "r@10", "map"}
    assert set(report["figures"]["map"]) == {"a", "b", "difference", "ci95", "p"}
    same = told(["compare", ridge, ridge, *given], capsys)
    assert all(one["difference"] == 0 and one["p"] == 1 for one in same["figures"].values())
    capsys.readouterr()
    assert main(["compare", ridge, trained, *given]) == 0
    assert "map q>g" in capsys.readouterr().out


def test_benchmarks_are_listed_and_described(world: Path, capsys: pytest.CaptureFixture[str]):
    report = told(["benchmarks"], capsys)
    assert {"ave", "esc-50", "coco", "modelnet40"} <= {one["name"] for one in report["benchmarks"]}
    one = told(["benchmarks", "esc-50"], capsys)
    assert (one["task"], one["data"]["items"], one["options"]["fold"]) == ("classification", 2000, 0)
    assert main(["benchmarks", "esc-50"]) == 0
    said = capsys.readouterr().out
    for words in ("download: ", "place: ", "licence: ", "size: ", "split: ", "options: fold=0", "published", "C-MCR"):
        assert words in said
    assert told(["benchmarks", str(world / "names.toml")], capsys)["templates"] == "sounds"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "querry=x"], "ConfigError: --set has the unknown key 'querry'. Did you mean query?"),
        (["--set", "query=x.csv"], "x.csv: no such file or folder. Expected the option 'query'"),
        (["--recipes", "magic"], "ConfigError: unknown recipe 'magic'. Expected one of c-mcr, ex-mcr, ours."),
        (["--seeds", "a"], "ConfigError: --seeds got 'a', expected numbers such as 0,1,2."),
        (["--through", "audio"], "ConfigError: --through got 'audio', expected MODALITY=SPACE."),
        (["--through", "audio=clip"], "BridgeError: the bridge has no route for 'clip/audio'."),
        (["--encoder", "clap"], "ConfigError: --encoder got 'clap', expected SPACE=NAME."),
        (["--templates", "x.txt"], "ConfigError: templates are of classifications; retrieval is a retrieval."),
        (["--recipes", "ex-mcr", "--train", "colour=1"], "ConfigError: config has the unknown key 'colour'."),
    ],
)
def test_wrong_options_are_one_line(world: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert message in told(suite(world, "retrieval", *more), capsys, code=2)


def test_a_recipe_that_cannot_be_trained_leaves_the_other_rows(world: Path, capsys: pytest.CaptureFixture[str]):
    report = told(suite(world, "retrieval", "--recipes", "c-mcr,ours"), capsys)
    rows = {row["name"]: row for row in report["rows"]}
    assert "too few for batches of 10,240" in rows["c-mcr (paper)"]["reason"]
    assert rows["ours, trained again"]["reason"].startswith("the bridge is a closed form")
    assert rows["ridge.bridge"]["map"] > 0.0


def test_a_bridge_given_twice_and_an_unknown_benchmark(world: Path, capsys: pytest.CaptureFixture[str]):
    twice = [*suite(world, "retrieval"), str(world / "ridge.bridge")]
    assert "is given twice. Give each once." in told(twice, capsys, code=2)
    line = told(["suite", str(world / "ridge.bridge"), "--benchmark", "avee", "--data", "x"], capsys, code=2)
    assert "there is no benchmark 'avee'. Did you mean ave?" in line
    line = told(["suite", str(world / "ridge.bridge"), "--benchmark", "ave", "--data", str(world)], capsys, code=2)
    assert "Annotations.txt" in line


def test_another_model_is_refused(world: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    import torch

    from isthmus.errors import FingerprintError

    state = world / "clap" / "model.safetensors"
    kept = state.read_bytes()
    from safetensors.torch import load_file, save_file

    changed = {name: value + (0.01 if value.dtype == torch.float32 else 0) for name, value in load_file(state).items()}
    save_file(changed, state, metadata={"format": "pt"})
    try:
        arguments = [*suite(world, "retrieval"), "--cache", str(tmp_path)]
        line = told(arguments, capsys, code=2)
    finally:
        state.write_bytes(kept)
    assert line.startswith(FingerprintError.__name__)
    assert "another weights_sha256" in line
