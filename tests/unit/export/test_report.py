"""The report: what it says is what was scored, it holds everything, and nothing of a file gets out of its words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus import connect, evaluate_bridge, extend, make_space
from isthmus.errors import ConfigError
from isthmus.export.report import ReportTask, report
from isthmus.export.report.collect import joined_pairs
from isthmus.export.report.examples import best_and_worst, confusions, first_ranks, hubs
from isthmus.export.report.write import chosen_rows, estimate_words
from worlds import three_spaces

NASTY = "<script>alert(1)</script> | `x` \x1b[31m"


@pytest.fixture(scope="module")
def bridge_and_task(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ReportTask]:
    folder = tmp_path_factory.mktemp("report")
    first, second, _ = three_spaces(folder)
    bridge = extend(base=first, leaf=second, via="text", method="procrustes")
    texts = first["text"]
    return bridge, ReportTask(second["text"], texts, [(name, name) for name in texts.ids])


def test_figures_are_those_of_evaluate(bridge_and_task: Any, tmp_path: Path):
    bridge, task = bridge_and_task
    told: Any = evaluate_bridge(bridge, query=task.query, gallery=task.gallery, pairs=task.pairs)
    figures = told if isinstance(told, dict) else told.to_dict()
    for suffix in (".html", ".md"):
        text = report(bridge, [task], out=tmp_path / f"r{suffix}").read_text()
        assert f"{figures['mean']['map']:.3f}" in text
        low, high = figures["query_to_gallery"]["r@1_ci95"]
        assert f"({low:.3f} to {high:.3f})" in text
        assert bridge.method in text


def test_it_asks_nothing_of_a_network(bridge_and_task: Any, tmp_path: Path):
    text = report(*bridge_and_task[:1], [bridge_and_task[1]], out=tmp_path / "r.html").read_text()
    assert re.findall(r"(?:src|href)=\"(?!data:)", text) == []
    assert "http://" not in text
    assert "https://" not in text
    assert "default-src 'none'" in text


def test_words_of_files_stay_words(tmp_path: Path):
    rng = np.random.default_rng(0)
    ids = [f"{NASTY}{i}" for i in range(30)]
    spaces = [
        make_space(tmp_path / name, {"text": (ids, rng.normal(size=(30, 8)).astype(np.float32))}) for name in ("a", "b")
    ]
    bridge = extend(base=spaces[0], leaf=spaces[1], via="text", method="procrustes")
    task = ReportTask(spaces[1]["text"], spaces[0]["text"], [(name, name) for name in ids])
    html = report(bridge, [task], out=tmp_path / "r.html").read_text()
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html
    rows = [line for line in report(bridge, [task], out=tmp_path / "r.md").read_text().splitlines() if "alert" in line]
    assert rows
    assert all(" | `x`" not in line for line in rows)


def test_a_file_is_replaced_only_where_it_is_a_report_and_that_was_asked_for(bridge_and_task: Any, tmp_path: Path):
    bridge, _ = bridge_and_task
    out = report(bridge, out=tmp_path / "r.html")
    with pytest.raises(ConfigError, match=r"r\.html: exists already\. Give another path, or overwrite it"):
        report(bridge, out=out)
    assert report(bridge, out=out, overwrite=True) == out
    thesis = tmp_path / "thesis.md"
    thesis.write_text("# My thesis")
    with pytest.raises(ConfigError, match="is no file that isthmus wrote, so it is not overwritten"):
        report(bridge, out=thesis, overwrite=True)
    assert thesis.read_text() == "# My thesis"
    # A link is followed: the report that it leads to is replaced, and the link stays one.
    link = tmp_path / "link.html"
    link.symlink_to(out)
    out.write_text(out.read_text().replace("</html>", "<!-- old --></html>"))
    report(bridge, out=link, overwrite=True)
    assert link.is_symlink()
    assert "<!-- old -->" not in out.read_text()
    with pytest.raises(ConfigError, match=r"Expected a name that ends in \.html or \.md"):
        report(bridge, out=tmp_path / "r.pdf")


def test_it_says_why_and_what_is_to_be_expected(bridge_and_task: Any, tmp_path: Path):
    bridge, task = bridge_and_task
    estimate = bridge.record["estimate"]
    low, high = estimate["map_ci95"]
    for suffix in (".html", ".md"):
        text = report(bridge, [task], out=tmp_path / f"r{suffix}", name="mine").read_text()
        assert estimate["verdict"] in text
        expected = f"never trained: {estimate['map']:.3f}, 95 % interval {low:.3f} to {high:.3f}."
        assert expected in text
        assert "mine" in text.split("\n\n")[0] if suffix == ".md" else "<h1>mine</h1>" in text
    # The texts of the surest answers match by themselves.
    found = re.findall(r"- (t\d+): \1 .*; by (t\d+) \((\d+) %\)", text)
    assert found
    assert all(name == reason for name, reason, _ in found)


def test_spaces_that_were_joined_are_read_from_the_record(tmp_path: Path):
    first, second, third = three_spaces(tmp_path, 100)
    two = extend(base=first, leaf=second, via="text", method="procrustes", estimate=False)
    both = extend(base=two, leaf=third, via="image", method="procrustes", estimate=False)
    expected = {("clip", "clap"): ["text"], ("clip", "ulip"): ["image"]}
    assert joined_pairs(both) == expected
    settings = {"concept_items": 10, "dim": 32, "agreement": False}
    vias = ["clip,clap:text", "clip,ulip:image"]
    assert joined_pairs(connect(first, second, third, via=vias, method="cca", **settings)) == expected


def test_ranks_count_ties_behind():
    scores = np.array([[0.9, 0.9, 0.1], [0.2, 0.5, 0.4], [0.1, 0.2, 0.3]])
    assert first_ranks(scores, [{0}, {1}, set()]).tolist() == [2, 1, 0]
    assert first_ranks(scores, [{0, 1}, {2}, {0}]).tolist() == [1, 2, 3]


def test_best_lead_by_the_most_and_worst_stand_last():
    scores = np.array([[0.9, 0.0, 0.0], [0.0, 0.5, 0.4], [0.9, 0.8, 0.1], [0.0, 0.9, 0.2]])
    best, worst = best_and_worst(scores, [{0}, {1}, {2}, {2}])
    assert best == [0, 1]
    assert worst == [2, 3]


def test_hubs_are_counted_with_the_skewness_of_all_counts():
    scores = np.zeros((20, 40))
    scores[:, 0] = 1.0
    for row in range(20):
        scores[row, [(row * 2 + i) % 39 + 1 for i in range(9)]] = 0.5
    found, skew = hubs(scores)
    assert found[0] == (0, 20)
    counts = np.zeros(40)
    for row in range(20):
        counts[np.argsort(-scores[row], kind="stable")[:10]] += 1
    assert skew == pytest.approx(float((((counts - counts.mean()) / counts.std()) ** 3).mean()))


def test_confusions_are_of_items_of_one_class():
    scores = np.array([[0.1, 0.9], [0.2, 0.8], [0.9, 0.1], [0.1, 0.9]])
    assert confusions(scores, [{0}, {0}, {1}, {0, 1}]) == [(0, 1, 2), (1, 0, 1)]


@pytest.mark.parametrize("given", [None, 3, "x", [1], {"candidates": None}])
def test_what_was_chosen_may_be_unrecorded(given: Any):
    assert chosen_rows(given) == []


def test_what_was_left_out_and_matched_anew_is_said():
    assert estimate_words({"map": 0.5, "dropped": 1, "rematched": 8356}) == [
        "Expected mAP of pairs that were never trained: 0.500.",
        "1 shared item was left out: its neighbours in the two spaces have nothing in common.",
        "8,356 shared items were matched anew by what they mean, as their ids were wrong.",
    ]


def test_candidates_become_rows():
    assert chosen_rows({"candidates": {"cca": 0.3, "mix": {"uncovered": 0.5}}}) == [
        {"method": "cca", "estimate": 0.3},
        {"method": "mix", "uncovered": 0.5},
    ]
