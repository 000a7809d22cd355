"""What an import reads: one file, a folder of files or a clip-retrieval folder, as one run of rows with ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isthmus.core.files import expand_paths, natural_key, read_json
from isthmus.core.limits import excess, special_file
from isthmus.core.messages import listed
from isthmus.core.modality import TEXT, embedding_stem
from isthmus.core.table_files import TABLE_SUFFIXES, parquet_faults, read_table
from isthmus.errors import FormatError
from isthmus.spaces.importing.arrays import EmptyFileError, raw_map
from isthmus.spaces.importing.formats import (
    FOLDER_SUFFIXES,
    LANCE,
    SUFFIXES,
    ArrayWithColumns,
    EmbeddingFile,
    holds_embeddings,
    open_file,
)
from isthmus.spaces.importing.tables import Block
from isthmus.spaces.manifest import MANIFEST

if TYPE_CHECKING:
    import pyarrow as pa

_NUMPY = {"float16": "f2", "bfloat16": "f4", "float32": "f4", "float64": "f8"}

_DATASET = "state.json"


@dataclass(frozen=True)
class Source:
    """Files of embeddings of one dimension, read one after another.

    Attributes:
        path: What the user gave.
        files: The files, in natural order.
        tables: Metadata that lies in files of its own, one for each of `files`, or nothing.
        notes: What was passed over, a line each.
    """

    path: Path
    files: list[EmbeddingFile]
    tables: list[Path]
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Number of rows in all files."""
        return sum(file.rows for file in self.files)

    @property
    def dim(self) -> int:
        """Length of a row."""
        return self.files[0].dim

    @property
    def bytes(self) -> int:
        """Bytes that all rows take in memory."""
        return sum(file.rows * file.dim * np.dtype(_NUMPY[file.dtype]).itemsize for file in self.files)

    @property
    def slow(self) -> bool:
        """Whether reading costs more than a copy, since a file is packed."""
        return any(file.path.suffix.lower() not in (".npy", ".safetensors") for file in self.files)

    @property
    def dtype(self) -> str:
        """The type to store without loss where the space knows one: float16 if all files are, else float32."""
        return "float16" if all(file.dtype == "float16" for file in self.files) else "float32"

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns beside the embeddings, of the first file."""
        beside = _columns(self.tables[0]) if self.tables else ()
        return (*beside, *(name for name in self.files[0].columns if name not in beside))

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column over all files."""
        import pyarrow as pa

        parts = []
        for index, file in enumerate(self.files):
            if self.tables and name in _columns(self.tables[index]):
                parts.append(read_table(self.tables[index]).column(name))
            elif name in file.columns:
                parts.append(file.column(name))
            else:
                raise FormatError(
                    f"{file.path}: has no column {name!r}, other files of {self.path} have. Add it, or give ids."
                )
        chunks = [chunk for part in parts for chunk in part.chunks]
        if len({chunk.type for chunk in chunks}) > 1:
            raise FormatError(
                f"{self.path}: column {name!r} is of several types in its files. Write them with one type."
            )
        return pa.chunked_array(chunks) if chunks else parts[0]

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """Yield (at most size, dim) floats from row `start` on, and the rows of the other columns."""
        for index, file in enumerate(self.files):
            if start >= file.rows:
                start -= file.rows
                continue
            table = read_table(self.tables[index]) if self.tables else None
            for array, beside in file.blocks(start, size):
                yield array, beside if table is None else merge(beside, table.slice(start, len(array)))
                start += len(array)
            start = 0

    def where(self, row: int) -> str:
        """The file and the row in it, for messages."""
        for file in self.files:
            if row < file.rows:
                return f"{file.path}: row {row}"
            row -= file.rows
        raise IndexError(row)


def merge(first: pa.Table | None, second: pa.Table | None) -> pa.Table | None:
    """Columns of two tables side by side; the second's win."""
    if first is None or second is None:
        return first if second is None else second
    for name in second.column_names:
        column = second.column(name)
        at = first.schema.get_field_index(name)
        first = first.append_column(name, column) if at < 0 else first.set_column(at, name, column)
    return first


def _columns(table: Path) -> tuple[str, ...]:
    """Names of the columns of a table of metadata."""
    if table.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        with parquet_faults(table):
            return tuple(pq.read_schema(table).names)
    return tuple(read_table(table).column_names)


def open_source(path: str | Path, modality: str, column: str | None = None, shape: str | None = None) -> Source:
    """Find the embeddings that a path names, without reading them.

    Args:
        path: A file, a folder of files, or a clip-retrieval folder (`img_emb/`, `text_emb/`, `metadata/`).
        modality: Which of a clip-retrieval folder's embeddings are wanted.
        column: Column or array that holds the embeddings, where its name does not say so.
        shape: Shape of a raw map of numbers, such as "200000x512:float16".

    Raises:
        FormatError: Nothing is there, files differ in dim, or metadata and embeddings differ in rows.
    """
    path = Path(path)
    if shape is not None:
        return Source(path, [ArrayWithColumns(raw_map(path, shape), {})], [])
    alone = path.is_file() or path.suffix.lower() == LANCE
    arrays, tables = ([path], []) if alone else _find(path, modality, column)
    files, tables, notes = _opened(arrays, tables, column)
    for file in files:
        if file.dim != files[0].dim:
            raise FormatError(
                f"{file.path}: has embeddings of dim {file.dim}, {files[0].path.name} has {files[0].dim}. "
                "One space has one dim: import them into two."
            )
    for table, file in zip(tables, files, strict=True) if tables else ():
        if (rows := _rows(table)) != file.rows:
            raise FormatError(
                f"{table}: has {rows:,} rows of metadata, {file.path} has {file.rows:,} embeddings. Give one a row."
            )
    return Source(path, files, tables, notes)


