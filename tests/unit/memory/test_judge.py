"""The judge of approximate aggregation: every bound refuses by itself, and the sample is drawn from all queries."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from isthmus.memory import method
from isthmus.memory.matrix import MatrixReader

GOOD = {"queries": 256, "mean": 0.001, "p99": 0.004, "max": 0.005, "min_cosine": 0.9999}


def judged(monkeypatch: pytest.MonkeyPatch, check: dict[str, Any], allowed: float = 1.0) -> str | None:
    """What a judge with a tolerance of 0.01 says of these figures."""
    judge = object.__new__(method._Judge)
    judge.work = judge.sample = None  # type: ignore[assignment]
    judge.tolerance, judge.seed, judge._exact = 0.01, 0, []
    monkeypatch.setattr(method, "compare", lambda results, exact: dict(check))
    sums: Any = lambda work, sample: SimpleNamespace(finish=lambda: [])  # noqa: E731
    return judge.reason_against(method._Trial("compressed", sums, {}, allowed=allowed), {})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"mean": 0.011}, "mean relative error 0.011"),
        ({"p99": 0.011}, "99th percentile of the relative error 0.011"),
        ({"min_cosine": 0.98}, "smallest cosine 0.9800, under 0.99"),
    ],
)
def test_each_bound_refuses_by_itself(monkeypatch, change: dict[str, float], reason: str | None) -> None:
    found = judged(monkeypatch, {**GOOD, **change})
    assert found is None if reason is None else reason in str(found)


def test_a_trial_may_have_a_share_of_the_tolerance(monkeypatch) -> None:
    assert judged(monkeypatch, GOOD, allowed=0.5) is None
    assert "99th percentile" in str(judged(monkeypatch, GOOD, allowed=0.3))


def test_errors_are_relative_and_of_the_worst_result() -> None:
    rng = np.random.default_rng(0)
    exact = [torch.from_numpy(rng.standard_normal((200, 8))) for _ in range(2)]
    mine = [exact[0].clone(), exact[1].clone()]
    mine[1][3] *= -1.0
    mine[0][7] *= 1.5
    mine[1][7] *= 1.2
    errors = np.zeros(200)
    errors[3], errors[7] = 2.0, 0.5
    found = method.compare(mine, exact)
    assert found["queries"] == 200
    assert found["mean"] == pytest.approx(errors.mean())
    assert found["p99"] == pytest.approx(np.percentile(errors, 99))
    assert found["max"] == pytest.approx(2.0)
    assert found["min_cosine"] == pytest.approx(-1.0)


def test_the_sample_is_drawn_from_all_queries() -> None:
    """The first queries may all be of one kind: what holds for them says nothing of the others."""
    angles = np.linspace(0.0, 3.0, 4000)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    queries = MatrixReader(circle, torch.device("cpu"), unit=True, name="queries")
    samples = []
    for seed in (0, 1):
        judge = method._Judge(None, queries, 0.01, seed)  # type: ignore[arg-type]
        samples.append(np.arctan2(*judge.sample.numpy().T[::-1]))
        assert len(set(samples[-1])) == len(samples[-1]) == method.CHECKED
        assert (np.histogram(samples[-1], bins=4, range=(0.0, 3.0))[0] > method.CHECKED // 8).all()
    assert set(samples[0]) != set(samples[1])
