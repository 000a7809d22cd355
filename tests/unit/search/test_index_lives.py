"""A living index against a plain Python model: adds, updates, deletes, filters, galleries, weights, save and open."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import isthmus
from isthmus.bridges.bridge import Bridge
from isthmus.bridges.fingerprint import bridge_fingerprint
from isthmus.core.geometry import normalize
from isthmus.errors import ConfigError, EvaluationError, FingerprintError, FormatError
from isthmus.search import gallery, rows
from isthmus.search.filter_parser import parse_filter
from isthmus.search.filters import matches
from isthmus.search.hits import Hit
from isthmus.search.index import SearchIndex
from isthmus.search.query import QueryItem, combine

FILTER = 'year > 2005 and (label in ("dog", "cat") or label is null)'


class Model:
    """The same in plain Python: a dict of rows in the order in which they came."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], tuple[np.ndarray, dict[str, Any]]] = {}

    def search(self, query: np.ndarray, k: int, passes: Any = None) -> list[tuple[str, str]]:
        keys = [key for key, (_, about) in self.items.items() if passes is None or passes(key, about)]
        if not keys:
            return []
        x = normalize(np.stack([self.items[key][0] for key in keys])).astype(np.float64)
        scores = (x * normalize(query).astype(np.float64)).sum(axis=1)
        return [keys[row] for row in np.lexsort((np.arange(len(keys)), -scores))[:k]]


def about(rng: np.random.Generator) -> dict[str, Any]:
    label = [None, "dog", "cat", "bird"][rng.integers(4)]
    return {"year": int(rng.integers(2000, 2012)), "label": label}


def random_step(rng: np.random.Generator, index: SearchIndex, model: Model, number: int) -> None:
    """One add, update or delete, the same to both."""
    kind = rng.choice(["add", "embedding", "metadata", "both", "delete", "replace"])
    keys = list(model.items)
    vector = rng.standard_normal(index.dim).astype(np.float32)
    if kind in ("add", "replace") or len(keys) < 3:
        gallery_name = str(rng.choice(["a", "b"]))
        name = f"new{number}" if kind == "add" else keys[rng.integers(len(keys))][1]
        new = about(rng)
        index.add([name], vector[None], [new], gallery=gallery_name, modality=gallery_name, replace=True)
        model.items[gallery_name, name] = (vector, new)
        return
    key = keys[rng.integers(len(keys))]
    if kind == "delete":
        index.delete([key[1]], gallery=key[0])
        del model.items[key]
        return
    old_vector, old = model.items[key]
    new = about(rng) if kind in ("metadata", "both") else old
    vector = vector if kind in ("embedding", "both") else old_vector
    index.update(
        [key[1]],
        None if kind == "metadata" else vector[None],
        None if kind == "embedding" else [new],
        gallery=key[0],
    )
    model.items[key] = (vector, new)


def check_agrees(rng: np.random.Generator, index: SearchIndex, model: Model) -> None:
    tree = parse_filter(FILTER)
    query = rng.standard_normal(index.dim).astype(np.float32)
    assert [(hit.gallery, hit.id) for hit in index.search(query, 7)[0]] == model.search(query, 7)
    filtered = index.search(query, 7, filter=FILTER)[0]
    assert [(h.gallery, h.id) for h in filtered] == model.search(query, 7, lambda key, row: matches(tree, row))
    assert all(hit.metadata == model.items[hit.gallery, hit.id][1] for hit in filtered)
    only = index.search(query, 3, galleries=["b"])[0]
    assert [(hit.gallery, hit.id) for hit in only] == model.search(query, 3, lambda key, row: key[0] == "b")
    assert len(index) == len(model.items)
    assert list(zip(index.galleries, index.ids, strict=True)) == list(model.items)


