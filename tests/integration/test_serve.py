"""The service over real raw files: searches, uploads, media, changes, and thousands of requests that mean it harm."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the service is an extra: pip install 'isthmus[serve]'")

from starlette import testclient

from isthmus import load_bridge, open_space
from isthmus.cli.app import run
from isthmus.serve.app import build_app
from isthmus.serve.galleries import Gallery
from isthmus.serve.limits import Limits
from isthmus.serve.service import Service
from isthmus.spaces.selection import Selection
from small_world import GALLERIES, ITEMS, make_small_world

LIMITS = Limits(json_bytes=200_000, body_bytes=2_000_000, decode_seconds=20)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_world(tmp_path_factory.mktemp("world"))


def service_of(world: Path, **options: Any) -> Service:
    bridge = load_bridge(world / "unified.bridge")
    galleries = []
    for reference in GALLERIES:
        space, _, modality = reference.partition("/")
        galleries.append(Gallery.of(bridge, open_space(world / "spaces" / space)[modality]))
    return Service(bridge, galleries, name="small", limits=LIMITS, **options)


@pytest.fixture(scope="module")
def client(world: Path) -> Iterator[Any]:
    app = build_app(service_of(world), hosts=("testserver",))
    with testclient.TestClient(app, raise_server_exceptions=False) as client:
        yield client


def search(client: Any, queries: list[dict[str, Any]], **more: Any) -> dict[str, list[str]]:
    """Ids of the hits by modality."""
    answer = client.post("/search", json={"queries": queries, **more})
    assert answer.status_code == 200, answer.text
    return {each["modality"]: [hit["id"] for hit in each["hits"]] for each in answer.json()["results"]}


def fault(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["message"]


def test_a_text_finds_the_number_in_every_modality(client: Any, world: Path):
    lines = (world / "raw/test/texts.txt").read_text().splitlines()
    names = sorted(path.stem for path in (world / "raw/test/image").iterdir())
    first = {"image": 0, "point_cloud": 0, "audio": 0}
    for name, line in zip(names, lines, strict=True):
        for modality, ids in search(client, [{"text": line}], k=3).items():
            first[modality] += name in {Path(each).stem for each in ids}
    assert min(first.values()) > ITEMS / 3, "three of 24 at random would be an eighth"


def test_what_it_holds_and_takes(client: Any):
    told = client.get("/spaces").json()
    assert [(each["modality"], each["items"]) for each in told["galleries"]] == [
        ("image", ITEMS),
        ("audio", ITEMS),
        ("point_cloud", ITEMS),
    ]
    assert set(told["queries"]) == {"text", "image", "audio", "point_cloud"}
    assert client.get("/health").json()["status"] == "ok"
    assert "isthmus_requests_total" in client.get("/metrics").text
    assert "/search" in client.get("/openapi.json").json()["paths"]


@pytest.mark.parametrize("modality", ["image", "audio", "point_cloud"])
def test_an_uploaded_file_finds_itself(client: Any, world: Path, modality: str):
    path = sorted((world / "raw/test" / modality).iterdir())[5]
    answer = client.post(f"/embed?modality={modality}&name={path.name}", content=path.read_bytes())
    assert answer.status_code == 200, answer.text
    assert search(client, [{"handle": answer.json()["handle"]}], k=1)[modality] == [path.name]
    row = np.asarray(answer.json()["embeddings"][0])
    assert abs(np.linalg.norm(row) - 1) < 1e-5
    assert search(client, [{"vector": row.tolist()}], k=1)[modality] == [path.name]


def test_an_item_finds_itself_first_and_others_by_meaning(client: Any, world: Path):
    names = sorted(path.name for path in (world / "raw/test/image").iterdir())
    hits = search(client, [{"gallery": "picture-test/image", "id": names[3]}], k=ITEMS)
    assert hits["image"][0] == names[3]
    assert hits["audio"].index(names[3].replace(".png", ".wav")) < ITEMS / 2


def test_several_items_combine_and_one_is_taken_away(client: Any, world: Path):
    names = sorted(path.name for path in (world / "raw/test/image").iterdir())
    one, other = ({"gallery": "picture-test/image", "id": name} for name in (names[2], names[9]))
    both = search(client, [one, other], k=2)["image"]
    assert set(both) == {names[2], names[9]}
    without = search(client, [one, {**other, "weight": -1.0}], k=ITEMS)["image"]
    assert without[0] == names[2]
    assert without[-1] == names[9]


def test_texts_are_embedded_as_the_bridge_does(client: Any, world: Path):
    texts = ["seven", "room one two three"]
    answer = client.post("/embed", json={"texts": texts}).json()
    expected = load_bridge(world / "unified.bridge").encode(texts, modality="text")
    np.testing.assert_allclose(answer["embeddings"], expected, atol=1e-5)


def test_media_is_decoded_anew(client: Any, world: Path):
    name = min(path.name for path in (world / "raw/test/image").iterdir())
    picture = client.get("/media", params={"gallery": "picture-test/image", "id": name})
    assert picture.headers["content-type"] == "image/webp"
    assert picture.content[:4] == b"RIFF"
    sound = client.get("/media", params={"gallery": "sound-test/audio", "id": name.replace("png", "wav")})
    assert sound.content[:4] == b"RIFF"
    assert sound.content[8:12] == b"WAVE"
    shape = client.get("/media", params={"gallery": "shape-test/point_cloud", "id": name.replace("png", "ply")})
    (count,) = struct.unpack("<I", shape.content[:4])
    assert len(shape.content) == 4 + 15 * count


@pytest.mark.parametrize("kind", ["secret", "folder", "pipe", "missing", "device"])
def test_a_path_that_is_no_picture_shows_nothing(world: Path, tmp_path: Path, kind: str):
    secret = tmp_path / "secret.png"
    if kind == "secret":
        secret.write_text("password: hunter2")
    if kind == "folder":
        secret.mkdir()
    if kind == "pipe":
        os.mkfifo(secret)
    path = "/dev/zero" if kind == "device" else str(secret)
    service = service_of(world)
    gallery = service.galleries["picture-test/image"]
    gallery.add(["trap"], gallery.vectors(np.array([0])), [{"image_path": path}])
    with testclient.TestClient(build_app(service, hosts=("testserver",)), raise_server_exceptions=False) as client:
        status, message = fault(client.get("/media", params={"gallery": "picture-test/image", "id": "trap"}))
    assert status == 404
    assert message.startswith("'trap' cannot be shown:")
    assert "hunter2" not in message
    assert str(tmp_path) not in message


def test_paths_of_this_machine_are_not_told(client: Any, world: Path):
    told = json.dumps(client.get("/items", params={"gallery": "picture-test/image"}).json())
    told += json.dumps(client.post("/search", json={"queries": [{"text": "seven"}]}).json())
    assert str(world) not in told
    assert "_path" not in told


def test_the_map_holds_every_item(client: Any):
    told = client.get("/map").json()
    assert len(told["ids"]) == len(told["x"]) == len(told["gallery"]) == 3 * ITEMS
    assert all(0 <= value <= 1 for value in told["x"] + told["y"])


def test_items_are_changed_only_where_that_was_asked_for(client: Any, world: Path):
    new = {"gallery": "picture-test/image", "items": [{"id": "new", "text": "seven"}]}
    gone = {"gallery": "picture-test/image", "ids": ["new"]}
    assert fault(client.post("/items", json=new)) == (
        403,
        "items are not changed here. Start the service with --editable.",
    )
    assert fault(client.request("DELETE", "/items", json=gone))[0] == 403
    app = build_app(service_of(world, editable=True), hosts=("testserver",))
    with testclient.TestClient(app, raise_server_exceptions=False) as editor:
        assert editor.post("/items", json=new).json() == {"changed": 1, "total": ITEMS + 1}
        assert editor.post("/items", json=new).json() == {"changed": 1, "total": ITEMS + 1}
        assert search(editor, [{"text": "seven"}], k=1)["image"] == ["new"]
        assert len(editor.get("/map").json()["ids"]) == 3 * ITEMS + 1
        assert editor.request("DELETE", "/items", json=gone).json() == {"changed": 1, "total": ITEMS}
        assert fault(editor.request("DELETE", "/items", json=gone))[0] == 404


def test_a_match_is_explained_by_what_both_mean(world: Path):
    spaces, out = world / "spaces", world / "posterior.bridge"
    made = ["connect", str(spaces / "picture.space"), str(spaces / "sound.space"), "--via", "text", "--out", str(out)]
    assert not run([*made, "--method", "posterior", "-q"])
    bridge = load_bridge(out)
    picture, sound = (open_space(spaces / f"{name}.space") for name in ("picture", "sound"))
    galleries = [Gallery.of(bridge, picture["image"]), Gallery.of(bridge, sound["audio"])]
    app = build_app(Service(bridge, galleries), hosts=("testserver",))
    with testclient.TestClient(app, raise_server_exceptions=False) as explaining:
        assert explaining.get("/spaces").json()["explains"]
        query = {"gallery": "sound/audio", "id": sound["audio"].ids[0]}
        hit = search(explaining, [query], k=1)["image"][0]
        told = explaining.post("/explain", json={"queries": [query], "gallery": "picture/image", "id": hit}).json()
        items = (Selection.of_ids(sound["audio"], [query["id"]]), Selection.of_ids(picture["image"], [hit]))
        expected = bridge.explain(*items)
        assert [each["text"] for each in told["concepts"]] == [text for text, _ in expected.shares]
        assert [each["share"] for each in told["concepts"]] == pytest.approx([s for _, s in expected.shares], rel=1e-3)
        assert told["exact"]
        assert told["basis"] == "the posteriors of the bridge's own routes"


def explained(client: Any, query: dict[str, Any], gallery: str, item: str) -> dict[str, Any]:
    answer = client.post("/explain", json={"queries": [query], "gallery": gallery, "id": item})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    assert told["concepts"]
    assert 0 < sum(each["share"] for each in told["concepts"]) <= 1 + 1e-6
    return told


def test_a_bridge_whose_routes_do_not_tell_explains_by_both_posteriors(client: Any, world: Path):
    assert client.get("/spaces").json()["explains"]
    bridge, gallery = load_bridge(world / "unified.bridge"), "sound-test/audio"
    sounds, pictures = (open_space(world / "spaces" / f"{name}-test.space") for name in ("sound", "picture"))
    item, name = sounds["audio"].ids[3], pictures["image"].ids[3]
    told = explained(client, {"gallery": "picture-test/image", "id": name}, gallery, item)
    expected = bridge.explain(Selection.of_ids(pictures["image"], [name]), Selection.of_ids(sounds["audio"], [item]))
    assert [each["text"] for each in told["concepts"]] == [text for text, _ in expected.shares]
    assert [each["share"] for each in told["concepts"]] == pytest.approx([s for _, s in expected.shares], rel=1e-3)
    assert (told["exact"], told["basis"]) == (False, expected.basis)
    # An upload is explained as the same item of a gallery is.
    path = world / "raw/test/image" / name
    handle = client.post(f"/embed?modality=image&name={name}", content=path.read_bytes()).json()["handle"]
    again = explained(client, {"handle": handle}, gallery, item)["concepts"]
    assert again[0]["text"] == told["concepts"][0]["text"]
    assert again[0]["share"] == pytest.approx(told["concepts"][0]["share"], rel=1e-3)
    text = open_space(world / "spaces/sound.space")["text"].metadata.column("text")[0].as_py()
    assert "in the space 'picture' and the space 'sound'" in explained(client, {"text": text}, gallery, item)["basis"]
    row = client.post("/embed", json={"texts": [text]}).json()["embeddings"][0]
    assert "unified space" in explained(client, {"vector": row}, gallery, item)["basis"]
    asked = {"queries": [{"text": "seven"}], "gallery": "picture-test/image", "id": "nothing"}
    assert fault(client.post("/explain", json=asked))[0] == 404


def test_an_item_that_was_added_is_explained_by_its_place_alone(world: Path):
    service = service_of(world, editable=True)
    gallery = service.galleries["picture-test/image"]
    name, other = gallery.ids[:2]
    with testclient.TestClient(build_app(service, hosts=("testserver",)), raise_server_exceptions=False) as editor:
        query = {"gallery": "sound-test/audio", "id": service.galleries["sound-test/audio"].ids[1]}
        before = explained(editor, query, gallery.name, other)
        gallery.add([name], gallery.vectors(np.array([1])), [{}])  # in the place of the first, what the second is
        now = explained(editor, query, gallery.name, name)
    assert "unified space" in now["basis"]
    assert now["basis"] != before["basis"]


def test_without_its_spaces_a_bridge_that_does_not_tell_says_so_without_paths(world: Path, tmp_path: Path):
    shutil.copytree(world / "unified.bridge", tmp_path / "elsewhere/unified.bridge")
    bridge = load_bridge(tmp_path / "elsewhere/unified.bridge")
    gallery = Gallery.of(bridge, open_space(world / "spaces/picture-test.space")["image"])
    asked = {"queries": [{"text": "seven"}], "gallery": gallery.name, "id": gallery.ids[0]}
    with testclient.TestClient(build_app(Service(bridge, [gallery]), hosts=("testserver",))) as client:
        assert not client.get("/spaces").json()["explains"]
        status, message = fault(client.post("/explain", json=asked))
    assert status == 404
    assert message.endswith("its spaces are not at hand. Start the service with --space NAME=PATH.")
    assert str(tmp_path) not in message
    places = {"picture": world / "spaces/picture.space", "sound": world / "spaces/sound.space"}
    service = Service(bridge, [gallery], space_paths=places)
    with testclient.TestClient(build_app(service, hosts=("testserver",))) as client:
        assert client.get("/spaces").json()["explains"]
        assert explained(client, {"text": "seven"}, gallery.name, gallery.ids[0])


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/search", {"queries": []}, 422, "queries: List should have at least 1 item"),
        ("/search", {"queries": [{"text": "a", "handle": "b"}]}, 422, "give one of text, handle, vector"),
        ("/search", {"queries": [{"text": "a", "weight": 0}]}, 422, "weight must not be 0"),
        (
            "/search",
            {"queries": [{"text": "a"}], "galleries": ["x/y"]},
            404,
            "there is no gallery 'x/y'. Expected one of",
        ),
        ("/search", {"queries": [{"handle": "gone"}]}, 404, "no longer remembered. Send it again."),
        ("/search", {"queries": [{"gallery": "picture-test/image", "id": "x"}]}, 404, "has no item 'x'"),
        ("/search", {"queries": [{"vector": [1.0, 2.0]}]}, 422, "a vector needs 128 finite numbers"),
        ("/search", {"queries": [{"text": "a"}], "k": 501}, 413, "k may be 500 at most, got 501."),
        ("/search", {"queries": [{"text": "a"}] * 17}, 413, "a query may have 16 items, got 17."),
        ("/search", {"queries": [{"text": "x" * 2001}]}, 413, "a text may have 2,000 characters, got 2,001."),
        ("/search", {"queries": [{"text": "a"}], "filter": "year >"}, 400, "filter"),
        ("/search", {"queries": [{"text": "a"}], "surprise": 1}, 422, "surprise: Extra inputs are not permitted"),
        ("/embed", {"texts": []}, 422, "at least 1 item"),
        ("/embed", {"texts": ["a"] * 257}, 413, "at most 256 texts at once, got 257."),
        ("/embed?modality=video", {}, 400, "'video' cannot be encoded here. Expected one of: "),
    ],
)
def test_what_is_wrong_is_said(client: Any, path: str, body: Any, status: int, words: str):
    got, message = fault(client.post(path, json=body))
    assert got == status, message
    assert words in message
    assert len(message) <= 400


def broken_png(width: int, height: int) -> bytes:
    """A picture that says it is huge."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize(
    ("modality", "name", "data"),
    [
        ("image", "bomb.png", broken_png(60_000, 60_000)),
        ("image", "text.png", b"no picture"),
        ("image", "../../etc/passwd", b"\x00" * 100),
        ("audio", "half.wav", b"RIFF\xff\xff\xff\x7fWAVEfmt "),
        ("audio", "zeros.wav", b"\x00" * 5000),
        ("point_cloud", "huge.ply", b"ply\nformat ascii 1.0\nelement vertex 999999999\nproperty float x\nend_header\n"),
        ("point_cloud", "pickle.npy", b"\x80\x04cos\nsystem\n(S'touch /tmp/never'\ntR."),
        ("point_cloud", "nosuffix", b"1 2 3"),
    ],
)
def test_a_hostile_file_is_refused_and_the_next_good_one_served(
    client: Any, world: Path, modality: str, name: str, data: bytes
):
    status, message = fault(client.post("/embed", params={"modality": modality, "name": name}, content=data))
    assert status == 400, message
    assert message.startswith(f"the file cannot be encoded as {modality}: ")
    good = min((world / "raw/test" / modality).iterdir())
    assert client.post(f"/embed?modality={modality}&name={good.name}", content=good.read_bytes()).status_code == 200


