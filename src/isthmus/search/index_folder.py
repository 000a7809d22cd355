"""The folder of an index: written aside and renamed whole, read through memory maps.

```
index/
  index.json            format, version, dim, rows, fingerprint of the bridge, centroids' names, approximate settings,
                        bytes and sha256 of every other file
  embeddings.npy        (rows, dim) float32 unit rows
  items.parquet         id, gallery, modality, row-aligned
  metadata.parquet      the user's columns, row-aligned; missing where there are none
  centroids.npy         (modalities, dim) float32, of a centred index
  ann.faiss, ann_places.npy   of an index with approximate search
```
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.core.arrays import NPY_FAULTS
from isthmus.core.files import read_json, sha256_file, write_json
from isthmus.core.messages import one_line
from isthmus.core.replace import Product, check_place, replaced_folder
from isthmus.core.table_files import read_parquet
from isthmus.core.version import __version__
from isthmus.errors import FormatError
from isthmus.search.approximate import AnnSettings, Approximate, load_faiss
from isthmus.search.centring import centred
from isthmus.search.labels import ItemLabels
from isthmus.search.rows import GrowingRows

if TYPE_CHECKING:
    from isthmus.search.index import SearchIndex

MANIFEST = "index.json"
FORMAT = "isthmus-index"
FORMAT_VERSION = 1
FILES = ("embeddings.npy", "items.parquet", "metadata.parquet", "centroids.npy", "ann.faiss", "ann_places.npy")


def write_index(index: SearchIndex, path: Path, *, overwrite: bool) -> None:
    """Write the folder of an index; see `SearchIndex.save`."""
    check_place(path, INDEX, overwrite=overwrite)
    index.compact()
    with replaced_folder(path, INDEX, overwrite=overwrite) as folder:
        fill_folder(index, folder)


def index_files(path: Path) -> set[str]:
    """Names of the files of a whole index."""
    return {MANIFEST, *read_index_manifest(path)["files"]}


INDEX = Product("index", MANIFEST, index_files)


def fill_folder(index: SearchIndex, folder: Path) -> None:
    """Write the files of an index without deleted rows into an empty folder, the manifest last."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    np.save(folder / "embeddings.npy", index._rows.matrix, allow_pickle=False)
    labels = index._labels
    items = {"id": labels.ids, "gallery": labels.galleries, "modality": labels.modalities}
    pq.write_table(
        pa.table({name: pa.array(values, pa.large_string()) for name, values in items.items()}),
        folder / "items.parquet",
        compression="zstd",
    )
    if index._metadata:
        table = index._metadata.table().replace_schema_metadata(None)
        pq.write_table(table, folder / "metadata.parquet", compression="zstd")
    if index.centroids:
        np.save(folder / "centroids.npy", np.stack(list(index.centroids.values())), allow_pickle=False)
    ann = None
    if index.ann is not None:
        load_faiss().write_index(index.ann.index, str(folder / "ann.faiss"))
        np.save(folder / "ann_places.npy", index.ann.places, allow_pickle=False)
        ann = vars(index.ann.settings)
    files = {
        each.name: {"bytes": each.stat().st_size, "sha256": sha256_file(each)} for each in sorted(folder.iterdir())
    }
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "isthmus": __version__}
    body = {"dim": index.dim, "rows": len(index), "unified": index.unified, "centered": list(index.centroids)}
    write_json(folder / MANIFEST, {**head, **body, "ann": ann, "files": files})


def read_index(cls: type[SearchIndex], path: Path, *, verify: bool) -> SearchIndex:
    """Open the folder of an index; see `SearchIndex.open`."""
    manifest = read_index_manifest(path)
    _check_files(path, manifest["files"], verify)
    rows, dim = manifest["rows"], manifest["dim"]
    items = _table(path / "items.parquet", rows, ("id", "gallery", "modality"))
    metadata = _table(path / "metadata.parquet", rows, ()) if "metadata.parquet" in manifest["files"] else None
    matrix = _array(path / "embeddings.npy", (rows, dim), np.float32, mmap=rows > 0)
    # Not through the constructor, which would read and scale every row: they were of unit length when written.
    index = cls(np.ones((1, dim), np.float32), unified=manifest.get("unified"))
    index._rows = GrowingRows(matrix)
    ids, galleries, modalities = (items.column(name).to_pylist() for name in ("id", "gallery", "modality"))
    index._labels = ItemLabels(ids, modalities, galleries)
    index._metadata = type(index._metadata)(metadata, rows)
    names = manifest["centered"]
    if names:
        centroids = _array(path / "centroids.npy", (len(names), dim), np.float32)
        index.centroids = dict(zip(names, centroids, strict=True))
        index._centred = GrowingRows(centred(matrix, modalities, index.centroids))
    if manifest.get("ann"):
        index.ann = _read_ann(path, manifest["ann"], rows, dim)
    return index