@pytest.mark.parametrize("chunk", [64, 1 << 16])
def test_it_agrees_with_a_model_after_every_step(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "TILE_ROWS", (chunk, chunk))
    monkeypatch.setattr(rows, "SPARE_ROWS", 5)
    rng = np.random.default_rng(3)
    model = Model()
    start = [(("a", f"i{n}"), rng.standard_normal(8).astype(np.float32), about(rng)) for n in range(300)]
    model.items = {key: (vector, row) for key, vector, row in start}
    index = SearchIndex(
        np.stack([vector for _, vector, _ in start]),
        [key[1] for key, _, _ in start],
        pa.Table.from_pylist([row for *_, row in start]),
        galleries="a",
        modalities="a",
    )
    for number in range(250):
        random_step(rng, index, model, number)
        check_agrees(rng, index, model)
        if number % 60 == 0:
            index.save(tmp_path / "index")
            index = SearchIndex.open(tmp_path / "index", verify=True)
            check_agrees(rng, index, model)


def test_it_is_empty_and_full_again() -> None:
    index = SearchIndex(np.eye(3), ["a", "b", "c"])
    index.delete(["a", "b", "c"])
    assert len(index) == 0
    assert index.search(np.ones(3), 5) == [[]]
    assert index.search(np.ones(3), 5, balance="quota") == [[]]
    index.add(["d"], np.eye(3)[1:2], [{"n": 1}])
    assert [hit.id for hit in index.search(np.ones(3), 5)[0]] == ["d"]


def test_centring_follows_what_is_added_and_saved(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    meaning, gap = rng.standard_normal((30, 16)), 10 * rng.standard_normal(16)
    modalities = ["text"] * 20 + ["image"] * 20
    index = SearchIndex(
        np.concatenate([meaning[:20] + gap, meaning[:20] - gap]), None, modalities=modalities, center=True
    )
    index.add(["t25"], (meaning[25] + gap)[None], modality="text")
    index.add(["i25"], (meaning[25] - gap)[None], modality="image")
    index.delete(["3"])
    expected = {"t25", "i25"}
    assert {hit.id for hit in index.search(meaning[25] + gap, 2, modality="text")[0]} == expected
    index.save(tmp_path / "i")
    again = SearchIndex.open(tmp_path / "i")
    assert {hit.id for hit in again.search(meaning[25] + gap, 2, modality="text")[0]} == expected
    assert np.array_equal(again.embeddings, index.embeddings)
    again.recenter()
    assert {hit.id for hit in again.search(meaning[25] + gap, 2, modality="text")[0]} == expected


def test_a_quota_keeps_a_far_modality_from_being_crowded_out() -> None:
    rng = np.random.default_rng(1)
    near, far = rng.standard_normal((50, 8)) + 6, rng.standard_normal((50, 8))
    index = SearchIndex(np.concatenate([near, far]), modalities=["image"] * 50 + ["audio"] * 50)
    query = np.full(8, 1.0)
    assert {hit.modality for hit in index.search(query, 10)[0]} == {"image"}
    shared = index.search(query, 10, balance="quota")[0]
    assert [hit.modality for hit in shared] == ["image", "audio"] * 5
    for modality in ("image", "audio"):
        alone = index.search(query, 5, modalities=[modality])[0]
        assert [hit for hit in shared if hit.modality == modality] == alone
    few = index.search(query, 10, quota={"audio": 2, "image": 1})[0]
    assert [hit.modality for hit in few] == ["image", "audio", "audio"]
    with pytest.raises(ConfigError, match="balance is 'fair', expected one of none, quota"):
        index.search(query, balance="fair")


def test_several_items_with_weights_rank_by_the_weighted_sum_of_cosines() -> None:
    rng = np.random.default_rng(2)
    x, items = rng.standard_normal((200, 12)), rng.standard_normal((3, 12))
    weights = [1.0, 0.5, -0.75]
    index = SearchIndex(x)
    hits = index.search_items([QueryItem(5 * v, w) for v, w in zip(items, weights, strict=True)], 200)
    sums = (normalize(x).astype(float) @ normalize(items).T.astype(float)) @ np.array(weights)
    assert [hit.row for hit in hits] == np.argsort(-sums, kind="stable").tolist()
    assert np.allclose(combine([QueryItem(x[0])]), normalize(x[0]))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "needs an item, got none"),
        ([QueryItem(np.ones(3), 0.0)], "weight of a query item is 0.0"),
        ([QueryItem(np.ones(3), float("nan"))], "weight of a query item is nan"),
        ([QueryItem(np.ones(3)), QueryItem(2 * np.ones(3), -1.0)], "cancel each other"),
        ([QueryItem(np.ones(3)), QueryItem(np.ones(4))], "have 3, 4 dimensions"),
    ],
)
def test_faults_of_several_items(items: list[QueryItem], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        combine(items)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda i: i.add(["a"], np.ones((1, 3))), r"holds the id 'a' already \(1 of 1 ids\)"),
        (lambda i: i.add(["x", "x"], np.ones((2, 3))), "the id 'x' is given twice"),
        (lambda i: i.add(["x"], np.ones((2, 3))), "got 2 embeddings and 1 ids"),
        (lambda i: i.add(["x"], np.ones((1, 2))), "has 2 dimensions, expected 3"),
        (lambda i: i.add(["x"], np.full((1, 3), np.nan)), "NaN"),
        (lambda i: i.add(["x"], np.ones((1, 3)), [{}, {}]), "got 1 ids and 2 rows of metadata"),
        (lambda i: i.update(["a", "nope"], np.ones((2, 3))), "has no id 'nope'"),
        (lambda i: i.update(["a"], np.ones((2, 3))), "got 2 embeddings and 1 ids"),
        (lambda i: i.delete(["a", "nope"]), "has no id 'nope'"),
    ],
)
def test_a_fault_changes_nothing(act: Any, message: str) -> None:
    index = SearchIndex(np.eye(3), ["a", "b", "c"], {"n": [1, 2, 3]})
    before = index.search(np.ones(3), 3)
    with pytest.raises(EvaluationError, match=message):
        act(index)
    assert index.search(np.ones(3), 3) == before


