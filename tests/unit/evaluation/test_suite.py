"""The suite: outcomes against slow oracles, rows against `evaluate`, recipes trained once, sides encoded once."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isthmus.evaluation.suite.embed as suite_sides
import isthmus.evaluation.suite.retrain as recipes
from isthmus.bridges.bridge import Bridge
from isthmus.core.geometry import normalize
from isthmus.encoders import load_encoder
from isthmus.errors import (
    BridgeError,
    CheckFailed,
    ConfigError,
    EvaluationError,
    FingerprintError,
    FormatError,
)
from isthmus.evaluation.benchmarks.declaration import Benchmark, parse_benchmark
from isthmus.evaluation.benchmarks.task import Classification, ItemSet, Retrieval
from isthmus.evaluation.evaluate import evaluate_bridge
from isthmus.evaluation.suite import SuiteSettings, format_suite, run_suite
from isthmus.evaluation.suite.embed import ItemSetEmbedder
from isthmus.evaluation.suite.methods import mean_row
from isthmus.evaluation.suite.questions import ClassTruth, PairTruth, scoring_task
from isthmus.evaluation.suite.run_suite import choose_templates
from isthmus.items import Item
from isthmus.metrics import accuracy_at_k, multilabel_map, retrieval_scores
from isthmus.metrics.results import Settings, mean_figures
from isthmus.recipes.closed_form import fit_closed_form_bridge
from isthmus.recipes.connect import ConnectConfig, connect
from isthmus.recipes.extend import ExtendConfig, extend
from isthmus.spaces.space import Space, make_space, open_space
from worlds import contrastive, meanings, write_space

FEW = Settings(bootstrap=0)
TINY = {"epochs": 1, "max_pairs": 120, "batch_size": 64}


def unit(rng: np.random.Generator, n: int, dim: int = 6) -> np.ndarray:
    """Rows of which many are equal, so that scores tie."""
    return normalize(rng.integers(-1, 2, (n, dim)).astype(np.float32) + np.float32(0.25))


# outcomes


@pytest.mark.parametrize("seed", range(8))
def test_groups_are_scored_apart_and_averaged(seed: int):
    rng = np.random.default_rng(seed)
    q, g = unit(rng, 14), unit(rng, 9)
    query, gallery = [f"q{i}" for i in range(14)], [f"g{i}" for i in range(9)]
    pairs = [(a, b) for a in query for b in gallery if rng.random() < 0.2] + [("q0", "g0"), ("q9", "g1")]
    groups = {"one": query[:5], "two": query[5:12], "empty": ["nobody"]}
    found = PairTruth(pairs, groups).scorer(query, gallery, FEW)(q, g)
    relevant = np.zeros((14, 9), bool)
    for a, b in pairs:
        relevant[query.index(a), gallery.index(b)] = True
    # Summed one by one, so that rows that are equal tie: a product's last bits depend on where a row stands.
    scores = (q[:, None].astype(np.float64) * g[None].astype(np.float64)).sum(axis=2)
    for way, turn in (("query_to_gallery", lambda x: x), ("gallery_to_query", lambda x: x.T)):
        wanted = [retrieval_scores(turn(scores[rows]), turn(relevant[rows])) for rows in (slice(0, 5), slice(5, 12))]
        for name in ("r@1", "r@5", "r@10", "map", "median_rank"):
            assert found.figures[way][name] == pytest.approx(np.mean([one[name] for one in wanted]), abs=1e-9)
            if name != "median_rank":
                values = np.mean([part[name].mean() for part in found.parts[way]])
                assert values == pytest.approx(found.figures[way][name], abs=1e-9)
    assert set(found.figures["groups"]) == {"one", "two"}


def test_one_group_of_everything_is_no_group():
    rng = np.random.default_rng(0)
    q, g, ids = unit(rng, 8), unit(rng, 8), [f"x{i}" for i in range(8)]
    pairs = [(name, name) for name in ids]
    whole = PairTruth(pairs).scorer(ids, ids, Settings(bootstrap=50))(q, g)
    grouped = PairTruth(pairs, {"all": ids}).scorer(ids, ids, Settings(bootstrap=50))(q, g)
    assert {**whole.figures, "groups": {"all": whole.figures["mean"]}} == grouped.figures
    assert whole.chance == grouped.chance


@pytest.mark.parametrize("seed", range(6))
def test_multilabel_is_the_mean_over_classes(seed: int):
    rng = np.random.default_rng(seed)
    q, c = unit(rng, 12), unit(rng, 5)
    items, texts = [f"i{i}" for i in range(12)], [f"c{i}" for i in range(5)]
    labels = [(a, b) for a in items for b in texts[:4] if rng.random() < 0.3] + [("i0", "c0")]
    found = ClassTruth({t: t for t in texts}, labels, multilabel=True).scorer(items, texts, FEW)(q, c)
    mask = np.zeros((12, 5), bool)
    for a, b in labels:
        mask[items.index(a), texts.index(b)] = True
    assert found.figures["map"] == pytest.approx(multilabel_map(q @ c.T, mask), abs=1e-9)
    assert len(found.parts[""][0]["map"]) == mask.any(axis=0).sum()


def test_chance_of_a_multilabel_is_the_mean_of_all_orders():
    items, labels = ["a", "b", "c", "d"], [("a", "x"), ("b", "x"), ("c", "y")]
    rows = np.eye(4, dtype=np.float32)
    found = ClassTruth({"x": "x", "y": "y"}, labels, multilabel=True).scorer(items, ["x", "y"], FEW)(rows, rows[:2])
    mask = np.array([[1, 0], [1, 0], [0, 1], [0, 0]], bool)
    every = [
        multilabel_map(np.array([order, order], float).T, mask)
        for order in itertools.permutations([1.0, 2.0, 3.0, 4.0])
    ]
    assert found.chance["map"] == pytest.approx(np.mean(every), abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_prompts_of_a_class_are_averaged_in_any_order(seed: int):
    rng = np.random.default_rng(seed)
    names = ["dog", "cat", "owl", "bee", "elk", "fox"]
    texts = {f"{name}{i}": name for name in names for i in range(3)}
    order = [str(one) for one in rng.permutation(list(texts))]
    q, t = rng.standard_normal((20, 8)).astype(np.float32), rng.standard_normal((18, 8)).astype(np.float32)
    q, t = normalize(q), normalize(t)
    items = [f"i{i}" for i in range(20)]
    labels = [(item, str(rng.choice(names))) for item in items]
    found = ClassTruth(texts, labels).scorer(items, order, FEW)(q, t)
    classes = np.stack([np.mean([t[order.index(f"{name}{i}")] for i in range(3)], axis=0) for name in names])
    wanted = accuracy_at_k(
        q @ normalize(classes).T, np.array([names.index(label) for _, label in labels]), ks=(1, 3, 5)
    )
    assert {key: found.figures[key] for key in wanted} == pytest.approx(wanted, abs=1e-9)


def test_what_was_rejected_enters_no_score():
    rng = np.random.default_rng(0)
    q, g = unit(rng, 3), unit(rng, 2)
    pairs = [("a", "x"), ("b", "y"), ("gone", "x"), ("c", "lost")]
    left = PairTruth(pairs).scorer(["a", "b", "c"], ["x", "y"], FEW)(q, g)
    assert len(left.parts["query_to_gallery"][0]["map"]) == 2
    with pytest.raises(EvaluationError, match=r"no true pair is left to score"):
        PairTruth(pairs).scorer(["c"], ["x"], FEW)
    with pytest.raises(EvaluationError, match=r"no label is left to score"):
        ClassTruth({"x": "x"}, [("gone", "x")]).scorer(["a"], ["x"], FEW)
    with pytest.raises(EvaluationError, match=r"no group of the benchmark has a true pair left"):
        PairTruth(pairs, {"g": ["c"]}).scorer(["a", "c"], ["x"], FEW)(q[:2], g[:1])


def test_a_limit_takes_the_first_and_what_belongs_to_them():
    side = [
        ItemSet("audio", [Item(f"a{i}", text="x") for i in range(4)]),
        ItemSet("image", [Item(f"i{i}") for i in range(4)]),
    ]
    scoring = scoring_task(Retrieval(*side, [("a0", "i3"), ("a1", "i3"), ("a2", "i0")]), limit=2)
    assert (scoring.query.ids, scoring.target.ids) == (["a0", "a1"], ["i3"])
    assert scoring.counts["n_pairs"] == 2
    prompts = ItemSet("text", [Item("p", text="x", columns={"class": "c"})])
    scoring = scoring_task(Classification(side[0], {"c": "c"}, [("a0", "c"), ("a3", "c")]), prompts, limit=1)
    assert (scoring.query.ids, scoring.counts["n_labels"]) == (["a0"], 1)
    with pytest.raises(EvaluationError, match=r"the classification has no class texts"):
        scoring_task(Classification(side[0], {"c": "c"}, [("a0", "c")]))


def test_means_and_deviations_of_runs():
    runs = [
        {"name": "x", "kind": "recipe", "r@1": a, "r@1_ci95": [a, 1.0], "mean": {"r@1": a}, "seconds": 1.0}
        for a in (0.1, 0.2, 0.6)
    ]
    found = mean_row("all", "recipe", runs, [0, 1, 2])
    assert found["r@1"] == pytest.approx(0.3)
    assert found["mean"]["r@1"] == pytest.approx(0.3)
    assert found["r@1_ci95"] == pytest.approx([0.3, 1.0])
    assert found["std"] == {"r@1": pytest.approx(np.std([0.1, 0.2, 0.6], ddof=1))}
    both = [{**run, "query_to_gallery": {"r@1": 2 * run["r@1"]}} for run in runs]
    assert mean_row("all", "recipe", both, [0, 1, 2])["std"]["query_to_gallery"]["r@1"] == pytest.approx(
        2 * np.std([0.1, 0.2, 0.6], ddof=1)
    )
    assert [run["r@1"] for run in found["runs"]] == [0.1, 0.2, 0.6]
    assert mean_row("one", "recipe", runs[:1], [0])["std"] == {"r@1": 0.0}
    assert mean_figures([{"a": 1, "b": {"c": [0.0, 2.0]}}, {"a": 2, "b": {"c": [1.0, 3.0]}}]) == {
        "a": 1.5,
        "b": {"c": [0.5, 2.5]},
    }


# a world with a benchmark of embeddings


class World:
    """Two spaces that share texts, a bridge of them, and sounds with pictures that are in neither."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        texts = meanings(200, 1)
        self.clip = write_space(folder, "clip", 16, 101, {"text": ("t", texts), "image": ("i", meanings(150, 2))})
        self.clap = write_space(folder, "clap", 12, 102, {"text": ("t", texts), "audio": ("a", meanings(150, 3))})
        true = meanings(40, 9)
        self.write("sounds", "clap", 12, 102, "audio", 1, true)
        self.write("pictures", "clip", 16, 101, "image", 1, true)
        (folder / "pairs.csv").write_text("query_id,gallery_id\n" + "".join(f"x{i},x{i}\n" for i in range(40)))
        (folder / "labels.csv").write_text("query_id,class_id\n" + "".join(f"x{i},t{i % 9}\n" for i in range(40)))
        self.bridge = fit_closed_form_bridge(self.clip, self.clap, via="text", method="ridge")

    def write(self, name: str, space: str, dim: int, seed: int, modality: str, number: int, true: np.ndarray) -> Space:
        rows = contrastive(true, dim, seed, number)
        encoder = {"library": "test", "id": space, "revision": None, "weights_sha256": None}
        columns = {"turn": [str(i % 2) for i in range(len(true))]}
        ids = [f"x{i}" for i in range(len(true))]
        return make_space(self.folder / f"{name}.space", {modality: (ids, rows, columns)}, name=space, encoder=encoder)

    def benchmark(self, task: str = "retrieval", **options: Any) -> Benchmark:
        given = {"query": "sounds.space/audio", **options}
        if task == "retrieval":
            given = {"gallery": "pictures.space/image", "pairs": "pairs.csv", **given}
        else:
            texts = {f"t{i}": [f"t{i}"] for i in range(9)}
            given = {"classes": "names.space/text", "class_column": "id", "labels": "labels.csv", **given}
            if not (self.folder / "names.space").exists():
                rows = self.clip["text"].take(range(9))
                encoder = {"library": "test", "id": "clip", "revision": None, "weights_sha256": None}
                make_space(self.folder / "names.space", {"text": (list(texts), rows)}, name="clip", encoder=encoder)
        modalities = ["audio", "image"] if task == "retrieval" else ["audio"]
        table = {"task": task, "reader": "embeddings", "modalities": modalities, "options": given}
        published = [{"model": "Other", "figures": {"r@1": 0.5}, "source": "a paper", "note": "Another split."}]
        return parse_benchmark({**table, "published": published}, Path("world.toml"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def suite(world: World, tmp_path: Path, bridges: Any = None, task: str = "retrieval", **changes: Any) -> dict[str, Any]:
    options = changes.pop("options", {})
    given = {"cache": tmp_path / "cache", "quiet": True, "bootstrap": 100, **changes}
    return run_suite(bridges or world.bridge, world.benchmark(task, **options), world.folder, **given)


def test_rows_are_those_of_evaluate(world: World, tmp_path: Path):
    found = suite(world, tmp_path, baselines=True)
    query = isthmus_space(world, "sounds")["audio"]
    gallery = isthmus_space(world, "pictures")["image"]
    wanted = evaluate_bridge(
        world.bridge, query=query, gallery=gallery, pairs=world.folder / "pairs.csv", baselines=True, bootstrap=100
    )
    rows = {row["name"]: row for row in found["rows"]}
    assert found["rows"][0]["name"] == "bridge"
    for way in ("query_to_gallery", "gallery_to_query", "mean"):
        assert rows["bridge"][way] == wanted[way]
    for name, figures in wanted["baselines"].items():
        same = {key: value for key, value in rows[name].items() if key not in ("name", "kind", "seconds")}
        assert same == {key: value for key, value in figures.items() if key != "seconds"}
    assert rows["own pair"]["reason"] == "no space of the bridge embeds both audio and image."
    assert found["spaces"] == {"query": "clap", "target": "clip"}
    assert (found["n_query"], found["n_gallery"], found["n_pairs"], found["missing"]) == (40, 40, 40, 0)
    assert found["retention"] == {}


def isthmus_space(world: World, name: str) -> Space:
    from isthmus.spaces.space import open_space

    return open_space(world.folder / f"{name}.space")


def test_the_table_shows_ours_above_the_published(world: World, tmp_path: Path):
    lines = format_suite(suite(world, tmp_path, baselines=True, limit=30)).splitlines()
    assert lines[0] == "world, retrieval: 30 queries, 30 gallery items, 30 true pairs"
    order = [
        next(i for i, line in enumerate(lines) if line.startswith(name)) for name in ("bridge", "published", "Other")
    ]
    assert order == sorted(order)
    assert "Other (a paper)" in lines[order[2]]
    assert "0.500" in lines[order[2]]
    assert "Other: Another split." in lines
    assert "Note: Limited to the first 30: these figures are not the benchmark's." in lines
    assert any(line.startswith("No figures for own pair: no space of the bridge embeds both") for line in lines)
    assert any(line.startswith("No figures for raw cross-space; raw cross-space, centred: the sides") for line in lines)


def test_a_benchmark_of_one_direction_shows_that_direction(world: World, tmp_path: Path):
    one = world.benchmark().model_copy(update={"metric": "gallery_to_query", "headline": ["map"]})
    found = run_suite(world.bridge, one, world.folder, cache=tmp_path, quiet=True, bootstrap=0)
    there = f"{found['rows'][0]['gallery_to_query']['map']:.3f}"
    assert there != f"{found['rows'][0]['map']:.3f}"
    text = format_suite(found)
    assert there in next(line for line in text.splitlines() if line.startswith("bridge"))
    assert "Means of both directions" not in text


def test_groups_and_directions_reach_the_report(world: World, tmp_path: Path):
    found = suite(world, tmp_path, options={"group_column": "turn"})
    assert set(found["rows"][0]["groups"]) == {"0", "1"}
    assert found["groups"] == 2


def test_own_pairs_say_what_is_lost_and_the_base_keeps_all(world: World, tmp_path: Path):
    found = suite(world, tmp_path, task="classification", baselines=True)
    rows = {row["name"]: row for row in found["rows"]}
    # The class texts are the base's; the leaf has texts of the same ids, so that its own pair is scored too.
    kept = found["retention"]["clap"]["accuracy@1"]
    assert kept["ratio"] == pytest.approx(kept["after"] / kept["before"])
    assert "own pair (clip)" not in rows, "the base embeds no audio"
    sounds, texts = isthmus_space(world, "sounds")["audio"], world.clap["text"]
    own = accuracy_at_k(sounds.unit() @ texts.unit(range(9)).T, np.arange(40) % 9, ks=(1,))
    assert rows["own pair (clap)"]["accuracy@1"] == pytest.approx(own["accuracy@1"], abs=1e-9)


def test_a_base_pair_is_kept_by_an_extension(world: World, tmp_path: Path):
    options = {"query": "pictures.space/image"}
    table = {**world.benchmark("classification").model_dump(), "modalities": ["image"]}
    table["options"] = {**table["options"], **options}
    one = parse_benchmark({key: value for key, value in table.items() if key != "path"}, Path("base.toml"))
    found = run_suite(world.bridge, one, world.folder, cache=tmp_path, quiet=True, baselines=True, bootstrap=0)
    assert found["retention"]["clip"]["accuracy@1"]["ratio"] == 1.0
    assert "clip keeps 100.0% of its own accuracy@1" in format_suite(found)


def test_true_pairs_give_the_oracle(world: World, tmp_path: Path):
    pairs = "".join(f"a{i},i{i}\n" for i in range(150))
    (tmp_path / "train.csv").write_text("query_id,gallery_id\n" + pairs)
    rows = suite(world, tmp_path, train_pairs=tmp_path / "train.csv")["rows"]
    found = {row["name"]: row for row in rows}
    assert 0.0 < found["paired_ridge"]["map"] <= 1.0
    assert 0.0 < found["paired_cca"]["map"] <= 1.0


def test_several_bridges_of_one_recipe_have_a_mean(world: World, tmp_path: Path):
    config = {**TINY, "members": 1}
    named: dict[str, Bridge] = {
        f"s{seed}": extend(world.clip, world.clap, via="text", config=ExtendConfig(**config, seed=seed), quiet=True)
        for seed in (3, 4)
    }
    rows = suite(world, tmp_path, {"ridge": world.bridge, **named})["rows"]
    assert [row["name"] for row in rows[:4]] == ["ridge", "mean of 2 ex-mcr (seeds 3, 4)", "s3", "s4"]
    assert rows[1]["map"] == pytest.approx((rows[2]["map"] + rows[3]["map"]) / 2)
    assert rows[1]["std"]["map"] == pytest.approx(abs(rows[2]["map"] - rows[3]["map"]) / np.sqrt(2))


# recipes


def test_recipes_are_trained_once(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = {**TINY, "members": 1}
    bridge = extend(world.clip, world.clap, via="text", config=ExtendConfig(**config, seed=5), quiet=True)
    bridge.save(tmp_path / "x.bridge")
    given: dict[str, Any] = {"recipes": ("c-mcr", "ex-mcr", "ours"), "seeds": (0, 5), "train": TINY}
    first = suite(world, tmp_path, bridge, **given)
    monkeypatch.setattr(recipes, "run", lambda *_: pytest.fail("trained again"))
    second = suite(world, tmp_path, bridge, **given)
    rows = {row["name"]: row for row in second["rows"]}
    assert [strip(row) for row in first["rows"]] == [strip(row) for row in second["rows"]]
    assert rows["c-mcr (paper)"]["seeds"] == [0, 5]
    assert rows["ex-mcr (paper)"]["std"]["map"] >= 0.0
    # The bridge's own recipe with its own seed is the bridge.
    assert rows["ours, trained again"]["runs"][1]["map"] == pytest.approx(rows["bridge"]["map"], abs=1e-6)
    assert not list((tmp_path / "cache" / "trained").glob("*.checkpoints"))


def strip(value: Any) -> Any:
    """A report without times."""
    if isinstance(value, dict):
        return {key: strip(one) for key, one in value.items() if key != "seconds"}
    return [strip(one) for one in value] if isinstance(value, list) else value


def test_a_space_that_changed_is_trained_on_anew(tmp_path: Path):
    first = write_space(tmp_path / "one", "clip", 8, 1, {"text": ("t", meanings(20, 1))})
    second = write_space(tmp_path / "two", "clip", 8, 1, {"text": ("t", meanings(20, 2))})
    assert first.content_hash == open_space(first.path).content_hash
    assert first.content_hash != second.content_hash


def test_recipes_that_cannot_be_are_told(world: World, tmp_path: Path):
    rows = {row["name"]: row for row in suite(world, tmp_path, recipes=("ours",))["rows"]}
    assert rows["ours, trained again"]["reason"].startswith("the bridge is a closed form")
    three = three_of(world, tmp_path)
    with pytest.raises(EvaluationError, match=r"C-MCR joins two spaces, and 'clap' and 'ulip' share no overlap"):
        recipes.paper_steps(recipes.TrainingSpaces(three, {}), "c-mcr", ["ulip", "clap"])
    with pytest.raises(EvaluationError, match=r"query and gallery are of one space"):
        recipes.paper_steps(recipes.TrainingSpaces(three, {}), "ex-mcr", ["clap", "clap"])
    steps = recipes.paper_steps(recipes.TrainingSpaces(three, {}), "ex-mcr", ["ulip", "clap"])
    assert [step["spaces"] for step in steps] == [["clip", "clap"], ["ulip"]]
    assert [step["via"] for step in steps] == [["text"], ["image"]]
    assert [s["spaces"] for s in recipes.paper_steps(recipes.TrainingSpaces(three, {}), "c-mcr", ["ulip", "clip"])] == [
        ["clip", "ulip"]
    ]


def test_leaves_that_never_met_are_trained_through_the_base(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    three, settings = three_of(world, tmp_path), SuiteSettings(cache=tmp_path / "cache", quiet=True, train=TINY)
    step, calls = recipes._step, []

    def counted(spaces: Any, base: Any, what: dict[str, Any], folder: Path, how: SuiteSettings) -> Bridge:
        calls.append(what["spaces"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return step(spaces, base, what, folder, how)

    monkeypatch.setattr(recipes, "_step", counted)
    with pytest.raises(KeyboardInterrupt):
        recipes.trained(three, "ex-mcr", 0, ("ulip", "clap"), settings)
    made = recipes.trained(three, "ex-mcr", 0, ("ulip", "clap"), settings)
    assert calls == [["clip", "clap"], ["ulip"], ["ulip"]], "the step that was done is not done again"
    assert [space.name for space in made.spaces] == ["clip", "clap", "ulip"]
    assert made.project(np.ones((1, 8), np.float32), space="ulip", modality="point_cloud").shape == (1, 16)
    assert len(list((tmp_path / "cache" / "trained").iterdir())) == 1


def three_of(world: World, folder: Path) -> Bridge:
    ulip = write_space(
        folder,
        "ulip",
        8,
        103,
        {"image": ("i", meanings(150, 2)), "point_cloud": ("p", meanings(50, 4))},
    )
    return fit_closed_form_bridge(world.bridge, ulip, via="image", method="ridge")


def test_own_steps_are_taken_from_the_record(world: World, tmp_path: Path):
    joined = connect(world.clip, world.clap, via="text", config=ConnectConfig(**TINY, dim=8, seed=2), quiet=True)
    ulip = write_space(
        tmp_path, "ulip", 8, 103, {"image": ("i", meanings(150, 2)), "point_cloud": ("p", meanings(50, 4))}
    )
    grown = extend(joined, ulip, via="image", config=ExtendConfig(**TINY, members=1, seed=2), quiet=True)
    steps = recipes.own_steps(grown)
    assert [(step["kind"], step["spaces"], step["via"]) for step in steps] == [
        ("connect", ["clip", "clap"], ["text"]),
        ("extend", ["ulip"], ["image"]),
    ]
    again = recipes.trained(grown, "ours", 2, ("clap", "clip"), SuiteSettings(cache=tmp_path / "cache", quiet=True))
    for key in ("clap/audio", "ulip/point_cloud"):
        space, modality = key.split("/")
        x = np.random.default_rng(0).standard_normal((5, grown.space(space).dim)).astype(np.float32)
        assert np.allclose(
            grown.project(x, space=space, modality=modality),
            again.project(x, space=space, modality=modality),
            atol=1e-5,
        )


# sides


@pytest.fixture
def allowed(own_config: Path) -> None:
    """The user allows files to name the tiny encoder, as both spaces were made."""
    entry = '[[encoder]]\nname = "tiny_encoder:TinyEncoder"\n'
    text = f'{entry}options = {{ dim = 16 }}\n{entry}options = {{ dim = 12, weights = "{"1" * 64}" }}\n'
    (own_config / "trusted.toml").write_text(text)


def tiny_bridge(folder: Path) -> Bridge:
    """Two spaces of the tiny encoder, with other weights each, joined through texts."""
    from isthmus.encoders.pipeline.encode import encode

    texts = [Item(f"t{i}", text=f"words {i * i}") for i in range(30)]
    for name, options in (("one", {"dim": 16}), ("two", {"dim": 12, "weights": "1" * 64})):
        given: dict[str, Any] = {"encoder": "tiny_encoder:TinyEncoder", "encoder_options": options, "quiet": True}
        encode(texts, into=folder / f"{name}.space", modality="text", **given)
    from isthmus.spaces.space import open_space

    one, two = open_space(folder / "one.space"), open_space(folder / "two.space")
    return fit_closed_form_bridge(one, two, via="text", method="ridge")


@pytest.mark.usefixtures("allowed")
def test_items_are_encoded_once_by_the_spaces_own_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bridge = tiny_bridge(tmp_path)
    items = [Item(f"q{i}", text=f"query {i}") for i in range(5)]
    settings = SuiteSettings(cache=tmp_path / "cache", quiet=True)
    embedder = ItemSetEmbedder(settings)
    assert embedder.home(bridge, ItemSet("text", items)) == "one"
    first = embedder.embed(bridge, ItemSet("text", items), "two")
    assert (first.dim, first.ids, first.space_name) == (12, [item.id for item in items], "two")
    assert embedder.encoded["two/text"]["rejected"] == 0
    monkeypatch.setattr("isthmus.encoders.recorded.load_encoder", lambda *_, **__: pytest.fail("loaded again"))
    again = ItemSetEmbedder(settings).embed(bridge, ItemSet("text", items), "two")
    assert np.array_equal(np.asarray(first), np.asarray(again))
    changed = [Item("q0", text="other words"), *items[1:]]
    monkeypatch.setattr("isthmus.encoders.recorded.load_encoder", load_encoder)
    fresh = ItemSetEmbedder(settings).embed(bridge, ItemSet("text", changed), "two")
    assert not np.array_equal(np.asarray(first)[0], np.asarray(fresh)[0])
    through = SuiteSettings(cache=tmp_path / "cache", through={"text": "two"})
    assert ItemSetEmbedder(through).home(bridge, ItemSet("text", items)) == "two"
    with pytest.raises(BridgeError, match=r"no route for 'audio'. Expected one of one/text, two/text"):
        embedder.home(bridge, ItemSet("audio", items))
    with pytest.raises(EvaluationError, match=r"'one' embeds no audio"):
        embedder.embed(bridge, ItemSet("audio", items), "one")


@pytest.mark.usefixtures("allowed")
def test_an_interrupted_encoding_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bridge = tiny_bridge(tmp_path)
    side = ItemSet("text", [Item(f"q{i}", text=f"query {i}") for i in range(40)])
    settings = SuiteSettings(cache=tmp_path / "cache", quiet=True, batch_size=1)
    log = tmp_path / "log"
    monkeypatch.setenv("TINY_LOG", str(log))
    failing = ItemSetEmbedder(settings)
    encoder = failing._encoder(bridge, "two", "text")
    encoder.fail_at = 20  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"the model failed"):
        failing.embed(bridge, side, "two")
    assert not list((tmp_path / "cache" / "encoded").glob("*.json"))
    before = len(log.read_text().splitlines())
    whole = ItemSetEmbedder(settings).embed(bridge, side, "two")
    assert len(whole) == 40
    assert len(log.read_text().splitlines()) - before < 40, "what was encoded before the fault is not encoded again"


@pytest.mark.usefixtures("allowed")
def test_rejected_items_are_counted_or_end_the_run(tmp_path: Path):
    bridge = tiny_bridge(tmp_path)
    side = ItemSet("text", [Item("good", text="words"), Item("bad", text=" ")])
    with pytest.raises(CheckFailed, match=r"1 of 2 text items .* were rejected"):
        ItemSetEmbedder(SuiteSettings(cache=tmp_path / "cache", quiet=True)).embed(bridge, side, "two")
    patient = ItemSetEmbedder(SuiteSettings(cache=tmp_path / "cache", quiet=True, max_rejected=0.5))
    assert patient.embed(bridge, side, "two").ids == ["good"]
    assert patient.encoded["two/text"]["rejected"] == 1


def test_a_file_that_changed_is_encoded_anew(tmp_path: Path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"one")
    before = suite_sides._about(Item("x", path=str(path)))
    path.write_bytes(b"three")
    assert suite_sides._about(Item("x", path=str(path))) != before
    assert suite_sides._about(Item("x", path=str(tmp_path / "none"))) == ["x", str(tmp_path / "none")]


def test_another_encoder_is_refused(tmp_path: Path):
    bridge = tiny_bridge(tmp_path)
    items = [Item("q", text="query")]
    given = {"two": "tiny_encoder:TinyEncoder"}
    settings = SuiteSettings(cache=tmp_path / "cache", quiet=True, encoders=given)
    with pytest.raises(FingerprintError, match=r"another weights_sha256. Load that one"):
        ItemSetEmbedder(settings).embed(bridge, ItemSet("text", items), "two")


def test_embeddings_of_another_encoder_are_refused(world: World, tmp_path: Path):
    np.save(world.folder / "foreign.npy", np.eye(12, dtype=np.float32))
    options = {"query": "foreign.npy", "query_space": "clap", "query_encoder": "somebody@1"}
    with pytest.raises(BridgeError, match=r"clap/audio was made by declared somebody at 1, the bridge for"):
        suite(world, tmp_path, options=options)


# settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipes": ("fancy",)}, r"unknown recipe 'fancy'. Expected one of c-mcr, ex-mcr, ours"),
        ({"seeds": (1, 1)}, r"seeds got \[1, 1\]. Expected different numbers from 0"),
        ({"seeds": ()}, r"seeds got \[\]"),
        ({"limit": 0}, r"limit got 0. Expected at least 1"),
        ({"bootstrap": -1}, r"bootstrap got -1"),
        ({"colour": 1}, r"unknown setting 'colour' of a suite. Expected one of cache, options"),
        ({"templates": "x.txt"}, r"templates are of classifications; world is a retrieval"),
        ({"proposals": Path("x.csv")}, r"proposals are of localisation; world is a retrieval"),
        ({"bridges": {}}, r"a suite needs at least one bridge"),
        ({"through": {"sound": "clap"}}, r"through names 'sound'. Expected one of audio, image"),
        ({"encoders": {"clop": "x"}}, r"encoders names 'clop'. Expected one of clap, clip"),
        ({"space_paths": {"clop": "x"}}, r"space_paths names 'clop'. Expected one of clap, clip"),
    ],
)
def test_wrong_settings_are_told(world: World, tmp_path: Path, changes: dict[str, Any], message: str):
    bridges = changes.pop("bridges", world.bridge)
    with pytest.raises(ConfigError, match=message):
        run_suite(bridges, world.benchmark(), world.folder, **{"cache": tmp_path, **changes})


def test_templates_are_the_users_or_the_declarations(world: World, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"the class texts of world are embedded already"):
        suite(world, tmp_path, task="classification", templates="x.txt")
    plain = world.benchmark("classification")
    assert choose_templates(plain, None).texts == ("{}",)
    sounds = plain.model_copy(update={"templates": "sounds"})
    assert choose_templates(sounds, None).name == "sounds"
    (tmp_path / "two.json").write_text('{"a": ["{} here"], "b": ["{c} there"]}')
    assert choose_templates(sounds, f"{tmp_path / 'two.json'}:b").texts == ("{} there",)
    with pytest.raises(ConfigError, match=r"holds several sets"):
        choose_templates(sounds, tmp_path / "two.json")
    with pytest.raises(FormatError, match=r"cannot be read as a file of prompts"):
        choose_templates(sounds, tmp_path / "none.txt")
