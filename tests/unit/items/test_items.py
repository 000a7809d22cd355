"""From what a user names to items: ids without surprises, modalities told or asked for, tables, lists and tars."""

from __future__ import annotations

import io
import os
import pickle
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isthmus.errors import ConfigError, FormatError
from isthmus.items import Item, Rejected, find_items


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as out:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


def ids(found) -> list[str]:
    return [item.id for item in found.items]


def test_folder_ids_are_paths_below_it_in_natural_order(tmp_path: Path):
    touch(tmp_path, "b/10.png", "b/9.png", "a.JPG", "a/1.webp", ".hidden.png", ".git/x.png", "notes.md")
    found = find_items(tmp_path)
    assert found.modality == "image"
    assert ids(found) == ["a.JPG", "a/1.webp", "b/9.png", "b/10.png"]
    assert found.items[1].path == str(tmp_path / "a/1.webp")


def test_named_files_have_their_names_and_globs_their_root(tmp_path: Path):
    touch(tmp_path, "x/1.png", "y/2.png")
    assert ids(find_items([tmp_path / "x/1.png", tmp_path / "y/2.png"])) == ["1.png", "2.png"]
    assert ids(find_items(f"{tmp_path}/*/*.png")) == ["x/1.png", "y/2.png"]
    assert ids(find_items(f"{tmp_path}/**/*.png")) == ["x/1.png", "y/2.png"]
    assert ids(find_items(tmp_path / "x")) == ["1.png"]


def test_ids_by_stem_and_by_path(tmp_path: Path):
    touch(tmp_path, "x/a.b.png", "y/a.b.png")
    assert ids(find_items(tmp_path, ids="stem")) == ["x/a.b", "y/a.b"]
    both = [tmp_path / "x/a.b.png", tmp_path / "y/a.b.png"]
    with pytest.raises(FormatError, match=r"the id 'a\.b\.png' stands twice: .*x/a\.b\.png and .*y/a\.b\.png"):
        find_items(both)
    assert ids(find_items(both, ids="path")) == [path.as_posix() for path in both]


def test_a_suffix_left_out_can_collide(tmp_path: Path):
    touch(tmp_path, "a.png", "a.jpg")
    with pytest.raises(FormatError, match="the id 'a' stands twice"):
        find_items(tmp_path, ids="stem")


@pytest.mark.parametrize(
    ("names", "modality"),
    [
        (("a.flac", "b.m4a"), "audio"),
        (("a.ply", "b.npz"), "point_cloud"),
        (("a.txt",), "text"),
        (("a.mp4",), "video"),
    ],
)
def test_modality_is_told_by_suffixes(tmp_path: Path, names: tuple[str, ...], modality: str):
    touch(tmp_path, *names)
    assert find_items(tmp_path).modality == modality


def test_several_kinds_are_asked_about(tmp_path: Path):
    touch(tmp_path, "a.png", "b.png", "c.wav")
    with pytest.raises(ConfigError, match=r"several kinds of files \(2 image, 1 audio\)\. Say which with --modality"):
        find_items(tmp_path)
    assert find_items(tmp_path, modality="audio").modality == "audio"
    assert find_items(tmp_path, offered=("audio", "text")).modality == "audio"


def test_video_is_sound_for_an_encoder_of_sounds(tmp_path: Path):
    touch(tmp_path, "a.mp4", "b.wav")
    found = find_items(tmp_path, offered=("audio", "text"))
    assert (found.modality, ids(found)) == ("audio", ["a.mp4", "b.wav"])


def test_nothing_there(tmp_path: Path):
    with pytest.raises(FormatError, match="no such file or folder"):
        find_items(tmp_path / "none")
    touch(tmp_path, "a.xyz", "b.xyz")
    with pytest.raises(FormatError, match=r"holds 2 \.xyz and nothing of image\. Expected \.png"):
        find_items(tmp_path, modality="image")
    with pytest.raises(FormatError, match="and nothing that the encoder takes"):
        find_items(tmp_path, offered=("image",))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="holds no file"):
        find_items(tmp_path / "empty", modality="text")


def test_a_file_named_itself_is_taken_at_its_word(tmp_path: Path):
    touch(tmp_path, "scan.xyz")
    assert ids(find_items(tmp_path / "scan.xyz", modality="point_cloud")) == ["scan.xyz"]


