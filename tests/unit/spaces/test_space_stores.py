"""Embeddings as other tools export them go in by one command, each read from a file of its real writer."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import torch

from isthmus import import_embeddings, open_space
from isthmus.errors import ConfigError, FormatError

X = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
IDS = [f"i{k}" for k in range(7)]


def imported(source: Path, tmp_path: Path, **options) -> tuple[list[str], np.ndarray]:
    import_embeddings(source, tmp_path / "s.space", modality="image", dtype="float32", **options)
    space = open_space(tmp_path / "s.space")["image"]
    return space.ids, np.asarray(space)


def check(source: Path, tmp_path: Path, *, want: list[str] | None = IDS, atol: float = 1e-6, **options) -> None:
    got, x = imported(source, tmp_path, **options)
    assert want is None or got == want
    assert np.allclose(x, X, atol=atol)


def refused(fault: str, source: Path, tmp_path: Path, error: type = FormatError, **options) -> None:
    with pytest.raises(error, match=fault) as caught:
        imported(source, tmp_path, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + 2 * len(str(source))
    assert not (tmp_path / "s.space").exists()


# tables


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_feather_of_pyarrow_and_of_pandas(tmp_path: Path, compression: str):
    pyarrow.feather.write_feather(
        pa.table({"id": IDS, "vector": X.tolist(), "label": range(7)}), tmp_path / "a.feather", compression=compression
    )
    check(tmp_path / "a.feather", tmp_path)
    assert open_space(tmp_path / "s.space")["image"].metadata["label"].to_pylist() == list(range(7))


def test_an_arrow_stream_and_an_arrow_file(tmp_path: Path):
    table = pa.table({"id": IDS, "embedding": pa.FixedSizeListArray.from_arrays(X.ravel(), 5)})
    with pa.OSFile(str(tmp_path / "s.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table, max_chunksize=3)
    check(tmp_path / "s.arrow", tmp_path)
    whole = (tmp_path / "s.arrow").read_bytes()
    (tmp_path / "c.arrow").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match="cannot be read as Arrow"):
        import_embeddings(tmp_path / "c.arrow", tmp_path / "c.space", modality="image")


def test_parquets_of_pandas_and_polars(tmp_path: Path):
    pd.DataFrame({"id": IDS, "embedding": list(X)}).to_parquet(tmp_path / "pandas.parquet")
    check(tmp_path / "pandas.parquet", tmp_path)
    (tmp_path / "p").mkdir()
    pl.DataFrame({"id": IDS, "embedding": X}).write_parquet(tmp_path / "p/polars.parquet")
    check(tmp_path / "p/polars.parquet", tmp_path / "p")


@pytest.mark.parametrize("stem", ["", "dim_", "feature"])
def test_a_parquet_with_one_column_a_dimension(tmp_path: Path, stem: str):
    columns = {"id": IDS, "year": [1.5] * 7} | {f"{stem}{k}": X[:, k] for k in (1, 0, 2, 4, 3)}
    pd.DataFrame(columns).to_parquet(tmp_path / "a.parquet")
    check(tmp_path / "a.parquet", tmp_path)
    frame = pd.DataFrame(columns)
    frame.iloc[3, 4] = np.nan
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), tmp_path / "b.parquet")
    with pytest.raises(FormatError, match="row 3 has nothing in column"):
        import_embeddings(tmp_path / "b.parquet", tmp_path / "b.space", modality="image")


def test_csv_of_pandas_in_both_forms(tmp_path: Path):
    pd.DataFrame({"id": IDS, "embedding": X.tolist()}).to_csv(tmp_path / "a.csv", index=False)
    check(tmp_path / "a.csv", tmp_path)
    (tmp_path / "w").mkdir()
    pd.DataFrame({"id": IDS} | {f"dim_{k}": X[:, k] for k in range(5)}).to_csv(tmp_path / "w/a.csv", index=False)
    check(tmp_path / "w/a.csv", tmp_path / "w")
    (tmp_path / "n").mkdir()
    pd.DataFrame({"id": IDS, "embedding": list(X)}).to_csv(tmp_path / "n/a.csv", index=False)
    assert ",[ 0.1" in (tmp_path / "n/a.csv").read_text(), "spelled by numpy, without commas"
    check(tmp_path / "n/a.csv", tmp_path / "n")
    pd.DataFrame({"id": IDS, "embedding": [np.resize(x, 2000) for x in X]}).to_csv(tmp_path / "cut.csv", index=False)
    refused("row 1 of 'embedding' was cut short when it was written", tmp_path / "cut.csv", tmp_path / "none")
    (tmp_path / "bad.csv").write_text('id,embedding\na,"[1, x]"\n')
    with pytest.raises(FormatError, match=r"row 1 has '\[1, x\]' as 'embedding', expected numbers as \[0\.1, 0\.2\]"):
        import_embeddings(tmp_path / "bad.csv", tmp_path / "b.space", modality="image")


EXPORTS = {
    "pinecone.jsonl": [{"id": i, "values": x, "metadata": {"year": 1}} for i, x in zip(IDS, X.tolist(), strict=True)],
    "pinecone.json": {
        "namespace": "",
        "vectors": {i: {"id": i, "values": x, "metadata": {}} for i, x in zip(IDS, X.tolist(), strict=True)},
    },
    "weaviate.jsonl": [
        {"id": i, "vector": {"default": x}, "properties": {"t": "a"}} for i, x in zip(IDS, X.tolist(), strict=True)
    ],
    "weaviate.json": {
        "data": {
            "Get": {
                "Photo": [
                    {"title": "a", "_additional": {"id": i, "vector": x}} for i, x in zip(IDS, X.tolist(), strict=True)
                ]
            }
        }
    },
    "qdrant.json": {
        "result": {
            "points": [{"id": k, "payload": {"a": 1}, "vector": x} for k, x in enumerate(X.tolist())],
            "next_page_offset": None,
        },
        "status": "ok",
    },
    "qdrant.jsonl": [{"id": k, "payload": {"a": 1}, "vector": x} for k, x in enumerate(X.tolist())],
    "weaviate-objects.json": {
        "objects": [
            {"class": "Photo", "id": i, "properties": {"t": "a"}, "vector": x, "vectorWeights": None}
            for i, x in zip(IDS, X.tolist(), strict=True)
        ],
        "totalResults": 7,
    },
    "weaviate-iterator.jsonl": [
        {"uuid": i, "properties": {"t": "a"}, "vector": {"default": x}} for i, x in zip(IDS, X.tolist(), strict=True)
    ],
    "milvus.json": {"data": [{"pk": i, "vector": x} for i, x in zip(IDS, X.tolist(), strict=True)]},
    "elasticsearch.jsonl": [
        {"_index": "a", "_id": i, "_source": {"title": "t", "vector": x}} for i, x in zip(IDS, X.tolist(), strict=True)
    ],
    "chroma.json": {
        "ids": IDS,
        "embeddings": X.tolist(),
        "documents": None,
        "metadatas": [{"year": k} for k in range(7)],
        "included": ["embeddings", "metadatas"],
    },
}


@pytest.mark.parametrize("name", EXPORTS)
def test_exports_of_vector_stores(tmp_path: Path, name: str):
    value = EXPORTS[name]
    text = "".join(json.dumps(row) + "\n" for row in value) if name.endswith("l") else json.dumps(value)
    (tmp_path / name).write_text(text)
    ids = [str(k) for k in range(7)] if name.startswith("qdrant") else IDS
    options = {"ids": "_additional.id"} if name == "weaviate.json" else {}
    check(tmp_path / name, tmp_path, want=ids, **options)


def test_named_vectors_of_a_qdrant_scroll(tmp_path: Path):
    points = [{"id": k, "payload": {}, "vector": {"image": x, "text": x[:3]}} for k, x in enumerate(X.tolist())]
    (tmp_path / "a.json").write_text(json.dumps({"result": {"points": points, "next_page_offset": 7}}))
    refused(r"which column holds.*vector\.image \(list.*vector\.text", tmp_path / "a.json", tmp_path)
    check(tmp_path / "a.json", tmp_path, want=[str(k) for k in range(7)], column="vector.image")


def test_an_export_whose_uuids_repeat_gets_ids_of_its_own(tmp_path: Path):
    rows = [{"uuid": "same", "vector": x} for x in X.tolist()]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    check(tmp_path / "a.jsonl", tmp_path, want=[f"image-{k:08d}" for k in range(7)])


def test_a_qdrant_scroll_in_local_mode(tmp_path: Path):
    qdrant = pytest.importorskip("qdrant_client")
    client = qdrant.QdrantClient(":memory:")
    models = qdrant.models
    client.create_collection("c", vectors_config=models.VectorParams(size=5, distance=models.Distance.DOT))
    points = [models.PointStruct(id=k, vector=x, payload={"a": k}) for k, x in enumerate(X.tolist())]
    client.upsert("c", points)
    records, _ = client.scroll("c", limit=100, with_vectors=True)
    (tmp_path / "a.jsonl").write_text("".join(record.model_dump_json() + "\n" for record in records))
    check(tmp_path / "a.jsonl", tmp_path, want=[str(k) for k in range(7)])


def test_a_table_of_lancedb(tmp_path: Path):
    lancedb = pytest.importorskip("lancedb")
    table = pa.table({"id": IDS, "vector": pa.FixedSizeListArray.from_arrays(X.ravel(), 5)})
    lancedb.connect(str(tmp_path / "db")).create_table("photos", table)
    check(tmp_path / "db/photos.lance", tmp_path)
    (tmp_path / "folder").mkdir()
    database = lancedb.connect(str(tmp_path / "db"))
    database.open_table("photos").delete("id = 'i0'")
    database.open_table("photos").add([{"id": "i0", "vector": X[0]}])
    ids, rows = imported(tmp_path / "db", tmp_path / "folder")
    assert ids == [*IDS[1:], "i0"], "a database of one table is that table, without its deleted rows"
    assert np.allclose(rows, X[[1, 2, 3, 4, 5, 6, 0]])
    database.create_table("sounds", table)
    (tmp_path / "two").mkdir()
    refused(r"several LanceDB tables \(photos\.lance, sounds\.lance\)", tmp_path / "db", tmp_path / "two")


def test_a_data_set_that_was_saved_to_disk(tmp_path: Path):
    """The layout of `datasets`: Arrow streams, and a state that names them in order."""
    folder = tmp_path / "d"
    folder.mkdir()
    names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    for name, rows in zip(names, (slice(0, 4), slice(4, 7)), strict=True):
        table = pa.table({"id": IDS[rows], "embeddings": X[rows].tolist()})
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as out:
            out.write_table(table)
    state = {"_data_files": [{"filename": name} for name in names], "_indices_files": None, "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    check(folder, tmp_path)
    (folder / "state.json").write_text(json.dumps({**state, "_data_files": [{"filename": "../x.arrow"}]}))
    with pytest.raises(FormatError, match="names no files of the folder"):
        import_embeddings(folder, tmp_path / "b.space", modality="image")
    (folder / "state.json").write_text(json.dumps({**state, "_indices_files": [{"filename": "i.arrow"}]}))
    with pytest.raises(FormatError, match=r"Save it with flatten_indices\(\)"):
        import_embeddings(folder, tmp_path / "b.space", modality="image")


def test_data_sets_as_their_own_library_saves_them(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    fixed = datasets.Features({"id": datasets.Value("string"), "e": datasets.Sequence(datasets.Value("float32"), 5)})
    half = datasets.Features({"id": datasets.Value("string"), "e": datasets.Sequence(datasets.Value("float16"))})
    data = datasets.Dataset.from_dict({"id": IDS, "e": X}, features=fixed)
    parts = {
        "sharded": (data, {"num_shards": 3}),
        "half": (datasets.Dataset.from_dict({"id": IDS, "e": X.astype(np.float16)}, features=half), {}),
        "sorted back": (data.select(range(6, -1, -1)).select(range(6, -1, -1)), {}),
        "labels": (
            data.add_column("label", [0, 1] * 3 + [0]).cast_column("label", datasets.ClassLabel(names=["cat", "dog"])),
            {},
        ),
        "one split": (datasets.DatasetDict({"train": data}), {}),
    }
    for name, (one, options) in parts.items():
        one.save_to_disk(str(tmp_path / name / "d"), **options)
        check(tmp_path / name / "d", tmp_path / name, atol=1e-3)
    two = datasets.DatasetDict({"test": data, "train": data})
    two.save_to_disk(str(tmp_path / "two"))
    refused(r"holds several splits \(test, train\)\. Give the folder of one", tmp_path / "two", tmp_path)
    check(tmp_path / "two/test", tmp_path)


# torch, HDF5, .npz by id, raw maps


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor(X),
        torch.tensor(X).bfloat16(),
        torch.tensor(X, requires_grad=True),
        list(torch.tensor(X)),
        {"embeddings": torch.tensor(X), "epoch": 3},
        {"e": torch.tensor(X), "labels": torch.arange(7)},
    ],
    ids=["tensor", "bfloat16", "gradient", "list", "dict", "beside"],
)
def test_tensors_of_torch(tmp_path: Path, value: object):
    torch.save(value, tmp_path / "a.pt")
    check(tmp_path / "a.pt", tmp_path, want=None, atol=0.02)


def test_a_dict_of_torch_with_ids(tmp_path: Path):
    torch.save({"embeddings": torch.tensor(X), "ids": IDS}, tmp_path / "a.pt")
    check(tmp_path / "a.pt", tmp_path)


def test_nothing_of_a_pt_is_run(tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    torch.save({"embeddings": torch.tensor(X), "x": Evil()}, tmp_path / "a.pt")
    refused("cannot be read with weights_only=True", tmp_path / "a.pt", tmp_path)
    assert not (tmp_path / "ran").exists()
    torch.save(torch.zeros(1).expand(200_000, 1_000), tmp_path / "b.pt")
    refused("takes .* bytes once unpacked, the limit is", tmp_path / "b.pt", tmp_path)


@pytest.mark.parametrize("kind", ["npz", "pt", "h5"])
def test_one_array_an_id(tmp_path: Path, kind: str):
    path = tmp_path / f"a.{kind}"
    arrays = dict(zip(IDS, X, strict=True))
    if kind == "npz":
        np.savez_compressed(path, **arrays)
    elif kind == "pt":
        torch.save({name: torch.tensor(x) for name, x in arrays.items()}, path)
    else:
        with h5py.File(path, "w") as out:
            for name, x in arrays.items():
                out[name] = x
    refused(r"which array holds the embeddings\?.*--column '\*'", path, tmp_path)
    check(path, tmp_path, column="*")


def test_hdf5_with_ids_beside(tmp_path: Path):
    with h5py.File(tmp_path / "a.h5", "w") as out:
        out.create_dataset("features", data=X, compression="gzip", chunks=(3, 5))
        out["id"] = [name.encode() for name in IDS]
        out["meta/seconds"] = np.arange(7)
    check(tmp_path / "a.h5", tmp_path)
    with h5py.File(tmp_path / "l.h5", "w") as out:
        out["features"] = h5py.ExternalLink(str(tmp_path / "a.h5"), "/features")
    with pytest.raises(FormatError, match="features is a link, which is not followed"):
        import_embeddings(tmp_path / "l.h5", tmp_path / "b.space", modality="image")
    (tmp_path / "c.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:600])
    with pytest.raises(FormatError, match="cannot be read as HDF5"):
        import_embeddings(tmp_path / "c.h5", tmp_path / "b.space", modality="image")


def test_a_raw_map_with_its_shape(tmp_path: Path):
    X.astype("<f4").tofile(tmp_path / "a.dat")
    refused(r"the suffix '\.dat' is none of .*give its --shape, such as 1000x512:float32", tmp_path / "a.dat", tmp_path)
    refused("has 140 bytes, but 9 rows of 5 float32 are 180", tmp_path / "a.dat", tmp_path, shape="9x5:float32")
    refused("the shape '7,5' is none", tmp_path / "a.dat", tmp_path, ConfigError, shape="7,5")
    check(tmp_path / "a.dat", tmp_path, want=None, shape="7x5:float32")
    (tmp_path / "m").mkdir()
    X.astype("<f4").tofile(tmp_path / "m/a.dat")
    check(tmp_path / "m/a.dat", tmp_path / "m", want=None, shape="x5:float32")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_never_opened(tmp_path: Path):
    for name in ("a.npy", "a.csv", "a"):
        os.mkfifo(tmp_path / name)
        refused("is a named pipe, no file", tmp_path / name, tmp_path)
