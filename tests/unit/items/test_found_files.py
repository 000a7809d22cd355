"""What is found in folders, tables and tars: nothing is guessed, nothing is lost without a word, nothing blocks."""

from __future__ import annotations

import io
import os
import socket
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isthmus.errors import FormatError
from isthmus.items import Item, Rejected, find_items


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def tar(path: Path, *names: str, end: bool = True) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as out:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 3
            out.addfile(info, io.BytesIO(b"abc"))
    if not end:
        path.write_bytes(path.read_bytes()[: 1024 * len(names)])
    return path


def ids(path, **options) -> list[str]:
    return [item.id for item in find_items(path, **options).items]


def parquet(path: Path, **columns) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


# A. what is no text


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([["a", "b"], ["c"]]), r"list<.*explode"),
        (pa.array([b"a dog", b"b"]), r"binary.*Decode it to text"),
        (pa.array([{"en": "a"}, {"en": "b"}]), r"struct<.*name another column"),
        (pa.array([1, 2]), r"int64, expected texts \(row 1 holds 1\)"),
        (pa.array([None, True]), r"bool, expected texts \(row 2 holds (true|True)\)"),
        (pa.array([0.5, 1.0]), "double, expected texts"),
        (pa.array([1, 2], pa.timestamp("ns")), r"timestamp\[ns\], expected texts"),
    ],
)
def test_a_column_that_is_no_text_is_refused_with_its_type_and_row(tmp_path: Path, column: pa.Array, kind: str):
    path = parquet(tmp_path / "t.parquet", id=["a", "b"], text=column)
    with pytest.raises(FormatError, match=f"the column 'text' is of type {kind}"):
        find_items(path)


@pytest.mark.parametrize("ids_of", [[1.0, 2.0], [True, False], [["a"], ["b"]], [b"a", b"b"]])
def test_ids_are_texts_or_whole_numbers(tmp_path: Path, ids_of: list):
    path = parquet(tmp_path / "t.parquet", id=ids_of, text=["a", "b"])
    with pytest.raises(FormatError, match=r"the column 'id' is of type .*, expected texts or whole numbers"):
        find_items(path)


def test_texts_and_ids_in_every_arrow_spelling(tmp_path: Path):
    texts = pa.array(["x", None])
    for name, kind in (("l", pa.large_string()), ("d", pa.dictionary(pa.int8(), pa.string()))):
        path = parquet(tmp_path / f"{name}.parquet", id=pa.array([2**63, 1], pa.uint64()), text=texts.cast(kind))
        assert [(item.id, item.text) for item in find_items(path).items] == [(str(2**63), "x"), ("1", "")]


def test_paths_are_texts_too(tmp_path: Path):
    path = parquet(tmp_path / "t.parquet", image=[{"bytes": b"x", "path": "1.png"}])
    with pytest.raises(FormatError, match=r"the column 'image' is of type struct<.*give their paths"):
        find_items(path, modality="image")


# B. nothing is lost without a word


def test_what_is_passed_over_is_counted(tmp_path: Path):
    touch(tmp_path, "a.png", "b.heic", "c.HEIC", "sub/d.jxl", "._a.png", "README", ".git/x.png")
    (tmp_path / "more").symlink_to(tmp_path / "sub")
    found = find_items(tmp_path)
    assert [item.id for item in found.items] == ["a.png"]
    assert found.passed_over == {".heic": 2, ".jxl": 1, "hidden .png": 1, "without suffix": 1, "links to folders": 1}


def test_members_of_one_key(tmp_path: Path):
    assert ids(tar(tmp_path / "a.tar", "1.left.png", "1.right.png", "2.png")) == ["1.left", "1.right", "2"]
    assert ids(tar(tmp_path / "b.tar", "1.png", "1.jpg")) == ["1.png", "1.jpg"]
    assert ids(tar(tmp_path / "c.tar", "d/1.a.png", "d/1.a.jpg", "d/1.b.png")) == ["d/1.a.png", "d/1.a.jpg", "d/1.b"]
    found = find_items(tar(tmp_path / "d.tar", "1.jpg", "1.mask.png", "1.json", "1.heic"))
    assert [item.id for item in found.items] == ["1"]
    assert found.passed_over == {".mask.png": 1, ".json": 1, ".heic": 1}
    with pytest.raises(FormatError, match=r"holds two members named '1\.png', as tar -r makes"):
        find_items(tar(tmp_path / "e.tar", "1.png", "1.png"))


