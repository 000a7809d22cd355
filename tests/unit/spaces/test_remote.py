"""Spaces in an object store: what is brought and sent, in which order, and what is refused. In fsspec's memory here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

import isthmus
from isthmus.core.distribution import Distribution
from isthmus.errors import BridgeError, CheckFailed, ConfigError, DependencyError, SpaceError
from isthmus.spaces.editing import merge_spaces, remove_items, rename_items
from isthmus.spaces.references import open_galleries, open_item
from isthmus.spaces.remote import written_space
from isthmus.spaces.remote_folder import RemoteFolder, remote_url
from isthmus.spaces.space import make_space, open_space
from small_bridge import linear_bridge

URL = "memory://bucket/clip.space"
X = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
IDS = [f"i{n}" for n in range(9)]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()


def made(url: str = URL, **options: Any) -> isthmus.Space:
    content = {"image": (IDS, X, {"year": list(range(9))}), "text": (IDS, X[::-1])}
    return make_space(url, content, dtype="float32", encoder="a/b", shard_rows=4, **options)


def test_urls_are_told_from_paths() -> None:
    assert remote_url("s3://b/clip.space/") == "s3://b/clip.space"
    assert remote_url(Path("s3://b/clip.space")) == "s3://b/clip.space", "as the command line hands it over"
    for path in ("clip.space", "a:b", "/a/b", "nonsense://b/c", "C:/a/b", Path("x"), 3, None):
        assert remote_url(path) is None


def test_a_space_that_is_sent_is_the_one_on_disk(tmp_path: Path, store: Any) -> None:
    local = made(str(tmp_path / "clip.space"))
    space = made()
    assert space.url == URL
    assert (space.name, space.modalities) == ("clip", ("image", "text"))
    np.testing.assert_array_equal(np.asarray(space["image"]), X)
    assert space.content_hash == local.content_hash
    sent = {name.removeprefix("/bucket/clip.space/"): store.cat_file(name) for name in store.find("/bucket")}
    on_disk = {str(p.relative_to(local.path)): p.read_bytes() for p in local.path.rglob("*") if p.is_file()}
    assert sent == on_disk
    assert not list((tmp_path / "cache").rglob("write/clip.space")), "the working copy goes once it is sent"


def test_another_machine_reads_it_and_brings_only_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Any
) -> None:
    made()
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "other"))
    brought: list[str] = []
    get = RemoteFolder.get
    monkeypatch.setattr(RemoteFolder, "get", lambda self, name, to: (brought.append(name), get(self, name, to))[1])
    assert open_space(URL)["image"].ids == IDS
    assert len(brought) == 2 * 2 * 3, "two files of three shards of two modalities"
    brought.clear()
    assert open_space(Path(URL))["text"].ids == IDS
    assert brought == []
    remove_items(URL, "image", ["i8"])
    assert open_space(URL)["image"].ids == IDS[:8]
    assert brought == [], "what was changed here is known here"
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    assert open_space(URL)["image"].ids == IDS[:8]
    assert brought == [], "the last shard went, the others are those of before"
    rename_items(URL, "image", {"i0": "first"})
    assert open_space(URL)["image"].ids == ["first", *IDS[1:8]]
    assert open_space(URL).verify()
    left = [name for name in store.find("/bucket/clip.space/image") if "00002" in name]
    assert left == [], "files of the shard that went are gone from the store"


def test_what_else_lies_in_the_store_stays(store: Any) -> None:
    store.pipe_file("/bucket/clip.space/notes.txt", b"mine")
    made()
    remove_items(URL, "image", ["i8"])
    assert store.cat_file("/bucket/clip.space/notes.txt") == b"mine"


def test_the_manifest_is_sent_last_and_a_transfer_that_ends_early_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, store: Any
) -> None:
    put, sent = RemoteFolder.put, []

    def fails(self: Any, source: Path, name: str) -> None:
        if len(sent) == 5:
            raise KeyboardInterrupt
        sent.append(name)
        put(self, source, name)

    monkeypatch.setattr(RemoteFolder, "put", fails)
    with pytest.raises(KeyboardInterrupt):
        made()
    assert not any(name.endswith("space.json") for name in sent)
    with pytest.raises(SpaceError, match=r"^memory://bucket/clip\.space: no such space\. Check the address"):
        open_space(URL)
    monkeypatch.setattr(RemoteFolder, "put", put)
    with pytest.raises(SpaceError, match="exists already"):
        made()  # what was whole is sent first, and then lies there
    np.testing.assert_array_equal(np.asarray(open_space(URL)["image"]), X)
    assert made(overwrite=True).content_hash == open_space(URL).content_hash


def test_an_import_that_was_interrupted_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from isthmus.spaces.writer import ModalityWriter

    np.save(tmp_path / "x.npy", X)
    close, options = ModalityWriter.close, {"modality": "image", "ids": IDS, "encoder": "a/b", "shard_rows": 4}
    monkeypatch.setattr(ModalityWriter, "close", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        isthmus.import_embeddings(tmp_path / "x.npy", URL, **options)
    assert list((tmp_path / "cache").rglob("write/clip.space")), "the working copy stays"
    monkeypatch.setattr(ModalityWriter, "close", close)
    report = isthmus.import_embeddings(tmp_path / "x.npy", URL, **options)
    assert report["path"] == URL
    assert open_space(URL)["image"].ids == IDS


def test_good_work_of_a_run_that_fails_its_check_is_sent(tmp_path: Path) -> None:
    def run() -> None:
        with written_space(URL) as folder:
            make_space(folder, {"image": (IDS, X)})
            raise CheckFailed("too many were rejected")

    with pytest.raises(CheckFailed):
        run()
    assert open_space(URL)["image"].ids == IDS


def test_a_space_that_was_changed_meanwhile_is_not_written_over(tmp_path: Path, store: Any) -> None:
    made()

    def run() -> None:
        with written_space(URL):
            text = json.loads(store.cat_file("/bucket/clip.space/space.json"))
            store.pipe_file("/bucket/clip.space/space.json", json.dumps(text | {"name": "other"}).encode())

    with pytest.raises(SpaceError, match="was changed by another machine meanwhile"):
        run()
    assert open_space(URL).name == "other"
    with written_space(URL), pytest.raises(SpaceError, match="another process is writing it"):
        remove_items(URL, "image", ["i0"])


def test_a_shard_that_is_not_what_its_marker_says_is_never_believed(store: Any, tmp_path: Path) -> None:
    made()
    shutil.rmtree(tmp_path / "cache")
    name = "/bucket/clip.space/image/img_emb/img_emb_00001.npy"
    content = store.cat_file(name)
    store.pipe_file(name, content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(SpaceError, match="is changed while it is read"):
        open_space(URL)
    store.rm_file("/bucket/clip.space/image/_done/00001.json")
    with pytest.raises(SpaceError, match=r"image/_done/00001\.json: is missing or damaged\. The space is not whole"):
        open_space(URL)
    store.pipe_file("/bucket/clip.space/space.json", b"{}")
    with pytest.raises(SpaceError, match=r"^memory://bucket/clip\.space/space\.json: "):
        open_space(URL)


def test_references_projections_and_bridges(tmp_path: Path) -> None:
    bridge, local = linear_bridge(tmp_path, 9, 4)
    merge_spaces([local.path], URL)
    space = open_space(URL)
    assert space.content_hash == local.content_hash
    assert list(open_galleries([f"{URL}/image"])) == [f"{URL}/image"]
    assert list(open_galleries([URL])) == [f"{URL}/image"]
    assert open_item(f"{URL}/text/text3", option="--id").ids == ["text3"]
    with pytest.raises(SpaceError, match="lies in no space folder"):
        open_galleries(["memory://bucket/nothing/image"])
    into = "memory://bucket/u.space"
    report = isthmus.project(bridge, URL, into=into, modalities="image")
    assert (report.path, report.rows) == (into, {"image": 9})
    isthmus.project(bridge, URL, into=into, modalities="text")
    np.testing.assert_array_equal(np.asarray(open_space(into)["image"]), bridge.project(local["image"]))
    with pytest.raises(SpaceError, match=r"^--into memory://bucket/u\.space holds image, text already"):
        isthmus.project(bridge, URL, into=into)
    with pytest.raises(ConfigError, match=r"parts of several machines .* need a folder that all of them see"):
        isthmus.project(bridge, URL, into=into, distribution=Distribution("0/2"))


def test_a_bridge_names_no_place_in_a_network(tmp_path: Path) -> None:
    other = make_space("memory://bucket/clap.space", {"text": (IDS, X), "audio": (IDS, X)}, encoder="c/d")
    bridge = isthmus.connect(made(), other, via="text", method="procrustes")
    bridge.save(tmp_path / "u.bridge")
    loaded = isthmus.load_bridge(tmp_path / "u.bridge")
    with pytest.raises(BridgeError, match=r"does not know where the space 'clip' lies\. Pass its place: --space clip="):
        loaded.open_space("clip")
    shutil.rmtree(tmp_path / "cache")
    assert loaded.open_space("clip", URL).url == URL


def test_a_store_without_its_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(DependencyError, match=r"^s3://b/c\.space: cannot be read \(Install s3fs.*'isthmus\[s3\]'$"):
        open_space("s3://b/c.space")


def test_a_store_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch, store: Any) -> None:
    def refuses(self: Any, path: str, **options: Any) -> bytes:
        raise PermissionError("Access Denied\nmore of it")

    monkeypatch.setattr(type(store), "cat_file", refuses)
    with pytest.raises(SpaceError, match=r"the store does not do it \(.*Access Denied.*Check the address") as caught:
        open_space(URL)
    assert "\n" not in str(caught.value)
