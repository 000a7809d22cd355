"""Comparing two bridges: the paired bootstrap against resampling one by one, and what must come out in plain cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isthmus.bridges.bridge import Bridge
from isthmus.core.runtime import numpy_generator
from isthmus.errors import EvaluationError
from isthmus.evaluation.benchmarks.declaration import parse_benchmark
from isthmus.evaluation.suite import compare_bridges
from isthmus.evaluation.suite.compare import differences, p_value
from isthmus.evaluation.suite.questions import PairTruth, Settings, TaskScore
from isthmus.recipes.closed_form import fit_closed_form_bridge
from worlds import contrastive, meanings, write_space


def flat(values: np.ndarray, name: str = "accuracy@1") -> TaskScore:
    return TaskScore({name: float(values.mean())}, {}, {"": [{name: values}]})


@pytest.mark.parametrize("seed", range(4))
def test_the_bootstrap_is_that_of_resampling_items_one_by_one(seed: int):
    rng = np.random.default_rng(seed)
    a, b = rng.random(23), rng.random(23)
    found = differences(flat(a), flat(b), seed=seed, n=60)["figures"]["accuracy@1"]
    generator, drawn = numpy_generator(seed), []
    for _ in range(60):
        chosen = generator.integers(0, 23, 23)
        drawn.append(sum(b[i] for i in chosen) / 23 - sum(a[i] for i in chosen) / 23)
    assert found["ci95"] == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=1e-9)
    beyond = min(sum(one <= 0 for one in drawn), sum(one >= 0 for one in drawn))
    assert found["p"] == pytest.approx(min(1.0, 2 * (beyond + 1) / 61), abs=1e-12)
    assert found["difference"] == pytest.approx(b.mean() - a.mean(), abs=1e-12)


def test_pairs_of_items_are_kept_together():
    # Every item is better by the same, however much items differ: the difference is certain.
    a = np.random.default_rng(0).random(40)
    found = differences(flat(a), flat(a + 0.25), seed=0, n=200)["figures"]["accuracy@1"]
    assert found["ci95"] == pytest.approx([0.25, 0.25], abs=1e-12)
    assert found["p"] == pytest.approx(2 / 201)


def test_what_is_equal_differs_by_nothing():
    a = np.random.default_rng(0).random(10)
    found = differences(flat(a), flat(a.copy()), seed=0, n=50)["figures"]["accuracy@1"]
    assert (found["difference"], found["ci95"], found["p"]) == (0.0, [0.0, 0.0], 1.0)


def test_the_p_value_is_honest_where_there_is_no_difference():
    # Under the null hypothesis a test at 5 % says yes about that often: 300 tests give 0.05 +- 0.025 at two deviations.
    rng = np.random.default_rng(1)
    said = [
        differences(flat(rng.standard_normal(50)), flat(rng.standard_normal(50)), seed=i, n=200)["figures"][
            "accuracy@1"
        ]
        for i in range(300)
    ]
    assert 0.01 < np.mean([one["p"] <= 0.05 for one in said]) < 0.1


def test_p_values_at_the_ends():
    assert p_value(np.zeros(99)) == 1.0
    assert p_value(np.ones(99)) == pytest.approx(2 / 100)
    assert p_value(np.array([-1.0, 1.0, 1.0])) == 1.0


def test_both_directions_are_resampled_and_averaged():
    rng = np.random.default_rng(0)
    ids = [f"x{i}" for i in range(20)]
    score = PairTruth([(one, one) for one in ids]).scorer(ids, ids, Settings(bootstrap=0))
    q = rng.standard_normal((20, 6)).astype(np.float32)
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    noisy = [q + level * rng.standard_normal(q.shape).astype(np.float32) for level in (0.8, 0.2)]
    a, b = (score(q, x / np.linalg.norm(x, axis=1, keepdims=True)) for x in noisy)
    found = differences(a, b, seed=0, n=300)
    for name in ("r@1", "map"):
        ways = [found[way][name] for way in ("query_to_gallery", "gallery_to_query")]
        both = found["figures"][name]
        assert both["difference"] == pytest.approx(b.figures["mean"][name] - a.figures["mean"][name], abs=1e-12)
        assert both["ci95"] == pytest.approx(np.mean([one["ci95"] for one in ways], axis=0), abs=1e-9)
    assert "median_rank" not in found["figures"]
    assert found["figures"]["map"]["p"] < 0.05


def test_groups_are_resampled_apart():
    a = [{"r@1": np.zeros(5)}, {"r@1": np.zeros(50)}]
    b = [{"r@1": np.ones(5)}, {"r@1": np.zeros(50)}]
    one, two = (TaskScore({"r@1": mean}, {}, {"": parts}) for mean, parts in ((0.0, a), (0.5, b)))
    found = differences(one, two, seed=0, n=20)["figures"]["r@1"]
    assert (found["difference"], found["ci95"]) == (0.5, [0.5, 0.5])


def test_what_cannot_be_compared_is_told():
    three, four = flat(np.zeros(3)), flat(np.zeros(4))
    with pytest.raises(EvaluationError, match=r"scored on 3 and 4 items, since their encoders rejected others"):
        differences(three, four, seed=0, n=10)
    with pytest.raises(EvaluationError, match=r"scored on 1 and 0 groups"):
        differences(three, TaskScore({}), seed=0, n=10)
    with pytest.raises(EvaluationError, match=r"no figure that is a mean over items"):
        differences(TaskScore({}), TaskScore({}), seed=0, n=10)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Bridge]]:
    folder = tmp_path_factory.mktemp("world")
    texts = meanings(200, 1)
    clip = write_space(folder, "clip", 16, 101, {"text": ("t", texts), "image": ("i", meanings(50, 2))})
    clap = write_space(folder, "clap", 12, 102, {"text": ("t", texts), "audio": ("a", meanings(50, 3))})
    for modality, dim, seed in (("image", 16, 101), ("audio", 12, 102)):
        np.save(folder / f"{modality}.npy", contrastive(meanings(60, 9), dim, seed, 1))
    (folder / "ids.txt").write_text("".join(f"{i}\n" for i in range(60)))
    (folder / "pairs.csv").write_text("query_id,gallery_id\n" + "".join(f"{i},{i}\n" for i in range(60)))
    methods = ("ridge", "dictionary")
    return folder, {one: fit_closed_form_bridge(clip, clap, via="text", method=one) for one in methods}


def test_bridges_are_compared_on_a_benchmark(made: tuple[Path, dict[str, Bridge]], tmp_path: Path):
    folder, bridges = made
    # Imported files carry no encoder, so their space's name stands in; the world's spaces say who made them.
    options = {"query": "audio.npy", "query_encoder": "clap", "query_space": "clap", "query_ids": "ids.txt"}
    options |= {"gallery": "image.npy", "gallery_encoder": "clip", "gallery_space": "clip", "gallery_ids": "ids.txt"}
    table = {"task": "retrieval", "reader": "embeddings", "modalities": ["audio", "image"]}
    one = parse_benchmark({**table, "options": {**options, "pairs": "pairs.csv"}}, Path("mine.toml"))
    given = {"cache": tmp_path, "quiet": True, "bootstrap": 200, "force": True}
    found = compare_bridges(bridges["ridge"], bridges["dictionary"], one, folder, **given)
    figures = found["figures"]["map"]
    assert figures["b"] - figures["a"] == pytest.approx(figures["difference"])
    assert figures["ci95"][0] <= figures["difference"] <= figures["ci95"][1]
    assert (found["benchmark"], found["resamples"], found["n_pairs"]) == ("mine", 200, 60)
    same = compare_bridges(bridges["ridge"], bridges["ridge"], one, folder, **given)
    assert all(row["difference"] == 0.0 and row["p"] == 1.0 for row in same["figures"].values())
    with pytest.raises(EvaluationError, match=r"a comparison is a bootstrap test: bootstrap got 0"):
        compare_bridges(bridges["ridge"], bridges["ridge"], one, folder, cache=tmp_path, bootstrap=0)