def test_a_tar_cut_at_any_byte_is_refused(tmp_path: Path):
    whole = tar(tmp_path / "w.tar", "1.png", "2.png", "3.png").read_bytes()
    end = 3 * 1024
    assert len(ids(tmp_path / "w.tar")) == 3
    for cut in (*range(0, end, 512), 100, 700, end - 1, end, end + 512, end + 1000):
        (tmp_path / "c.tar").write_bytes(whole[:cut])
        with pytest.raises(FormatError, match=r"c\.tar"):
            find_items(tmp_path / "c.tar", modality="image")
    (tmp_path / "c.tar").write_bytes(whole[: end + 1024])
    assert len(ids(tmp_path / "c.tar")) == 3


def test_a_tar_with_a_damaged_header_or_another_tar_behind_it_is_refused(tmp_path: Path):
    whole = tar(tmp_path / "w.tar", "1.png", "2.png").read_bytes()
    (tmp_path / "d.tar").write_bytes(whole[:1024] + b"\xff" * 512 + whole[1536:])
    with pytest.raises(FormatError, match="a damaged header follows after 1 members"):
        find_items(tmp_path / "d.tar")
    (tmp_path / "two.tar").write_bytes(whole + whole)
    with pytest.raises(FormatError, match=r"another archive follows its end .* after 2 members"):
        find_items(tmp_path / "two.tar")


def test_links_in_a_tar_are_counted(tmp_path: Path):
    with tarfile.open(tmp_path / "a.tar", "w") as out:
        info = tarfile.TarInfo("1.png")
        info.size = 3
        out.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("2.png")
        link.type, link.linkname = tarfile.SYMTYPE, "1.png"
        out.addfile(link)
    assert find_items(tmp_path / "a.tar").passed_over == {"links, devices and files with holes in a tar": 1}


# F. what is no file is never opened


@pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes in folders")
def test_pipes_sockets_and_devices_are_never_opened(tmp_path: Path):
    touch(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "s.png"))
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    found = find_items(tmp_path)
    assert [item.id for item in found.items] == ["a.png"]
    assert found.passed_over == {"pipes and devices": 3}
    assert ids(f"{tmp_path}/*.png") == ["a.png"]
    with pytest.raises(FormatError, match=r"is a named pipe, no file\. It is never opened"):
        find_items(tmp_path / "pipe.png")
    (tmp_path / "t.csv").write_text("path\npipe.png\n/dev/zero\n")
    for item in find_items(tmp_path / "t.csv", modality="image").items:
        for read in (item.read_bytes, item.content):
            with pytest.raises(Rejected, match=r"is a (named pipe|device), no file"):
                read()
    with pytest.raises(Rejected, match="is a named pipe"):
        Item("p", str(tmp_path / "pipe.png")).content()
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(FormatError, match="is a named pipe"):
        find_items(tmp_path / "pipe.csv", modality="text")


# G. folders that hold more than items


def test_the_output_of_img2dataset_gives_its_captions_once(tmp_path: Path):
    for key in ("000000000", "000000001"):
        touch(tmp_path, f"00000/{key}.jpg", f"00000/{key}.json")
        (tmp_path / f"00000/{key}.txt").write_text(f"caption of {key}\nsecond line\n")
    parquet(
        tmp_path / "00000.parquet",
        url=["u", "v"],
        key=["000000000", "000000001"],
        status=["s", "s"],
        caption=["a", "b"],
    )
    found = find_items(tmp_path, modality="text")
    assert [item.id for item in found.items] == ["00000/000000000", "00000/000000001"]
    assert found.items[0].text == "caption of 000000000\nsecond line"
    assert "img2dataset's list" in found.notes[0]
    assert ids(tmp_path, modality="image", ids="stem") == ["00000/000000000", "00000/000000001"]
    assert ids(tmp_path / "00000.parquet", ids="key") == ["000000000", "000000001"]


