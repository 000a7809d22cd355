"""The verb: what is encoded, what is refused, what is kept, what is not done twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from isthmus.encoders import Item
from isthmus.encoders.pipeline.encode import encode
from isthmus.encoders.pipeline.parts import part_of
from isthmus.errors import CheckFailed, ConfigError, EncoderError, FormatError, SpaceError
from isthmus.spaces.space import make_space, open_space
from tiny_encoder import PlainEncoder, TinyEncoder


def pictures(folder: Path, count: int, start: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(start, start + count):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return folder


def captions(path: Path, count: int) -> Path:
    path.write_text("".join(f"caption number {number}\n" for number in range(count)))
    return path


def run(paths: object, into: Path, *, encoder: object = None, **options: object):
    options = {"workers": 0, "batch_size": 4, "quiet": True, **options}
    return encode(paths, encoder=encoder or TinyEncoder(), into=into, **options)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def rejected(space: Path, modality: str = "image") -> list[dict[str, str]]:
    return pq.read_table(space / modality / "rejected.parquet").to_pylist()


def test_a_folder_becomes_a_space(tmp_path: Path):
    report = run(pictures(tmp_path / "p", 10), tmp_path / "s.space")
    assert report["rows"] == report["encoded"] == report["items"] == 10
    assert report["rejected"] == report["present"] == 0
    space = open_space(tmp_path / "s.space")
    image = space["image"]
    assert image.ids == [f"{n:03d}.png" for n in range(10)]
    assert image.metadata.column("image_path").to_pylist() == [str(tmp_path / f"p/{n:03d}.png") for n in range(10)]
    assert np.linalg.norm(np.asarray(image), axis=1) == pytest.approx(np.ones(10), abs=1e-3)
    assert image.info["encoder"] == TinyEncoder().identity
    assert image.info["preprocessing"] == {"tiny": "image"}
    assert image.info["encoder_name"] == "tiny_encoder:TinyEncoder"
    assert [p.name for p in (tmp_path / "s.space").iterdir()] == ["image", "space.json"] or not list(
        (tmp_path / "s.space").glob(".*")
    )


def test_rows_are_those_of_the_encoder(tmp_path: Path):
    encoder = TinyEncoder(coupled=0.0)
    run(pictures(tmp_path / "p", 5), tmp_path / "s.space", encoder=encoder, dtype="float32")
    items = [Item(str(n), str(tmp_path / f"p/{n:03d}.png")) for n in range(5)]
    expected = encoder.encode([encoder.decode(item, "image") for item in items], modality="image")
    assert np.asarray(open_space(tmp_path / "s.space")["image"]) == pytest.approx(expected, abs=1e-6)


def test_worker_processes_change_nothing(tmp_path: Path):
    folder = pictures(tmp_path / "p", 11)
    (folder / "004.png").write_bytes(b"broken")
    run(folder, tmp_path / "a.space", max_rejected=1.0, name="x")
    run(folder, tmp_path / "b.space", max_rejected=1.0, name="x", workers=2)
    assert files(tmp_path / "a.space") == files(tmp_path / "b.space")


def test_captions_with_their_columns(tmp_path: Path):
    (tmp_path / "c.csv").write_text("id,text,lang\na,one dog,en\nb,ein Hund,de\n")
    run(tmp_path / "c.csv", tmp_path / "s.space")
    assert open_space(tmp_path / "s.space")["text"].metadata.to_pylist() == [
        {"id": "a", "text": "one dog", "lang": "en"},
        {"id": "b", "text": "ein Hund", "lang": "de"},
    ]


def test_bad_items_are_rejected_and_the_rest_is_kept(tmp_path: Path):
    folder = pictures(tmp_path / "p", 10)
    (folder / "003.png").write_bytes(b"no image")
    (folder / "007.png").write_bytes((folder / "008.png").read_bytes()[:40])
    with pytest.raises(CheckFailed, match=r"2 of 10 image items \(20\.0%\) were rejected, more than 1\.0%") as caught:
        run(folder, tmp_path / "s.space")
    assert caught.value.exit_code == 1
    assert "no image format that Pillow reads" in str(caught.value)
    assert "the other 8 are in" in str(caught.value)
    assert len(open_space(tmp_path / "s.space")["image"]) == 8
    rows = rejected(tmp_path / "s.space")
    assert [row["id"] for row in rows] == ["003.png", "007.png"]
    assert rows[0]["path"] == str(folder / "003.png")
    assert rows[0]["reason"] == "no image format that Pillow reads"
    report = run(folder, tmp_path / "s.space", max_rejected=0.2)
    assert (report["encoded"], report["present"], report["rejected"]) == (0, 8, 2)
    assert report["rejected_file"] == str(tmp_path / "s.space/image/rejected.parquet")


def test_mended_files_are_encoded_by_running_again(tmp_path: Path):
    folder = pictures(tmp_path / "p", 5)
    good = (folder / "002.png").read_bytes()
    (folder / "002.png").write_bytes(b"broken")
    run(folder, tmp_path / "s.space", max_rejected=1.0)
    (folder / "002.png").write_bytes(good)
    report = run(folder, tmp_path / "s.space")
    assert (report["encoded"], report["rejected"], report["rejected_file"]) == (1, 0, None)
    assert not (tmp_path / "s.space/image/rejected.parquet").exists()


def test_rejections_of_other_files_stay(tmp_path: Path):
    for name in ("p", "q"):
        folder = pictures(tmp_path / name, 2, start=0 if name == "p" else 10)
        (folder / f"bad-{name}.png").write_bytes(b"broken")
        run(folder, tmp_path / "s.space", max_rejected=1.0)
    assert [row["id"] for row in rejected(tmp_path / "s.space")] == ["bad-p.png", "bad-q.png"]


def test_nothing_good_leaves_no_space_but_says_why(tmp_path: Path):
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"broken")
    with pytest.raises(CheckFailed, match=r"1 of 1 image items \(100\.0%\) .*nothing is left\. .*rejected\.parquet"):
        run(folder, tmp_path / "s.space")
    (found,) = (tmp_path / "s.space").rglob("rejected.parquet")
    assert pq.read_table(found).column("id").to_pylist() == ["a.png"]
    with pytest.raises(SpaceError):
        open_space(tmp_path / "s.space")
    pictures(folder, 2)
    (folder / "a.png").unlink()
    run(folder, tmp_path / "s.space")
    assert len(open_space(tmp_path / "s.space")["image"]) == 2
    assert not list((tmp_path / "s.space").rglob("rejected.parquet"))


def test_empty_captions_are_rejected(tmp_path: Path):
    (tmp_path / "c.txt").write_bytes(b"a dog\n\ncaf\xe9\na cat\n")
    run(tmp_path / "c.txt", tmp_path / "s.space", max_rejected=0.5)
    assert [(row["id"], row["reason"]) for row in rejected(tmp_path / "s.space", "text")] == [
        ("c.txt:2", "empty text"),
        ("c.txt:3", "not valid UTF-8"),
    ]


def test_done_items_are_not_encoded_again_and_new_ones_are_appended(tmp_path: Path):
    folder = pictures(tmp_path / "p", 6)
    run(folder, tmp_path / "s.space")
    before = files(tmp_path / "s.space")
    encoder = TinyEncoder()
    report = run(folder, tmp_path / "s.space", encoder=encoder)
    assert (report["encoded"], report["present"], encoder.batches) == (0, 6, [])
    assert files(tmp_path / "s.space") == before
    pictures(folder, 3, start=6)
    report = run(folder, tmp_path / "s.space", encoder=encoder)
    assert (report["rows"], report["encoded"], report["present"], encoder.batches) == (9, 3, 6, [3])
    after = files(tmp_path / "s.space")
    assert all(after[name] == data for name, data in before.items() if name != "space.json")


def test_several_modalities_of_one_encoder(tmp_path: Path):
    run(pictures(tmp_path / "p", 3), tmp_path / "s.space")
    run(captions(tmp_path / "c.txt", 3), tmp_path / "s.space")
    assert set(open_space(tmp_path / "s.space").modalities) == {"image", "text"}


def test_another_encoder_is_refused(tmp_path: Path):
    folder = pictures(tmp_path / "p", 3)
    run(folder, tmp_path / "s.space")
    before = files(tmp_path / "s.space")
    other = TinyEncoder(weights="f" * 64)
    with pytest.raises(SpaceError, match="was made with encoder"):
        run(folder, tmp_path / "s.space", encoder=other)
    with pytest.raises(SpaceError, match="dim 8 do not belong in a space of dim 16"):
        run(folder, tmp_path / "s.space", encoder=TinyEncoder(dim=8))
    text = captions(tmp_path / "c.txt", 3)
    with pytest.raises(EncoderError, match=r"its 'image' was encoded by 'tiny', got 'tiny' \(another weights_sha256"):
        run(text, tmp_path / "s.space", encoder=other)
    assert files(tmp_path / "s.space") == before
    run(text, tmp_path / "s.space", encoder=other, same_space=True)
    assert len(open_space(tmp_path / "s.space")["text"]) == 3


def test_a_space_of_imported_rows_takes_an_encoder_for_another_modality(tmp_path: Path):
    make_space(tmp_path / "s.space", {"text": (["a"], np.ones((1, 16)))})
    run(pictures(tmp_path / "p", 3), tmp_path / "s.space")
    assert set(open_space(tmp_path / "s.space").modalities) == {"image", "text"}


def test_fault_of_the_model_keeps_what_was_encoded(tmp_path: Path):
    folder = pictures(tmp_path / "p", 12)
    with pytest.raises(ValueError, match="the model failed"):
        run(folder, tmp_path / "s.space", encoder=TinyEncoder(fail_at=3))
    encoder = TinyEncoder()
    report = run(folder, tmp_path / "s.space", encoder=encoder)
    assert (report["encoded"], report["present"], encoder.batches) == (4, 8, [4])
    run(folder, tmp_path / "t.space", name="s")
    assert files(tmp_path / "s.space") == files(tmp_path / "t.space")


@pytest.mark.parametrize("fail_at", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("shard_rows", [3, 5, 100])
def test_faults_anywhere_and_shards_of_any_size_resume_to_the_same_bytes(tmp_path: Path, fail_at: int, shard_rows: int):
    folder = pictures(tmp_path / "p", 22)
    (folder / "009.png").write_bytes(b"broken")
    options = {"shard_rows": shard_rows, "max_rejected": 1.0}
    run(folder, tmp_path / "t.space", name="s", **options)
    with pytest.raises(ValueError, match="the model failed"):
        run(folder, tmp_path / "s.space", encoder=TinyEncoder(fail_at=fail_at), **options)
    encoder = TinyEncoder()
    run(folder, tmp_path / "s.space", encoder=encoder, **options)
    assert files(tmp_path / "s.space") == files(tmp_path / "t.space")
    assert len(encoder.batches) == 6 - (fail_at - 1)


def test_interrupted_while_appending_keeps_the_old_rows_readable(tmp_path: Path):
    folder = pictures(tmp_path / "p", 4)
    run(folder, tmp_path / "s.space", shard_rows=2)
    pictures(folder, 8, start=4)
    with pytest.raises(ValueError, match="the model failed"):
        run(folder, tmp_path / "s.space", encoder=TinyEncoder(fail_at=2), shard_rows=2)
    assert len(open_space(tmp_path / "s.space")["image"]) == 4
    report = run(folder, tmp_path / "s.space", shard_rows=2)
    assert (report["rows"], report["encoded"]) == (12, 4)


def test_the_model_may_give_nan_for_an_item(tmp_path: Path):
    class Sick(TinyEncoder):
        def encode_batch(self, batch, modality):
            rows = super().encode_batch(batch, modality)
            rows[0] = np.nan
            rows[1] = 0.0
            return rows

    run(pictures(tmp_path / "p", 4), tmp_path / "s.space", encoder=Sick(coupled=0.0), max_rejected=1.0)
    assert [row["reason"] for row in rejected(tmp_path / "s.space")] == ["the encoder gave NaN, infinity or zero"] * 2


def test_out_of_memory_names_the_batch_size(tmp_path: Path):
    class Hungry(TinyEncoder):
        def encode_batch(self, batch, modality):
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")

    with pytest.raises(EncoderError, match="batch size of 4"):
        run(pictures(tmp_path / "p", 4), tmp_path / "s.space", encoder=Hungry())


def test_equal_content_is_encoded_once_when_asked(tmp_path: Path):
    folder = pictures(tmp_path / "p", 9)
    for target, source in (("003", "000"), ("005", "004"), ("008", "000")):
        shutil.copy(folder / f"{source}.png", folder / f"{target}.png")
    (folder / "001.png").write_bytes(b"broken")
    (folder / "007.png").write_bytes(b"broken")
    encoder = TinyEncoder()
    options = {"duplicates": "once", "max_rejected": 1.0, "shard_rows": 2}
    report = run(folder, tmp_path / "s.space", encoder=encoder, **options)
    assert (report["rows"], report["duplicates"], sum(encoder.batches)) == (7, 4, 4)
    image = open_space(tmp_path / "s.space")["image"]
    rows = dict(zip(image.ids, np.asarray(image), strict=True))
    for target, source in (("003", "000"), ("005", "004"), ("008", "000")):
        assert np.array_equal(rows[f"{target}.png"], rows[f"{source}.png"])
    assert [row["id"] for row in rejected(tmp_path / "s.space")] == ["001.png", "007.png"]
    for fail_at in (1, 2):
        with pytest.raises(ValueError, match="the model failed"):
            run(folder, tmp_path / f"{fail_at}.space", name="s", encoder=TinyEncoder(fail_at=fail_at), **options)
        run(folder, tmp_path / f"{fail_at}.space", name="s", **options)
        assert files(tmp_path / f"{fail_at}.space") == files(tmp_path / "s.space")


@pytest.mark.parametrize(("total", "count", "group"), [(0, 3, 4), (1, 3, 4), (17, 3, 4), (100, 7, 8), (5, 5, 1)])
def test_parts_cover_the_list_in_whole_batches(total: int, count: int, group: int):
    items = [Item(str(n)) for n in range(total)]
    parts = [part_of(items, number, count, group) for number in range(count)]
    assert [item for part in parts for item in part] == items
    starts = np.cumsum([0, *map(len, parts)])[:-1]
    assert all(start % group == 0 or not len(part) for start, part in zip(starts, parts, strict=True))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_shards_join_to_the_bytes_of_a_single_run(tmp_path: Path, order: tuple[int, ...]):
    folder = pictures(tmp_path / "p", 22)
    (folder / "009.png").write_bytes(b"broken")
    options = {"shard_rows": 6, "max_rejected": 1.0}
    run(folder, tmp_path / "t.space", name="s", **options)
    for position, number in enumerate(order):
        report = run(folder, tmp_path / "s.space", shard=f"{number}/3", **options)
        assert report["waiting_for"] == sorted(order[position + 1 :])
    assert report["rows"] == 21
    assert files(tmp_path / "s.space") == files(tmp_path / "t.space")
    for number in order:
        encoder = TinyEncoder()
        report = run(folder, tmp_path / "s.space", shard=(number, 3), encoder=encoder, **options)
        assert (report["encoded"], report["rejected"], report["waiting_for"], encoder.batches) == (0, 0, [], [])
    assert files(tmp_path / "s.space") == files(tmp_path / "t.space")


def test_a_shard_that_was_interrupted_goes_on(tmp_path: Path):
    folder = pictures(tmp_path / "p", 16)
    run(folder, tmp_path / "t.space", name="s")
    run(folder, tmp_path / "s.space", shard="0/2")
    with pytest.raises(ValueError, match="the model failed"):
        run(folder, tmp_path / "s.space", shard="1/2", encoder=TinyEncoder(fail_at=2))
    encoder = TinyEncoder()
    run(folder, tmp_path / "s.space", shard="1/2", encoder=encoder)
    assert encoder.batches == [4]
    assert files(tmp_path / "s.space") == files(tmp_path / "t.space")


def test_more_shards_than_batches(tmp_path: Path):
    folder = pictures(tmp_path / "p", 3)
    for number in range(4):
        report = run(folder, tmp_path / "s.space", shard=(number, 4))
    assert report["waiting_for"] == []
    assert len(open_space(tmp_path / "s.space")["image"]) == 3


def test_shards_of_different_lists_are_not_joined(tmp_path: Path):
    folder = pictures(tmp_path / "p", 8)
    run(folder, tmp_path / "s.space", shard="0/2")
    pictures(folder, 8, start=8)
    with pytest.raises(SpaceError, match="belongs to another list of files"):
        run(folder, tmp_path / "s.space", shard="1/2")


def test_shards_that_add_to_a_space(tmp_path: Path):
    folder = pictures(tmp_path / "p", 8)
    run(folder, tmp_path / "s.space")
    pictures(folder, 8, start=8)
    for number in range(2):
        run(folder, tmp_path / "s.space", shard=(number, 2))
    assert open_space(tmp_path / "s.space")["image"].ids == [f"{n:03d}.png" for n in range(16)]


def test_the_protocol_alone_is_enough(tmp_path: Path):
    report = run(captions(tmp_path / "c.txt", 5), tmp_path / "s.space", encoder="tiny_encoder:PlainEncoder")
    assert report["rows"] == 5
    assert open_space(tmp_path / "s.space").dim == PlainEncoder.dim


def test_options_go_to_the_encoder_and_are_recorded(tmp_path: Path):
    name, options = "tiny_encoder:TinyEncoder", {"dim": 8}
    run(captions(tmp_path / "c.txt", 3), tmp_path / "s.space", encoder=name, encoder_options=options)
    space = open_space(tmp_path / "s.space")
    assert space.dim == 8
    assert space["text"].info["encoder_options"] == options


def test_items_can_be_given_directly(tmp_path: Path):
    items = [Item("a", text="one"), Item("b", text="two")]
    run(items, tmp_path / "s.space", modality="text")
    assert open_space(tmp_path / "s.space")["text"].ids == ["a", "b"]
    with pytest.raises(FormatError, match="the id 'a' stands twice"):
        run([items[0], items[0]], tmp_path / "t.space", modality="text")
    with pytest.raises(ConfigError, match="items have no suffix"):
        run(items, tmp_path / "t.space")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": "8/8"}, "shard is '8/8'. Expected I/N with I from 0 to N - 1"),
        ({"shard": "one"}, "Expected I/N"),
        ({"shard": (0, 0)}, "Expected I/N"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"engine": "spark"}, r"unknown engine 'spark'\. Expected one of local, ray\."),
        ({"engine": "ray", "shard": "0/2"}, "shard is of a run without an engine: 'ray' deals out the parts itself"),
        ({"tasks": 2}, "tasks and address are of the engine 'ray'"),
        ({"address": "a:1"}, "tasks and address are of the engine 'ray'"),
        ({"engine": "ray", "tasks": 0}, "tasks is 0. Expected at least 1"),
        ({"workers": -1}, "workers is -1"),
        ({"max_rejected": 1.5}, "max_rejected is 1.5"),
        ({"duplicates": "never"}, "duplicates is 'never'. Expected 'each' or 'once'"),
    ],
)
def test_options_out_of_range(tmp_path: Path, options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        run(captions(tmp_path / "c.txt", 3), tmp_path / "s.space", **options)
    assert not (tmp_path / "s.space").exists()


def test_wrong_uses_leave_nothing_behind(tmp_path: Path):
    text = captions(tmp_path / "c.txt", 3)
    with pytest.raises(FormatError, match="no such file or folder"):
        run(tmp_path / "none", tmp_path / "s.space")
    (tmp_path / "film.mp4").touch()
    with pytest.raises(EncoderError, match="has no modality 'video'"):
        run(tmp_path / "film.mp4", tmp_path / "s.space", modality="video")
    with pytest.raises(EncoderError, match="there is no encoder 'klip'"):
        run(text, tmp_path / "s.space", encoder="klip")
    assert not (tmp_path / "s.space").exists()
    (tmp_path / "t.space").write_text("a file")
    with pytest.raises(SpaceError, match="is no space"):
        run(text, tmp_path / "t.space")


def test_an_encoder_without_identity_is_refused(tmp_path: Path):
    encoder = TinyEncoder()
    encoder.identity = {"library": "", "id": ""}
    with pytest.raises(EncoderError, match="Expected at least a library and an id"):
        run(captions(tmp_path / "c.txt", 3), tmp_path / "s.space", encoder=encoder)


def test_progress_says_rate_and_rejections(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run(captions(tmp_path / "c.txt", 3), tmp_path / "s.space", quiet=False)
    out = capsys.readouterr()
    assert out.out == ""
    assert "encode text 3/3, rejected 0" in out.err
    assert "items/s" in out.err
