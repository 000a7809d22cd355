"""The page of speeds says what result files hold, and nothing of what was not measured."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
ERRORS = {"mean": 0.001, "p99": 0.004, "max": 0.02, "min_cosine": 0.9987}
STEP = {
    "batch": 4096, "dim": 512, "seconds": {"plain": 5.0, "fused": 2.5}, "floor_seconds": 2.0, "plain_over_floor": 2.5,
}  # fmt: skip
RESULTS = {
    "aggregate": {
        "exact": {
            "queries": 20_000, "rows": 100_000, "dim": 512, "share_of_peak": 0.98, "plain_over_exact": 1.45,
            "extra_megabytes_with_result": 117.0, "exact_over_bf16": 1.84, "bf16": ERRORS, "bf16_products": "int16",
        },
        "sizes": [
            {"data": data, "rows": rows, "exact_us_per_query": rows / 9, "compressed_us_per_query": rows / 40}
            for data in ("real", "isotropic")
            for rows in (1000, 10_000)
        ],
        "tolerances": [
            {"data": data, "us_per_query": 90.0, "exact_us_per_query": 300.0, "errors": ERRORS,
             "report": {"used": "compressed" if data == "real" else "exact"}}
            for data in ("real", "isotropic")
        ],
        "directions": [
            {"direction": "text to image", "temperature": 0.01, "queries": 17427, "rows": 20000, "errors": ERRORS,
             "report": {"used": "compressed"}, "exact_over_compressed": 4.25}
        ],
        "sparse": [
            {"direction": "text to image", "mass": mass, "chosen": mass < 0.999, "max_k": 256, "rows_per_query": 25.0,
             "bytes_per_query": 104.0, "check": ERRORS, "gigabytes_for_the_papers": 1.12}
            for mass in (0.999, 0.99)
        ] + [
            {"pool": {
                "kinds": [
                    {"kind": "text", "queries": 17427, "bytes_per_query": 129.0, "take_seconds": 0.015,
                     "take_dense_seconds": 0.004, "papers_queries": 2_300_000, "gigabytes_as_here": 0.3,
                     "gigabytes_grown": 1.66,
                     "aggregations": [{"rows_per_query": r, "rows_grown": 5 * r} for r in (21.94, 8.33)]}
                ],
                "gigabytes_as_here": 0.67, "gigabytes_grown": 3.28, "gigabytes_dense_float16": 22.1,
            }}
        ],
    },
    "train_step": {
        "machine": {"bf16_gflops": 200.0, "float32_gflops": 100.0},
        "loss": {
            "plain_over": {"fused": 2.1, "16 bits or the same": 3.4},
            "gradients_apart": {"fused": 3e-7, "16 bits or the same": 4e-5},
        },
        "step": STEP,
        "small": STEP,
    },
    "end_to_end": {
        "rows": {
            "recipe": {"seconds": 110.0, "recipe_over_this": 1.0, "map": 0.449},
            "equal": {"seconds": 40.0, "recipe_over_this": 2.75, "map": 0.45},
        }
    },
}  # fmt: skip


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    monkeypatch.setattr(sys, "path", [str(ROOT / "bench"), *sys.path])
    import render_results
    import render_speed

    return render_speed, render_results


def test_the_page_says_what_the_files_hold(scripts: tuple[ModuleType, ModuleType]) -> None:
    speed, results = scripts
    page = speed.speed_page(RESULTS.get, results.table)
    for words in (
        "| text to image | 0.01 | 17,427 x 20,000 | compressed | 4.25 | 1.0e-03 | 4.0e-03 | 0.9987 |",
        "| 4,096 x 512 | fused | 2.500 | 2.00 | 80% |",
        "which here is 2.50 times the plain one",
        "2.10 times as fast in float32 (gradients apart by 3e-07), and 3.40 times as fast in bf16",
        "| bf16, times exact | 1.84 |",
        "the method multiplies 16-bit integers, by compiled loops",
        "| equal | 40.0 | 2.75 | 0.450 | +0.001 |",
        "| text to image | 0.999 | 256 | 25.0 | 104 | 4.0e-03 | 1.12 |",
        "| text to image | 0.99, chosen | 256 | 25.0 | 104 | 4.0e-03 | 1.12 |",
        "| text | 17,427 | 129 | 21.9, 8.3 | 15 (4 dense) | 2,300,000 | 0.30 | 110, 42 | 1.66 |",
        "**0.67 GB** with as many rows a query as here",
        "speed-size.svg",
        "speed-error.svg",
    ):
        assert words in page
    assert "Why not an index" not in page
    assert "The papers' text-image size" not in page
    assert speed.speed_page(lambda name: None, results.table) == speed.INTRO


def test_a_processor_without_bf16_shows_no_step_in_it(scripts: tuple[ModuleType, ModuleType]) -> None:
    speed, results = scripts
    found = {**RESULTS["train_step"], "machine": {"bf16_gflops": 10.0, "float32_gflops": 100.0}}
    page = speed.speed_page({**RESULTS, "train_step": found}.get, results.table)
    assert "since this processor has no bf16 instructions" in page
    assert "times as fast in bf16" not in page


def test_the_same_numbers_give_the_same_plots(scripts: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib: pip install 'isthmus[demo]'")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        scripts[0].write_plots(RESULTS.get, tmp_path / name)
    for stem in ("speed-size.svg", "speed-error.svg"):
        assert (tmp_path / "a" / stem).read_bytes() == (tmp_path / "b" / stem).read_bytes()
