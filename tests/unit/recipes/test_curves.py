"""Training curves: JSON lines that a run writes while it trains, and what TensorBoard gets."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from isthmus import extend
from isthmus.cli import main
from isthmus.errors import ConfigError, DependencyError
from isthmus.recipes.training.curves import CurveFile, TensorBoard, both
from worlds import three_spaces


def row(epoch: int, member: int | None = None) -> dict[str, Any]:
    about = {"epoch": epoch, "step": 10 * epoch, "loss": 1.0 / epoch, "held_out": {"score": 0.5, "a to b r@1": 0.25}}
    return about if member is None else {"member": member, **about}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_file_is_the_history_of_the_bridge(tmp_path: Path):
    clip, clap, _ = three_spaces(tmp_path, 100)
    path = tmp_path / "logs" / "curves.jsonl"
    config = {"epochs": 2, "members": 2, "batch_size": 64}
    from isthmus import ExtendConfig

    bridge = extend(clip, clap, via="text", config=ExtendConfig(**config), callback=CurveFile(path), quiet=True)
    assert lines(path) == bridge.history
    assert [(each["member"], each["epoch"]) for each in bridge.history] == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_a_resumed_run_goes_on_and_a_new_one_begins_anew(tmp_path: Path):
    path = tmp_path / "c.jsonl"
    first = CurveFile(path)
    for epoch in (1, 2, 3):
        first(row(epoch))
    resumed = CurveFile(path)  # killed after the second epoch's checkpoint: the third is trained once more
    resumed(row(3))
    resumed(row(4))
    assert [each["epoch"] for each in lines(path)] == [1, 2, 3, 4]
    CurveFile(path)(row(1))
    assert [each["epoch"] for each in lines(path)] == [1]


@pytest.mark.parametrize("content", ["my notes", '{"id": 1}\n', "[1, 2]\n"])
def test_a_file_of_the_users_is_not_written_over(tmp_path: Path, content: str):
    path = tmp_path / "notes.jsonl"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"--curves .*notes\.jsonl is no file that isthmus wrote"):
        CurveFile(path)
    assert path.read_text() == content


def test_a_fault_of_the_place_comes_before_the_training(tmp_path: Path):
    with pytest.raises(ConfigError, match="--curves"):
        CurveFile(tmp_path, inputs=[tmp_path])


def test_tensorboard_gets_every_figure_of_every_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written: list[tuple[str, str, float, int]] = []
    purged: list[tuple[str, int]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            self.name = Path(folder).name
            purged.append((self.name, purge_step))

        def add_scalar(self, figure: str, value: float, step: int) -> None:
            written.append((self.name, figure, value, step))

        def flush(self) -> None:
            pass

    stand_in = types.ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    board = both([TensorBoard(tmp_path / "runs")])
    assert board is not None
    board(row(1, member=0))
    board(row(2, member=0))
    board(row(1, member=1))
    assert purged == [("member-0", 10), ("member-1", 10)]
    assert written[:3] == [
        ("member-0", "loss", 1.0, 10),
        ("member-0", "held_out/score", 0.5, 10),
        ("member-0", "held_out/a_to_b_r@1", 0.25, 10),
    ]
    assert written[3][3] == 20
    assert written[6][:2] == ("member-1", "loss")


def test_tensorboard_reads_what_was_written(tmp_path: Path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(tmp_path)
    board(row(1))
    board(row(2))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(each.step, each.value) for each in events.Scalars("loss")] == [(10, 1.0), (20, 0.5)]
    assert events.Scalars("held_out/score")[1].value == 0.5


def test_without_tensorboard_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(DependencyError, match=r"Run: pip install tensorboard$"):
        TensorBoard(tmp_path)
    three_spaces(tmp_path, 100)
    made = ["connect", str(tmp_path / "clip.space"), str(tmp_path / "clap.space"), "--via", "text"]
    made += ["--out", str(tmp_path / "x.bridge"), "--tensorboard", str(tmp_path / "runs")]
    assert main(made) == 2
    assert capsys.readouterr().err.strip().splitlines() == [
        "DependencyError: --tensorboard needs the package tensorboard, not installed here. Run: pip install tensorboard"
    ]
    assert not (tmp_path / "x.bridge").exists()


def test_the_verbs_write_curves_and_refuse_them_of_what_is_solved(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    three_spaces(tmp_path, 100)
    both_spaces = [str(tmp_path / "clip.space"), str(tmp_path / "clap.space"), "--via", "text", "--quiet"]
    curves = tmp_path / "curves.jsonl"
    more = ["--curves", str(curves), "--set", "epochs=2", "--set", "batch_size=64"]
    assert main(["connect", *both_spaces, "--out", str(tmp_path / "x.bridge"), *more]) == 0
    assert lines(curves) == lines(tmp_path / "x.bridge" / "history.jsonl")
    solved = ["--method", "ridge", "--curves", str(curves), "--out", str(tmp_path / "y.bridge")]
    assert main(["extend", *both_spaces, *solved]) == 2
    assert "--checkpoint-dir, --curves and --tensorboard are of ex-mcr, got --method ridge." in capsys.readouterr().err
