"""Bootstrap intervals: seeded, of the right width, for several figures at once."""

from __future__ import annotations

import numpy as np
import pytest

from isthmus.errors import EvaluationError
from isthmus.metrics import bootstrap_ci, bootstrap_intervals


def test_equal_seeds_give_equal_intervals() -> None:
    values = np.random.default_rng(0).random(50)
    assert bootstrap_ci(values, seed=3) == bootstrap_ci(values, seed=3)
    assert bootstrap_ci(values, seed=3) != bootstrap_ci(values, seed=4)


def test_the_width_is_that_of_theory() -> None:
    values = np.random.default_rng(0).standard_normal(400)
    low, high = bootstrap_ci(values, n=4000)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.08)
    narrow = bootstrap_ci(values, n=4000, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_constant_values_have_no_width() -> None:
    assert bootstrap_ci(np.ones(10)) == (1.0, 1.0)


def test_figures_share_their_resamples() -> None:
    values = np.random.default_rng(0).random(30)
    both = bootstrap_intervals({"a": values, "b": 1 - values}, seed=0)
    assert both["a"] == pytest.approx(bootstrap_ci(values, seed=0))
    assert both["b"] == pytest.approx((1 - both["a"][1], 1 - both["a"][0]))


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"a": np.empty(0)}, {}, "at least one value"),
        ({"a": np.array([np.nan])}, {}, "no NaN"),
        ({"a": np.ones(2), "b": np.ones(3)}, {}, "same items"),
        ({}, {}, "same items"),
        ({"a": np.ones(2)}, {"n": 0}, "at least one resample"),
        ({"a": np.ones(2)}, {"level": 1.0}, r"level in \(0, 1\)"),
    ],
)
def test_faults(columns: dict[str, np.ndarray], options: dict[str, float], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        bootstrap_intervals(columns, **options)
