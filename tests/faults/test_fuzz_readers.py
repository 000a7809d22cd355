"""Damage to every file that isthmus reads: the short form of the campaign, and what the long form found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from readers import make_readers

from isthmus.cli.editing import read_ids
from isthmus.core.json_text import check_characters
from isthmus.core.table_files import read_table
from isthmus.core.weights import load_weights
from isthmus.encoders.pipeline.journal import Journal, Rejection
from isthmus.encoders.pipeline.rejected import read_rejected, write_rejected
from isthmus.encoders.pipeline.update import Source, read_ledger, write_ledger
from isthmus.errors import MESSAGE_LIMIT, EvaluationError, FormatError, IsthmusError
from isthmus.evaluation.benchmarks.readers.shared.annotations import whole_number
from isthmus.evaluation.benchmarks.readers.shared.box_tables import check_box
from isthmus.items import Rejected
from isthmus.items.decoding.mesh_files import ply_header
from isthmus.search.index import SearchIndex
from isthmus.spaces.importing.formats import open_file

FUZZER = Path(__file__).with_name("fuzz_readers.py")


def fuzz(cases: int, *options: str) -> dict:
    run = subprocess.run(
        [sys.executable, FUZZER, "--cases", str(cases), *options], capture_output=True, text=True, check=False
    )
    assert run.stdout.startswith("{"), run.stderr[-2000:]
    return json.loads(run.stdout)


def test_three_thousand_cases():
    found = fuzz(3_000, "--seed", "7")
    assert found["kinds of unclassified"] == {}
    assert found["crashes of native code"] == []
    assert found["cases"] == 3_000
    assert {"read", "FormatError", "ConfigError", "SpaceError", "BridgeError", "Rejected"} <= set(found["outcomes"])


@pytest.mark.slow
def test_a_hundred_thousand_cases():
    found = fuzz(100_000, "--seed", "8")
    assert found["unclassified"] == 0, found["kinds of unclassified"]
    assert found["crashes of native code"] == []
    memory = [note["memory now, MB"] for note in found["every 10,000 cases"]]
    assert max(memory[1:]) - memory[0] < 100


def test_every_reader_reads_its_whole_files(tmp_path: Path):
    for reader in make_readers(tmp_path):
        outcomes = set()
        for whole in reader.seeds:
            reader.path.write_bytes(whole)
            try:
                reader.use(reader.path)
                outcomes.add("read")
            except (IsthmusError, Rejected) as error:
                outcomes.add(str(error))
        # Of the official heads nothing of the size of a test exists; its file of tensors is read and refused.
        assert "read" in outcomes or reader.name in ("official heads",), (reader.name, outcomes)


# ----------------------------------------------------------------------------------------- what was found, by its kind


def test_no_message_is_longer_than_its_limit():
    error = FormatError("x.json: " + "y" * 5_000 + ". Fetch it again.")
    assert len(str(error)) <= MESSAGE_LIMIT
    assert str(error).startswith("x.json: y")
    assert str(error).endswith(". Fetch it again.")
    assert str(FormatError("short")) == "short"


@pytest.mark.parametrize("header", [b"{'descr': '<f4', (\n", b"'''", b"[[[", b"{'descr': '<f4'}", b"\xff\xfe"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_headers_of_arrays_that_are_no_python(header: bytes, suffix: str, tmp_path: Path):
    path = tmp_path / f"a{suffix}"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    if suffix == ".npy":
        path.write_bytes(array)
    else:
        import zipfile

        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("embeddings.npy", array)
    with pytest.raises(FormatError, match="header cannot be read"):
        open_file(path)


def test_offsets_of_arrow_that_lead_out_of_their_buffers(tmp_path: Path):
    import pyarrow as pa
    import pyarrow.feather as feather

    path = tmp_path / "a.arrow"
    feather.write_feather(
        pa.table({"embedding": [[0.5, 1.5], [2.5, 3.5], [4.5, 5.5]]}), str(path), compression="uncompressed"
    )
    raw = bytearray(path.read_bytes())
    offsets = np.array([0, 2, 4, 6], np.int32).tobytes()
    at = raw.index(offsets)
    raw[at + 4 : at + 8] = (1_154_531_309).to_bytes(4, "little")
    path.write_bytes(raw)
    # Native code would follow it and end the process, so this runs in one of its own.
    code = "import sys, pathlib, isthmus.spaces.importing.formats as f; f.open_file(pathlib.Path(sys.argv[1]))"
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "FormatError" in run.stderr
    assert "cannot be read as Arrow" in run.stderr


def test_files_beside_a_space_that_are_damaged(tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rejected = tmp_path / "rejected.parquet"
    write_rejected(rejected, [Rejection("a", "p", "silent")])
    assert read_rejected(rejected) == [Rejection("a", "p", "silent")]
    rejected.write_bytes(rejected.read_bytes()[:-9])
    with pytest.raises(FormatError, match=r"rejected\.parquet: cannot be read as parquet"):
        read_rejected(rejected)
    (tmp_path / "image").mkdir()
    write_ledger(tmp_path, "image", {"a": Source(1, 2, "0" * 32)})
    assert read_ledger(tmp_path, "image") == {"a": Source(1, 2, "0" * 32)}
    (ledger,) = (tmp_path / "image").iterdir()
    pq.write_table(pa.table({"id": ["a"], "size": [1]}), ledger)
    with pytest.raises(FormatError, match="has no column 'modified'"):
        read_ledger(tmp_path, "image")


@pytest.mark.parametrize("key", ["rejected", "ids", "crc"])
def test_a_journal_that_lacks_a_key_ends_there(key: str, tmp_path: Path):
    path = tmp_path / "a.journal"
    with Journal(path, 2) as journal:
        journal.add(["a"], np.ones((1, 2), np.float32), [Rejection("c", "p", "silent")])
    head, _, rows = path.read_bytes().partition(b"\n")
    record = json.loads(head)
    del record[key]
    path.write_bytes(json.dumps(record).encode() + b"\n" + rows)
    with Journal(path, 2) as journal:
        assert "a" not in journal
        assert "c" not in journal


@pytest.mark.parametrize(("content", "line"), [(b"a\n\xe9t\n", 2), (b"\xff\xfea\0", 1)])
def test_ids_that_are_no_text(content: bytes, line: int, tmp_path: Path):
    path = tmp_path / "ids.txt"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=f"UTF-16|line {line} is not UTF-8"):
        read_ids(path)
    path.write_bytes("\ufeffa\r\nb\u2028c\n".encode())
    assert read_ids(path) == ["a", "b\u2028c"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_quote_in_the_first_line_that_never_closes(name: str, tmp_path: Path):
    path = tmp_path / name
    path.write_bytes(b'"id')
    with pytest.raises(FormatError, match="line 1 opens a quote mark that is never closed"):
        read_table(path)


def test_dimensions_that_are_no_numbers(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("id,d0,d1\na,0.5,1.5\nb,0.5,x\n")
    with pytest.raises(FormatError, match=r"no numbers in the columns|which column"):
        next(open_file(path).blocks(0, 10))


@pytest.mark.parametrize("content", [b"", b"x", b"\x80\x02.", b"PK\x05\x06" + bytes(18)])
def test_damaged_files_of_torch(content: bytes, tmp_path: Path):
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^[^\n]{1,200}$"):
        load_weights(path)
    with pytest.raises(FormatError, match="cannot be read with weights_only=True"):
        open_file(path)


@pytest.mark.parametrize("text", ["²", "9" * 5_000, "-1", "1.0", "", "٣"])
def test_digits_that_are_no_numbers(text: str):
    assert whole_number(text) is None
    assert whole_number(" 12 ") == 12


@pytest.mark.parametrize("corner", [10**400, float("inf"), float("nan"), 1e300, "1", None])
def test_corners_that_no_picture_has(corner: object):
    with pytest.raises(FormatError, match="Expected four numbers"):
        check_box([0.1, 0.2, corner, 0.5], "x.json")


def test_halves_of_characters(tmp_path: Path):
    with pytest.raises(ValueError, match="half a character"):
        check_characters({"a": ["\ud800"]})
    for name, content in (("a.jsonl", '{"id": "\\ud800"}'), ("a.json", '[{"id": "\\ud800", "vector": [1.5, 2.5]}]')):
        path = tmp_path / name
        path.write_text(content)
        with pytest.raises(FormatError, match=r"half a character|no table"):
            open_file(path)


def test_two_properties_of_one_name():
    head = (
        b"ply\nformat binary_little_endian 1.0\nelement vertex 1\n" + b"property uchar red\n" * 2 + b"end_header\n\0\0"
    )
    with pytest.raises(Rejected, match="two properties of its vertex records have one name"):
        ply_header(head)


def test_an_index_whose_rows_are_nan(tmp_path: Path):
    SearchIndex(np.eye(3, dtype=np.float32)).save(tmp_path / "x.index")
    rows = np.load(tmp_path / "x.index" / "embeddings.npy")
    rows[1] = np.nan
    np.save(tmp_path / "x.index" / "embeddings.npy", rows)
    with pytest.raises(EvaluationError, match="rows of the index hold NaN"):
        SearchIndex.open(tmp_path / "x.index").search(np.ones((1, 3), np.float32), k=3)


def test_texts_of_tables_that_are_no_text(tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    table = pa.table({"id": ["naught", "one"], "embedding": [[0.5, 1.5], [2.5, 3.5]]})
    pq.write_table(table, path, use_dictionary=False, compression="none", write_statistics=False)
    path.write_bytes(path.read_bytes().replace(b"naught", b"n\xffught"))
    with pytest.raises(FormatError, match="cannot be read as parquet"):
        read_table(path)
    with pytest.raises(FormatError, match="cannot be read as parquet"):
        next(open_file(path).blocks(0, 2))


def test_faces_of_a_ply_that_end_in_their_count():
    from isthmus.items.decoding.mesh_files import mixed_polygons

    head = b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty float x\nelement face 1\n"
    data = head + b"property list int int vertex_indices\nend_header\n" + bytes(4) + b"\1"
    with pytest.raises(Rejected, match="truncated: the faces end too early"):
        mixed_polygons(data)


def test_a_heap_of_hdf5_whose_free_piece_has_no_length(tmp_path: Path):
    """libhdf5 looks at such a piece for ever, and hears no signal meanwhile."""
    import h5py

    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["embeddings"] = np.ones((3, 4), np.float32)
        file["id"] = ["a", "bb", "ccc"]
    assert open_file(path).column("id").to_pylist() == ["a", "bb", "ccc"]
    raw = bytearray(path.read_bytes())
    piece = raw.index(b"GCOL") + 16
    while raw[piece] or raw[piece + 1]:  # each of the texts, then what is free
        piece += 16 + -(-int.from_bytes(raw[piece + 8 : piece + 16], "little") // 8) * 8
    for length in (0, 10**9, 2**64 - 1):
        raw[piece + 8 : piece + 16] = length.to_bytes(8, "little")
        path.write_bytes(raw)
        code = "import sys, pathlib, isthmus.spaces.importing.formats as f; f.open_file(pathlib.Path(sys.argv[1]))"
        run = subprocess.run(
            [sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60, check=False
        )
        assert "cannot be read as HDF5 (its heap at byte" in run.stderr


def test_a_text_of_hdf5_that_claims_to_be_gigabytes(tmp_path: Path):
    import h5py

    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["embeddings"] = np.ones((3, 4), np.float32)
        file["id"] = ["a", "bb", "ccc"]
        place = file["id"].id.get_offset()
    raw = bytearray(path.read_bytes())
    raw[place : place + 4] = (3_000_000_000).to_bytes(4, "little")  # length, heap, number in it
    raw[place + 4 : place + 12] = (96).to_bytes(8, "little")
    path.write_bytes(raw)
    run = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=False, timeout=120)
    said, taken = run.stdout.strip().splitlines()
    assert "cannot be read as HDF5 (its texts id: " in said
    assert int(taken) < 200


@pytest.mark.parametrize(
    ("trial", "fault"),
    [
        ("import os; os.abort()", r"a\.h5: cannot be read as HDF5 \(its texts id end the library that reads them\)"),
        ("import time; time.sleep(60)", r"a\.h5: cannot be read as HDF5 \(its texts id have no end\)"),
    ],
)
def test_texts_of_hdf5_are_read_for_trial(trial: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import h5py

    from isthmus.spaces.importing import tensor_files

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["embeddings"] = np.ones((3, 4), np.float32)
        file["id"] = ["a", "bb", "ccc"]
    (tmp_path / "h5py.py").write_text("raise SystemExit(7)")  # never imported: nothing of the current folder is
    monkeypatch.chdir(tmp_path)
    assert open_file(tmp_path / "a.h5").column("id").to_pylist() == ["a", "bb", "ccc"]
    monkeypatch.setattr(tensor_files, "_TRIAL", trial)
    monkeypatch.setattr(tensor_files, "_TRIAL_SECONDS", 1.0)
    with pytest.raises(FormatError, match=fault):
        open_file(tmp_path / "a.h5")


def test_metadata_of_parquet_at_which_pyarrow_ends_the_process(tmp_path: Path):
    """Of each byte of a footer some values: a fault or a table, and the process lives."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole = tmp_path / "whole.parquet"
    pq.write_table(pa.table({"id": ["a", "b"], "embedding": [[0.5, 1.5], [2.5, 3.5]]}), whole, store_schema=False)
    code = """
import pathlib, sys
from isthmus.core.table_files import read_table
from isthmus.errors import FormatError
raw = pathlib.Path(sys.argv[1]).read_bytes()
path = pathlib.Path(sys.argv[1]).with_name("a.parquet")
for at in range(len(raw) - 8 - int.from_bytes(raw[-8:-4], "little"), len(raw)):
    for value in range(at % 64, 256, 64):
        path.write_bytes(raw[:at] + bytes([value]) + raw[at + 1 :])
        try:
            read_table(path)
        except FormatError:
            pass
print("alive")
"""
    run = subprocess.run([sys.executable, "-c", code, whole], capture_output=True, text=True, check=False)
    assert run.stdout == "alive\n", run.stderr[-500:]


