"""What the verb serves: spaces, projected folders, worlds, indexes and vector stores, each by its address."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is an extra: pip install 'isthmus[serve]'")

from isthmus import SearchIndex, load_bridge, open_space
from isthmus.cli.app import run
from isthmus.errors import ConfigError, FingerprintError
from isthmus.search.stores.load import open_store
from isthmus.serve.run import opened_galleries
from isthmus.serve.stored import StoredGallery
from small_world import ITEMS, make_small_world

NAMES = ("picture-test", "sound-test", "shape-test")
MODALITIES = ("image", "audio", "point_cloud")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_world(tmp_path_factory.mktemp("world"))


def spaces_of(world: Path) -> list[str]:
    return [str(world / "spaces" / f"{name}.space") for name in NAMES]


@contextmanager
def served(*arguments: str) -> Iterator[str]:
    """The address of a service of its own process."""
    command = [sys.executable, "-m", "isthmus", "serve", *arguments, "--port", "0", "-q", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["address"]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, 130)


def ask(address: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def fault(address: str, path: str, body: Any = None) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as found:
        ask(address, path, body)
    return found.value.code, json.loads(found.value.read())["message"]


@pytest.fixture(scope="module")
def expected(world: Path) -> dict[str, list[str]]:
    """The five best of each modality for a text."""
    bridge = load_bridge(world / "unified.bridge")
    query = bridge.encode(["seven"], modality="text")
    found = {}
    for folder, modality in zip(spaces_of(world), MODALITIES, strict=True):
        hits = SearchIndex.from_bridge(bridge, open_space(folder)[modality]).search(query, 5)[0]
        found[modality] = [hit.id for hit in hits]
    return found


def arguments(world: Path, tmp_path: Path, kind: str) -> list[str]:
    bridge, spaces = str(world / "unified.bridge"), spaces_of(world)
    kept = ["--modality", "image", "--modality", "audio", "--modality", "point_cloud", "-q"]
    if kind == "spaces":
        return [bridge, *(part for space in spaces for part in ("--gallery", space))]
    if kind == "projected":
        assert not run(["project", bridge, *spaces, *kept, "--into", str(tmp_path / "unified.space")])
        return [bridge, "--gallery", str(tmp_path / "unified.space")]
    if kind == "index":
        items = [open_space(space)[modality] for space, modality in zip(spaces, MODALITIES, strict=True)]
        SearchIndex.from_bridge(load_bridge(bridge), *items).save(tmp_path / "index")
        return [bridge, "--in", str(tmp_path / "index")]
    pytest.importorskip({"lance": "lancedb", "qdrant": "qdrant_client"}[kind])
    assert not run(["project", bridge, *spaces, *kept, "--into", f"{kind}:{tmp_path / kind}#items"])
    return [bridge, "--in", f"{kind}:{tmp_path / kind}#items"]


@pytest.mark.parametrize("kind", ["spaces", "projected", "index", "lance", "qdrant"])
def test_every_source_is_searched_shown_and_laid_out(
    world: Path, tmp_path: Path, kind: str, expected: dict[str, list[str]]
) -> None:
    with served(*arguments(world, tmp_path, kind)) as address:
        told = ask(address, "spaces")["galleries"]
        assert {each["modality"]: each["items"] for each in told} == dict.fromkeys(MODALITIES, ITEMS)
        names = {each["modality"]: each["name"] for each in told}
        answer = ask(address, "search", {"queries": [{"text": "seven"}], "k": 5})
        hits = {each["modality"]: [hit["id"] for hit in each["hits"]] for each in answer["results"]}
        assert hits == expected
        first = hits["image"][0]
        own = {"queries": [{"gallery": names["image"], "id": first}], "k": 1, "galleries": [names["image"]]}
        assert ask(address, "search", own)["results"][0]["hits"][0]["id"] == first
        assert "image_path" not in json.dumps(answer)
        where = {"queries": [{"text": "seven"}], "galleries": [names["image"]], "filter": "nothing == 1"}
        assert fault(address, "search", where)[0] == 400
        query = urllib.parse.urlencode({"gallery": names["audio"], "offset": 3, "limit": 4})
        why = ask(
            address, "explain", {"queries": [{"text": "seven"}], "gallery": names["audio"], "id": hits["audio"][0]}
        )
        assert why["concepts"]
        items = ask(address, f"items?{query}")
        assert items["total"] == ITEMS
        assert len({each["id"] for each in items["items"]}) == 4
        laid_out = ask(address, "map")
        assert len(laid_out["ids"]) == 3 * ITEMS
        media = urllib.parse.urlencode({"gallery": names["image"], "id": first})
        with urllib.request.urlopen(f"{address}media?{media}", timeout=60) as picture:
            assert picture.read(4) == b"RIFF"
        gone = urllib.parse.urlencode({"gallery": names["image"], "id": "nothing"})
        assert fault(address, f"media?{gone}")[0] == 404


def test_a_world_is_served_by_its_folder_alone(tmp_path: Path) -> None:
    from isthmus.demo import raw

    raw.write_memory(tmp_path / "raw", seed=3, sizes=dict.fromkeys(raw.MEMORY, 40))
    encoders = ["--encoder", "image=toy:picture", "--encoder", "audio=toy:sound"]
    files = [str(tmp_path / "raw" / kind) for kind in ("image", "audio")]
    assert not run(["join", *files, "--out", str(tmp_path / "my.world"), *encoders, "-q"])
    with served(str(tmp_path / "my.world")) as address:
        told = ask(address, "spaces")["galleries"]
        assert {each["modality"] for each in told} == {"image", "audio"}
        answer = ask(address, "search", {"queries": [{"text": "seven"}], "k": 3})
        assert [len(each["hits"]) for each in answer["results"]] == [3, 3]
    with served(str(tmp_path / "my.world"), "--in", str(tmp_path / "my.world" / "index")) as address:
        assert {each["modality"] for each in ask(address, "spaces")["galleries"]} == {"image", "audio"}


def test_a_source_of_another_bridge_is_refused(world: Path, tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    arguments(world, tmp_path, "index")
    arguments(world, tmp_path, "lance")
    other = load_bridge(world / "first.bridge")
    with pytest.raises(FingerprintError, match="the index is of another bridge"):
        opened_galleries(other, SearchIndex.open(tmp_path / "index"))
    with pytest.raises(FingerprintError, match="holds rows of another bridge"):
        opened_galleries(other, open_store(f"lance:{tmp_path / 'lance'}#items"))


def test_a_store_is_not_changed_by_the_service(world: Path, tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    arguments(world, tmp_path, "lance")
    gallery = StoredGallery.of(open_store(f"lance:{tmp_path / 'lance'}#items"))[0]
    with pytest.raises(ConfigError, match="a store is not changed here"):
        gallery.add(["a"], gallery.sample(1).vectors, [{}])
    with pytest.raises(ConfigError, match="a store is not changed here"):
        gallery.delete([gallery.page(0, 1)[0]])
    first = gallery.item(load_bridge(world / "unified.bridge"), gallery.page(0, 1)[0])
    assert (first.own, first.row is None) == (None, False)
    assert len(gallery.sample(5).ids) == 5
