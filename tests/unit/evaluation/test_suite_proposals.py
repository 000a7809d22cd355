"""Proposed parts of pictures: windows, tables of detectors, and the items that they become."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from isthmus.errors import EvaluationError, FormatError
from isthmus.evaluation.benchmarks.task import ItemSet, Localization, Sample
from isthmus.evaluation.suite.proposals import crop_id, crops, read_proposals, sliding_windows, windows_of
from isthmus.items import Item


@pytest.fixture
def task(tmp_path: Path) -> Localization:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: upright it is 20 wide and 40 high
    Image.new("RGB", (40, 20)).save(tmp_path / "-a.jpg", exif=exif)
    Image.new("RGB", (10, 10)).save(tmp_path / "b.jpg")
    images = ItemSet("image", [Item("-a", str(tmp_path / "-a.jpg")), Item("b", str(tmp_path / "b.jpg"))])
    samples = [Sample("-a", "-a", "-a", [(0, 0, 1, 1)]), Sample("b", "b", "b", [(0, 0, 1, 1)])]
    return Localization(images, ItemSet("audio", [Item("-a", "a.wav"), Item("b", "b.wav")]), samples)


def table(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_windows_cover_the_picture():
    boxes = sliding_windows()
    assert boxes[0] == (0.0, 0.0, 1.0, 1.0)
    assert len(boxes) == len(set(boxes)) == 1 + 4 + 9 + 25
    assert all(0 <= a < c <= 1 and 0 <= b < d <= 1 for a, b, c, d in boxes)
    assert sliding_windows((0.5,))[:3] == [(0.0, 0.0, 0.5, 0.5), (0.25, 0.0, 0.75, 0.5), (0.5, 0.0, 1.0, 0.5)]
    for scale in (0.9, 0.5, 0.35, 0.1):
        edges = sorted({(box[0], box[2]) for box in sliding_windows((scale,))})
        assert edges[0][0] == 0.0
        assert edges[-1][1] == 1.0
        assert all(right[0] - left[0] <= scale / 2 + 1e-9 for left, right in itertools.pairwise(edges))
    for scale in (0.0, 1.1, -0.5):
        with pytest.raises(EvaluationError, match="Expected scales above 0 and at most 1"):
            sliding_windows((scale,))


def test_crops_are_items_with_boxes(task: Localization):
    side = crops(task, windows_of(task, (1.0, 0.5)))
    assert side.modality == "image"
    assert len(side.items) == len(set(side.ids)) == 2 * 10
    assert side.items[0].id == "-a#0,0,1,1"
    assert side.items[1].box == (0.0, 0.0, 0.5, 0.5)
    assert all(item.path and item.id == crop_id(Path(item.path).stem, item.box) for item in side.items)
    twice = crops(task, {"b": [(0, 0, 1, 1), (0, 0, 1, 1)]})
    assert twice.ids == ["b#0,0,1,1"]


def test_embeddings_cannot_be_cut(task: Localization):
    from dataclasses import replace

    embedded = replace(task, image=ItemSet("image", embeddings=object()))
    with pytest.raises(EvaluationError, match="the pictures are embeddings and cannot be cut into proposals"):
        crops(embedded, {})


@pytest.mark.parametrize("kind", ["columns", "list", "csv"])
def test_a_detectors_boxes_best_first(kind: str, task: Localization, tmp_path: Path):
    images, scores = ["b.jpg", "-a", "-a", "other"], [0.1, 0.2, 0.9, 1.0]
    boxes = [[0.0, 0.0, 1.0, 0.5], [0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 1.01, 1.0], [0.0, 0.0, 1.0, 1.0]]
    corners = dict(zip(("xmin", "ymin", "xmax", "ymax"), np.array(boxes).T.tolist(), strict=True))
    if kind == "list":
        path = table(tmp_path / "p.parquet", image=images, box=boxes, score=scores)
    elif kind == "columns":
        path = table(tmp_path / "p.parquet", image=images, score=scores, **corners)
    else:
        lines = [f"{i},{','.join(map(str, b))},{s}" for i, b, s in zip(images, boxes, scores, strict=True)]
        path = tmp_path / "p.csv"
        path.write_text("image,xmin,ymin,xmax,ymax,score\n" + "\n".join(lines))
    found = read_proposals(path, task)
    assert found == {"b": [(0.0, 0.0, 1.0, 0.5)], "-a": [(0.5, 0.5, 1.0, 1.0), (0.1, 0.2, 0.3, 0.4)]}
    assert read_proposals(path, task, most=1)["-a"] == [(0.5, 0.5, 1.0, 1.0)]


def test_boxes_in_pixels_are_of_the_upright_picture(task: Localization, tmp_path: Path):
    boxes = [[5, 10, 20, 40], [0.0, 0.0, 0.5, 1.0], [1, 2, 10, 10]]
    path = table(tmp_path / "p.parquet", image=["-a", "-a", "b"], box=boxes, unit=["pixel", "fraction", "pixel"])
    assert read_proposals(path, task) == {
        "-a": [(0.25, 0.25, 1.0, 1.0), (0.0, 0.0, 0.5, 1.0)],
        "b": [(0.1, 0.2, 1.0, 1.0)],
    }


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"id": ["b"]}, "has no column 'image'. It has: id. Expected image, box"),
        ({"image": ["b"], "xmin": [0.0]}, "has no column 'ymin'. It has: image, xmin"),
        ({"image": ["b"], "box": [[0.0, 0.0, 1.0]]}, r"row 1: the box is \[0.0, 0.0, 1.0\]. Expected xmin, ymin"),
        (
            {"image": ["x"], "box": [[0.0, 0.0, 1.0, 1.0]]},
            "names no picture of the benchmark .image 'x', expected ids like '-a'",
        ),
        ({"image": ["b"], "box": [[0.0, 0.0, 90.0, 20.0]]}, "row 1: the box 0, 0, 90, 20 lies outside.*a column unit"),
        ({"image": ["b"], "box": [[0.6, 0.6, 0.3, 0.3]]}, "covers nothing of the picture. Expected two corners"),
        ({"image": ["b"], "box": [[0.0, 0.0, 1.0, float("nan")]]}, "row 1: the box 0, 0, 1, nan lies outside"),
        (
            {"image": ["b"], "box": [[0.0, 0.0, 1.0, 1.0]], "unit": ["px"]},
            "'unit' holds 'px'. Expected fraction or pixel",
        ),
        ({"image": ["b"], "box": [[0.0, 0.0, 1.0, 1.0]], "score": ["x"]}, "the column 'score' holds something else"),
        (
            {"image": ["b"], "box": [[0.0, 0.0, 1.0, 1.0]], "score": [float("nan")]},
            "'score' holds something else than finite numbers",
        ),
        ({"image": ["b"], "box": pa.array([None], pa.list_(pa.float64()))}, "row 1: has no box. Expected xmin"),
        (
            {"image": pa.array([], pa.string()), "box": pa.array([], pa.list_(pa.float64()))},
            "holds no row. Expected a row",
        ),
    ],
)
def test_tables_that_are_no_proposals(columns: dict, fault: str, task: Localization, tmp_path: Path):
    with pytest.raises(FormatError, match=fault):
        read_proposals(table(tmp_path / "p.parquet", **columns), task)


def test_a_picture_whose_size_cannot_be_read(task: Localization, tmp_path: Path):
    (tmp_path / "b.jpg").write_bytes(b"x")
    path = table(tmp_path / "p.parquet", image=["b"], box=[[0, 0, 5, 5]], unit=["pixel"])
    with pytest.raises(FormatError, match=r"b\.jpg: its size is needed for boxes in pixels, but .*no image format"):
        read_proposals(path, task)
