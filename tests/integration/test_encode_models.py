"""Tiny random models of every architecture, loaded through the real path: mixed files, and the same file every time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from isthmus.encoders.pipeline.encode import encode
from isthmus.errors import CheckFailed
from isthmus.items import find_items
from isthmus.spaces.space import open_space
from mixed_files import make_files
from tiny_models import (
    save_clap,
    save_clip,
    save_multimodal_sentence_transformer,
    save_siglip,
    save_siglip2,
    save_sounding_sentence_transformer,
    save_ulip,
)

MODELS: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "clip": ("clip", save_clip, "image"),
    "siglip": ("clip", save_siglip, "image"),
    "siglip2": ("clip", save_siglip2, "image"),
    "clap": ("clap", partial(save_clap, fused=False), "audio"),
    "clap-fused": ("clap", partial(save_clap, fused=True), "audio"),
    "ulip": ("ulip", save_ulip, "point_cloud"),
    "ulip-coloured": ("ulip", partial(save_ulip, coloured=True), "point_cloud"),
    "ulip-images": ("ulip", save_ulip, "image"),
    "sentence-images": ("sentence-transformers", save_multimodal_sentence_transformer, "image"),
    "sentence-sounds": ("sentence-transformers", save_sounding_sentence_transformer, "audio"),
}
SAME = 1e-6
"""The most that the cosine of two embeddings of one file may be short of 1."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, dict[str, str]]]:
    made: dict[str, tuple[Path, dict[str, str]]] = {}

    def of(modality: str) -> tuple[Path, dict[str, str]]:
        if modality not in made:
            folder = tmp_path_factory.mktemp("mixed") / modality
            made[modality] = folder, make_files(folder, modality)
            if modality == "audio":  # many windows, none of them whole at the end
                for name, seconds in (("long-15.wav", 15), ("long-60.wav", 60)):
                    noise = np.random.default_rng(seconds).uniform(-0.5, 0.5, 8_000 * seconds + 1234)
                    soundfile.write(folder / name, noise, 8_000)
                    made[modality][1][name] = ""
        return made[modality]

    return of


def rows(folder: Path, space: Path, name: str, modality: str, **how: int) -> dict[str, np.ndarray]:
    """Encode what is good; embeddings by id."""
    encode(folder, encoder=name, into=space, modality=modality, max_rejected=0.5, dtype="float32", quiet=True, **how)
    found = open_space(space)[modality]
    return dict(zip(found.ids, np.asarray(found), strict=True))


@pytest.mark.parametrize("model", list(MODELS))
def test_good_are_embedded_alike_in_any_batch_and_bad_have_a_reason(model: str, tmp_path: Path, files) -> None:
    kind, save, modality = MODELS[model]
    folder, expected = files(modality)
    saved = tmp_path / ("model.pt" if kind == "ulip" else "model")
    name = f"{kind}:{save(saved)}"
    good = [file for file, reason in expected.items() if not reason]

    with pytest.raises(CheckFailed, match=f"{len(expected) - len(good)} of {len(expected)} {modality} items"):
        encode(folder, encoder=name, into=tmp_path / "a.space", modality=modality, dtype="float32", quiet=True)
    space = open_space(tmp_path / "a.space")
    assert sorted(space[modality].ids) == sorted(good)
    rejected = pq.read_table(tmp_path / "a.space" / modality / "rejected.parquet")
    assert sorted(rejected["id"].to_pylist()) == sorted(set(expected) - set(good))
    assert all(rejected["reason"].to_pylist())

    first = dict(zip(space[modality].ids, np.asarray(space[modality]), strict=True))
    again = rows(folder, tmp_path / "b.space", name, modality, batch_size=7, workers=0)
    alone = find_items([folder / file for file in good[-6:]], modality=modality, offered=(modality,)).items
    single = rows(alone, tmp_path / "c.space", name, modality, batch_size=1, workers=0)
    assert len(again) == len(good)
    assert len(single) == 6
    for other in (again, single):
        cosines = [
            float(first[item] @ row / np.linalg.norm(first[item]) / np.linalg.norm(row)) for item, row in other.items()
        ]
        assert min(cosines) > 1 - SAME
    spread = np.stack(list(first.values())).std(axis=0).max()
    assert spread > 1e-3, "all embeddings are alike, and the comparison above says nothing"
