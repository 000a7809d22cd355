"""The format of a space on disk: a tiny golden space stays readable, and is what is written today."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from isthmus.core.files import sha256_file
from isthmus.errors import SpaceError
from isthmus.spaces.space import Space, make_space, open_space

GOLDEN = Path(__file__).parent / "golden" / "tiny.space"
X = np.array([[0.6, 0.8, 0, 0], [0, 1, 0, 0], [0, 0, 0.28, -0.96], [0.5, 0.5, 0.5, 0.5], [-1, 0, 0, 0]], np.float32)
ENCODER = {"library": "toy", "id": "toy:tiny", "revision": "1", "weights_sha256": "00ff"}
FILES = {
    "space.json",
    "image/img_emb/img_emb_00000.npy",
    "image/metadata/metadata_00000.parquet",
    "image/_done/00000.json",
    *(
        f"point_cloud/{file}"
        for file in ("pc_emb/pc_emb_00000.npy", "metadata/metadata_00000.parquet", "_done/00000.json")
    ),
    *(f"text/text_emb/text_emb_0000{shard}.npy" for shard in range(2)),
    *(f"text/metadata/metadata_0000{shard}.parquet" for shard in range(2)),
    *(f"text/_done/0000{shard}.json" for shard in range(2)),
}


def make(path: Path) -> Space:
    """Write the golden space."""
    modalities = {
        "text": (["t0", "t1", "t2", "é", "007"], X, {"text": ["a", "b", "c", "d", "ü"], "source": ["x"] * 5}),
        "image": (["i0", "i1"], X[3:], {"image_path": ["a.png", "b.png"]}),
        "point_cloud": (["p0"], X[:1], {"point_cloud_path": ["p.ply"]}),
    }
    return make_space(path, modalities, name="tiny", encoder=ENCODER, preprocessing={"image_size": 8}, shard_rows=3)


def files(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


def test_the_golden_space_opens():
    space = open_space(GOLDEN)
    assert (space.name, space.dim, space.normalized) == ("tiny", 4, True)
    assert space.modalities == ("text", "image", "point_cloud")
    text = space["text"]
    assert text.ids == ["t0", "t1", "t2", "é", "007"]
    np.testing.assert_array_equal(np.asarray(text), X.astype(np.float16).astype(np.float32))
    assert text.metadata.column("text").to_pylist() == ["a", "b", "c", "d", "ü"]
    assert space["image"].metadata.column("image_path").to_pylist() == ["a.png", "b.png"]
    space.verify()


def test_the_fingerprint_of_the_golden_space_never_changes():
    expected = "031518c3048d0559f1fb93eb1ae1410f9e68a3cbe43d2097769d9168e0820b76"
    assert {open_space(GOLDEN).fingerprint(modality) for modality in ("text", "image", "point_cloud")} == {expected}


def test_the_files_are_those_of_the_contract(tmp_path: Path):
    make(tmp_path / "tiny.space")
    assert files(tmp_path / "tiny.space") == files(GOLDEN) == FILES


def test_the_same_space_is_written_today(tmp_path: Path):
    path = tmp_path / "tiny.space"
    make(path)
    for name in sorted(FILES):
        ours, golden = path / name, GOLDEN / name
        if name.endswith(".npy"):
            assert ours.read_bytes() == golden.read_bytes()
        elif name.endswith(".parquet"):  # its bytes depend on pyarrow's version
            assert pq.read_table(ours).equals(pq.read_table(golden))
    ours, golden = (json.loads((one / "space.json").read_text()) for one in (path, GOLDEN))
    for manifest in (ours, golden):
        for entry in (manifest, *manifest["modalities"].values()):
            assert entry.pop("created")
            assert entry.pop("isthmus")
    assert ours == golden


def test_the_manifest_has_what_the_contract_names():
    manifest = json.loads((GOLDEN / "space.json").read_text())
    assert {"format_version", "name", "dim", "normalized", "created", "isthmus", "modalities"} <= manifest.keys()
    for entry in manifest["modalities"].values():
        assert {"rows", "dtype", "encoder", "preprocessing", "created", "isthmus"} <= entry.keys()
        assert entry["encoder"].keys() == {"library", "id", "revision", "weights_sha256"}


def test_markers_hold_rows_and_both_hashes():
    for marker in GOLDEN.rglob("_done/*.json"):
        content = json.loads(marker.read_text())
        for key, suffix in (("embeddings", ".npy"), ("metadata", ".parquet")):
            (file,) = marker.parent.parent.rglob(f"*_{marker.stem}{suffix}")
            assert content[key]["file"] == file.name
            assert content[key]["bytes"] == file.stat().st_size
            assert content[key]["sha256"] == sha256_file(file)
        assert content["rows"] == pq.read_metadata(file).num_rows


@pytest.mark.parametrize(("modality", "stem"), [("text", "text_emb"), ("image", "img_emb"), ("point_cloud", "pc_emb")])
def test_others_read_a_modality_without_isthmus(modality: str, stem: str):
    """As clip-retrieval and embedding-reader do: both folders sorted as text, paired by position, read plainly."""
    folder = GOLDEN / modality
    arrays, tables = sorted((folder / stem).iterdir()), sorted((folder / "metadata").iterdir())
    assert len(arrays) == len(tables)
    for array, table in zip(arrays, tables, strict=True):
        x = np.load(array, allow_pickle=False)
        assert x.flags.c_contiguous
        assert x.dtype == np.float16
        assert len(x) == pq.read_table(table).num_rows
        assert pq.read_schema(table).field("id").type == "string"


def test_a_later_version_is_refused(tmp_path: Path):
    shutil.copytree(GOLDEN, tmp_path / "s")
    manifest = json.loads((GOLDEN / "space.json").read_text())
    manifest["format_version"] += 1
    (tmp_path / "s" / "space.json").write_text(json.dumps(manifest))
    with pytest.raises(SpaceError, match="format_version 2 is newer"):
        open_space(tmp_path / "s")


def test_keys_that_a_later_minor_adds_are_kept(tmp_path: Path):
    shutil.copytree(GOLDEN, tmp_path / "s")
    manifest = json.loads((GOLDEN / "space.json").read_text())
    manifest["extra"] = manifest["modalities"]["text"]["extra"] = {"a": 1}
    (tmp_path / "s" / "space.json").write_text(json.dumps(manifest))
    assert open_space(tmp_path / "s")["text"].info["extra"] == {"a": 1}
