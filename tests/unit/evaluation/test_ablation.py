"""Grids: read, expanded, refused; tables against figures worked out here."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.errors import ConfigError, EvaluationError, FingerprintError, FormatError
from isthmus.evaluation.ablation.ablation_table import figure, tabulate, to_csv, to_markdown
from isthmus.evaluation.ablation.cells import cell_key, open_world
from isthmus.evaluation.ablation.estimate import estimate
from isthmus.evaluation.ablation.expand import expand
from isthmus.evaluation.ablation.grid import Grid, parse_grid, read_grid
from isthmus.recipes.extend import ExtendConfig
from worlds import three_spaces

ROOT = Path(__file__).resolve().parents[3]
EVALUATE = {"name": "own", "query": "clap.space/audio", "gallery": "clip.space/image", "pairs": "pairs.csv"}


def table(**more: Any) -> dict[str, Any]:
    return {
        "via": "text", "spaces": {"base": "clip.space", "leaf": "clap.space"}, "evaluate": [EVALUATE], **more,
    }  # fmt: skip


def grid(**more: Any) -> Grid:
    return parse_grid(table(**more))


# reading


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tabel": 1}, "unknown key 'tabel'.* Valid keys: title, spaces, method"),
        (
            {"spaces": {"base": "a", "leef": "b"}},
            r"unknown key 'spaces.leef'. Did you mean leaf\? Valid keys: base, leaf",
        ),
        (
            {"rows": [{"name": "a", "setings": {}}]},
            r"'rows.0.setings'. Did you mean settings\? Valid keys: table, name",
        ),
        ({"claims": [{"says": "a", "row": "b", "expect": "worse", "agianst": "c"}]}, "Did you mean against"),
        ({"rows": [{"name": "a", "expect": "wrose"}]}, "rows.0.expect' got 'wrose'"),
        ({"spaces": {"base": "a"}}, "lacks the key 'spaces.leaf'. Keys there: base, leaf"),
        ({"seeds": []}, "'seeds' got"),
        ({"seeds": [0, 0]}, "seeds must be different numbers from 0"),
        ({"evaluate": []}, "'evaluate' got"),
        ({"evaluate": [{**EVALUATE, "labels": "l.csv"}]}, r"needs gallery with pairs \(retrieval\), or classes with"),
        ({"evaluate": [{**EVALUATE, "metrics": ["mpa"]}]}, "metrics names 'mpa', expected some of map, r@1"),
        ({"evaluate": [EVALUATE, EVALUATE]}, r"two \[\[evaluate\]\] called 'own'"),
        ({"tolerance": -1}, "'tolerance' got -1"),
    ],
)
def test_a_grid_with_a_fault_is_refused(change: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        parse_grid(table(**change))


def test_a_file_is_named_in_the_fault(tmp_path: Path):
    (tmp_path / "g.toml").write_text("via = 'text'\ntabel = 1\n")
    with pytest.raises(ConfigError, match=r"--config .*g.toml has the unknown key 'tabel'"):
        read_grid(tmp_path / "g.toml")
    with pytest.raises(ConfigError, match="does not exist"):
        read_grid(tmp_path / "h.toml")


# expanding


def test_rows_stand_in_their_order_after_the_base_and_the_product_follows():
    rows = expand(
        grid(
            settings={"members": 1, "epochs": 4},
            rows=[{"table": "f_m", "name": "1", "settings": {"blocks": 1, "epochs": 2}}, {"name": "same"}],
            grid={"temperature": [0.02, 0.1], "centric": [["text"], ["text", "audio"]], "method": ["ex-mcr"]},
        )
    )
    assert [row.label for row in rows] == [
        "base",
        "f_m/1",
        "same",
        "grid/temperature 0.02, centric text, method ex-mcr",
        "grid/temperature 0.02, centric text+audio, method ex-mcr",
        "grid/temperature 0.1, centric text, method ex-mcr",
        "grid/temperature 0.1, centric text+audio, method ex-mcr",
    ]
    assert [row.config["epochs"] for row in rows] == [4, 2, 4, 4, 4, 4, 4]
    assert rows[0].config == rows[2].config
    expected = ExtendConfig(members=1, epochs=4, temperature=0.1, centric=("text", "audio"))
    assert rows[-1].config == {k: v for k, v in expected.model_dump(mode="json").items() if k != "seed"}


def test_a_row_of_another_method_inherits_the_settings_that_it_has():
    rows = expand(
        grid(
            settings={"epochs": 4, "align": ["leaf-base"]},
            rows=[
                {"name": "c", "method": "c-mcr", "settings": {"dim": 8}},
                {"name": "d", "method": "dictionary", "settings": {"center": "leaf"}},
            ],
        )
    )
    assert (rows[1].config["epochs"], rows[1].config["dim"]) == (4, 8)
    assert "align" not in rows[1].config
    assert rows[2].config["center"] == "leaf"
    assert "epochs" not in rows[2].config
    assert [row.trained for row in rows] == [True, True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"epoch": 1}}, r"row 'base' has the unknown setting 'epoch'. Did you mean epochs\?"),
        ({"rows": [{"name": "a", "settings": {"blocks": 99}}]}, "row 'a': config key 'blocks' got 99"),
        (
            {"rows": [{"name": "a", "method": "ridge", "settings": {"epochs": 1}}]},
            "unknown setting 'epochs'.* strength",
        ),
        ({"rows": [{"name": "a", "method": "ridge", "settings": {"center": "x"}}]}, "row 'a': center got 'x'"),
        ({"rows": [{"name": "a", "method": "ridge", "settings": {"dim": "x"}}]}, "row 'a': "),
        ({"method": "cmcr"}, r"unknown method 'cmcr'. Did you mean c-mcr\? Expected one of ex-mcr, c-mcr, dictionary"),
        ({"settings": {"seed": 1}}, r"sets seed. Seeds are those of the whole grid"),
        ({"rows": [{"name": "a"}, {"name": "a"}]}, "two rows are called 'a'"),
        ({"rows": [{"name": "base"}]}, "two rows are called 'base'"),
        ({"grid": {"blocks": []}}, r"\[grid\] gives no value for 'blocks'"),
        ({"grid": {"epochs": list(range(1, 400)), "blocks": list(range(300))}}, "119,701 rows over 3 seeds"),
        ({"rows": [{"name": "a", "on": "owm"}]}, r"row 'a' is about the unknown column 'owm'. Did you mean own map\?"),
        (
            {"claims": [{"says": "s", "row": "x", "expect": "same"}]},
            "claim 's' names the row 'x'. Expected one of base",
        ),
        (
            {"claims": [{"says": "s", "row": "base", "expect": "same", "on": "x"}]},
            "claim 's' is about the unknown column",
        ),
    ],
)
def test_rows_with_a_fault_are_refused(change: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        expand(grid(**change))


# keys


@pytest.fixture
def world_files(tmp_path: Path) -> Path:
    three_spaces(tmp_path, n=30)
    (tmp_path / "pairs.csv").write_text("query_id,gallery_id\na1,i1\na2,i3\n")
    return tmp_path


def keys(folder: Path, seed: int = 0, **settings: Any) -> str:
    declared = grid(settings=settings)
    return cell_key(expand(declared)[0], seed, open_world(declared, folder))


def test_a_key_is_of_all_that_figures_depend_on_and_of_nothing_else(world_files: Path):
    key = keys(world_files)
    assert keys(world_files) == key == keys(world_files, checkpoint_seconds=1.0, blocks=2)
    others = [keys(world_files, seed=1), keys(world_files, blocks=3), keys(world_files, noise_variance=0.004)]
    (world_files / "pairs.csv").write_text("query_id,gallery_id\na1,i1\na2,i4\n")
    others.append(keys(world_files))
    assert len({key, *others}) == 5


def test_another_row_in_a_space_is_another_key(world_files: Path, tmp_path_factory: pytest.TempPathFactory):
    from worlds import meanings, write_space

    key, other = keys(world_files), tmp_path_factory.mktemp("other")
    three_spaces(other, n=30)
    (other / "pairs.csv").write_bytes((world_files / "pairs.csv").read_bytes())
    assert keys(other) == key, "where a space lies is not what it is"
    import shutil

    shutil.rmtree(other / "clap.space")
    write_space(other, "clap", 20, 102, {"text": ("t", meanings(30, 1)), "audio": ("a", meanings(30, 7))})
    assert keys(other) != key


def test_a_world_that_does_not_fit_is_refused_before_training(world_files: Path):
    for change, fault, message in (
        (
            {"query": "ulip.space/point_cloud"},
            FingerprintError,
            "query 'ulip.space/point_cloud' is not of the encoder of",
        ),
        ({"query": "audio"}, ConfigError, "evaluate 'own': query got 'audio', expected SPACE/MODALITY"),
        ({"pairs": "nowhere.csv"}, FormatError, "no such file"),
    ):
        with pytest.raises(fault, match=message):
            open_world(grid(evaluate=[{**EVALUATE, **change}]), world_files)
    (world_files / "pairs.csv").write_text("query_id,gallery_id\na1,zebra\n")
    with pytest.raises(EvaluationError, match="zebra"):
        open_world(grid(), world_files)


# estimates


@pytest.mark.parametrize("method", ["ex-mcr", "c-mcr", "ridge"])
def test_an_estimate_measures_any_method(world_files: Path, method: str):
    made = grid(method=method, rows=[{"name": "large", "method": "ex-mcr", "settings": {"batch_size": 999}}])
    rows = expand(made)
    found = estimate(made, rows, open_world(made, world_files), {}, device="cpu")
    assert found["cells"] == {"all": 6, "found": 0, "left": 6}
    assert "90 pseudo pairs are too few for batches of 999" in found["rows"][1]["fault"]
    base = found["rows"][0]
    if method == "ridge":
        assert (base["steps"], found["pools"], found["seconds"]) == (0, 0, None)
    else:
        assert (base["pseudo_pairs"], found["pools"]) == (90, 3)
        assert base["steps"] > 0
        assert 0 < found["seconds"] < 600


def test_an_estimate_counts_pools_and_rows_of_equal_settings_once(world_files: Path):
    same = {"name": "same", "settings": {"blocks": 2}}
    tau = {"name": "tau", "settings": {"aggregation_temperature": 0.1, "centric": ["text"]}}
    made = grid(rows=[same, tau, {"name": "text", "settings": {"centric": ["text"], "blocks": 3}}])
    rows = expand(made)
    world = open_world(made, world_files)
    found = estimate(made, rows, world, {}, device="cpu")
    assert found["cells"] == {"all": 9, "found": 0, "left": 9}
    assert found["pools"] == 4
    finished = {cell_key(rows[0], seed, world): {} for seed in made.seeds}
    assert estimate(made, rows, world, finished, device="cpu")["cells"] == {"all": 9, "found": 3, "left": 6}


# the table

SCORES = {"base": (0.50, 0.52, 0.48), "a": (0.40, 0.43, 0.38), "b": (0.505, 0.52, 0.47), "ridge": (0.6, 0.6, 0.6)}


def cells(scores: dict[str, tuple[float | None, ...]], metric: str = "map") -> dict[tuple[str, int], dict[str, Any]]:
    found = {}
    for label, values in scores.items():
        for seed, value in enumerate(values):
            if value is not None:
                report = {"mean": {"map": 0.1, "r@1": 0.2, metric: value}}
                found[label, seed] = {"scores": {"own": report}, "steps": 7, "pseudo_pairs": 90, "batch_size": 4}
    return found


def declared(**more: Any) -> Grid:
    rows = [
        {"name": "a", "expect": "worse", "source": "section 9"},
        {"name": "b", "expect": "better"},
        {"name": "ridge", "method": "ridge", "expect": "same"},
    ]
    claim = {"says": "b beats a", "row": "b", "against": "a", "expect": "better"}
    return grid(**{"rows": rows, "claims": [claim], **more})


def report(scores: dict[str, tuple[float | None, ...]] = SCORES, **more: Any) -> dict[str, Any]:
    made = declared(**more)
    return tabulate(made, expand(made), cells(scores))


def test_differences_are_judged_by_the_deviation_of_all_trained_rows():
    found = report()
    base = np.array(SCORES["base"])
    differences = np.array([SCORES["a"], SCORES["b"]]) - base  # ridge is not trained, the base is itself
    noise = np.sqrt(differences.var(axis=1, ddof=1).mean())
    assert found["noise"]["own map"] == pytest.approx(noise, rel=1e-12)
    assert found["resolution"]["own map"] == pytest.approx(2 * noise / np.sqrt(3), rel=1e-12)
    by_name = {row["name"]: row for row in found["rows"]}
    for name, values in SCORES.items():
        score = by_name[name]["scores"]["own map"]
        assert score["mean"] == pytest.approx(np.mean(values), rel=1e-12)
        assert score["std"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
        assert score["difference"] == pytest.approx(np.mean(values) - base.mean(), abs=1e-12)
    told = {name: (row.get("verdict"), row.get("agrees")) for name, row in by_name.items()}
    assert told == {
        "base": (None, None),
        "a": ("worse", "yes"),
        "b": ("same", "not shown"),
        "ridge": ("better", "no"),
    }
    (claim,) = found["claims"]
    assert (claim["verdict"], claim["agrees"]) == ("better", "yes")
    assert claim["difference"] == pytest.approx(np.mean(SCORES["b"]) - np.mean(SCORES["a"]))


def test_a_tolerance_widens_what_is_the_same():
    found = report(tolerance=0.2)
    assert found["resolution"]["own map"] == 0.2
    assert [row.get("agrees") for row in found["rows"]] == [None, "not shown", "not shown", "yes"]


def test_one_seed_and_missing_seeds_judge_nothing():
    alone = report({name: values[:1] for name, values in SCORES.items()}, seeds=[0])
    assert alone["noise"] == {"own map": None, "own r@1": None}
    assert {row.get("agrees") for row in alone["rows"]} == {None}
    assert "nothing is judged" in to_markdown(alone)
    part = report({**SCORES, "b": (0.505, None, 0.47)})
    row = part["rows"][2]
    assert row["scores"]["own map"]["difference"] == pytest.approx((0.005 - 0.01) / 2)
    assert (row["scores"]["own map"]["verdict"], row["agrees"], part["claims"][0]["agrees"]) == (None, None, None)
    empty = report({"base": SCORES["base"]})
    assert empty["rows"][1]["scores"]["own map"] == {
        "mean": None, "std": None, "seeds": [None] * 3, "difference": None, "verdict": None,
    }  # fmt: skip


def test_a_lower_median_rank_is_better():
    made = declared(evaluate=[{**EVALUATE, "metrics": ["median_rank"]}])
    ranks = {"base": (9.0, 9.5, 9.0), "a": (20.0, 21.0, 20.0), "b": (3.0, 3.0, 4.0)}
    found = tabulate(made, expand(made), cells(ranks, "median_rank"))
    assert [row["scores"]["own median_rank"]["verdict"] for row in found["rows"][:3]] == ["same", "worse", "better"]


def test_a_failed_cell_is_told():
    made = declared()
    found = tabulate(made, expand(made), {**cells({"base": SCORES["base"]}), ("a", 0): {"fault": "too few pairs."}})
    assert found["rows"][1]["fault"] == "too few pairs."
    assert "a: too few pairs." in to_markdown(found)


def test_figures_of_all_kinds_of_reports():
    retrieval = {"mean": {"map": 0.3}, "query_to_gallery": {"map": 0.2}}
    assert (figure(retrieval, "map"), figure(retrieval, "query_to_gallery/map")) == (0.3, 0.2)
    assert figure({"accuracy@1": 0.7, "chance": {"accuracy@1": 0.1}}, "accuracy@1") == 0.7


def test_the_markdown_is_this():
    text = to_markdown(report(evaluate=[{**EVALUATE, "metrics": ["map"]}]))
    assert text.splitlines()[:10] == [
        "| what | changed to | own map | against the base | the papers say | agrees |",
        "| --- | --- | --- | --- | --- | --- |",
        "| - | base | 0.500 ± 0.020 | +0.000 |  |  |",
        "| - | a | 0.403 ± 0.025 | -0.097 | worse | yes |",
        "| - | b | 0.498 ± 0.026 | -0.002 | better | not shown |",
        "| - | ridge | 0.600 ± 0.000 | +0.100 | same | no |",
        "",
        "| the papers say | rows | difference | agrees |",
        "| --- | --- | --- | --- |",
        "| b beats a | b against a | +0.095 | yes |",
    ]
    assert "A difference counts above 0.008 (own map)" in text


def test_the_csv_holds_every_seed():
    lines = list(csv.DictReader(io.StringIO(to_csv(report()))))
    assert [line["name"] for line in lines] == ["base", "a", "b", "ridge"]
    for line in lines:
        assert tuple(float(line[f"own map seed {n}"]) for n in range(3)) == SCORES[line["name"]]
    assert (lines[1]["own map verdict"], lines[1]["expect"], lines[1]["agrees"]) == ("worse", "worse", "yes")


# the papers' grid


def test_the_papers_grid_has_every_ablation_of_the_paper():
    papers = read_grid(ROOT / "configs" / "ablations-paper.toml")
    rows = expand(papers)
    tables: dict[str, list[Any]] = {}
    for row in rows:
        tables.setdefault(row.table, []).append(row)
    pools = {tuple(sorted(row.config["centric"])) for row in tables["pseudo pairs start from"]}
    assert len(pools) == 6, "the seventh is the base"
    assert {row.config["blocks"] for row in tables["f_m"]} | {rows[0].config["blocks"]} == {0, 1, 2, 3, 4, 5}
    assert {row.config["leaf_layer"] for row in tables["f_l"]} == {"none", "mlp", "mlp2"}
    assert {"temperature of InfoNCE", "weight of the intra loss", "noise, as a cosine", "C-MCR"} <= set(tables)
    places = [papers.spaces.base, papers.spaces.leaf, *(task.query for task in papers.evaluate)]
    assert not any(Path(place).is_absolute() for place in places)
    assert len({(row.method, row.via, str(row.config)) for row in rows}) == len(rows), "two rows are the same"


def test_the_page_shows_a_grid_that_is_one():
    from isthmus.core.toml import parse_toml

    page = (ROOT / "docs" / "ablations.md").read_text(encoding="utf-8")
    shown = page.split("<!-- grid -->\n```toml\n")[1].split("```")[0]
    rows = expand(parse_grid(parse_toml(shown)))
    assert [row.label for row in rows][-1] == "grid/temperature 0.05, blocks 2"
    assert len(rows) == 7


# the scripts that run and show the papers' grid


def script(name: str) -> Any:
    import importlib.util

    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", ROOT / "bench" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_counts_the_statements_that_hold():
    render = script("render_results")
    done = {"cells": {"all": 12, "done": 12}, "cost": {"median_seconds": 8.25}}
    made = {**report(settings={"batch_size": 16}), **done}
    text = render.ablations(made)
    assert "Of 4 statements of the papers that are tried here, 2 hold, 1 are not shown, and 1 do not hold." in text
    assert "a cell took 8.2 s in the median. 12 of 12 cells are trained." in text
    part = {**report({"base": SCORES["base"], "a": SCORES["a"]}, settings={"batch_size": 16}), **done}
    assert "| ridge |" not in render.ablations(part)
    assert "b beats a" not in render.ablations(part)
    assert "is open" in render.ablations({**report({"base": (0.5,)}, settings={"batch_size": 16}, seeds=[0]), **done})


def test_names_are_true_where_the_label_is_among_their_synonyms():
    import pyarrow as pa

    texts = ["a photo of a cello", "the sound of violoncello, Cello", "a photo of a guinea pig", "cello (small)"]
    names = pa.table({"id": ["n0", "n1", "n2", "n3"], "text": texts})
    clips = [{"id": "c0", "label": "cello"}, {"id": "c1", "label": "pig"}]
    pairs = script("ablations").name_pairs(names, clips)
    assert pairs.to_pylist() == [{"query_id": "c0", "gallery_id": "n0"}, {"query_id": "c0", "gallery_id": "n1"}]
