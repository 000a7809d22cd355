"""Write the tables of docs/results.md and of the README from the result files beside this script.

python bench/render_results.py            write
python bench/render_results.py --check    fail where a page is not what the result files say
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.evaluation.ablation.ablation_table import to_markdown

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MARKS = ("<!-- results -->\n", "<!-- /results -->")
METHODS = {"ex-mcr": "Ex-MCR, trained", "c-mcr": "C-MCR, trained"}
DEFAULTS = {"auto": "`connect`, the default", "extend": "`extend`, the default"}
BASELINES = {
    "random": "random",
    "raw": "raw cross-space",
    "mean_offset": "mean offset",
    "procrustes": "Procrustes",
    "ridge": "ridge",
    "cca": "CCA",
    "dictionary": "dictionary, one-sided",
    "dictionary_two_sided": "dictionary, two-sided",
}


def load(name: str) -> dict[str, Any] | None:
    """A result file, or None where it was not made yet."""
    path = HERE / "results" / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def summary(suite: dict[str, Any]) -> str:
    """Bridges beside the papers' recipes and the best that needs no training."""
    rows = []
    today = (load("quality") or {"rows": []})["rows"]
    for name in ("sound-picture", "shape-picture"):
        if name not in suite["reports"]:
            continue
        for method, words in DEFAULTS.items():
            of = [
                row["map"]
                for row in today
                if (row["benchmark"], row["variant"], row["method"]) == (name, "all", method)
            ]
            if of:
                spread = f" ± {np.std(of):.3f}" if len(of) > 1 else ""
                rows.append([name, words, f"{np.mean(of):.3f}{spread}", "-", "-"])
        told = suite["reports"][name]["rows"]
        simple = max((row for row in told if row["kind"] == "baseline" and "map" in row), key=lambda row: row["map"])
        for method, words in METHODS.items():
            ours = next(row for row in told if row["kind"] == "bridge" and "seeds" in row and method in row["name"])
            papers = next((row for row in told if row["name"] == f"{method} (paper)" and "map" in row), None)
            best = f"{simple['map']:.3f} ({row_name(simple['name'])})"
            printed = preset_figure(name, method) or (figure(papers) if papers else "-")
            rows.append([name, words, figure(ours), printed, best])
    return table(["benchmark", "method", "isthmus, mAP", "`--preset paper`, mAP", "best without training"], rows)


PRESET = {"ex-mcr": "extend", "c-mcr": "connect"}
"""Verbs by method, as `bench/paper_preset.py` names its rows."""


def preset_figure(benchmark: str, method: str) -> str | None:
    """Mean average precision of `--preset paper` over its seeds, where it was measured beside the literal recipe."""
    rows = (load("paper_preset") or {"rows": {}})["rows"]
    row = rows.get(f"{PRESET[method]} {benchmark.partition('-')[0]}, batch 1024: preset")
    return spread(row) if row else None


def spread(row: dict[str, Any]) -> str:
    """Mean, deviation and number of seeds."""
    seeds = len(row["seeds"])
    return f"{row['map']:.3f} ± {row['deviation']:.3f}" if seeds > 1 else f"{row['map']:.3f}"


def preset_table(found: dict[str, Any]) -> str:
    """`--preset paper` beside the papers' recipe written down literally, on the same seeds."""
    rows = []
    for name, row in found["rows"].items():
        if name.endswith(": literal"):
            preset = found["rows"].get(name.replace(": literal", ": preset"))
            apart = f"{preset['deviations_apart']:+.2f}" if preset and "deviations_apart" in preset else "-"
            seeds = ", ".join(row["seeds"])
            mine = f"{spread(preset)} (seeds {', '.join(preset['seeds'])})" if preset else "-"
            rows.append([name.removesuffix(": literal"), f"{spread(row)} (seeds {seeds})", mine, apart])
    head = (
        "## The preset beside the papers' recipe written down\n\nmAP of both directions: a literal script in plain "
        "torch, and `--preset paper` at its batch size with the modality that the script knows "
        "(`bench/paper_preset.py`).\n\n"
    )
    return head + table(["recipe", "literal", "`--preset paper`", "difference, deviations of the literal"], rows)


def figure(row: dict[str, Any]) -> str:
    """Mean average precision, with its deviation where there are several seeds."""
    many = len(row.get("seeds", ())) > 1
    return f"{row['map']:.3f}" + (f" ± {row['std']['map']:.3f}" if many else "")