def test_lines_are_captions_and_keep_their_numbers(tmp_path: Path):
    (tmp_path / "c.txt").write_bytes("\ufeffa dog\r\n\n a\u2028cat \nlast".encode() + b"\ncaf\xe9\n")
    found = find_items(tmp_path / "c.txt")
    assert [(item.id, item.text) for item in found.items][:4] == [
        ("c.txt:1", "a dog"),
        ("c.txt:2", ""),
        ("c.txt:3", " a\u2028cat "),
        ("c.txt:4", "last"),
    ]
    assert found.items[4].text == "caf\udce9"
    assert len(found.items) == 5
    (tmp_path / "d.txt").write_bytes("wide".encode("utf-16"))
    with pytest.raises(FormatError, match="UTF-16"):
        find_items(tmp_path / "d.txt")


def test_lists_in_a_folder_have_ids_of_their_own(tmp_path: Path):
    for name in ("a.txt", "b/a.txt"):
        touch(tmp_path, name)
    assert ids(find_items(tmp_path)) == ["a.txt:1", "b/a.txt:1"]


def test_csv_with_ids_text_and_other_columns(tmp_path: Path):
    (tmp_path / "c.csv").write_text('id,caption,lang\n007,"a, dog",en\n8,,de\n')
    found = find_items(tmp_path / "c.csv")
    assert [(item.id, item.text, dict(item.columns)) for item in found.items] == [
        ("007", "a, dog", {"lang": "en"}),
        ("8", "", {"lang": "de"}),
    ]
    assert found.types == {"lang": pa.string()}
    assert found.items[0].path == str(tmp_path / "c.csv")


def test_csv_without_ids_counts_rows(tmp_path: Path):
    (tmp_path / "c.csv").write_text("text\na\nb\n")
    assert ids(find_items(tmp_path / "c.csv")) == ["c.csv:1", "c.csv:2"]


def test_named_columns(tmp_path: Path):
    (tmp_path / "c.csv").write_text("key,de,text\nk1,Hund,dog\n")
    item = find_items(tmp_path / "c.csv", ids="key", text_column="de").items[0]
    assert (item.id, item.text) == ("k1", "Hund")
    with pytest.raises(FormatError, match=r"no column 'nr' for the ids\. It has: key, de, text"):
        find_items(tmp_path / "c.csv", ids="nr")
    with pytest.raises(FormatError, match=r"no column fr\. It has: key, de, text\. Name the right one"):
        find_items(tmp_path / "c.csv", text_column="fr")


def test_parquet_and_jsonl(tmp_path: Path):
    pq.write_table(pa.table({"id": [1, 2], "text": ["a", None], "score": [0.5, 1.0]}), tmp_path / "c.parquet")
    (tmp_path / "d.jsonl").write_text('{"id": "x", "text": "b", "score": "high"}\n')
    found = find_items([tmp_path / "c.parquet", tmp_path / "d.jsonl"])
    assert [(item.id, item.text) for item in found.items] == [("1", "a"), ("2", ""), ("x", "b")]
    assert found.types == {"score": pa.string()}


def test_duplicate_and_missing_ids(tmp_path: Path):
    (tmp_path / "c.csv").write_text("id,text\na,x\na,y\n")
    with pytest.raises(FormatError, match="the id 'a' stands twice"):
        find_items(tmp_path / "c.csv")
    (tmp_path / "d.csv").write_text("id,text\na,x\n,y\n")
    with pytest.raises(FormatError, match="row 2 has no id"):
        find_items(tmp_path / "d.csv")


def test_table_of_paths(tmp_path: Path):
    touch(tmp_path, "pictures/1.png")
    (tmp_path / "list.csv").write_text("id,image_path,label\nfirst,pictures/1.png,cat\n")
    item = find_items(tmp_path / "list.csv", modality="image").items[0]
    assert (item.id, item.path) == ("first", str(tmp_path / "pictures/1.png"))
    assert item.columns == {"label": "cat"}
    with pytest.raises(FormatError, match="no column audio_path or path or file or file_name"):
        find_items(tmp_path / "list.csv", modality="audio")


def test_a_table_beside_pictures_is_left_alone(tmp_path: Path):
    touch(tmp_path, "a.png", "names.csv")
    assert ids(find_items(tmp_path, modality="image")) == ["a.png"]