def read_index_manifest(path: Path) -> dict[str, Any]:
    """Read and check `index.json`.

    Raises:
        FormatError: It is missing, damaged, or of a newer format.
    """
    if not (path / MANIFEST).is_file():
        raise FormatError(f"{path}: is no index (a folder with {MANIFEST}). Check the path, or make one.")
    manifest = read_json(path / MANIFEST, kind="index manifest")
    version = manifest.get("format_version")
    if manifest.get("format") != FORMAT or not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise FormatError(f"{path / MANIFEST}: is of the format {manifest.get('format')!r}, expected {FORMAT!r}.")
    if version > FORMAT_VERSION:
        raise FormatError(
            f"{path / MANIFEST}: format_version {version} is newer than the {FORMAT_VERSION} that isthmus "
            f"{__version__} reads. Upgrade it: pip install -U isthmus."
        )
    kinds = {"dim": int, "rows": int, "files": dict, "centered": list}
    wrong = [key for key, kind in kinds.items() if not isinstance(manifest.get(key), kind)]
    if (
        wrong
        or manifest["dim"] < 1
        or manifest["rows"] < 0
        or not {"embeddings.npy", "items.parquet"} <= set(manifest["files"])
    ):
        raise FormatError(f"{path / MANIFEST}: {(wrong or ['content'])[0]} is damaged. Make the index again.")
    return manifest


def _check_files(path: Path, files: dict[str, Any], verify: bool) -> None:
    """Refuse the folder of an index with a file missing, changed or unknown."""
    for name, entry in files.items():
        if name not in FILES or not isinstance(entry, dict):
            raise FormatError(f"{path / MANIFEST}: names the file {name!r}, which no index has. Make the index again.")
        file = path / name
        if not file.is_file():
            raise FormatError(f"{file}: is missing, the index is not whole. Copy it again, or make it again.")
        # faiss reads its file by native code that trusts it: never one that is not as it was written.
        hashed = verify or name == "ann.faiss"
        if file.stat().st_size != entry.get("bytes") or (hashed and sha256_file(file) != entry.get("sha256")):
            raise FormatError(f"{file}: is not the file that was written. Copy the index again, or make it again.")


def _array(path: Path, shape: tuple[int, ...], dtype: Any, *, mmap: bool = False) -> Any:
    """Array of an index's folder, of the expected shape and type."""
    try:
        array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except NPY_FAULTS as error:
        raise FormatError(f"{path}: cannot be read as .npy ({one_line(error)}). Make the index again.") from error
    if array.shape != shape or array.dtype != dtype:
        raise FormatError(
            f"{path}: holds {array.dtype} of shape {array.shape}, expected {np.dtype(dtype)} of {shape}. Make the "
            "index again."
        )
    return array


def _table(path: Path, rows: int, columns: tuple[str, ...]) -> Any:
    """Table of an index's folder, with the expected rows and columns."""
    table = read_parquet(path)
    if table.num_rows != rows or set(columns) - set(table.column_names):
        raise FormatError(f"{path}: has {table.num_rows:,} rows, expected {rows:,} with {columns}. Make it again.")
    return table


def _read_ann(path: Path, entry: Any, rows: int, dim: int) -> Approximate:
    """Approximate index from the folder of an index."""
    try:
        settings = AnnSettings(**entry)
    except TypeError as error:
        raise FormatError(f"{path / MANIFEST}: ann is damaged ({one_line(error)}). Make the index again.") from error
    try:
        index = load_faiss().read_index(str(path / "ann.faiss"))
    except RuntimeError as error:
        raise FormatError(f"{path / 'ann.faiss'}: cannot be read ({one_line(error)}). Make the index again.") from error
    places = _array(path / "ann_places.npy", (index.ntotal,), np.int64)
    # -1 stands for a row that changed, or went, after the index was built.
    if index.d != dim or places.min(initial=-1) < -1 or places.max(initial=-1) >= rows:
        raise FormatError(f"{path / 'ann.faiss'}: does not fit the index. Make the index again.")
    return Approximate(index, places, settings)
