"""Projected spaces that are written in parts: the same bytes as by one process, in any order, killed or not."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import isthmus
from isthmus.bridges import projected
from isthmus.bridges.project import project
from isthmus.cli import main
from isthmus.core.distribution import Distribution
from isthmus.errors import ConfigError, FingerprintError, SpaceError
from isthmus.spaces.space import make_space, open_space
from isthmus.spaces.writer import ModalityWriter
from small_bridge import linear_bridge

ROWS, DIM = 95, 6


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projected, "BLOCK", 10)


def test_parts_in_any_order_are_the_space_of_one_process(tmp_path: Path) -> None:
    bridge, space = linear_bridge(tmp_path, ROWS, DIM)
    project(bridge, space, into=tmp_path / "whole" / "u.space")
    into = tmp_path / "u.space"
    for number in (3, 0, 2):
        report = project(bridge, space, into=into, distribution=Distribution((number, 4)))
        assert report.rows == {}
    assert report.waiting_for == {"image": [1], "text": [1]}
    with pytest.raises(SpaceError):
        open_space(into)
    last = project(bridge, space, into=into, distribution=Distribution("1/4"))
    assert (last.rows, last.waiting_for) == ({"image": ROWS, "text": ROWS}, None)
    assert files(into) == files(tmp_path / "whole" / "u.space")
    assert open_space(into).verify().keys() == {"image", "text"}
    again = project(bridge, space, into=into, distribution=Distribution("1/4"))
    assert again.rows == last.rows
    assert files(into) == files(tmp_path / "whole" / "u.space")


@pytest.mark.parametrize("count", [1, 40])
def test_few_parts_and_more_parts_than_blocks(tmp_path: Path, count: int) -> None:
    bridge, space = linear_bridge(tmp_path, ROWS, DIM)
    project(bridge, space, into=tmp_path / "whole" / "u.space", modalities="image")
    for number in range(count):
        project(
            bridge, space, into=tmp_path / "u.space", modalities="image", distribution=Distribution((number, count))
        )
    assert files(tmp_path / "u.space") == files(tmp_path / "whole" / "u.space")


def test_bounds_cover_all_rows_once_by_whole_blocks() -> None:
    for rows in (0, 1, 9, 10, 95, 100):
        for count in (1, 3, 40):
            bounds = [projected.part_bounds(rows, (number, count)) for number in range(count)]
            assert [row for first, last in bounds for row in range(first, last)] == list(range(rows))
            assert all(first % 10 == 0 or first == rows for first, _ in bounds)
    assert projected.part_bounds(95, None) == (0, 95)


def test_a_part_that_was_interrupted_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bridge, space = linear_bridge(tmp_path, ROWS, DIM)
    project(bridge, space, into=tmp_path / "whole" / "u.space")
    append, calls = ModalityWriter.append, []

    def fails(self: ModalityWriter, *arguments: object, **options: object) -> None:
        calls.append(1)
        if len(calls) in (2, 9, 23):
            raise OSError(28, "No space left on device")
        append(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ModalityWriter, "append", fails)
    faults, number = 0, 0
    while number < 3:  # the third fault comes while parts are joined
        try:
            project(bridge, space, into=tmp_path / "u.space", distribution=Distribution((number, 3)))
        except OSError:
            faults += 1
        else:
            number += 1
    assert faults == 3
    assert files(tmp_path / "u.space") == files(tmp_path / "whole" / "u.space")


def test_what_parts_refuse(tmp_path: Path) -> None:
    bridge, space = linear_bridge(tmp_path, ROWS, DIM)
    into = tmp_path / "u.space"
    project(bridge, space, into=into, distribution=Distribution("0/4"))
    with pytest.raises(SpaceError, match=r"holds parts of another number \(00000-of-00004\)\. Give all shards one N"):
        project(bridge, space, into=into, distribution=Distribution("1/5"))
    with pytest.raises(ConfigError, match="overwrite is of a run without parts"):
        project(bridge, space, into=into, overwrite=True, distribution=Distribution("1/4"))
    other = replace(bridge, arrays={"w": np.eye(DIM, dtype=np.float32)})
    with pytest.raises(SpaceError, match=r"is a part of other rows or of another bridge\. Remove .*\.parts/image"):
        project(other, space, into=into, distribution=Distribution("0/4"))
    with pytest.raises(SpaceError, match="exists already"):
        project(bridge, space, into=into)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(SpaceError, match="is no space that this bridge projected"):
        project(bridge, space, into=tmp_path / "mine", distribution=Distribution("0/4"))
    x = np.ones((3, DIM), np.float32)
    strange = make_space(tmp_path / "strange.space", {"image": (["a", "b", "c"], x)}, encoder="another/encoder")
    with pytest.raises(FingerprintError):
        project(bridge, strange, into=tmp_path / "v.space", distribution=Distribution("0/4"))
    assert not (tmp_path / "v.space" / ".parts").exists()
    with pytest.raises(ConfigError, match=r"shard is '4/4'\. Expected I/N"):
        Distribution("4/4")
    with pytest.raises(ConfigError, match="unknown engine 'rya'"):
        Distribution(engine="rya")
    with pytest.raises(ConfigError, match="'ray' deals out the parts itself"):
        Distribution("0/4", engine="ray")


def test_the_command_takes_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, space = linear_bridge(tmp_path, ROWS, DIM)
    command = ["project", str(tmp_path / "u.bridge"), str(space.path), "--into", str(tmp_path / "u.space")]
    assert main([*command, "--shard", "0/2", "--modality", "image"]) == 0
    assert "image: 1 parts are missing still, the first is 1" in capsys.readouterr().out
    assert main([*command, "--shard", "1/2", "--modality", "image"]) == 0
    assert main([*command, "--modality", "text"]) == 0
    assert len(isthmus.open_space(tmp_path / "u.space")["image"]) == ROWS
    assert open_space(tmp_path / "u.space").modalities == ("image", "text")


def test_a_bridge_from_disk_goes_to_other_processes(tmp_path: Path) -> None:
    bridge, space = linear_bridge(tmp_path, ROWS, DIM)
    other = pickle.loads(pickle.dumps(bridge))
    np.testing.assert_array_equal(other.project(space["image"]), bridge.project(space["image"]))