MEMBERS = {
    "s/000.jpg": b"jpeg",
    "s/000.txt": b"a dog",
    "s/000.json": b"{}",
    "s/001.v2.PNG": b"png",
    "s/001.v2.txt": b"caf\xc3\xa9",
    ".hidden.png": b"x",
}


def test_webdataset_tar(tmp_path: Path):
    path = tar(tmp_path / "00000.tar", MEMBERS)
    found = find_items(path)
    assert (found.modality, ids(found)) == ("image", ["s/000", "s/001"])
    item = found.items[1]
    assert item.read_bytes() == b"png"
    assert item.suffix == ".png"
    assert item.source == f"{path}!s/001.v2.PNG"
    texts = find_items(path, modality="text").items
    assert [(one.id, one.text) for one in texts] == [("s/000", "a dog"), ("s/001", "café")]


def test_keys_that_repeat_across_tars(tmp_path: Path):
    for name in ("a.tar", "b.tar"):
        tar(tmp_path / name, {"0.wav": b"x"})
    with pytest.raises(FormatError, match="the id '0' stands twice"):
        find_items(tmp_path)
    assert ids(find_items(tmp_path, ids="path")) == ["a.tar/0", "b.tar/0"]


def test_broken_tars(tmp_path: Path):
    whole = tar(tmp_path / "a.tar", {"0.png": b"x" * 5000, "1.png": b"y" * 5000}).read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[:7000])
    with pytest.raises(FormatError, match="no whole, unpacked tar"):
        find_items(tmp_path / "b.tar")
    (tmp_path / "c.tar").write_bytes(b"nothing like a tar" * 100)
    with pytest.raises(FormatError, match="no whole, unpacked tar"):
        find_items(tmp_path / "c.tar", modality="image")
    tar(tmp_path / "d.tar.gz", MEMBERS, "w:gz")
    with pytest.raises(FormatError, match="packed tar"):
        find_items(tmp_path / "d.tar.gz", modality="image")


def test_a_tar_that_shrinks_afterwards_rejects_its_items(tmp_path: Path):
    path = tar(tmp_path / "a.tar", {"0.png": b"x" * 5000})
    item = find_items(path).items[0]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(Rejected, match="too early"):
        item.read_bytes()


def test_item_is_small_on_its_way_to_a_worker():
    item = Item("a", "p.png", columns={"big": "x" * 10_000})
    again = pickle.loads(pickle.dumps(item))
    assert len(pickle.dumps(item)) < 200
    assert again == item
    assert again.content() == "p.png"
    assert Item("t", "c.csv", "hello").content() == b"hello"
    assert (Item("t", "c.csv", "hello").source, Item("t", "c.csv", "hello").place) == ("hello", "c.csv")


def test_a_box_travels_with_its_item_and_is_part_of_what_it_is():
    item = Item("a#1", "p.png", columns={"label": "dog"}, box=(0.25, 0.0, 0.5, 1.0))
    again = pickle.loads(pickle.dumps(item))
    assert again == item
    assert again.box == (0.25, 0.0, 0.5, 1.0)
    assert (hash(again), item == Item("a#1", "p.png")) == (hash(item), False)
    assert item.source == item.place == "p.png#box=0.25,0,0.5,1"
    assert Item("a", "t.tar", member=("p.png", 0, 1), box=(0, 0, 1 / 3, 1)).place == "t.tar!p.png#box=0,0,0.333333,1"
    assert (item.suffix, item.content()) == (".png", "p.png")


def test_missing_file_is_a_rejection(tmp_path: Path):
    with pytest.raises(Rejected, match="cannot be read: No such file"):
        Item("a", str(tmp_path / "none.png")).read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that takes any bytes as names")
def test_names_that_are_no_unicode(tmp_path: Path):
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    item = find_items(tmp_path).items[0]
    assert item.id == "caf\\udce9.png"
    assert item.read_bytes() == b"x"


def test_real_folders(shared: Path):
    raw = shared / "data/raw"
    assert len(find_items(raw / "sounds").items) == 100
    assert len(find_items(raw / "digits").items) == 300
    assert len(find_items(raw / "shapes").items) == 3
    pictures = find_items(raw / "emoji", modality="image", ids="stem")
    names = find_items(raw / "emoji/names.csv", text_column="en")
    assert set(ids(pictures)) == set(ids(names))
