"""The choice between candidates, and the weight of a description: what estimates cannot tell apart is a tie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.worlds import three_spaces

import isthmus
from isthmus.recipes.posterior.auto import Candidate, choose
from isthmus.recipes.posterior.description import WEIGHTS, choose_weight
from isthmus.recipes.posterior.estimate import Figure, ahead, average_precisions, figure

CCA = float("inf")


def figure_of(value: float, spread: float = 0.0, seed: int = 0) -> Figure:
    """40 clusters about a value."""
    clusters = value + spread * np.random.default_rng(seed).standard_normal(40)
    return Figure(float(clusters.mean()), clusters.astype(np.float32))


def candidate(weight: float, uncovered: float, covered: float, *, spread: float = 0.0, seed: int = 0) -> Candidate:
    return Candidate(weight, figure_of(uncovered, spread, seed), figure_of(covered, spread, seed + 1))


def test_the_better_of_two_alone_is_taken():
    worse, better = candidate(0.0, 0.6, 0.60), candidate(CCA, 0.9, 0.58)
    chosen, record = choose([worse, better])
    assert chosen is better
    assert record["method"] == "cca"
    assert record["tied"] == []
    assert record["sure"] == 1.0
    assert record["cca_weight"] is None


def test_what_draws_cannot_tell_apart_is_a_tie_and_the_simpler_wins():
    # Clusters differ by a half, the two recipes by a hundredth.
    simple, other = candidate(0.0, 0.5, 0.5, spread=0.2, seed=1), candidate(CCA, 0.51, 0.51, spread=0.2, seed=5)
    chosen, record = choose([simple, other])
    assert chosen is simple
    assert record["tied"] == ["cca"]
    assert record["sure"] is None


@pytest.mark.parametrize(
    ("uncovered", "covered", "taken"),
    [(0.50, 0.50, True), (0.60, 0.40, False), (0.40, 0.60, False), (0.45, 0.45, False)],
)
def test_a_sum_must_be_better_by_either_estimate(uncovered: float, covered: float, taken: bool):
    alone, worse = candidate(0.0, 0.45, 0.45), candidate(CCA, 0.2, 0.2)
    both = candidate(0.5, uncovered, covered)
    chosen, _ = choose([alone, worse, both])
    assert (chosen is both) == taken


def test_one_candidate_is_chosen_for_want_of_others():
    only = candidate(3.0, 0.2, 0.2)
    assert choose([only])[0] is only


def test_ahead_is_one_half_for_noise_and_one_for_a_plain_gain():
    one, other = figure_of(0.5, 0.2, 1), figure_of(0.5, 0.2, 2)
    assert 0.05 < ahead([one], [other]) < 0.95
    # The same clusters, each a hundredth better: a paired gain is sure, however much clusters differ.
    gain = Figure(one.value + 0.01, one.clusters + np.float32(0.01))
    assert ahead([gain], [one]) == 1.0
    assert ahead([one], [gain]) == 0.0


def test_the_smallest_weight_that_the_best_does_not_beat_is_taken():
    def tried(*both: float) -> list[Candidate]:
        return [candidate(weight, value, value) for weight, value in zip(WEIGHTS, both, strict=True)]

    assert choose_weight(tried(0.5, 0.4, 0.3, 0.2, 0.1)) == 0.0
    assert choose_weight(tried(0.3, 0.4, 0.5, 0.4, 0.1)) == 0.25
    noisy = [candidate(weight, 0.5, 0.5, spread=0.2, seed=3 * n) for n, weight in enumerate(WEIGHTS)]
    assert choose_weight(noisy) == 0.0


def test_average_precision_by_hand_and_ties_rank_behind():
    relevant = np.array([[True, False, True, False]])
    assert average_precisions(np.array([[4.0, 3.0, 2.0, 1.0]]), relevant) == pytest.approx([(1 + 2 / 3) / 2])
    assert average_precisions(np.zeros((1, 4)), relevant) == pytest.approx([(1 / 3 + 2 / 4) / 2])


def test_a_figure_is_the_mean_of_both_directions_and_its_clusters_share_it():
    scores = np.array([[3.0, 1.0], [2.0, 4.0], [5.0, 0.0]], np.float32)
    relevant = np.array([[True, False], [False, True], [False, True]])
    found = figure(scores, np.array([0, 0, 1]), relevant)
    rows, columns = average_precisions(scores, relevant), average_precisions(scores.T, relevant.T)
    assert found.value == pytest.approx((rows.mean() + columns.mean()) / 2)
    assert found.clusters[0] / found.clusters[1] == pytest.approx(rows[:2].mean() / rows[2])


def test_a_description_leaves_the_base_bit_for_bit_and_says_its_weight(tmp_path: Path):
    clip, clap, _ = three_spaces(tmp_path, 300)
    config = {"epochs": 2, "batch_size": 64}
    plain = isthmus.extend(clip, clap, via="text", config={**config, "description": 0.0}, quiet=True)
    chosen = isthmus.extend(clip, clap, via="text", config=config, quiet=True)
    described = isthmus.extend(clip, clap, via="text", config={**config, "description": 0.5}, quiet=True)
    for bridge in (chosen, described):
        assert bridge.routes["clip/image"] == plain.routes["clip/image"]
        for modality in ("image", "text"):
            x = np.asarray(clip[modality])
            one, other = (b.project(x, space="clip", modality=modality) for b in (plain, bridge))
            assert one.tobytes() == other.tobytes()
    assert "description" not in plain.record
    assert set(chosen.record["description"]["covered"]) == {f"{weight:g}" for weight in WEIGHTS}
    assert chosen.record["description"]["weight"] in WEIGHTS
    assert described.record["description"]["weight"] == 0.5
    sound = np.asarray(clap["audio"])
    moved = described.project(sound, space="clap", modality="audio")
    assert not np.allclose(moved, plain.project(sound, space="clap", modality="audio"), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1.0, atol=1e-5)
    described.save(tmp_path / "b.bridge")
    again = isthmus.load_bridge(tmp_path / "b.bridge").project(sound, space="clap", modality="audio")
    np.testing.assert_allclose(again, moved, atol=1e-6)