def ablations(found: dict[str, Any]) -> str:
    """The table of `isthmus ablate`, of the rows that are trained, and how often the papers' words hold."""
    done = [row for row in found["rows"] if any(score["mean"] is not None for score in row["scores"].values())]
    labels = {f"{row['table']}/{row['name']}" if row["table"] else row["name"] for row in done}
    claims = [claim for claim in found["claims"] if {claim["row"], claim["against"]} <= labels]
    steps = [row["steps"] for row in done if row["steps"]]
    cells, seconds = found["cells"], found["cost"].get("median_seconds")
    took = f"{seconds:.1f} s in the median" if seconds else "an unknown time"
    words = [
        "Sounds and pictures of the real embeddings above, the papers' grid (`configs/ablations-paper.toml`). Every",
        "row changes one thing of the defaults of `extend` (C-MCR: of `connect`), at the papers' learning rate, and",
        f"trains for {min(steps):,} to {max(steps):,} steps of {found['settings']['batch_size']} pseudo pairs, where",
        f"the papers train 36 epochs of millions; a cell took {took}. {cells['done']:,} of {cells['all']:,} cells are",
        "trained.",
        "sound-name is the retrieval of names of things by clips and back, in the picture space. Figures are mAP.",
        verdicts([row for row in done if "expect" in row] + claims),
    ]
    return " ".join(words) + "\n\n" + to_markdown({**found, "rows": done, "claims": claims})


def verdicts(told: list[dict[str, Any]]) -> str:
    """How many of the papers' statements hold here."""
    judged = [each["agrees"] for each in told if each["agrees"]]
    if not judged:
        return "One seed judges nothing: whether the papers' statements hold is open."
    counts = {name: judged.count(name) for name in ("yes", "not shown", "no")}
    return (
        f"Of {len(judged)} statements of the papers that are tried here, {counts['yes']} hold, "
        f"{counts['not shown']} are not shown, and {counts['no']} do not hold."
    )


def results_page() -> str:
    """docs/results.md, whole."""
    parts = [
        "# Results\n\nEvery number here is written by `make results` from the files in `bench/results`; "
        "the scripts beside them make the files again. mAP and R@k are means of both directions of retrieval.\n"
    ]
    if found := load("suite"):
        parts.append(suites(found))
    if found := load("paper_preset"):
        parts.append(preset_table(found))
    if found := load("retrieval"):
        parts.append(large_retrieval(found))
    if found := load("ablations"):
        parts.append(f"## Ablations\n\n{ablations(found)}")
    if demo := load("demo_encoders"):
        parts.append(
            "## The demo's encoders\n\nEach on its own pair, 240 numbers that no training saw "
            "(`scripts/train_demo_encoders.py`).\n"
        )
        rows = [
            [name, row["pair"], str(row["dim"]), f"{row['parameters']:,}"]
            + [f"{value:.3f}" for key, value in row.items() if key.endswith("r@1") and not key.startswith("chance")]
            for name, row in demo.items()
        ]
        parts.append(table(["encoder", "pair", "dim", "parameters", "R@1 there", "R@1 back"], rows))
    return "\n".join(parts)


SUITES = {
    "sound-picture": "sounds find pictures, and pictures sounds",
    "shape-picture": "shapes find pictures, and pictures shapes",
    "sound-names": "sounds, classified by texts of the picture space",
    "shape-names": "shapes, classified by texts of the picture space",
    "picture-names": "pictures, classified by texts of their own space: what a bridge leaves of it",
}


def row_name(key: str) -> str:
    """What a row of `isthmus suite` is called in a table."""
    plain = key.removesuffix("_centred")
    return BASELINES.get(plain, plain) + (", centred" if plain != key else "")


def suite_table(report: dict[str, Any]) -> str:
    """The rows of one benchmark: figures, their deviation over seeds, and the interval over items of the first."""
    columns = report["headline"]
    rows = []
    means = {seed for row in report["rows"] if row["kind"] == "bridge" for seed in row.get("seeds", ())}
    for row in (row for row in report["rows"] if "reason" not in row):
        if means and row["kind"] == "bridge" and "seeds" not in row:  # one seed's, which a mean stands for
            continue
        spread = row["std"] if len(row.get("seeds", ())) > 1 else {}
        cells = [f"{row[one]:.3f}" + (f" ± {spread[one]:.3f}" if one in spread else "") for one in columns]
        low, high = row.get(f"{columns[0]}_ci95", (None, None))
        name = row_name(row["name"])
        name = f"**{name}**" if row["kind"] == "bridge" else name
        rows.append([name, *cells, "" if low is None else f"{low:.3f} to {high:.3f}"])
    return table(["row", *columns, f"{columns[0]} (95 %)"], rows)


def without_figures(report: dict[str, Any]) -> str:
    """Which rows have no figures, and why."""
    words: dict[str, list[str]] = {}
    for row in report["rows"]:
        if "reason" in row:
            words.setdefault(row["reason"], []).append(row_name(row["name"]))
    lines = [f"No figures for {'; '.join(names)}: {reason}\n" for reason, names in words.items()]
    return "\n".join(lines)


def retained(report: dict[str, Any]) -> str:
    """What the spaces that hold both sides keep of their own score through the first bridge."""
    first = report["headline"][0]
    words = [
        f"{space} keeps {kept[first]['ratio']:.1%} of its own {first} ({kept[first]['before']:.3f}, then "
        f"{kept[first]['after']:.3f})"
        for space, kept in report.get("retention", {}).items()
    ]
    return f"Through the first bridge {', '.join(words)}.\n" if words else ""


