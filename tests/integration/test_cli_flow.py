"""The command line from embedding files to scores and search: every verb once, its JSON alone on standard output."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isthmus
from isthmus.cli import main

N = 120


class World:
    """A folder with two spaces that share texts and images' meanings, and what is needed to score a bridge."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(0)
        looks = {"clip": rng.normal(size=(12, 24)), "clap": rng.normal(size=(12, 20))}
        texts, items = rng.normal(size=(300, 12)), rng.normal(size=(N, 12))
        for space, modality in (("clip", "image"), ("clap", "audio")):
            for name, meaning, ids in (
                ("text", texts, [f"t{i}" for i in range(300)]),
                (modality, items, [f"{modality}{i}" for i in range(N)]),
            ):
                clean = np.tanh(meaning @ looks[space] / 4)
                x = clean + 0.05 * rng.normal(size=clean.shape)
                np.save(folder / f"{space}_{name}.npy", x.astype(np.float32))
                (folder / f"{space}_{name}.txt").write_text("\n".join(ids) + "\n")
        pairs = "".join(f"audio{i},image{i}\n" for i in range(N))
        (folder / "pairs.csv").write_text("query_id,gallery_id\n" + pairs)
        labels = "".join(f"audio{i},t{i % 7}\n" for i in range(N))
        (folder / "labels.csv").write_text("query_id,class_id\n" + labels)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The world with its two spaces imported and two bridges made, all by command line."""
    made = World(tmp_path_factory.mktemp("world"))
    before = Path.cwd()
    os.chdir(made.folder)
    try:
        for space, modality in (("clip", "image"), ("clip", "text"), ("clap", "audio"), ("clap", "text")):
            name = f"{space}_{modality}"
            arguments = ["import", f"{name}.npy", "--into", f"{space}.space", "--modality", modality]
            assert main([*arguments, "--ids", f"{name}.txt", "--quiet"]) == 0
        both = ["clip.space", "clap.space", "--via", "text", "--quiet"]
        assert main(["extend", *both, "--out", "ridge.bridge", "--method", "ridge"]) == 0
        assert main(["extend", *both, "--out", "trained.bridge", "--set", "epochs=40"]) == 0
    finally:
        os.chdir(before)
    return made


@pytest.fixture(autouse=True)
def _inside(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.folder)


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Run a verb with --json and read the one object that it prints."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0, capsys.readouterr().err
    report = json.loads(capsys.readouterr().out)
    assert isinstance(report, dict)
    return report


def test_import_tells_rows_and_is_done_only_once(capsys: pytest.CaptureFixture[str]):
    arguments = ["import", "clip_image.npy", "--into", "again.space", "--modality", "image", "--encoder", "clip:some"]
    first = told([*arguments, "--ids", "clip_image.txt"], capsys)
    assert (first["rows"], first["dim"], first["rejected"]) == (N, 24, 0)
    assert told([*arguments, "--ids", "clip_image.txt"], capsys)["rows"] == 0
    assert isthmus.open_space("again.space")["image"].ids[:2] == ["image0", "image1"]


def test_inspect_tells_health_and_overlap(capsys: pytest.CaptureFixture[str]):
    report = told(["inspect", "clip.space", "clap.space", "--via", "text", "--verify"], capsys)
    assert set(report["modalities"]) == {"image", "text"}
    assert report["overlap"]["text"]["shared"] == 300
    assert report["seconds"] >= 0


def test_extend_tells_rows_seconds_and_held_out(capsys: pytest.CaptureFixture[str]):
    both = ["clip.space", "clap.space", "--via", "text"]
    report = told(["extend", *both, "--out", "told.bridge", "--set", "epochs=1", "--seed", "4"], capsys)
    assert report["rows"] == 300 + 2 * N
    assert report["seconds"] > 0
    assert report["held_out"]
    assert report["config"]["epochs"] == 1
    assert report["record"]["seeds"] == [4]
    assert sorted(path.name for path in Path().iterdir() if path.name.startswith(".")) == []


def test_connect_makes_a_new_space_and_takes_a_file_of_settings(capsys: pytest.CaptureFixture[str]):
    Path("c.toml").write_text("epochs = 1\ndim = 40\nseed = 2\n")
    both = ["clip.space", "clap.space", "--via", "text"]
    report = told(["connect", *both, "--out", "new.bridge", "--config", "c.toml", "--set", "dim=16"], capsys)
    assert (report["method"], report["dim"], report["config"]["seed"]) == ("c-mcr", 16, 2)
    assert set(report["routes"]) == {"clip/image", "clip/text", "clap/audio", "clap/text"}


def test_a_bridge_is_replaced_only_with_overwrite(capsys: pytest.CaptureFixture[str]):
    arguments = ["extend", "clip.space", "clap.space", "--via", "text", "--method", "procrustes", "--out", "p.bridge"]
    assert told(arguments, capsys)["method"] == "procrustes"
    assert main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert told([*arguments, "--overwrite", "--center", "leaf"], capsys)["method"] == "procrustes"


def test_a_bridge_can_be_extended(capsys: pytest.CaptureFixture[str]):
    rng = np.random.default_rng(1)
    images = isthmus.open_space("clip.space")["image"].ids
    isthmus.make_space(
        "ulip.space",
        {"image": (images, rng.normal(size=(N, 10))), "point_cloud": (images, rng.normal(size=(N, 10)))},
    )
    arguments = ["extend", "ridge.bridge", "ulip.space", "--via", "image", "--method", "ridge", "--out", "twice.bridge"]
    assert set(told(arguments, capsys)["routes"]) >= {"clip/image", "clap/audio", "ulip/point_cloud"}
    Path("moved.space").symlink_to("clip.space")
    assert main([*arguments[:-1], "thrice.bridge", "--space", "clip=moved.space", "--quiet"]) == 0
    assert main([*arguments[:-1], "never.bridge", "--space", "clip=ulip.space"]) == 2
    assert capsys.readouterr().err.startswith("FingerprintError: ")


def test_project_writes_what_python_projects(capsys: pytest.CaptureFixture[str]):
    report = told(["project", "ridge.bridge", "clap.space", "--into", "u.space", "--modality", "audio"], capsys)
    assert report["rows"] == {"audio": N}
    clap, unified = isthmus.open_space("clap.space"), isthmus.open_space("u.space")
    assert unified.modalities == ("audio",)
    assert unified["audio"].ids == clap["audio"].ids
    np.testing.assert_array_equal(
        np.asarray(unified["audio"]), isthmus.load_bridge("ridge.bridge").project(clap["audio"])
    )
    assert unified["audio"].info["encoder"]["library"] == "isthmus"
    assert main(["project", "ridge.bridge", "clap.space", "--into", "u.space", "--modality", "audio"]) == 2
    # The base joins its leaf in the folder; rows in the unified space are taken as they are.
    report = told(["project", "ridge.bridge", "clip.space", "clap.space", "--into", "u.space"], capsys)
    assert set(report["rows"]) == {"text", "image"}
    unified, bridge = isthmus.open_space("u.space"), isthmus.load_bridge("ridge.bridge")
    clip = isthmus.open_space("clip.space")
    np.testing.assert_array_equal(bridge.project(unified["image"]), bridge.project(clip["image"]))
    assert main(["project", "ridge.bridge", "clap.space", "--into", "clip.space"]) == 2
    assert "is no space that this bridge projected" in capsys.readouterr().err


RETRIEVAL = ["--query", "clap.space/audio", "--gallery", "clip.space/image", "--pairs", "pairs.csv"]


@pytest.mark.parametrize("bridge", ["ridge.bridge", "trained.bridge"])
def test_evaluate_prints_what_the_contract_says(bridge: str, capsys: pytest.CaptureFixture[str]):
    report = told(["evaluate", bridge, *RETRIEVAL], capsys)
    assert (report["n_query"], report["n_gallery"], report["n_pairs"]) == (N, N, N)
    for direction in ("query_to_gallery", "gallery_to_query", "mean"):
        assert set(report[direction]) >= {"r@1", "r@5", "r@10", "map", "median_rank"}
    low, high = report["query_to_gallery"]["r@1_ci95"]
    assert 0 <= low <= report["query_to_gallery"]["r@1"] <= high <= 1
    assert report["mean"]["r@10"] > 3 * 10 / N
    assert report["seconds"] >= 0


def test_evaluate_with_baselines(capsys: pytest.CaptureFixture[str]):
    Path("train.csv").write_text("query_id,gallery_id\n" + "".join(f"audio{i},image{i}\n" for i in range(0, N, 2)))
    report = told(["evaluate", "ridge.bridge", *RETRIEVAL, "--baselines", "--train-pairs", "train.csv"], capsys)
    rows = report["baselines"]
    assert set(rows) >= {"random", "ridge", "procrustes", "cca", "dictionary", "dictionary_two_sided"}
    assert {"paired_ridge"} <= set(rows)
    assert rows["ridge"]["mean"]["r@1"] > rows["random"]["mean"]["r@1"]


def test_evaluate_zero_shot(capsys: pytest.CaptureFixture[str]):
    arguments = ["--query", "clap.space/audio", "--classes", "clip.space/text", "--labels", "labels.csv"]
    report = told(["evaluate", "ridge.bridge", *arguments], capsys)
    assert report["n"] == N
    assert 0 <= report["accuracy@1_ci95"][0] <= report["accuracy@1"] <= report["accuracy@5"] <= 1
    assert main(["evaluate", "ridge.bridge", *arguments]) == 0
    assert "accuracy@1" in capsys.readouterr().out


def test_search_by_id_over_two_galleries(capsys: pytest.CaptureFixture[str]):
    arguments = [
        "search",
        "ridge.bridge",
        "--id",
        "clap.space/audio/audio7",
        "--gallery",
        "clip.space/image",
        "-k",
        "4",
    ]
    report = told(arguments, capsys)
    hits = report["hits"]
    assert [hit["rank"] for hit in hits] == [1, 2, 3, 4]
    assert "image7" in [hit["id"] for hit in hits]
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    both = told([*arguments, "--gallery", "clip.space/text"], capsys)["hits"]
    assert len(both) == 4
    assert {hit["gallery"] for hit in both} <= {"clip.space/image", "clip.space/text"}


def test_search_says_why_each_hit_matches(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    arguments = ["search", "ridge.bridge", "--id", "clap.space/audio/audio7", "--gallery", "clip.space/image"]
    arguments += ["--explain", "-k", "3"]
    for hit in told(arguments, capsys)["hits"]:
        assert hit["exact"] is False
        assert hit["basis"].startswith("posteriors over ")
        assert 0 < sum(each["share"] for each in hit["why"]) <= 1 + 1e-6
        assert all(each["text"] for each in hit["why"])
    monkeypatch.setenv("COLUMNS", "80")
    assert main(arguments) == 0
    shown = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("      by ") for line in shown) == 3
    assert " ".join(shown[-2:]).startswith("Shares are an approximation: from posteriors over")
    assert max(map(len, shown)) <= 80


def test_whoever_reads_results_may_stop_early():
    """`isthmus search ... | head` ends without a word, and the verb as done."""
    code = (
        "import sys, isthmus.cli.output as o\n"
        "with o.output() as out:\n"
        "    for n in range(100_000): out.say('a line')\n"
        "print('done', file=sys.stderr)\n"
    )
    piped = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} | head -n 2; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", piped], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "a line\na line\n0\n"
    assert done.stderr == "done\n"


def test_encoders_and_doctor(capsys: pytest.CaptureFixture[str]):
    names = [row["name"] for row in told(["encoders"], capsys)["encoders"]]
    assert {"clip", "clap", "ulip", "toy"} <= set(names)
    report = told(["doctor"], capsys)
    assert report["machine"]["isthmus"] == isthmus.__version__
    for extra in report["extras"]:
        assert bool(extra["missing"]) == bool(extra["install"])


def test_doctor_says_no_when_something_installed_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("isthmus.cli.machine.broken", lambda: ["torchvision is installed but does not fit torch (x)."])
    assert main(["doctor", "--quiet"]) == 1
    assert capsys.readouterr().err.startswith("CheckFailed: torchvision")


def test_people_read_results_on_standard_output(capsys: pytest.CaptureFixture[str]):
    capsys.readouterr()
    for arguments in (
        ["inspect", "clip.space"],
        ["evaluate", "ridge.bridge", *RETRIEVAL],
        ["search", "ridge.bridge", "--id", "clap.space/audio/audio7", "--gallery", "clip.space/image"],
    ):
        assert main(arguments) == 0
        assert capsys.readouterr().out


def test_the_installed_command_keeps_json_clean_in_a_pipe():
    command = [sys.executable, "-m", "isthmus", "inspect", "clip.space", "clap.space", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout)["space"] == "clip"
    assert done.stdout.count("\n") == 1