def test_the_tars_of_img2dataset_give_their_captions_once(tmp_path: Path):
    tar(tmp_path / "00000.tar", "000000000.jpg", "000000000.txt", "000000000.json")
    parquet(tmp_path / "00000.parquet", url=["u"], key=["000000000"], status=["success"], caption=["a"])
    assert ids(tmp_path, modality="text") == ["000000000"]


@pytest.mark.parametrize("mark", ["space.json", "bridge.json"])
def test_what_isthmus_wrote_is_passed_over_and_told(tmp_path: Path, mark: str):
    touch(tmp_path, "a.txt", f"deep/x.space/{mark}", "deep/x.space/text/metadata/metadata_00000.parquet")
    found = find_items(tmp_path, modality="text")
    assert [item.id for item in found.items] == ["a.txt:1"]
    assert found.notes == [f"{tmp_path}/deep/x.space: is a {mark[:-5]} of isthmus, passed over"]
    with pytest.raises(FormatError, match=rf"x\.space: is a {mark[:-5]} of isthmus, not raw files"):
        find_items(tmp_path / "deep/x.space", modality="text")


def test_the_folders_of_clip_retrieval_are_no_captions(tmp_path: Path):
    touch(tmp_path, "a.txt", "e/img_emb/img_emb_0.npy", "e/metadata/metadata_0.parquet")
    found = find_items(tmp_path, modality="text")
    assert [item.id for item in found.items] == ["a.txt:1"]
    assert found.notes == [f"{tmp_path}/e: its embeddings and their metadata are passed over"]


# H. the tables people have


@pytest.mark.parametrize("name", ["file_name", "filepath", "image", "file", "filename"])
def test_usual_names_of_columns_of_paths(tmp_path: Path, name: str):
    touch(tmp_path, "1.png")
    (tmp_path / "metadata.csv").write_text(f"{name},text\n1.png,a dog\n")
    assert find_items(tmp_path / "metadata.csv", modality="image").items[0].path == str(tmp_path / "1.png")


def test_an_option_names_the_column_of_paths(tmp_path: Path):
    (tmp_path / "m.csv").write_text("where,text\n1.png,a dog\n")
    with pytest.raises(
        FormatError, match=r"It has: where, text\. Name the one that holds the paths with --path-column"
    ):
        find_items(tmp_path / "m.csv", modality="image")
    assert find_items(tmp_path / "m.csv", modality="image", path_column="where").items[0].path == str(
        tmp_path / "1.png"
    )
    with pytest.raises(FormatError, match=r"has no column there\."):
        find_items(tmp_path / "m.csv", modality="image", path_column="there")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns")),
        pa.array([1, 2], pa.duration("ns")),
        pa.array([1, 2], pa.time64("ns")),
        pa.array([2**60, 5], pa.timestamp("us", "Nowhere/Atlantis")),
        pa.array([10**15, 0], pa.timestamp("us", "Europe/Berlin")),
        pa.array([{"a": [1]}, None]),
        pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
        pa.array([b"\xff", None]),
        pa.array(["1.10", None]).cast(pa.decimal128(5, 2)),
    ],
    ids=str,
)
def test_a_further_column_of_any_type_is_kept(tmp_path: Path, column: pa.Array):
    found = find_items(parquet(tmp_path / "t.parquet", id=["a", "b"], text=["x", "y"], further=column))
    again = pa.array([item.columns["further"] for item in found.items], found.types["further"])
    assert again.equals(pq.read_table(tmp_path / "t.parquet")["further"].combine_chunks())


def test_messages_about_wide_tables_stay_short(tmp_path: Path):
    path = parquet(tmp_path / "t.parquet", **{f"column_{n}": ["a"] for n in range(500)})
    with pytest.raises(FormatError, match="column_11 and 488 more") as caught:
        find_items(path)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))
