"""The real raw files: all of them pass through decoding and the pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isthmus.encoders.pipeline.encode import encode
from isthmus.spaces.space import open_space
from tiny_encoder import TinyEncoder


@pytest.mark.parametrize(
    ("paths", "modality", "count"),
    [
        ("raw/emoji", "image", 500),
        ("raw/sounds", "audio", 100),
        ("raw/digits", "audio", 300),
        ("raw/shapes", "point_cloud", 3),
        ("official", "image", 3),
        ("official", "audio", 3),
        ("official/*_points.npz", "point_cloud", 3),
    ],
)
def test_all_pass(shared: Path, tmp_path: Path, paths: str, modality: str, count: int):
    report = encode(
        str(shared / "data" / paths),
        encoder=TinyEncoder(),
        into=tmp_path / "s.space",
        modality=modality,
        max_rejected=0.0,
        workers=0,
        quiet=True,
    )
    assert (report["rows"], report["rejected"]) == (count, 0)
    assert np.isfinite(np.asarray(open_space(tmp_path / "s.space")[modality])).all()


def test_names_in_eight_languages_join_pictures_by_id(shared: Path, tmp_path: Path):
    emoji = shared / "data/raw/emoji"
    options = {"encoder": TinyEncoder(), "into": tmp_path / "s.space", "workers": 0, "quiet": True}
    encode(emoji, modality="image", ids="stem", **options)
    encode(emoji / "names.csv", text_column="ja", **options)
    space = open_space(tmp_path / "s.space")
    assert set(space["image"].ids) == set(space["text"].ids)