def suites(found: dict[str, Any]) -> str:
    """Every benchmark of `bench/suite`, with all rows."""
    train = ", ".join(found["train"])
    parts = [
        "## Real embeddings\n\nThree contrastive spaces that were trained independently on real pairs (image-text, "
        "audio-text, 3D-image-text), joined without a pair, scored on true pairs that no join has seen (leaks of the "
        "data: [quality](quality.md)): `isthmus "
        f"suite` on the TOML files of `bench/suite` ([how](benchmarks.md)). Bridges over the seeds "
        f"{found['seeds']}, the papers' recipes (`--preset paper`{', ' + train if train else ''}) over "
        f"{found['recipe_seeds']}; mean and deviation.\n",
        summary(found),
    ]
    for name, report in found["reports"].items():
        sizes = [f"{report[key]:,} {word}" for key, word in (("n_query", "queries"), ("n_gallery", "gallery items"),
                 ("classes", "classes")) if report.get(key)]  # fmt: skip
        parts.append(f"### {name}: {SUITES.get(name, report['task'])}\n\n{', '.join(sizes)}.\n")
        parts.append(suite_table(report))
        parts += [retained(report), without_figures(report)]
    return "\n".join(part for part in parts if part)


def large_retrieval(found: dict[str, Any]) -> str:
    """A large retrieval beside its matrix product."""
    words = {"product": "the matrix product alone", "score": "ranks both ways, figures, intervals",
             "suite": "`isthmus suite`, from disk and through a bridge"}  # fmt: skip
    rows = [
        [words[name], f"{one['seconds']:.0f}", f"{one['ratio']:.2f}", f"{one['gb']:.2f}"]
        for name, one in found["summary"].items()
    ]
    head = f"## A large retrieval\n\n{found['queries']:,} pictures, {found['gallery']:,} captions, {found['dim']} "
    head += f"dimensions, {found['cpus']} cores (`bench/retrieval.py`).\n\n"
    return head + table(["what", "seconds", "times the product", "peak memory, GB"], rows)


def readme_block() -> str:
    """What stands between the marks in the README."""
    suite = load("suite")
    if suite is None:
        return ""
    words = [
        "Real embeddings, true pairs that no join has seen ([leaks of the data](docs/quality.md)). Defaults: `connect` "
        "joins by posteriors over the "
        "shared items and chooses by an estimate without labels, `extend` describes by them beside the trained "
        "projection ([quality](docs/quality.md)). Trained alone: mean and deviation over the seeds "
        f"{suite['seeds']}. `--preset paper` is isthmus with the settings that the papers print (36 epochs, batch "
        f"1024); where no deviation stands, seed {suite['recipe_seeds']} alone, with all modalities of the leaf. "
        "Defaults were compared on these pairs too ([log](docs/log.md))."
    ]
    if end := load("end_to_end"):
        ours, theirs = end["rows"]["default"], end["rows"]["recipe"]
        words.append(
            "A second comparison, with no code in common: the papers' recipe written down literally in plain torch "
            f"reaches {theirs['map']:.3f} on sound-picture, the trained defaults {ours['map']:.3f} (seeds "
            f"{','.join(map(str, end['seeds']))}): the honest gain in quality is {ours['map'] - theirs['map']:.3f}, "
            f"the gain in time is {ours['recipe_over_this']:.1f} times ({ours['seconds']:.0f} s instead of "
            f"{theirs['seconds']:.0f} s on two cores)."
        )
    words.append("All rows, ablations: [docs/results.md](docs/results.md); speed: [docs/speed.md](docs/speed.md).")
    return summary(suite) + "\n" + " ".join(words) + "\n"


def main() -> None:
    """Write or check the pages."""
    # Found beside this script when it is run, not when it is imported from elsewhere.
    from render_quality import quality_page
    from render_speed import speed_page, write_plots
    from render_stores import stores_page

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    readme = (ROOT / "README.md").read_text()
    before, rest = readme.split(MARKS[0], 1)
    wanted = {
        ROOT / "docs" / "results.md": results_page(),
        ROOT / "docs" / "speed.md": speed_page(load, table),
        ROOT / "docs" / "quality.md": quality_page(load, table),
        ROOT / "docs" / "stores.md": stores_page(load, table),
        ROOT / "README.md": before + MARKS[0] + readme_block() + MARKS[1] + rest.split(MARKS[1], 1)[1],
    }
    for path, text in wanted.items():
        if given.check and path.read_text() != text:
            raise SystemExit(f"{path.name} is not what the result files say. Run: make results")
        if not given.check:
            path.write_text(text)
    if not given.check:
        write_plots(load, ROOT / "docs")


if __name__ == "__main__":
    main()
