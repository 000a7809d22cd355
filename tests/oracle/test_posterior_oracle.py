"""Posteriors written down slowly, in float64 and one item at a time, against the model and against its routes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.worlds import three_spaces

from isthmus.bridges.routes import apply_route
from isthmus.recipes.posterior.concepts import spherical_kmeans, sum_by
from isthmus.recipes.posterior.config import posterior_config
from isthmus.recipes.posterior.join import join, read_vias
from isthmus.recipes.posterior.joint import Joint
from isthmus.recipes.posterior.members import gather
from isthmus.recipes.posterior.model import Model, fit_model
from isthmus.recipes.posterior.routes import write_posterior
from isthmus.recipes.posterior.support import support

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Joint:
    clip, clap, _ = three_spaces(tmp_path_factory.mktemp("world"), 200)
    return gather([clip, clap], read_vias([clip, clap], "text"), memory_rows=150, seed=0)


def model_of(joint: Joint, **settings: object) -> Model:
    return fit_model(joint, posterior_config({"concept_items": 10, "dim": 400, **settings}))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x)


def slow_posterior(x: np.ndarray, items: np.ndarray, tau: float, bias: np.ndarray) -> np.ndarray:
    logits = [float(x @ item) / tau + float(b) for item, b in zip(items.astype(np.float64), bias, strict=True)]
    weights = np.exp(np.array(logits) - max(logits))
    return weights / weights.sum()


def slow_denoise(x: np.ndarray, memory: np.ndarray, k: int, weight: float) -> np.ndarray:
    order = sorted(range(len(memory)), key=lambda i: -float(x @ memory[i]))
    return unit(x + weight * unit(np.mean([memory[i] for i in order[:k]], axis=0)))


def slow_support(items: np.ndarray, memory: np.ndarray, k: int) -> np.ndarray:
    return np.array([np.mean(sorted((float(t @ m) for m in memory), reverse=True)[:k]) for t in items])


def slow_score(model: Model, x: np.ndarray, y: np.ndarray) -> float:
    """The score of an image and a sound by posterior.md's recipe, steps 2 to 7."""
    ends = []
    for n, (name, row) in enumerate((("image", x), ("audio", y))):
        member = model.joint.members[n]
        memory = member.memories[name].rows.astype(np.float64)
        items = model.keys[n].astype(np.float64)
        bias = 6.0 * slow_support(member.items.astype(np.float64), memory, 5)
        row = slow_denoise(row.astype(np.float64), memory, 20, 0.5)
        ends.append((row, slow_posterior(row, items, 0.05, bias), slow_posterior(row, items, 0.03, bias), items))
    (x, p, p3, b), (y, q, q3, a) = ends
    mix = sum(p[t] * q[t] for t in range(len(p)))
    bag = 0.0
    for numbers in model.concepts:
        for c in set(numbers.tolist()):
            bag += p[numbers == c].sum() * q[numbers == c].sum()
    two = x @ unit(q3 @ b) + unit(p3 @ a) @ y
    return float(sum(part / model.scales[name][1] for name, part in (("mix", mix), ("bag", bag), ("two", two))))


def test_the_vector_scores_as_the_recipe_written_down(joint: Joint):
    model = model_of(joint, size="full")
    written = write_posterior(model, 0.0)
    x, y = joint.members[0].memories["image"].rows[:6], joint.members[1].memories["audio"].rows[:5]
    means = joint.members[0].memories["image"].mean, joint.members[1].memories["audio"].mean
    # Routes start from rows as their encoder made them; centring is undone for rows that are centred already.
    ends = [
        apply_route(written.routes[key][3:], written.arrays, rows)
        for key, rows in (("clip/image", x), ("clap/audio", y))
    ]
    assert means[0].shape == (24,)
    got = ends[0] @ ends[1].T * written.record["length"] ** 2
    expected = np.array([[slow_score(model, one, other) for other in y] for one in x])
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(np.concatenate(ends), axis=1), 1.0, atol=1e-5)


