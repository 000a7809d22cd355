"""Spaces: made, opened, refused, told apart by fingerprint, and matched by id."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from isthmus.errors import OverlapError, SpaceError
from isthmus.spaces.manifest import identity
from isthmus.spaces.overlap import overlap
from isthmus.spaces.space import make_space, open_space

X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
IDS = [f"i{row}" for row in range(12)]


def test_make_and_open(tmp_path: Path):
    made = make_space(
        tmp_path / "clip.space",
        {
            "image": (IDS, X, {"label": list("abcdefghijkl")}),
            "text": (IDS[:5], X[:5], pa.table({"text": list("vwxyz")})),
        },
        encoder={"library": "transformers", "id": "a/b", "revision": "r", "weights_sha256": "00"},
        preprocessing={"size": 224},
        shard_rows=5,
    )
    space = open_space(str(tmp_path / "clip.space"))
    assert repr(space) == repr(made) == "Space('clip', dim 4: image 12, text 5)"
    assert (space.name, space.dim, space.modalities, list(space), len(space)) == (
        "clip",
        4,
        ("image", "text"),
        ["image", "text"],
        2,
    )
    assert "image" in space
    assert "audio" not in space
    assert space["image"].metadata.column("label").to_pylist() == list("abcdefghijkl")
    assert space["text"].metadata.column_names == ["id", "text"]
    np.testing.assert_array_equal(np.asarray(space["text"]), X[:5].astype(np.float16))
    assert space.manifest["modalities"]["image"]["preprocessing"] == {"size": 224}
    assert space.verify().keys() == {"image", "text"}
    with pytest.raises(SpaceError, match=r"space 'clip' has no modality 'audio'. It has: image, text"):
        space["audio"]


def test_make_space_refuses_and_leaves_nothing(tmp_path: Path):
    path = tmp_path / "s.space"
    for fault, modalities in (
        ("a space needs a modality", {}),
        (r"'image' has embeddings of shape \(4,\)", {"image": (IDS, X[0])}),
        (r"s\.space: 'image' got 12 embeddings for 11 ids", {"image": (IDS[:11], X)}),
        ("dim 3 do not belong in a space of dim 4", {"image": (IDS, X), "text": (IDS, X[:, :3])}),
        ("id 'i2': the embedding is zero", {"image": (IDS, X * (np.arange(12) != 2)[:, None])}),
        ("holds the id 'i0' already", {"image": ([*IDS[:11], "i0"], X)}),
        ("'image' got no rows", {"image": ([], X[:0])}),
        ("cannot name a modality", {"Image": (IDS, X)}),
        ("metadata cannot be read as a table", {"image": (IDS, X, {"a": [1], "b": [1, 2]})}),
        ("metadata of 2 rows", {"image": (IDS, X, {"a": [1, 2]})}),
    ):
        with pytest.raises(SpaceError, match=fault) as caught:
            make_space(path, modalities)
        assert ".partial" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []


def test_make_space_replaces_only_when_told(tmp_path: Path):
    path = tmp_path / "s.space"
    make_space(path, {"image": (IDS, X)})
    with pytest.raises(SpaceError, match=r"exists already. Give another path, or overwrite it with --overwrite"):
        make_space(path, {"text": (IDS, X)})
    with pytest.raises(SpaceError, match="zero"):
        make_space(path, {"text": (IDS, X * 0)}, overwrite=True)
    assert open_space(path).modalities == ("image",)
    assert make_space(path, {"text": (IDS, X)}, overwrite=True).modalities == ("text",)


def broken(tmp_path: Path, **changes) -> Path:
    path = tmp_path / "s.space"
    if not path.exists():
        make_space(path, {"image": (IDS, X)})
    manifest = json.loads((path / "space.json").read_text())
    for key, value in changes.items():
        if key.startswith("image_"):
            manifest["modalities"]["image"][key[6:]] = value
        else:
            manifest[key] = value
    (path / "space.json").write_text(json.dumps(manifest))
    return path


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"format_version": 2},
            r"format_version 2 is newer than the 1 that isthmus .* reads. Upgrade it: pip install -U isthmus",
        ),
        ({"format_version": None}, "format_version is None"),
        ({"format_version": True}, "format_version is True"),
        ({"name": 3}, "name is 3, expected text"),
        ({"dim": 10**12}, "dim is 1000000000000, expected a number from 1 to"),
        ({"dim": -4}, "dim is -4"),
        ({"dim": 5}, "expected float16 of shape"),
        ({"modalities": []}, "modalities is list"),
        ({"modalities": {"../x": {}}}, "'../x' cannot name a modality"),
        ({"modalities": {"image": 1}}, "modalities.image is int"),
        ({"modalities": {}}, "the space is empty. Add to it"),
        ({"image_rows": 10**13}, "hold 12 rows, the manifest says 10,000,000,000,000"),
        ({"image_rows": "12"}, "rows is '12'"),
        ({"image_shards": 10**6}, "is missing. The shard is not whole"),
        ({"image_dtype": "object"}, "dtype is 'object', expected one of float16, float32"),
        ({"image_dtype": "float32"}, "holds float16 of shape"),
        ({"image_state": "?"}, "state is '[?]'"),
        ({"image_encoder": None}, "encoder is NoneType"),
    ],
)
def test_manifests_that_are_refused(tmp_path: Path, changes: dict, fault: str):
    with pytest.raises(SpaceError, match=fault) as caught:
        open_space(broken(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_folders_that_are_no_space(tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "clip" / "img_emb").mkdir(parents=True)
    (tmp_path / "x.bridge").mkdir()
    (tmp_path / "x.bridge" / "bridge.json").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "space.json").write_text("{")
    for name, fault in (
        ("none", "no such space"),
        ("file", "a space is a folder, got a file"),
        ("clip", "looks like a clip-retrieval folder. Import it first: isthmus import"),
        ("x.bridge", "is a bridge, expected a space"),
        ("empty", "is no space, it has no space.json"),
        ("bad", "cannot be read as the json of a space manifest"),
    ):
        with pytest.raises(SpaceError, match=fault):
            open_space(tmp_path / name)


def test_the_fingerprint_is_of_the_maker_and_not_of_the_rows(tmp_path: Path):
    def fingerprint(folder: str, x: np.ndarray = X, **options) -> str:
        ids = [str(row) for row in range(len(x))]
        return make_space(tmp_path / f"{folder}.space", {"image": (ids, x)}, **options).fingerprint("image")

    maker = {"library": "l", "id": "a/b", "revision": "r", "weights_sha256": "00"}
    base = fingerprint("a", encoder=maker, preprocessing={"size": 224})
    assert fingerprint("b", X[:3], encoder=maker, preprocessing={"size": 224}, name="other", dtype="float32") == base
    different = [
        fingerprint("c", encoder=maker | {"weights_sha256": "01"}, preprocessing={"size": 224}),
        fingerprint("d", encoder=maker, preprocessing={"size": 256}),
        fingerprint("e", X[:, :3], encoder=maker, preprocessing={"size": 224}),
        fingerprint("f"),
        fingerprint("g"),
    ]
    assert len({base, *different}) == 6
    assert fingerprint("h", name="f") == different[3]
    again = "import sys, isthmus; print(isthmus.open_space(sys.argv[1]).fingerprint('image'))"
    shown = subprocess.run(
        [sys.executable, "-c", again, tmp_path / "a.space"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == base


def test_identities():
    assert identity(None, name="clip") == {"library": "unknown", "id": "clip", "revision": None, "weights_sha256": None}
    assert identity("a/b@v1", name="clip") == {
        "library": "declared",
        "id": "a/b",
        "revision": "v1",
        "weights_sha256": None,
    }
    assert identity({"id": "x", "task": "?"}, name="clip") == {
        "library": "declared",
        "id": "x",
        "revision": None,
        "weights_sha256": None,
    }
    for encoder, fault in (
        ({}, "needs an id, got None"),
        ("", "needs an id, got ''"),
        ({"id": "x", "revision": 3}, "revision must be text, got 3"),
    ):
        with pytest.raises(SpaceError, match=fault):
            identity(encoder, name="clip")


def test_overlap_is_by_id_in_the_order_of_the_first(tmp_path: Path):
    rng = np.random.default_rng(1)
    left, right = rng.permutation(12)[:9], rng.permutation(12)[:10]
    a = make_space(tmp_path / "a.space", {"text": ([IDS[row] for row in left], X[left])}, shard_rows=4)
    b = make_space(tmp_path / "b.space", {"text": ([IDS[row] for row in right], X[right])}, shard_rows=3)
    shared = overlap(a, b, "text")
    assert shared.ids == [IDS[row] for row in left if row in set(right)]
    assert len(shared) == len(shared.ids)
    np.testing.assert_array_equal(a["text"].take(shared.rows_a), b["text"].take(shared.rows_b))
    assert [a["text"].ids[row] for row in shared.rows_a] == [b["text"].ids[row] for row in shared.rows_b] == shared.ids
    assert shared.rows_a.dtype == shared.rows_b.dtype == np.int64
    back = overlap(b, a, "text")
    assert set(back.ids) == set(shared.ids)


def test_no_overlap(tmp_path: Path):
    a = make_space(tmp_path / "clip.space", {"text": ([f"cap-{row}" for row in range(12)], X)})
    b = make_space(tmp_path / "clap.space", {"text": ([str(row) for row in range(12)], X), "audio": (IDS, X)})
    with pytest.raises(OverlapError) as caught:
        overlap(a, b, "text")
    assert str(caught.value) == (
        "spaces 'clip' and 'clap' share 0 of 12 text ids (clip: 'cap-0', clap: '0'). "
        'via="text" needs the same texts encoded by '
        "both spaces. Encode one file with both encoders, or give ids with --ids."
    )
    with pytest.raises(
        OverlapError,
        match=r"space 'clip' has no 'audio' to match with 'clap' \(it has text\). Modalities in both: text",
    ):
        overlap(a, b, "audio")