def test_ids_that_are_not_unique_are_told_when_it_matters() -> None:
    index = SearchIndex(np.eye(3), ["a", "a", "c"])
    assert len(index.search(np.ones(3), 3)[0]) == 3
    with pytest.raises(EvaluationError, match="holds the id 'a' twice"):
        index.delete(["c"])
    both = SearchIndex(np.eye(2), ["a", "a"], galleries=["x", "y"])
    with pytest.raises(EvaluationError, match=r"the id 'a' is in the galleries 'x', 'y'. Give gallery="):
        both.delete(["a"])
    both.delete(["a"], gallery="y")
    assert both.galleries == ["x"]


def test_approximate_search_keeps_its_recall_while_the_index_changes(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((60, 24))
    x = (centres[rng.integers(60, size=6000)] + 0.6 * rng.standard_normal((6000, 24))).astype(np.float32)
    queries = (centres[rng.integers(60, size=80)] + rng.standard_normal((80, 24))).astype(np.float32)
    for kind in ("ivf", "hnsw"):
        index = SearchIndex(x, metadata={"year": rng.integers(2000, 2020, 6000).tolist()})
        settings = index.build_ann(kind, recall=0.95, queries=queries)
        assert settings.recall >= 0.95
        assert repr(index).endswith(f"{kind})")
        index.delete([str(n) for n in range(0, 6000, 3)])
        index.update([str(n) for n in range(1, 600, 3)], x[:200])
        index.add([f"new{n}" for n in range(50)], x[:50])
        index.save(tmp_path / kind)
        for one in (index, SearchIndex.open(tmp_path / kind)):
            for options in ({}, {"filter": "year > 2010"}):
                got = one.search(queries, 10, **options)
                truth = one.search(queries, 10, exact=True, **options)
                shared = [len({h.id for h in a} & {h.id for h in b}) for a, b in zip(got, truth, strict=True)]
                assert np.mean(shared) >= 9.3, (kind, options)
                exact = {(n, hit.id): hit.score for n, hits in enumerate(truth) for hit in hits}
                assert all(exact.get((n, h.id), h.score) == h.score for n, hits in enumerate(got) for h in hits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "tree"}, "unknown kind of approximate index 'tree'. Expected one of ivf, hnsw"),
        ({"recall": 1.5}, "the recall to reach is 1.5"),
        ({}, "an approximate index of 3 rows is slower than exact search"),
    ],
)
def test_faults_of_approximate_search(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SearchIndex(np.eye(3)).build_ann(**arguments)


def saved(folder: Path) -> Path:
    SearchIndex(np.eye(4), list("abcd"), {"n": [1, 2, 3, 4]}, modalities="image").save(folder)
    return folder


def test_a_saved_index_holds_everything_and_two_saves_are_equal(tmp_path: Path) -> None:
    folder = saved(tmp_path / "one")
    index = SearchIndex.open(folder, verify=True)
    assert index.search(np.eye(4)[2], 1) == [[Hit("c", 1.0, 2, {"n": 3}, "image")]]
    index.save(tmp_path / "two")
    for file in sorted(folder.iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name
    index.delete(["a"])
    index.save(folder)
    assert SearchIndex.open(folder).ids == ["b", "c", "d"]


def test_saving_never_replaces_what_is_no_index(tmp_path: Path) -> None:
    index = SearchIndex(np.eye(2))
    folder = saved(tmp_path / "index")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(
        ConfigError, match=r"holds what isthmus did not write there, so it is not overwritten: notes.txt"
    ):
        index.save(folder)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is no index"):
        index.save(tmp_path / "file")
    with pytest.raises(ConfigError, match="exists already"):
        index.save(saved(tmp_path / "other"), overwrite=False)
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "index.json").unlink(), "is no index"),
        (lambda f: (f / "items.parquet").unlink(), "items.parquet: is missing, the index is not whole"),
        (lambda f: (f / "embeddings.npy").write_bytes(b"x"), "is not the file that was written"),
        (lambda f: change(f, format_version=9), "format_version 9 is newer than the 1"),
        (lambda f: change(f, format="other"), "is of the format 'other'"),
        (lambda f: change(f, rows="4"), "rows is damaged"),
        (lambda f: change(f, rows=5), "expected 5"),
        (lambda f: change(f, files={"../x": {}, "embeddings.npy": {}, "items.parquet": {}}), "names the file '../x'"),
        (lambda f: flip(f / "embeddings.npy"), "is not the file that was written"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path: Path, damage: Any, message: str) -> None:
    folder = saved(tmp_path / "index")
    damage(folder)
    with pytest.raises(FormatError, match=message):
        SearchIndex.open(folder, verify=True)