def test_a_compact_posterior_of_all_directions_is_the_full_one(joint: Joint):
    ends = {}
    for size in ("compact", "full"):
        written = write_posterior(model_of(joint, size=size), 0.0)
        x, y = joint.members[0].memories["image"].rows[:40], joint.members[1].memories["audio"].rows[:40]
        routes = written.routes["clip/image"][3:], written.routes["clap/audio"][3:]
        u, v = (apply_route(route, written.arrays, rows) for route, rows in zip(routes, (x, y), strict=True))
        ends[size] = u @ v.T * written.record["length"] ** 2
    np.testing.assert_allclose(ends["compact"], ends["full"], rtol=0.02, atol=0.05)


def test_support_is_the_mean_of_the_largest_cosines():
    rng = np.random.default_rng(0)
    items, memory = rng.standard_normal((9, 4)).astype(np.float32), rng.standard_normal((30, 4)).astype(np.float32)
    np.testing.assert_allclose(support(items, memory, 5), slow_support(items, memory, 5), rtol=1e-5)


def test_sums_by_concept_are_sums():
    rng = np.random.default_rng(1)
    p, numbers = rng.random((3, 12)).astype(np.float32), rng.integers(0, 4, 12)
    expected = np.stack([p[:, numbers == c].sum(axis=1) for c in range(4)], axis=1)
    np.testing.assert_allclose(sum_by(p, numbers, 4), expected, rtol=1e-6)


def test_clusters_far_apart_are_found():
    rng = np.random.default_rng(2)
    truth = np.repeat(np.arange(4), 25)
    x = np.eye(4, 6)[truth] + 0.05 * rng.standard_normal((100, 6))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    found = spherical_kmeans(x, 12, steps=5, seed=0)
    # Twelve clusters of four groups: none of them mixes two.
    assert all(len(set(truth[found == c])) == 1 for c in set(found.tolist()))


def test_cca_of_two_spaces_is_hotellings(tmp_path: Path):
    clip, clap, _ = three_spaces(tmp_path, 200)
    joint = gather([clip, clap], read_vias([clip, clap], "text"), memory_rows=150, seed=0)
    model = model_of(joint)
    x, y = (member.items.astype(np.float64) for member in joint.members)

    def whitening(rows: np.ndarray) -> np.ndarray:
        covariance = rows.T @ rows / len(rows)
        values, vectors = np.linalg.eigh(covariance + np.trace(covariance) / len(covariance) * np.eye(len(covariance)))
        return vectors / np.sqrt(values) @ vectors.T

    u, s, vt = np.linalg.svd(whitening(x) @ (x.T @ y / len(x)) @ whitening(y), full_matrices=False)
    ends = (x @ whitening(x) @ u * s), (y @ whitening(y) @ vt.T * s)
    expected = (ends[0] / np.linalg.norm(ends[0], axis=1, keepdims=True)) @ (
        ends[1] / np.linalg.norm(ends[1], axis=1, keepdims=True)
    ).T
    got = model.canonical.carry(0, joint.members[0].items) @ model.canonical.carry(1, joint.members[1].items).T
    np.testing.assert_allclose(got, expected, atol=2e-3)


@pytest.mark.parametrize("method", ["posterior", "cca"])
@pytest.mark.parametrize("size", ["compact", "sparse", "full"])
def test_three_spaces_join_and_find_their_items(tmp_path: Path, method: str, size: str):
    spaces = three_spaces(tmp_path, 200)
    bridge = join(
        spaces,
        via=["clip,clap:text", "clip,ulip:image"],
        method=method,
        settings={"size": size, "dim": 64, "concept_items": 10},
    )
    texts = [bridge.project(space["text"]) for space in spaces[:2]]
    scores = texts[0] @ texts[1].T
    assert (scores.argmax(axis=1) == np.arange(200)).mean() > 0.5
    assert set(bridge.routes) == {
        "clip/image",
        "clip/text",
        "clap/audio",
        "clap/text",
        "ulip/image",
        "ulip/point_cloud",
    }
    bridge.save(tmp_path / "x.bridge")
