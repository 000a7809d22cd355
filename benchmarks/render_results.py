"""Write the tables of docs/results.md and of the README from the result files beside this script.

python benchmarks/render_results.py            write
python benchmarks/render_results.py --check    fail where a page is not what the result files say
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MARKS = ("<!-- results -->\n", "<!-- /results -->")
NAMES = {"extend": "extend (Ex-MCR)", "connect": "connect (C-MCR)"}
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


def summary(real: dict[str, Any]) -> str:
    """Bridges beside the papers' recipe written down literally."""
    rows = [
        [
            line["benchmark"],
            NAMES[line["method"]],
            f"{line['map']:.3f} ± {line['map_std']:.3f}",
            f"{line['reference_map']:.3f}" if "reference_map" in line else "-",
            f"{line['time_ratio']:.2f}" if "time_ratio" in line else "-",
        ]
        for line in real["summary"]
    ]
    head = ["benchmark", "method", "isthmus, mAP", "papers' recipe, mAP", "time of isthmus / recipe"]
    return table(head, rows)


def baselines(real: dict[str, Any], benchmark: str) -> str:
    """The rows of `evaluate --baselines` for the first seed."""
    run = next(
        r
        for r in real["runs"]
        if r["benchmark"] == benchmark and r["method"] == "extend" and "baselines" in r["isthmus"]["scores"]
    )
    scores = run["isthmus"]["scores"]
    low, high = scores["mean"]["r@1_ci95"]
    rows = [
        ["**isthmus extend**", f"{scores['mean']['map']:.3f}", f"{scores['mean']['r@1']:.3f} ({low:.3f} to {high:.3f})"]
    ]
    for key, name in BASELINES.items():
        for suffix, words in (("", ""), ("_centred", ", centred")):
            found = scores["baselines"].get(key + suffix)
            if found is None:
                continue
            if "reason" in found:
                rows.append([name + words, "-", found["reason"]])
            else:
                rows.append([name + words, f"{found['map']:.3f}", f"{found['r@1']:.3f}"])
    return table(["row", "mAP", "R@1 (95 %)"], rows)


def ablations(found: dict[str, Any]) -> str:
    """One row a change of the defaults."""
    base = found["rows"][0]["map"]
    rows = [
        [row["group"], row["row"], f"{row['map']:.3f}", f"{row['map'] - base:+.3f}", f"{row['map_std']:.3f}"]
        for row in found["rows"]
    ]
    return table(["what", "changed to", "mAP", "against the default", "deviation over seeds"], rows)


def encoding(found: dict[str, Any]) -> str:
    """What `isthmus encode` costs and saves."""
    how = found["settings"]
    words = (
        f"## Encoding\n\n{how['images']:,} photographs of {how['size']} through a ViT-B/32 of random weights, "
        f"batches of {how['batch_size']}, {how['cpus']} cores; medians of {len(found['rounds'])} rounds in which the "
        "ways alternate (`benchmarks/encode.py`). Bare is the model alone on pixels that lie decoded in memory; the "
        "loop opens, prepares and embeds one file after another.\n\n"
    )
    return words + table(["ratio of seconds", "median"], [[k, f"{v:.2f}"] for k, v in found["median_ratios"].items()])


def results_page() -> str:
    """docs/results.md, whole."""
    parts = [
        "# Results\n\nEvery number here is written by `make results` from the files in `benchmarks/results`; "
        "the scripts beside them make the files again. mAP and R@k are means of both directions of retrieval.\n"
    ]
    if real := load("real_data"):
        parts.append(
            "## Real embeddings\n\nThree contrastive spaces that were trained independently on real pairs (image-text, "
            "audio-text, 3D-image-text), joined without a pair, scored on true pairs of items that "
            "nothing was trained on. "
            f"Mean and deviation over {real['summary'][0]['seeds']} seeds. Beside it the two papers written down "
            "literally in "
            "plain torch (36 epochs, batch 1024); runs of both alternate on one machine, and the ratio of whole "
            "process times is the median; a dash says that the recipe was not run beside it yet.\n"
        )
        parts.append(summary(real))
        for benchmark in dict.fromkeys(line["benchmark"] for line in real["summary"]):
            parts.append(f"### {benchmark}: the simple methods beside it (seed 0)\n")
            parts.append(baselines(real, benchmark))
    if found := load("ablations"):
        parts.append(
            f"## Ablations\n\nsound-picture, {len(found['seeds'])} seeds; every row changes one thing of the "
            "defaults of `extend`, with one member and three epochs. What agrees with the papers and what does "
            "not is in the [log](log.md).\n"
        )
        parts.append(ablations(found))
    if found := load("encode"):
        parts.append(encoding(found))
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


def readme_block() -> str:
    """What stands between the marks in the README."""
    real = load("real_data")
    if real is None:
        return ""
    return (
        summary(real)
        + "\nReal embeddings, true pairs that nothing was trained on; the recipe is the two papers in plain "
        "torch (36 epochs, "
        "batch 1024), and a dash says that it was not run beside it yet. Defaults were compared on these pairs too "
        "([log](docs/log.md)). Baselines and ablations: [docs/results.md](docs/results.md).\n"
    )


def main() -> None:
    """Write or check both pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    readme = (ROOT / "README.md").read_text()
    before, rest = readme.split(MARKS[0], 1)
    wanted = {
        ROOT / "docs" / "results.md": results_page(),
        ROOT / "README.md": before + MARKS[0] + readme_block() + MARKS[1] + rest.split(MARKS[1], 1)[1],
    }
    for path, text in wanted.items():
        if given.check and path.read_text() != text:
            raise SystemExit(f"{path.name} is not what the result files say. Run: make results")
        if not given.check:
            path.write_text(text)


if __name__ == "__main__":
    main()