# ------------------------------------------------------------------------------ what a few bytes may take once unpacked

PEAK = """
import pathlib, sys
import isthmus.spaces.importing.formats as formats, isthmus.core.table_files as tables
import h5py, numpy, pyarrow.feather, pyarrow.parquet, torch
from isthmus.errors import IsthmusError

def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) // 1024

before, path = peak(), pathlib.Path(sys.argv[1])
try:
    file = formats.open_file(path)
    for values, beside in file.blocks(0, 1000):
        pass
    print("read")
except IsthmusError as error:
    print(error)
print(peak() - before)
"""


def _small_files(folder: Path) -> dict[str, str]:
    """Files of kilobytes that take gigabytes, or hours, and what is said of each."""
    import h5py
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    text = "x" * 2_000_000
    pq.write_table(pa.table({"id": [text] * 900, "embedding": [[0.5, 1.5]] * 900}), folder / "texts.parquet")
    torch.save({"embeddings": torch.zeros(1, 4).expand(200_000_000, 4)}, folder / "expanded.pt")
    options = {"compression": "zstd", "use_dictionary": False, "data_page_size": 2**31 - 1}
    pq.write_table(pa.table({"id": [text] * 900, "embedding": [[0.5, 1.5]] * 900}), folder / "page.parquet", **options)
    with h5py.File(folder / "zeros.h5", "w") as file:
        file.create_dataset("embeddings", (3_000_000, 300), "f4", compression="gzip", chunks=(10_000, 300))
    lines = "\n".join(f'{{"k{i}":1}}' for i in range(100_000))
    (folder / "keys.jsonl").write_text(lines)
    (folder / "keys.json").write_text(f"[{lines.replace(chr(10), ',')}]")
    (folder / "columns.csv").write_text(",".join(f"c{i}" for i in range(100_000)) + "\n" + ",".join("1" * 100_000))
    return {
        "texts.parquet": "takes|read",
        "page.parquet": "takes",
        "expanded.pt": "a tensor of shape",
        "zeros.h5": "dataset 'embeddings' of shape",
        "keys.jsonl": "Expected the same keys in every line",
        "keys.json": "keys together",
        "columns.csv": "100,000 columns, the limit is 65,536",
    }


