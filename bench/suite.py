"""What do bridges of real embeddings earn on benchmarks that no training saw, beside everything simpler?

Everything goes through the command line, as a user would: import, extend and connect over seeds, then `isthmus suite`
on each TOML file of the folder `suite/` beside this script, with all rows. Finished steps are kept in --work, so that
a run that was cut short goes on.

    python bench/suite.py --shared ../shared --seeds 0,1,2 --work ~/suite --out bench/results/suite.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BASE = "picture"
LEAVES = {"sound": ("sound-picture", "sound-names", "picture-names"), "shape": ("shape-picture", "shape-names")}
"""By leaf, the benchmarks that its bridges are scored on."""


def isthmus(*arguments: object) -> dict[str, Any]:
    """Run a verb and return its JSON."""
    command = [sys.executable, "-m", "isthmus", *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    return dict(json.loads(done.stdout))


def make_spaces(data: Path, work: Path) -> None:
    """Import every embedding file; what is imported already is left as it is."""
    for space in (BASE, *LEAVES):
        for file in sorted((data / space).glob("*.parquet")):
            isthmus("import", file, "--into", work / f"{space}.space", "--modality", file.stem, "--name", space)


def make_bridges(work: Path, leaf: str, given: argparse.Namespace) -> list[Path]:
    """Train `extend` and `connect` with every seed; bridges that exist already are taken as they are."""
    made = []
    settings = [part for setting in given.set for part in ("--set", setting)]
    for method in given.methods.split(","):
        for seed in given.seeds.split(","):
            path = work / f"{leaf}-{method}-{seed}.bridge"
            made.append(path)
            if not path.exists():
                spaces = (work / f"{BASE}.space", work / f"{leaf}.space")
                isthmus(method, *spaces, "--via", "text", "--seed", seed, "--out", path, *settings)
    return made


def main() -> None:
    """Run everything that is not done yet and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("ISTHMUS_SHARED", "../shared")))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--methods", default="extend,connect")
    parser.add_argument("--recipes", default="c-mcr,ex-mcr", help="the papers' recipes, trained with every seed too")
    parser.add_argument("--recipe-seeds", help="seeds of the papers' recipes; default: all of --seeds")
    parser.add_argument("--set", action="append", default=[], help="setting of our recipes, key=value")
    parser.add_argument("--train", action="append", default=[], help="setting of the papers' recipes, key=value")
    parser.add_argument("--work", type=Path, default=None, help="keeps spaces, bridges and the cache; default: nowhere")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "suite.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = given.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        run(given, given.shared / "data" / "embeddings", work)


def run(given: argparse.Namespace, data: Path, work: Path) -> None:
    """Spaces, bridges, then every benchmark; what is done is written after each, for a run that is cut short."""
    make_spaces(data, work)
    reports: dict[str, Any] = {}
    train = [part for setting in given.train for part in ("--train", setting)]
    seeds = given.recipe_seeds or given.seeds
    recipes = ["--recipes", given.recipes, "--seeds", seeds, *train] if given.recipes else []
    for leaf, names in LEAVES.items():
        started = time.perf_counter()
        bridges = make_bridges(work, leaf, given)
        print(f"{leaf}: {len(bridges)} bridges in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        for name in names:
            asked = ["--benchmark", HERE / "suite" / f"{name}.toml", "--data", data, "--cache", work / "cache"]
            # Within one space nothing is joined, so that no recipe has anything to train for it.
            rows = ["--baselines", *(recipes if name != "picture-names" else [])]
            report = isthmus("suite", *bridges, *asked, *rows)
            reports[name] = {**report, "data": "embeddings"}
            write(given, reports)


def write(given: argparse.Namespace, reports: dict[str, Any]) -> None:
    """Write what there is so far."""
    given.out.parent.mkdir(parents=True, exist_ok=True)
    head = {
        "seeds": given.seeds,
        "recipe_seeds": given.recipe_seeds or given.seeds,
        "settings": given.set,
        "train": given.train,
        "cpus": os.cpu_count(),
    }
    given.out.write_text(json.dumps({**head, "reports": reports}, indent=1) + "\n")


if __name__ == "__main__":
    main()
