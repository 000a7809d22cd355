"""A user's own localisation, from a table of boxes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from isthmus.errors import ConfigError, FormatError
from isthmus.evaluation.benchmarks.declaration import Benchmark, parse_benchmark
from isthmus.evaluation.benchmarks.task import Localization, Sample


def declared(task: str = "localization", **options: object) -> Benchmark:
    table = {"task": task, "reader": "boxes", "modalities": ["audio", "image"]}
    return parse_benchmark({**table, "options": {"samples": "samples.csv", **options}}, Path("mine.toml"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        Image.new("RGB", (40, 20)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.wav").write_bytes(b"x")
    return tmp_path


def read(data: Path, text: str, task: str = "localization", **options: object) -> tuple[Localization, list[str]]:
    (data / "samples.csv").write_text(text)
    reading = declared(task, **options).read(data, data / "work")
    return reading.task, list(reading.missing)


HEAD = "image,audio,xmin,ymin,xmax,ymax,unit\n"


def test_rows_of_one_picture_and_sound_are_one_sample(data: Path):
    rows = "a.png,a.wav,0,0,0.5,1,\na.png,a.wav,10,5,40,20,pixel\nb.png,a.wav,0,0,1,1,fraction\nb.png,b.wav,,,,,\n"
    task, missing = read(data, HEAD + rows + "c.png,none.wav,0,0,1,1,\n", agreement=2)
    assert task.samples == [
        Sample("a.png+a.wav", "a.png", "a.wav", [(0.0, 0.0, 0.5, 1.0), (0.25, 0.25, 1.0, 1.0)]),
        Sample("b.png+a.wav", "b.png", "a.wav", [(0.0, 0.0, 1.0, 1.0)]),
        Sample("b.png+b.wav", "b.png", "b.wav", []),
    ]
    assert (task.agreement, task.counterfactual) == (2, False)
    assert (task.image.ids, task.audio.ids) == (["a.png", "b.png"], ["a.wav", "b.wav"])
    assert task.image.items[0].path == str(data / "a.png")
    assert missing == ["c.png+none.wav"]
    assert read(data, HEAD + rows, "counterfactual")[0].counterfactual


def test_lists_of_corners_and_columns_of_other_names(data: Path):
    boxes = pa.array([[0.0, 0.0, 0.5, 0.5], None], pa.list_(pa.float64()))
    (data / "media").mkdir()
    for name in ("a.png", "a.wav"):
        (data / name).rename(data / "media" / name)
    pq.write_table(
        pa.table({"photo": ["a.png", "a.png"], "clip": ["a.wav", "a.wav"], "box": boxes}), data / "s.parquet"
    )
    options = {"samples": "s.parquet", "image_column": "photo", "audio_column": "clip", "media": "media"}
    (sample,) = declared(**options).read(data, data / "work").task.samples
    assert sample.boxes == [(0.0, 0.0, 0.5, 0.5)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("image,xmin\na.png,0\n", "has no column 'audio'. It has: image, xmin"),
        (HEAD + "a.png,a.wav,0,0,40,20,\n", "row 1: the box 0, 0, 40, 20 lies outside the picture"),
        (HEAD + "a.png,a.wav,0,0,x,1,\n", "row 1: the box is .* Expected xmin"),
        (HEAD + "../a.png,a.wav,0,0,1,1,\n", "leads out of the folder"),
        (HEAD + "x.png,a.wav,0,0,1,1,\n", r"of none of its 1 samples both files are there, such as 'x\.png\+a\.wav'"),
    ],
)
def test_tables_that_are_none(text: str, fault: str, data: Path):
    with pytest.raises(FormatError, match=fault):
        read(data, text)


def test_declarations_that_are_none(data: Path):
    with pytest.raises(ConfigError, match="boxes serve a localization or a counterfactual, got a retrieval"):
        read(data, HEAD, "retrieval")
    with pytest.raises(ConfigError, match=r"options samples and agreement got 'samples.csv' and 0"):
        read(data, HEAD, agreement=0)
    with pytest.raises(ConfigError, match="options samples and agreement got '' and 1"):
        read(data, HEAD, samples="")
    with pytest.raises(FormatError, match=r"none\.csv not found. Expected the table of boxes"):
        read(data, HEAD, samples="none.csv")
