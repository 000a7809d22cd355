"""The page of quality says what result files hold, and says where the automatic choice was wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAIRS = ("audio > image", "image > audio")


@pytest.fixture(scope="module")
def render() -> ModuleType:
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        import render_quality
    finally:
        sys.path.remove(str(ROOT / "bench"))
    return render_quality


@pytest.fixture(scope="module")
def estimate() -> ModuleType:
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        import estimate
    finally:
        sys.path.remove(str(ROOT / "bench"))
    return estimate


def row(method: str, value: float, *, variant: str = "all", seed: int = 0, **more: Any) -> dict[str, Any]:
    scores = {pair: {"map": value, "r@1": value / 2, "r@5": value, "r@10": value} for pair in PAIRS}
    head = {"benchmark": "sound-picture", "variant": variant, "method": method, "seed": seed, "map": value}
    return {**head, "scores": scores, "seconds": 2.0, "estimate": {"map": 0.4}, **more}


def table(head: list[str], rows: list[list[str]]) -> str:
    assert all(len(cells) == len(head) for cells in rows)
    return "\n".join("|".join(cells) for cells in [head, *rows]) + "\n"


def test_auto_is_wrong_below_98_percent_of_the_best_or_below_the_second_best(render: ModuleType):
    rows = [row("posterior", 0.50), row("cca", 0.30), row("auto", 0.495)]
    rows += [row(method, value, seed=1) for method, value in {"posterior": 0.5, "cca": 0.3, "auto": 0.48}.items()]
    rows += [row(method, value, seed=2) for method, value in {"posterior": 0.5, "cca": 0.498, "auto": 0.495}.items()]
    rows += [row(method, value, seed=3) for method, value in {"posterior": 0.5, "auto": 0.1}.items()]
    judged = {one["seed"]: one["wrong"] for one in render.wrong(rows)}
    assert judged == {0: False, 1: True, 2: True}, "one method alone judges nothing"


def test_the_page_names_every_method_overlap_and_fault(render: ModuleType):
    kept = {"kept": {"sound: audio > text": {"before": 0.5, "after": 0.45, "kept": 0.9}}}
    rows = [row("posterior", 0.5, **kept), row("cca", 0.3), row("auto", 0.31), row("ceiling", 0.55, seconds=None)]
    rows += [row(method, 0.2, variant="vocabulary", seed=seed) for method in ("cca", "auto") for seed in (0, 1)]
    record = {"commit": "abc", "date": "2026-11-28", "machine": {"cores": 2, "processor": "x"}}
    found = {"record": {**record, "versions": {"python": "3.11", "torch": "2"}}, "rows": rows}
    page = render.quality_page({"quality": found}.get, table)
    for word in ("`posterior`", "ceiling", "sound 90%", "the vocabulary alone", "0.200 ± 0.000", "audio > image: mAP"):
        assert word in page
    assert "in 0" in page, "auto at .31 of .50 is wrong"
    assert "sound-picture|all texts|0|0.310|0.500 (posterior)|62%|no" in page


def test_nothing_is_said_of_what_was_not_measured(render: ModuleType):
    page = render.quality_page(lambda name: None, table)
    assert page.startswith("# Quality")
    assert "auto" not in page


def test_ranks_and_flags(estimate: ModuleType):
    rows = [
        {"benchmark": name, "variant": "texts", "damage": "", "map": value, "expected": value**2}
        for name in ("sound-picture", "shape-picture")
        for value in (0.1, 0.2, 0.3, 0.4)
    ]
    ranks = estimate.ranks([*rows, {**rows[0], "variant": "captions", "expected": 1.0}])
    assert ranks["all"]["bridges"] == 9
    assert ranks["all but captions alone"] == {"bridges": 8, "spearman": pytest.approx(1.0)}
    flags = estimate.flags([{"damage": "", "verdict": "good"}, {"damage": "shuffled", "verdict": "broken"}])
    assert (flags["healthy"]["flagged"], flags["shuffled"]["flagged"]) == (0, 1)


def test_damage_leaves_what_it_says(estimate: ModuleType):
    rng = np.random.default_rng(0)
    rows = (1.0 + rng.normal(size=(400, 16))).astype(np.float32)
    half = estimate.damage(rows, "half shuffled", np.random.default_rng(1))
    assert 190 <= int((half == rows).all(axis=1).sum()) <= 210
    assert sorted(map(tuple, half)) == sorted(map(tuple, rows)), "shuffled, not changed"
    collapsed = estimate.damage(rows, "collapsed", np.random.default_rng(1))
    assert float((collapsed @ collapsed.T).min()) > 0.99
    foreign = estimate.damage(rows, "foreign", np.random.default_rng(1))
    assert foreign.shape == rows.shape
    cosines = (foreign * rows).sum(axis=1) / np.linalg.norm(rows, axis=1)
    assert abs(float(cosines.mean())) < 0.9