VALUES: list[Any] = [None, "", "a", -1, 0, 1e308, 10**30, True, [], {}, "\ud800", "\x00", "%s", "../../etc/passwd"]
VALUES += ["'; DROP TABLE items; --", "x" * 5000, [[[[]]]], {"text": {"text": {}}}, float("nan")]
PATHS = ["/search", "/embed", "/explain", "/items", "/media", "/map", "/spaces", "/", "/page.js", "//", "/.."]
PATHS += ["/%2e%2e/etc/passwd", "/media/../../x", "/%00", "/openapi.json", "/items/x", "/metrics", "/search" * 500]
METHODS = ["GET", "POST", "POST", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE"]
TYPES = ["application/json", "text/plain", "", "multipart/form-data", "application/json; charset=utf-7"]


def hostile(rng: random.Random) -> tuple[str, str, dict[str, Any]]:
    """One malformed request: method, path and what is sent."""
    names = rng.sample(["gallery", "id", "modality", "name", "offset", "limit"], rng.randrange(3))
    params = {name: str(rng.choice(VALUES)).encode("utf-8", "replace") for name in names}
    kind = rng.randrange(6)
    if kind == 0:
        body = rng.randbytes(rng.choice([0, 1, 100, 5000]))
    elif kind == 1:
        body = b"[" * rng.choice([10, 50_000])
    elif kind == 2:
        text = json.dumps({"queries": [{"text": "seven", "weight": 1.0}], "k": 3})
        body = text[: rng.randrange(len(text))].encode()
    else:
        part = {rng.choice(["text", "id", "gallery", "handle", "vector", "weight"]): rng.choice(VALUES)}
        whole = {"queries": rng.choice([[part], part, [part] * 40])}
        whole |= {rng.choice(["k", "filter", "galleries", "texts", "ids", "items", "gallery"]): rng.choice(VALUES)}
        body = json.dumps(whole).encode()
    headers = {"content-type": rng.choice(TYPES)} | ({"content-encoding": "gzip"} if rng.random() < 0.1 else {})
    return rng.choice(METHODS), rng.choice(PATHS), {"content": body, "headers": headers, "params": params}


def test_two_thousand_malformed_requests_leave_it_standing(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    rng = random.Random(0)
    seen: dict[int, int] = {}
    for number in range(2000):
        method, path, sent = hostile(rng)
        answer = client.request(method, path, **sent)
        seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
        assert answer.status_code < 500, (number, method, path, sent, answer.text)
        if answer.status_code >= 400 and method != "HEAD":
            assert set(answer.json()) == {"error", "message"}, answer.text
        if number % 200 == 0:
            assert search(client, [{"text": "seven"}], k=1)["image"]
    assert sum(seen.values()) == 2000
    assert {400, 404, 405, 422} <= set(seen)
    assert list(tmp_path.iterdir()) == []
    assert search(client, [{"text": "seven"}], k=1)["image"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "can be reached by others, so a token is needed. Give --token"),
        (["--host", "0.0.0.0", "--token", "short"], "the token has 5 characters, expected 16 or more"),
        ([], "serve needs something to search. Give --gallery SPACE/MODALITY, or --in"),
        (["--in", "nowhere"], "nowhere: is no index (a folder with index.json)"),
        (["--in", "lance:nowhere"], "lance:nowhere#isthmus: no such folder"),
        (["--gallery", "nowhere.space"], "which lies in no space folder"),
    ],
)
def test_the_verb_refuses_what_is_unsafe_or_empty(world: Path, capsys: Any, arguments: list[str], words: str):
    assert run(["serve", str(world / "unified.bridge"), *arguments]) == 2
    assert words in capsys.readouterr().err