def _opened(
    arrays: list[Path], tables: list[Path], column: str | None
) -> tuple[list[EmbeddingFile], list[Path], list[str]]:
    """The files of a source, those without rows passed over and told. One that is alone is refused.

    Files that are read whole stay in memory, together under the limit of one file of all their bytes.
    """
    files: list[EmbeddingFile] = []
    paired: list[Path] = []
    notes: list[str] = []
    packed, unpacked = sum(path.stat().st_size for path in arrays if path.is_file()), 0
    for number, path in enumerate(arrays):
        try:
            files.append(open_file(path, column))
            unpacked += files[-1].unpacked
            if len(files) > 1 and (fault := excess(unpacked, packed)):
                raise FormatError(f"{path.parent}: up to {path.name} {fault}, or import its files into spaces apart.")
        except EmptyFileError:
            if len(arrays) - len(notes) == 1:
                raise
            notes.append(f"{path} has no rows and was passed over")
            continue
        paired += tables[number : number + 1]
    return files, paired, notes


def _rows(table: Path) -> int:
    """Number of rows of a table of metadata."""
    return int(read_table(table).num_rows)


def _find(path: Path, modality: str, column: str | None) -> tuple[list[Path], list[Path]]:
    """The files of embeddings in a folder, and the files of metadata that go with them."""
    if not path.exists():
        raise FormatError(
            f"{path}: no such file or folder. Expected {', '.join(SUFFIXES)}, or a folder of them; check the path."
        )
    if what := special_file(path):
        raise FormatError(f"{path}: is {what}, no file. It is never opened.")
    if (path / _DATASET).is_file():
        return _dataset_files(path), []
    if (path / "dataset_dict.json").is_file():
        splits = sorted(child for child in path.iterdir() if (child / _DATASET).is_file())
        if len(splits) == 1:
            return _dataset_files(splits[0]), []
        names = listed([split.name for split in splits])
        raise FormatError(f"{path}: holds several splits ({names}). Give the folder of one of them.")
    if lances := sorted(child for child in path.glob(f"*{LANCE}") if child.is_dir()):
        if len(lances) == 1:
            return lances, []
        names = listed([lance.name for lance in lances])
        raise FormatError(f"{path}: holds several LanceDB tables ({names}). Give the folder of one of them.")
    if (path / MANIFEST).exists():
        raise FormatError(
            f"{path}: is a space already. Open it as it is, or give the folder of one modality, {path / modality}."
        )
    stems = sorted(child.name for child in path.glob("*_emb") if child.is_dir())
    stem = embedding_stem(modality)
    if stems and stem not in stems:
        raise FormatError(
            f"{path}: is a clip-retrieval folder with {', '.join(stems)}, but without {stem} for {modality!r}."
        )
    folder, beside = (path / stem, path / "metadata") if stems else (path, path.parent / "metadata")
    if not stems and not path.name.endswith("_emb"):
        beside = path
    arrays = expand_paths(folder, FOLDER_SUFFIXES)
    if beside == folder:
        arrays, tables = _split(arrays, column)
    else:
        tables = [] if not beside.is_dir() else expand_paths(beside, TABLE_SUFFIXES)
    return arrays, _paired(arrays, tables)


def _dataset_files(path: Path) -> list[Path]:
    """The files of a data set that `datasets` saved with save_to_disk, in their order."""
    state = read_json(path / _DATASET, kind="data set's state")
    if state.get("_indices_files"):
        raise FormatError(f"{path}: its rows were selected or shuffled by an index. Save it with flatten_indices().")
    names = [str(one.get("filename")) for one in state.get("_data_files") or () if isinstance(one, dict)]
    if not names or not all(name == Path(name).name for name in names):
        raise FormatError(f"{path / _DATASET}: names no files of the folder. Save the data set again.")
    return [path / name for name in names]


def _split(files: list[Path], column: str | None) -> tuple[list[Path], list[Path]]:
    """Files of one folder in two lists: those with embeddings, and parquets beside them that hold only metadata."""
    arrays = [file for file in files if file.suffix.lower() != ".parquet"]
    parquets = [file for file in files if file.suffix.lower() == ".parquet"]
    if not arrays:
        return files, []
    tables = [file for file in parquets if not holds_embeddings(file, column)]
    return sorted(set(files) - set(tables), key=natural_key), tables


def _paired(arrays: list[Path], tables: list[Path]) -> list[Path]:
    """Tables of metadata in the order of the files of embeddings that they belong to."""
    if not tables:
        return []
    if len(tables) != len(arrays):
        raise FormatError(
            f"{tables[0].parent}: has {len(tables)} files of metadata for {len(arrays)} of embeddings in "
            f"{arrays[0].parent}. "
            "Each file of embeddings needs one."
        )
    for array, table in zip(arrays, tables, strict=True):
        numbers = [[part[1] for part in natural_key(file.stem) if part[0]][-1:] for file in (array, table)]
        if all(numbers) and numbers[0] != numbers[1]:
            raise FormatError(f"{array}: its metadata is missing, the next file there is {table.name}. Restore it.")
    return tables


def text_column(table: pa.Table | None, modality: str) -> pa.Table | None:
    """Name the captions of clip-retrieval `text`, as spaces do."""
    if modality != TEXT or table is None or TEXT in table.column_names or "caption" not in table.column_names:
        return table
    return table.append_column(TEXT, table.column("caption"))
