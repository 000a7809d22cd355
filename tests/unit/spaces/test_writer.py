"""Embeddings on disk: read as they were written, in whole shards, appended to, and never half visible."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from isthmus.errors import SpaceError
from isthmus.spaces import manifest as manifests
from isthmus.spaces import shards as shard_files
from isthmus.spaces.checks import as_stored
from isthmus.spaces.embeddings import Embeddings
from isthmus.spaces.shards import npy_header
from isthmus.spaces.space import Space, open_space
from isthmus.spaces.writer import ModalityWriter

X = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
IDS = [f"i{row}" for row in range(50)]


def write(
    path: Path, x: np.ndarray = X, ids: list[str] = IDS, modality: str = "image", step: int = 9, **options
) -> Embeddings:
    options.setdefault("dtype", "float32")
    with ModalityWriter(path, modality, dim=x.shape[1], shard_rows=20, **options) as writer:
        for start in range(0, len(x), step):
            here = slice(start, start + step)
            writer.append(ids[here], x[here], pa.table({"n": range(start, min(start + step, len(x)))}))
    return open_space(path)[modality]


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def test_rows_come_back_as_they_went(tmp_path: Path):
    e = write(tmp_path / "s.space")
    assert len(e) == 50
    assert e.shape == (50, 6)
    assert (e.dim, e.dtype, e.modality, e.space_name) == (6, "float32", "image", "s")
    assert [shard.rows for shard in e.shards] == [20, 20, 10]
    assert e.ids == IDS
    assert e.metadata.column("n").to_pylist() == list(range(50))
    np.testing.assert_array_equal(np.asarray(e), X)
    assert np.asarray(e, np.float64).dtype == np.float64
    rows = [49, 0, 20, 19, 0]
    np.testing.assert_array_equal(e.take(rows), X[rows])
    assert e.take([]).shape == (0, 6)
    for size in (1, 7, 20, 100):
        blocks = list(e.blocks(size))
        assert [len(block) for block in blocks[:-1]] == [size] * (len(blocks) - 1)
        np.testing.assert_array_equal(np.concatenate(blocks), X)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    np.testing.assert_allclose(e.unit(), unit, rtol=1e-6)
    np.testing.assert_allclose(e.unit(rows), unit[rows], rtol=1e-6)
    assert repr(e) == "Embeddings(s/image: 50 x 6 float32)"


def test_float16_is_what_numpy_rounds_to(tmp_path: Path):
    e = write(tmp_path / "s.space", dtype="float16")
    np.testing.assert_array_equal(np.asarray(e), X.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(np.load(e.shards[1].embeddings), X[20:40].astype(np.float16))


def test_rows_of_ids(tmp_path: Path):
    e = write(tmp_path / "s.space")
    assert e.rows_of(["i7", "i49", "i7"]).tolist() == [7, 49, 7]
    assert e.rows_of([]).tolist() == []
    with pytest.raises(
        SpaceError, match=r"s/image: has no id 'x' \(2 of 3 ids are missing; the first id there is 'i0'\)"
    ):
        e.rows_of(["i1", "x", "y"])
    for rows in ([50], [-1]):
        with pytest.raises(IndexError, match="rows 0 to 49"):
            e.take(rows)


def test_bytes_do_not_depend_on_how_rows_are_given(tmp_path: Path):
    write(tmp_path / "a" / "s.space", step=9)
    write(tmp_path / "b" / "s.space", step=50)
    write(tmp_path / "c" / "s.space", step=1)
    assert content(tmp_path / "a") == content(tmp_path / "b") == content(tmp_path / "c")


def test_more_rows_and_a_second_modality(tmp_path: Path):
    path = tmp_path / "s.space"
    first = write(path, X[:30], IDS[:30])
    before = content(path / "image")
    e = write(path, X[30:], IDS[30:])
    assert e.ids == IDS
    np.testing.assert_array_equal(np.asarray(e), X)
    assert {name: raw for name, raw in content(path / "image").items() if name in before} == before
    np.testing.assert_array_equal(np.asarray(first), X[:30])
    write(path, X[:5], IDS[:5], modality="text")
    space = open_space(path)
    assert space.modalities == ("image", "text")
    assert space["text"].ids == IDS[:5]


def test_columns_that_come_and_go(tmp_path: Path):
    with ModalityWriter(tmp_path / "s.space", "text", dim=6, shard_rows=20) as writer:
        writer.append(IDS[:5], X[:5], pa.table({"text": pa.array(["a"] * 5).dictionary_encode()}))
        writer.append(IDS[5:9], X[5:9], pa.table({"text": ["b"] * 4, "n": range(4), "id": ["no"] * 4}))
        writer.append(IDS[9:30], X[9:30])
    metadata = open_space(tmp_path / "s.space")["text"].metadata
    assert metadata.column("id").to_pylist() == IDS[:30]
    assert metadata.column("text").to_pylist() == ["a"] * 5 + ["b"] * 4 + [None] * 21
    assert metadata.column("n").to_pylist()[5:10] == [0, 1, 2, 3, None]


def test_norms_are_measured(tmp_path: Path):
    norm = write(tmp_path / "a.space").info["norm"]
    norms = np.linalg.norm(X, axis=1)
    assert norm == pytest.approx(
        {"mean": norms.mean(), "min": norms.min(), "max": norms.max(), "unit_share": norm["unit_share"]}, rel=1e-3
    )
    assert open_space(tmp_path / "a.space").normalized is False
    unit = write(tmp_path / "b.space", X / np.linalg.norm(X, axis=1, keepdims=True), dtype="float16").info
    assert (unit["norm"]["unit_share"], unit["normalized"]) == (1.0, True)
    assert open_space(tmp_path / "b.space").normalized is True


BAD = {
    "nan": (np.nan, "id 'i3': the embedding is not finite"),
    "inf": (np.inf, "id 'i3': the embedding is not finite"),
    "zero": (0.0, "id 'i3': the embedding is zero"),
    "large": (1e6, "do not fit float16. Store the space as float32"),
    "tiny": (1e-9, "do not fit float16"),
}


@pytest.mark.parametrize("kind", BAD)
def test_rows_that_are_no_embedding(tmp_path: Path, kind: str):
    value, fault = BAD[kind]
    x = X.copy()
    x[3] = value
    with pytest.raises(SpaceError, match=fault):
        write(tmp_path / "s.space", x, dtype="float16")
    assert not (tmp_path / "s.space").exists()


def test_float32_keeps_what_float16_cannot():
    for value in (1e6, 1e-9, 1e30, 1e-30):
        stored, norms = as_stored(np.full((1, 4), value), "float32", str)
        assert stored.dtype == np.float32
        assert norms[0] == pytest.approx(2 * value, rel=1e-6)


@pytest.mark.parametrize(
    ("ids", "x", "metadata", "fault"),
    [
        (IDS[:3], X[:4], None, "got 4 embeddings for 3 ids"),
        (IDS[:4], X[:4, :5], None, r"takes embeddings of shape \(rows, 6\), got \(4, 5\)"),
        (IDS[:4], X[0], None, r"got \(6,\)"),
        (IDS[:4], X[:4], {"n": [1]}, "metadata of 1 rows"),
        (["a", "b", "a", "c"], X[:4], None, r"holds the id 'a' already \(given again in row 2\)"),
        (["a", "", "b", "c"], X[:4], None, "got the id '' in row 1"),
    ],
)
def test_what_cannot_be_appended(tmp_path: Path, ids: list[str], x: np.ndarray, metadata: dict | None, fault: str):
    with pytest.raises(SpaceError, match=fault), ModalityWriter(tmp_path / "s.space", "image", dim=6) as writer:
        writer.append(ids, x, pa.table(metadata) if metadata else None)
    assert not (tmp_path / "s.space").exists()


def test_ids_are_unique_over_shards_and_appends(tmp_path: Path):
    path = tmp_path / "s.space"
    write(path, X[:30], IDS[:30])
    before = content(path)
    with pytest.raises(SpaceError, match="holds the id 'i29' already"):
        write(path, X[29:], IDS[29:])
    assert content(path) == before


def test_what_does_not_belong_in_a_space(tmp_path: Path):
    path = tmp_path / "s.space"
    write(path, X[:30], IDS[:30], info={"encoder": "a/b@r1", "preprocessing": {"size": 224}}, name="mine")
    before = content(path)
    for fault, options in (
        (r"dim 5 do not belong in a space of dim 6", {"dim": 5}),
        (r"is named 'mine', got the name 'other'", {"name": "other"}),
        (r"was made with encoder .*a/b.*r1.*, got .*a/c.*two spaces", {"info": {"encoder": "a/c"}}),
        (r"was made with encoder .*, got ", {"info": {"encoder": {"library": "x", "id": "a/b", "revision": "r1"}}}),
        (r"was made with preprocessing .*224.*, got .*256", {"info": {"preprocessing": {"size": 256}}}),
        (r"stored as float16 or float32, got dtype 'int8'", {"dtype": "int8"}),
        (r"shard_rows must lie in 1 to 1,000,000, got 0", {"shard_rows": 0}),
    ):
        with pytest.raises(SpaceError, match=fault):
            ModalityWriter(path, "image", **{"dim": 6, **options})
    with pytest.raises(SpaceError, match="cannot name a modality"):
        ModalityWriter(path, "../image", dim=6)
    assert content(path) == before
    with ModalityWriter(path, "image", dim=6, info={"encoder": "a/b@r1", "preprocessing": {"size": 224}}) as writer:
        writer.append(IDS[30:], X[30:])
    assert len(open_space(path)["image"]) == 50


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "photo.png").touch()
    with pytest.raises(SpaceError, match="exists and is no space"):
        ModalityWriter(tmp_path, "image", dim=6)
    with pytest.raises(SpaceError, match="exists and is no space"):
        ModalityWriter(tmp_path / "photo.png", "image", dim=6)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_two_writers_of_one_modality(tmp_path: Path):
    path = tmp_path / "s.space"
    with ModalityWriter(path, "image", dim=6) as first:
        with pytest.raises(SpaceError, match="another process is writing 'image'"):
            ModalityWriter(path, "image", dim=6)
        with ModalityWriter(path, "text", dim=6) as second:
            second.append(IDS[:2], X[:2])
        first.append(IDS, X)
    assert open_space(path).modalities == ("image", "text")


def interrupted(path: Path, rows: int) -> None:
    """Write some rows as a process that is killed does."""
    writer = ModalityWriter(path, "image", dim=6, dtype="float32", shard_rows=20)
    for row in range(writer.rows, rows):
        writer.append([IDS[row]], X[row : row + 1], pa.table({"n": [row]}))
    if writer._shard is not None:
        writer._shard._stream.flush()
    writer._held.close()


@pytest.mark.parametrize("rows", [0, 5, 19, 20, 21, 45])
def test_what_an_interrupted_writer_left_is_not_shown_and_gone_on_from(tmp_path: Path, rows: int):
    write(tmp_path / "whole" / "s.space")
    path = tmp_path / "s.space"
    interrupted(path, rows)
    with pytest.raises(SpaceError, match=r"'image' is not whole.*Run the same command again"):
        open_space(path)
    write(path, X[:5], IDS[:5], modality="text")
    space = open_space(path)
    assert space.modalities == ("text",)
    assert "image" not in space
    with pytest.raises(SpaceError, match="'image' is not whole"):
        space["image"]
    assert "image" in space.unfinished
    with ModalityWriter(path, "image", dim=6, dtype="float32", shard_rows=7) as writer:
        assert writer.rows == writer.pending_rows == rows // 20 * 20
        assert writer.done_ids == set(IDS[: writer.rows])
        start = writer.rows
        writer.append(IDS[start:], X[start:], pa.table({"n": range(start, 50)}))
    assert content(path / "image") == content(tmp_path / "whole" / "s.space" / "image")
    entry = json.loads((path / "space.json").read_text())["modalities"]["image"]
    assert entry == json.loads((tmp_path / "whole" / "s.space" / "space.json").read_text())["modalities"]["image"]


def test_an_interrupted_append_leaves_the_rows_before_it(tmp_path: Path):
    path = tmp_path / "s.space"
    write(path, X[:10], IDS[:10])
    interrupted(path, 45)
    e = open_space(path)["image"]
    assert e.ids == IDS[:10]
    assert open_space(path).unfinished.keys() == {"image"}
    writer = ModalityWriter(path, "image", dim=6)
    assert (writer.committed_rows, writer.pending_rows) == (10, 20)
    writer.discard()
    assert open_space(path).unfinished == {}
    assert open_space(path)["image"].ids == IDS[:10]
    write(path, X[10:], IDS[10:])
    assert open_space(path)["image"].ids == IDS


def test_restart_drops_what_an_interrupted_writer_left(tmp_path: Path):
    path = tmp_path / "s.space"
    interrupted(path, 45)
    with ModalityWriter(path, "image", dim=6, shard_rows=50, restart=True) as writer:
        assert (writer.rows, writer.shard_rows) == (0, 50)
        writer.append(IDS[:3], X[:3])
    assert open_space(path)["image"].ids == IDS[:3]
    assert [file.name for file in (path / "image" / "img_emb").iterdir()] == ["img_emb_00000.npy"]


def test_a_damaged_pending_shard_is_written_again(tmp_path: Path):
    path = tmp_path / "s.space"
    interrupted(path, 45)
    (path / "image" / "img_emb" / "img_emb_00001.npy").write_bytes(b"")
    with ModalityWriter(path, "image", dim=6, dtype="float32") as writer:
        assert writer.rows == 20
        writer.append(IDS[20:], X[20:])
    open_space(path).verify()


def test_nothing_written_is_no_modality(tmp_path: Path):
    path = tmp_path / "s.space"
    with pytest.raises(SpaceError, match="'image' got no rows"):
        ModalityWriter(path, "image", dim=6).close()
    assert not path.exists()
    write(path, X[:5], IDS[:5], modality="text")
    before = content(path)
    with pytest.raises(SpaceError, match="'image' got no rows"), ModalityWriter(path, "image", dim=6):
        pass
    assert content(path) == before
    assert not (path / "image").exists()


def count_calls(monkeypatch: pytest.MonkeyPatch, fail_at: int) -> list[int]:
    """Let the n-th call that puts something on disk fail with a full disk, and all after it."""
    calls = [0]

    def failing(module: object, name: str) -> None:
        real = getattr(module, name)

        def wrapper(*args, **kwargs):
            calls[0] += 1
            if calls[0] >= fail_at:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, wrapper)

    failing(shard_files.ShardWriter, "write")
    failing(shard_files, "write_metadata")
    failing(shard_files, "write_json")
    failing(manifests, "write_json")
    failing(os, "replace")
    return calls


@pytest.mark.parametrize("old", [False, True])
def test_a_full_disk_at_any_write_leaves_nothing_half_visible(tmp_path: Path, old: bool):
    for fail_at in range(1, 60):
        path = tmp_path / f"{fail_at}.space"
        if old:
            write(path, X[:10], IDS[:10])
        with pytest.MonkeyPatch.context() as patch:
            calls = count_calls(patch, fail_at)
            try:
                write(path, X[10:], IDS[10:])
                break
            except OSError as error:
                code = error.errno
        assert code == errno.ENOSPC
        assert calls[0] >= fail_at
        if old:
            assert open_space(path)["image"].ids == IDS[:10]
        else:
            with pytest.raises(SpaceError, match=r"no such space|is not whole"):
                open_space(path)
        with ModalityWriter(path, "image", dim=6, dtype="float32", shard_rows=20) as writer:
            start = writer.rows if old else 10 + writer.rows
            writer.append(IDS[start:], X[start:])
        np.testing.assert_array_equal(np.asarray(open_space(path)["image"]), X if old else X[10:])
    else:
        pytest.fail("the disk never sufficed")


@pytest.mark.parametrize(
    "damage",
    ["npy", "parquet", "marker", "cut npy", "cut parquet", "other rows", "other dtype", "bad marker", "empty marker"],
)
def test_a_shard_that_is_not_whole_is_refused(tmp_path: Path, damage: str):
    path = tmp_path / "s.space"
    e = write(path)
    npy, parquet = e.shards[1].embeddings, e.shards[1].metadata
    marker = path / "image" / "_done" / "00001.json"
    if damage in ("npy", "parquet", "marker"):
        {"npy": npy, "parquet": parquet, "marker": marker}[damage].unlink()
    elif damage.startswith("cut"):
        file = npy if damage == "cut npy" else parquet
        file.write_bytes(file.read_bytes()[:-7])
    elif damage == "other rows":
        np.save(npy, X[:19])
    elif damage == "other dtype":
        npy.write_bytes(npy_header(40, 6, np.dtype("<f2")) + npy.read_bytes()[128:])
    else:
        marker.write_text("{" if damage == "bad marker" else "{}")
    with pytest.raises(SpaceError, match=r"s\.space/image/.*(is not whole|cut short|read as the json)") as caught:
        open_space(path)
    assert "\n" not in str(caught.value)


def test_verify_finds_a_changed_byte(tmp_path: Path):
    path = tmp_path / "s.space"
    e = write(path)
    assert open_space(path).verify() == {
        "image": sum(f.stat().st_size for f in path.rglob("*") if f.suffix in (".npy", ".parquet"))
    }
    raw = bytearray(e.shards[2].embeddings.read_bytes())
    raw[-1] ^= 1
    e.shards[2].embeddings.write_bytes(bytes(raw))
    with pytest.raises(SpaceError, match=r"img_emb_00002.npy: sha256 is .*, expected .*changed or is damaged"):
        open_space(path).verify()


def test_metadata_of_other_rows_is_refused_when_read(tmp_path: Path):
    import pyarrow.parquet as pq

    path = tmp_path / "s.space"
    e = write(path)
    for table in (pa.table({"id": IDS[:19]}), pa.table({"no": IDS[:20]})):
        pq.write_table(table, e.shards[0].metadata)
        with pytest.raises(SpaceError, match="expected 20 rows with an `id`"):
            _ = e.metadata
    e.shards[0].metadata.write_bytes(b"x")
    with pytest.raises(SpaceError, match="cannot be read as parquet"):
        _ = e.metadata


def test_a_zero_row_on_disk_has_no_direction(tmp_path: Path):
    e = write(tmp_path / "s.space")
    raw = bytearray(e.shards[1].embeddings.read_bytes())
    raw[128 : 128 + 24] = bytes(24)
    e.shards[1].embeddings.write_bytes(bytes(raw))
    e = open_space(tmp_path / "s.space")["image"]
    for rows in (None, [3, 20]):
        with pytest.raises(SpaceError, match=r"s/image: the embedding of id 'i20' \(row 20\) is zero"):
            e.unit(rows)


def test_reading_is_lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "s.space"
    write(path)
    monkeypatch.setattr(np, "memmap", lambda *a, **k: pytest.fail("values were mapped"))
    monkeypatch.setattr("pyarrow.parquet.ParquetFile", lambda *a, **k: pytest.fail("metadata was read"))
    space = open_space(path)
    assert isinstance(space, Space)
    assert space["image"].shape == (50, 6)
    assert len(space.fingerprint("image")) == 64


def test_norms_of_half_precision_are_exact_for_every_number():
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    x = every[np.isfinite(every) & (every != 0)][:, None]
    stored, norms = as_stored(x, "float16", str)
    assert stored.dtype == np.float16
    assert np.array_equal(norms, np.sqrt(np.square(x[:, 0].astype(np.float32)), dtype=np.float64))
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(SpaceError, match="not finite"):
            as_stored(np.array([[1.0, 2.0], [bad, 1.0]], np.float16), "float16", str)