def change(folder: Path, **values: Any) -> None:
    manifest = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**manifest, **values}))


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_a_kill_while_saving_leaves_the_old_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path / "index")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    index = SearchIndex.open(folder)
    index.delete(["a"])

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("isthmus.search.index_folder.write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        index.save(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert os.listdir(tmp_path) == ["index"]


def test_galleries_of_a_bridge_projected_or_not(tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "image": (["x", "y"], np.eye(3)[:2], {"year": [1, 2]}),
        "text": (["x"], np.eye(3)[2:], {"year": ["2"]}),
    }
    base = isthmus.make_space(tmp_path / "base.space", content, dtype="float32")
    bridge = Bridge.over(base)
    index = gallery.index_of(bridge, {"one": base["image"], "two": base["text"]})
    assert index.unified == bridge_fingerprint(bridge)
    assert index.galleries == ["one", "one", "two"]
    assert index.metadata.column("year").to_pylist() == ["1", "2", "2"]
    assert index.metadata.column("modality").to_pylist() == ["image", "image", "text"]
    twice = SearchIndex.from_bridge(bridge, base["image"], base["image"])
    assert sorted(set(twice.galleries)) == ["base/image", "base/image (2)"]

    info = {"unified": {"fingerprint": "other"}}
    monkey = base["image"]
    monkey.info.update(info)
    with pytest.raises(FingerprintError, match="was projected by another bridge"):
        gallery.index_of(bridge, [monkey])
    monkey.info["unified"]["fingerprint"] = bridge_fingerprint(bridge)
    assert np.array_equal(gallery.index_of(bridge, [monkey]).embeddings, np.eye(3, dtype=np.float32)[:2])
