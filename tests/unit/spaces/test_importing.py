"""Imports: every format and layout, every check before the first byte, resumed, repeated and appended."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from isthmus import import_embeddings, open_space
from isthmus.errors import FormatError, SpaceError
from isthmus.spaces.writer import ModalityWriter

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype(np.float32)
X /= np.linalg.norm(X, axis=1, keepdims=True)
IDS = [f"i{row}" for row in range(40)]


def parquet(path: Path, x: np.ndarray = X, ids: list | None = IDS, **columns) -> Path:
    table = {"id": ids} if ids is not None else {}
    pq.write_table(pa.table({**table, "embedding": [row for row in x], **columns}), path)
    return path


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def refused(fault: str, source: Path, into: Path, error: type = FormatError, **options) -> None:
    """The import raises one line that names the file, and changes nothing."""
    before = content(into.parent)
    with pytest.raises(error, match=fault) as caught:
        import_embeddings(source, into, **{"modality": "image", **options})
    assert "\n" not in str(caught.value)
    assert content(into.parent) == before


@pytest.mark.parametrize("suffix", ["npy", "npz", "parquet", "safetensors"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_format(tmp_path: Path, suffix: str, dtype: str):
    source, x = tmp_path / f"a.{suffix}", X.astype(dtype)
    if suffix == "npy":
        np.save(source, x)
    elif suffix == "npz":
        np.savez(source, embeddings=x, ids=np.array(IDS), label=np.arange(40))
    elif suffix == "parquet":
        pq.write_table(pa.table({"id": IDS, "embedding": [row for row in x], "label": range(40)}), source)
    else:
        save_file({"embeddings": x}, source)
    report = import_embeddings(source, tmp_path / "s.space", modality="image")
    e = open_space(tmp_path / "s.space")["image"]
    assert e.dtype == report["dtype"] == ("float16" if dtype == "float16" else "float32")
    np.testing.assert_array_equal(np.asarray(e), x.astype(np.float32))
    named = suffix in ("npz", "parquet")
    assert e.ids == (IDS if named else [f"image-{row:08d}" for row in range(40)])
    assert ("label" in e.metadata.column_names) == named
    assert report["ids"] == {"npz": "column ids", "parquet": "column id"}.get(suffix, "generated")
    assert (report["rows"], report["total_rows"], report["rejected"], report["unchanged"]) == (40, 40, 0, False)
    assert report["normalized"] is True
    assert (report["note"], report["encoder"]) == ("imported 40 rows", None)
    assert any("ids were generated" in text for text in report["warnings"]) != named
    assert any("no encoder is known: the name 's'" in text for text in report["warnings"])


@pytest.mark.parametrize("form", ["txt", "csv", "parquet", "column", "sequence", "numbers"])
def test_where_ids_come_from(tmp_path: Path, form: str):
    np.save(tmp_path / "a.npy", X)
    source: Path = tmp_path / "a.npy"
    ids: object = tmp_path / f"ids.{form}"
    if form == "txt":
        ids.write_text("\n".join(IDS) + "\n")
    elif form == "csv":
        ids.write_text("label,id\n" + "".join(f"l{name},{name}\n" for name in IDS))
    elif form == "parquet":
        pq.write_table(pa.table({"id": IDS, "label": [f"l{name}" for name in IDS]}), ids)
    elif form == "column":
        source, ids = parquet(tmp_path / "a.parquet", ids=None, key=IDS), "key"
    elif form == "numbers":
        source, ids = parquet(tmp_path / "a.parquet", ids=list(range(40))), None
    else:
        ids = IDS
    import_embeddings(source, tmp_path / "s.space", modality="image", ids=ids)
    e = open_space(tmp_path / "s.space")["image"]
    assert e.ids == ([str(row) for row in range(40)] if form == "numbers" else IDS)
    if form in ("csv", "parquet"):
        assert e.metadata.column("label").to_pylist() == [f"l{name}" for name in IDS]


def test_a_folder_of_files_in_natural_order(tmp_path: Path):
    folder = tmp_path / "parts"
    folder.mkdir()
    for part, start in enumerate((0, 20, 30)):
        stop = (20, 30, 40)[part]
        np.save(folder / f"part_{(1, 2, 10)[part]}.npy", X[start:stop])
    import_embeddings(folder, tmp_path / "s.space", modality="image", ids=IDS, shard_rows=7)
    e = open_space(tmp_path / "s.space")["image"]
    np.testing.assert_array_equal(np.asarray(e), X)
    assert [shard.rows for shard in e.shards] == [7] * 5 + [5]


def clip_retrieval(folder: Path, x: np.ndarray = X) -> Path:
    for stem in ("img_emb", "text_emb", "metadata"):
        (folder / stem).mkdir(parents=True)
    for part, start in enumerate(range(0, 40, 4)):
        here = slice(start, start + 4)
        np.save(folder / "img_emb" / f"img_emb_{part}.npy", x[here].astype(np.float16))
        np.save(folder / "text_emb" / f"text_emb_{part}.npy", -x[here].astype(np.float16))
        table = pa.table({"image_path": [f"{name}.png" for name in IDS[here]], "caption": IDS[here]})
        pq.write_table(table, folder / "metadata" / f"metadata_{part}.parquet")
    return folder


def test_a_clip_retrieval_folder(tmp_path: Path):
    folder = clip_retrieval(tmp_path / "clip")
    for modality, sign in (("image", 1), ("text", -1)):
        import_embeddings(folder, tmp_path / "s.space", modality=modality, ids="image_path")
        e = open_space(tmp_path / "s.space")[modality]
        np.testing.assert_array_equal(np.asarray(e), sign * X.astype(np.float16).astype(np.float32))
        assert e.ids == [f"{name}.png" for name in IDS]
    assert e.metadata.column_names == ["id", "image_path", "caption", "text"]
    import_embeddings(folder / "img_emb", tmp_path / "t.space", modality="image", ids="caption")
    assert open_space(tmp_path / "t.space")["image"].ids == IDS
    refused(
        "is a clip-retrieval folder with img_emb, text_emb, but without audio_emb",
        folder,
        tmp_path / "s.space",
        modality="audio",
    )
    (folder / "metadata" / "metadata_3.parquet").unlink()
    refused("has 9 files of metadata for 10 of embeddings", folder, tmp_path / "s.space")
    (folder / "img_emb" / "img_emb_5.npy").unlink()
    refused(
        r"img_emb_3.npy: its metadata is missing, the next file there is metadata_4.parquet",
        folder,
        tmp_path / "s.space",
    )


def test_a_modality_of_ours_is_a_clip_retrieval_folder(tmp_path: Path):
    import_embeddings(
        parquet(tmp_path / "a.parquet", n=range(40)), tmp_path / "a.space", modality="image", shard_rows=9
    )
    import_embeddings(tmp_path / "a.space" / "image", tmp_path / "b.space", modality="image", shard_rows=9)
    a, b = tmp_path / "a.space" / "image", tmp_path / "b.space" / "image"
    assert content(a) == content(b)
    refused("is a space already", tmp_path / "a.space", tmp_path / "c.space")


def test_arrays_with_metadata_beside_them(tmp_path: Path):
    folder = tmp_path / "f"
    folder.mkdir()
    np.save(folder / "emb_0.npy", X)
    pq.write_table(pa.table({"id": IDS}), folder / "meta_0.parquet")
    import_embeddings(folder, tmp_path / "s.space", modality="image")
    assert open_space(tmp_path / "s.space")["image"].ids == IDS
    pq.write_table(pa.table({"id": IDS[:39]}), folder / "meta_0.parquet")
    refused(r"meta_0.parquet: has 39 rows of metadata, .*emb_0.npy has 40 embeddings", folder, tmp_path / "t.space")


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (np.nan, r"a\.parquet: row 33 \(id 'n33'\): the embedding is not finite"),
        (-np.inf, r"a\.parquet: row 33 \(id 'n33'\): the embedding is not finite"),
        (0.0, r"a\.parquet: row 33 \(id 'n33'\): the embedding is zero"),
    ],
)
def test_a_bad_row_changes_nothing(tmp_path: Path, old: bool, value: float, fault: str):
    if old:
        import_embeddings(parquet(tmp_path / "old.parquet"), tmp_path / "s.space", modality="image")
    x = X.copy()
    x[33] = value
    source = parquet(tmp_path / "a.parquet", x, [f"n{row}" for row in range(40)])
    refused(fault, source, tmp_path / "s.space")
    assert (tmp_path / "s.space").exists() == old


def test_the_row_is_that_of_its_file(tmp_path: Path):
    folder = tmp_path / "f"
    folder.mkdir()
    np.save(folder / "a.npy", X[:30])
    x = X[30:].copy()
    x[4, 2] = np.nan
    np.save(folder / "b.npy", x)
    refused(r"b\.npy: row 4: the embedding is not finite", folder, tmp_path / "s.space")
    np.save(folder / "b.npy", X[30:, :5])
    refused(r"b\.npy: has embeddings of dim 5, a\.npy has 6", folder, tmp_path / "s.space")


def test_overflow_of_float16_is_told(tmp_path: Path):
    np.save(tmp_path / "a.npy", X * 1e6)
    refused("do not fit float16. Store the space as float32", tmp_path / "a.npy", tmp_path / "s.space", dtype="float16")
    report = import_embeddings(tmp_path / "a.npy", tmp_path / "s.space", modality="image")
    assert any("rows are not of unit length (mean norm 1e+06)" in text for text in report["warnings"])


@pytest.mark.parametrize(
    ("ids", "fault"),
    [
        (["a"] * 40, r"a\.npy: row 1 has the id 'a' of row 0. Ids are unique in a modality"),
        (IDS[:39], "has 40 embeddings, but the ids has 39 ids"),
        ([*IDS[:39], ""], r"a\.npy: row 39 has no id in the ids \(1 are empty\)"),
        ([*IDS[:38], None, None], r"a\.npy: row 38 has no id in the ids \(2 are empty\)"),
        ([0.5] * 40, "is of type double, expected text or whole numbers"),
        ([1, "a"], "cannot be read as ids"),
        ("key", r"ids 'key' is neither a file nor a column. .*one of the columns: none"),
    ],
)
def test_ids_that_are_refused(tmp_path: Path, ids: object, fault: str):
    np.save(tmp_path / "a.npy", X)
    refused(fault, tmp_path / "a.npy", tmp_path / "s.space", ids=ids)


def test_files_of_ids_that_are_refused(tmp_path: Path):
    np.save(tmp_path / "a.npy", X)
    for name, text, fault in (
        ("a.txt", "\n".join(IDS[:-1]), r"has 40 embeddings, but .*a\.txt has 39 ids"),
        ("a.csv", "x,y\n1,2\n", "has no column 'id', it has x, y"),
        ("b.csv", "id\n" + "i\n" * 40, "row 1 has the id 'i' of row 0"),
        ("c.txt", b"\xff", "line 1 is not UTF-8"),
        ("empty.csv", "", "is empty"),
    ):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        refused(fault, tmp_path / "a.npy", tmp_path / "s.space", ids=str(tmp_path / name))


def test_sources_that_are_refused(tmp_path: Path):
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.pkl").touch()
    for name, fault in (
        ("none", "no such file or folder"),
        ("objects.npy", "pickled Python objects"),
        ("folder", "no file with one of the suffixes .npy, .npz, .parquet, .safetensors"),
        ("a.pkl", r"the suffix '\.pkl' is none of"),
    ):
        refused(fault, tmp_path / name, tmp_path / "s.space")
    np.save(tmp_path / "a.npy", X)
    refused("cannot name a modality", tmp_path / "a.npy", tmp_path / "s.space", SpaceError, modality="Bild")
    refused(
        "stored as float16 or float32, got dtype 'int8'",
        tmp_path / "a.npy",
        tmp_path / "s.space",
        SpaceError,
        dtype="int8",
    )
    refused("shard_rows must lie in", tmp_path / "a.npy", tmp_path / "s.space", SpaceError, shard_rows=0)


def test_the_declared_norm_is_checked(tmp_path: Path):
    np.save(tmp_path / "a.npy", 3 * X)
    refused(
        r"declared of unit length, but their mean norm is 3 and 0.0% have",
        tmp_path / "a.npy",
        tmp_path / "s.space",
        normalized=True,
    )
    assert (
        import_embeddings(tmp_path / "a.npy", tmp_path / "s.space", modality="image", normalized=False)["normalized"]
        is False
    )
    np.save(tmp_path / "b.npy", X)
    refused("declared not of unit length", tmp_path / "b.npy", tmp_path / "t.space", normalized=False)
    report = import_embeddings(tmp_path / "b.npy", tmp_path / "t.space", modality="image", normalized=True)
    assert report["norm"]["unit_share"] == 1.0


def test_the_same_again_changes_nothing(tmp_path: Path):
    into = tmp_path / "s.space"
    np.save(tmp_path / "a.npy", X)
    for source in (parquet(tmp_path / "a.parquet"), tmp_path / "a.npy"):
        import_embeddings(source, into, modality="image")
        before = content(into)
        report = import_embeddings(source, into, modality="image")
        assert report["unchanged"]
        assert (report["rows"], report["note"]) == (0, "nothing to do: these 40 rows were imported before")
        assert content(into) == before
    assert len(open_space(into)["image"]) == 80
    assert import_embeddings(tmp_path / "a.parquet", into, modality="image")["unchanged"]


def test_new_rows_are_appended_and_known_ids_refused(tmp_path: Path):
    into = tmp_path / "s.space"
    import_embeddings(parquet(tmp_path / "a.parquet", X[:30], IDS[:30]), into, modality="image", dtype="float16")
    report = import_embeddings(parquet(tmp_path / "b.parquet", X[30:], IDS[30:]), into, modality="image")
    assert (report["rows"], report["total_rows"], report["dtype"]) == (10, 40, "float16")
    assert open_space(into)["image"].ids == IDS
    source = parquet(tmp_path / "c.parquet", X[:4], ["x", "i3", "y", "i5"])
    refused(
        r"c\.parquet: row 1 \(id 'i3'\) is in .*s\.space already, as row 3 of 'image' with another embedding \(2 of 4",
        source,
        into,
        SpaceError,
    )
    source = parquet(tmp_path / "d.parquet", X, [*IDS[:39], "new"])
    refused("is in .* already, as row 0 of 'image' with the same embedding", source, into, SpaceError)
    refused("stored as float16, got dtype 'float32'", source, into, SpaceError, dtype="float32")
    refused("dim 5 do not belong in a space of dim 6", parquet(tmp_path / "e.parquet", X[:, :5]), into, SpaceError)
    refused("made with encoder .*'s'.*, got .*a/b", source, into, SpaceError, encoder="a/b")


def test_generated_ids_go_on_and_collide_with_nothing(tmp_path: Path):
    into = tmp_path / "s.space"
    np.save(tmp_path / "a.npy", X)
    np.save(tmp_path / "b.npy", -X)
    import_embeddings(tmp_path / "a.npy", into, modality="image")
    import_embeddings(tmp_path / "b.npy", into, modality="image")
    assert open_space(into)["image"].ids == [f"image-{row:08d}" for row in range(80)]
    assert import_embeddings(tmp_path / "b.npy", into, modality="image")["unchanged"]
    assert import_embeddings(tmp_path / "a.npy", into, modality="image")["unchanged"]


def test_a_second_modality_and_what_made_it(tmp_path: Path):
    into = tmp_path / "s.space"
    import_embeddings(
        parquet(tmp_path / "a.parquet"), into, modality="image", encoder="a/b@v1", preprocessing={"size": 224}
    )
    report = import_embeddings(parquet(tmp_path / "a.parquet", text=IDS), into, modality="text", name="s")
    space = open_space(into)
    assert space.modalities == ("image", "text")
    assert space["image"].info["encoder"] == {
        "library": "declared",
        "id": "a/b",
        "revision": "v1",
        "weights_sha256": None,
    }
    assert space["image"].info["preprocessing"] == {"size": 224}
    assert space["text"].metadata.column("text").to_pylist() == IDS
    assert any("image of this space were made by another encoder" in text for text in report["warnings"])
    refused(
        "is named 's', got the name 'other'", tmp_path / "a.parquet", into, SpaceError, modality="audio", name="other"
    )


def interrupt(monkeypatch: pytest.MonkeyPatch, source: Path, into: Path, after: int, **options) -> None:
    """Stop an import after some shards, as a kill does: nothing is cleaned up."""

    class Killed(BaseException):
        pass

    real, count = ModalityWriter._finish_shard, [0]

    def finish(self: ModalityWriter) -> None:
        if count[0] == after:
            raise Killed
        count[0] += 1
        real(self)

    with monkeypatch.context() as patch:
        patch.setattr(ModalityWriter, "_finish_shard", finish)
        patch.setattr(ModalityWriter, "abort", lambda self: None)
        with pytest.raises(Killed):
            import_embeddings(source, into, modality="image", shard_rows=7, **options)


@pytest.mark.parametrize("after", [0, 1, 3, 5])
@pytest.mark.parametrize("ids", [True, False])
def test_an_interrupted_import_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, ids: bool):
    source = parquet(tmp_path / "a.parquet", ids=IDS if ids else None, n=range(40))
    import_embeddings(source, tmp_path / "whole" / "s.space", modality="image", shard_rows=7)
    into = tmp_path / "s.space"
    interrupt(monkeypatch, source, into, after)
    with pytest.raises(SpaceError, match="is not whole"):
        open_space(into)
    report = import_embeddings(source, into, modality="image", shard_rows=7)
    assert (report["resumed_rows"], report["rows"]) == (7 * after, 40)
    assert content(into) == content(tmp_path / "whole" / "s.space")


def test_an_interrupted_import_of_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    into = tmp_path / "s.space"
    interrupt(monkeypatch, parquet(tmp_path / "a.parquet"), into, 2)
    other = parquet(tmp_path / "b.parquet", -X)
    refused(
        "import of something else into 'image' was interrupted after 14 rows.*restart=True", other, into, SpaceError
    )
    third = parquet(tmp_path / "c.parquet", X, [f"n{name}" for name in IDS])
    refused("import of something else into 'image' was interrupted", third, into, SpaceError)
    import_embeddings(third, into, modality="image", restart=True)
    assert open_space(into)["image"].ids == [f"n{name}" for name in IDS]


def test_a_full_disk_leaves_the_space_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import errno

    from isthmus.spaces.shards import ShardWriter

    into = tmp_path / "s.space"
    import_embeddings(parquet(tmp_path / "a.parquet", X[:10], IDS[:10]), into, modality="image")
    before = content(into)

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShardWriter, "write", full)
    for target in (into, tmp_path / "new.space"):
        with pytest.raises(OSError, match="No space left"):
            import_embeddings(parquet(tmp_path / "b.parquet", X[10:], IDS[10:]), target, modality="image")
    assert content(into) == before
    assert not (tmp_path / "new.space").exists()


def test_the_real_embeddings(shared: Path, tmp_path: Path):
    folder = shared / "data" / "embeddings" / "picture"
    for modality, rows in (("text", 17_427), ("image", 20_000)):
        report = import_embeddings(folder / f"{modality}.parquet", tmp_path / "picture.space", modality=modality)
        assert (report["rows"], report["dim"], report["dtype"], report["normalized"]) == (rows, 256, "float16", True)
    text = open_space(tmp_path / "picture.space")["text"]
    assert {"id", "text", "source"} == set(text.metadata.column_names)
    table = pq.read_table(folder / "text.parquet")
    assert text.ids == table.column("id").to_pylist()
    stored = table.column("embedding").combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, 256)
    np.testing.assert_array_equal(np.asarray(text), stored.astype(np.float32))