def test_what_small_files_take(tmp_path: Path):
    for name, says in _small_files(tmp_path).items():
        path = tmp_path / name
        run = subprocess.run(
            [sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=False, timeout=120
        )
        assert run.returncode == 0, (name, run.stderr[-500:])
        said, taken = run.stdout.strip().splitlines()
        assert any(one in said for one in says.split("|")), (name, said)
        assert int(taken) < 900, (name, taken)
        assert path.stat().st_size < 10_000_000


# ------------------------------------------------------------------ tracks that PyAV does not know, names, large chunks


@pytest.mark.parametrize(
    ("track", "read", "says"),
    [
        (b"mp4v", "picture", "a picture track of a kind that PyAV does not know"),
        (b"mp4a", "sound", "a sound track of a kind that PyAV does not know"),
    ],
)
def test_tracks_of_a_kind_that_pyav_does_not_know(track: bytes, read: str, says: str, tmp_path: Path):
    pytest.importorskip("av")
    from isthmus.items.decoding.audio import decode_audio
    from isthmus.items.decoding.video import middle_frame
    from miniatures_av import save_video

    decode = middle_frame if read == "picture" else lambda path: decode_audio(path, rate=16_000)
    path = tmp_path / "a.mp4"
    save_video(path, 3, 4)
    decode(path)
    raw = path.read_bytes()
    assert raw.count(track) == 1
    # Its kind stands in the track's name and again in its description.
    path.write_bytes(raw.replace(track, b"zzzz").replace(b"esds", b"zzzz"))
    with pytest.raises(Rejected, match=says):
        decode(path)


LONGEST = "n" * 255


def test_names_of_255_bytes_are_names(tmp_path: Path):
    """Files and ids as long as a name may be, and ids that no name could be."""
    import isthmus

    np.save(tmp_path / f"{LONGEST[:251]}.npy", np.eye(3, dtype=np.float32))
    ids = ["i" * 3_000, "\u00e9" * 255, LONGEST]
    (tmp_path / "ids.txt").write_text("\n".join(ids), encoding="utf-8")
    space = tmp_path / LONGEST
    isthmus.import_embeddings(
        tmp_path / f"{LONGEST[:251]}.npy", space, modality="image", ids=tmp_path / "ids.txt", name="s" * 300
    )
    assert isthmus.open_space(space)["image"].ids == ids


def test_names_that_no_file_can_have_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from isthmus.cli import main

    np.save(tmp_path / "a.npy", np.eye(3, dtype=np.float32))
    too_long, array = "n" * 256, str(tmp_path / "a.npy")
    commands = [
        ["import", array, "--into", str(tmp_path / too_long), "--modality", "image"],
        ["import", array, "--into", str(tmp_path / ("\u00e9" * 128)), "--modality", "image"],
        ["import", str(tmp_path / f"{too_long}.npy"), "--into", str(tmp_path / "b.space"), "--modality", "image"],
        ["import", array, "--into", str(tmp_path / "c.space"), "--modality", too_long],
        ["inspect", str(tmp_path / too_long)],
        ["encode", str(tmp_path / too_long), "--encoder", "toy:picture", "--into", str(tmp_path / "d.space")],
        ["search", str(tmp_path / too_long), "--text", "x"],
    ]
    for command in commands:
        assert main(command) == 2, command[:1]
        said = capsys.readouterr().err
        assert "InternalError" not in said
        assert "Traceback" not in said
        assert len(said.strip()) < 1_000


def test_names_in_annotations_that_no_file_can_have(tmp_path: Path):
    from isthmus.evaluation.benchmarks.declaration import load_benchmark
    from miniatures_av import make_vggss

    data = make_vggss(tmp_path)
    annotations = next(data.rglob("*.json"))
    records = json.loads(annotations.read_text())
    records[0]["file"] = "x" * 300
    annotations.write_text(json.dumps(records))
    with pytest.raises(FormatError, match="which no file can be called"):
        load_benchmark("vggss").read(data, tmp_path / "work")


@pytest.mark.parametrize("name", ["embeddings", "id"])
def test_a_chunk_of_hdf5_that_is_larger_than_the_limit(name: str, tmp_path: Path):
    """A chunk is unpacked whole, though its dataset is a handful of values."""
    import h5py

    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        options = {"compression": "gzip"}
        shapes = {"embeddings": ((3, 4), (None, None), (500_000, 400)), "id": ((3,), (None,), (300_000_000,))}
        for each, (shape, most, chunks) in shapes.items():
            kind = "f4" if each == "embeddings" else "i4"
            chosen = {"chunks": chunks, "maxshape": most, **options} if each == name else {}
            file.create_dataset(each, data=np.ones(shape, kind), **chosen)
    assert path.stat().st_size < 10_000_000
    run = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=False, timeout=120)
    said, taken = run.stdout.strip().splitlines()
    assert f"dataset {name!r} of shape" in said
    assert "bytes once unpacked, the limit is 536,870,912" in said
    assert int(taken) < 300
