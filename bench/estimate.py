"""Does the estimate that needs no pairs rank bridges as the pairs do, and does it flag links that are broken?

Flags: the leaf's texts are damaged (ids shuffled, a collapsed tower, another encoder's texts under the same ids) and
the health of the link is judged, as every `connect` does; healthy links are parts of the overlap. Ranks: models of many
overlaps are fitted, and each recipe between posterior and cca tells its estimate; the pairs tell the truth. Finished
rows are kept in --work, so that a run that was cut short goes on.

    python bench/estimate.py --shared ../shared --work ~/quality --out bench/results/estimate.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import spearmanr

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "common"))

import real_spaces as real  # noqa: E402
from record import write  # noqa: E402

if TYPE_CHECKING:
    from isthmus.recipes.posterior.joint import Joint

SEEDS_OF_FLAGS = ("tenth", "300", "twentieth", "fifth")
DAMAGES = {"shuffled": 1.0, "half shuffled": 0.5, "collapsed": None, "foreign": None}
"""What is to be flagged, and the share of ids that are shuffled."""
MILD = {"a quarter shuffled": 0.25}
"""Damage that lowers the quality and need not be flagged."""
FITTED = (
    ("tenth", ""), ("300", ""), ("names", ""), ("tenth", "half shuffled"), ("tenth", "shuffled"), ("fifth", ""),
    ("twentieth", ""), ("all", ""), ("all", "half shuffled"), ("captions", ""),
)  # fmt: skip
"""Overlaps and damages that are fitted, each with all recipes between posterior and cca."""
GOOD = "good"
FIGURES = ("damaged", "kinship", "items")
"""What a link's verdict is taken from: a share of each pair, a kinship of each modality, the items of each pair."""


def damage(rows: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Damage the rows of texts, (n, d)."""
    share = {**DAMAGES, **MILD}[kind]
    if share is not None:
        some = rng.choice(len(rows), int(share * len(rows)), replace=False)
        out = rows.copy()
        out[some] = rows[rng.permutation(some)]
        return out
    noise = rng.normal(size=rows.shape).astype(np.float32)
    if kind == "collapsed":  # every text nearly the same vector
        return real.unit(real.unit(rows).mean(axis=0) + 0.01 * real.unit(noise))
    # Another encoder: the same meanings in directions of its own, bent by a layer that the space never saw
    turned = np.linalg.qr(rng.normal(size=(rows.shape[1], rows.shape[1])))[0].astype(np.float32)
    return real.unit(np.tanh(3.0 * real.unit(rows) @ turned) + 0.1 * real.unit(noise))


LEAF = 1
"""Number of the leaf among the spaces of a join; its texts are what is damaged."""


def damaged(joint: Joint, kind: str, seed: int) -> Joint:
    """Damage the leaf's texts of two gathered spaces, centred again as gathering would."""
    leaf = joint.members[LEAF]
    rows = damage(leaf.items, kind, np.random.default_rng(seed))
    rows = real.unit(rows - rows.mean(axis=0))
    members = [joint.members[0], replace(leaf, items=rows)]
    return replace(joint, members=members, links=[replace(link, rows=(link.rows[0], rows)) for link in joint.links])


def part(joint: Joint, kind: str, seed: int) -> Joint:
    """Keep some of the shared items: a share of them, or 300."""
    n = len(joint.ids)
    kept = np.zeros(n, bool)
    count = {"tenth": n // 10, "twentieth": n // 20, "fifth": n // 5, "300": 300}[kind]
    kept[np.random.default_rng(seed).choice(n, count, replace=False)] = True
    return joint.keep(kept)


class Gathered:
    """Two spaces' memories and shared items, read once for each benchmark and overlap."""

    def __init__(self, spaces: real.RealSpaces) -> None:
        from isthmus.recipes.posterior.config import posterior_config

        self.spaces = spaces
        self.kept: dict[tuple[str, str], tuple[real.Benchmark, Joint]] = {}
        self.config = posterior_config({})

    def __call__(self, name: str, variant: str, kind: str, seed: int) -> tuple[real.Benchmark, Joint]:
        """Read a benchmark with a variant of its overlap, and damage it."""
        from isthmus.recipes.posterior.join import read_vias
        from isthmus.recipes.posterior.members import gather

        whole = "all" if variant in SEEDS_OF_FLAGS else variant
        if (name, whole) not in self.kept:
            benchmark = self.spaces.benchmark(name, whole)
            spaces = [benchmark.base, benchmark.leaf]
            joint = gather(spaces, read_vias(spaces, benchmark.via), memory_rows=self.config.memory_rows, seed=0)
            self.kept[name, whole] = benchmark, joint
        benchmark, joint = self.kept[name, whole]
        joint = part(joint, variant, seed) if variant in SEEDS_OF_FLAGS else joint
        return benchmark, damaged(joint, kind, seed) if kind else joint


def health_row(joint: Joint) -> dict[str, Any]:
    """Give the figures of a link's health, from which `verdict_of` judges it."""
    from isthmus.recipes.posterior.health import examine

    started = time.perf_counter()
    _, health = examine(joint, 0)
    return {
        "damaged": list(health.damaged.values()),
        "kinship": list(health.kinship.values()),
        "items": list(health.items.values()),
        "seconds": time.perf_counter() - started,
    }


def verdict_of(row: dict[str, Any]) -> str:
    """Judge a link by the figures of its health, so that kept rows follow the rules of today."""
    from isthmus.recipes.posterior.health import Health

    damaged, kinship, items = ({str(i): value for i, value in enumerate(row[key])} for key in FIGURES)
    health = Health(damaged, kinship, items)
    return "broken" if health.broken else "doubtful" if health.doubtful else GOOD


def expected_of(row: dict[str, Any]) -> float:
    """Give the estimate of a row from its two figures and its shared items, likewise."""
    from isthmus.recipes.posterior.health import trust_in

    found = row["estimate"]
    return float(trust_in(found["items"]) * np.sqrt(found["uncovered"] * found["covered"]))


def fitted_rows(benchmark: real.Benchmark, joint: Joint, gathered: Gathered) -> list[dict[str, Any]]:
    """Fit one model; give estimate and truth of every recipe between posterior and cca."""
    from isthmus.recipes.posterior.auto import candidates, estimate_record
    from isthmus.recipes.posterior.health import examine
    from isthmus.recipes.posterior.model import fit_model

    joint, health = examine(joint, 0)
    model = fit_model(joint, gathered.config)
    described = []
    for number, items in ((0, benchmark.cross.gallery), (LEAF, benchmark.cross.query)):
        memory = model.joint.members[number].memories[items.modality]
        described.append(model.describe(number, items.modality, memory.centred(items.rows)))
    parts, rows = model.parts(*described), []
    for candidate in candidates(model):
        truth = real.both_directions(benchmark.cross, model.score(parts, candidate.weight).T)
        found = estimate_record(candidate, health, joint)
        rows.append({"method": candidate.name, "map": real.mean_map(truth), "estimate": found})
    return rows


def plan(given: argparse.Namespace) -> Iterator[tuple[str, str, str, int]]:
    """Yield benchmark, overlap, damage and seed of every link whose health is judged."""
    for seed in range(given.seeds):
        for name in real.REAL:
            yield from ((name, "tenth", kind, seed) for kind in (*DAMAGES, *MILD))
            yield from ((name, variant, "", seed) for variant in SEEDS_OF_FLAGS)
    for name in real.REAL:
        yield from ((name, "all", kind, 0) for kind in DAMAGES)
        yield from ((name, variant, "", 0) for variant in ("all", "captions", "names"))


def measure(given: argparse.Namespace, work: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Judge every link and fit every model that is not kept yet."""
    gathered = Gathered(real.RealSpaces(given.shared, work))
    folder = work / "estimates"
    folder.mkdir(parents=True, exist_ok=True)

    def kept(*key: Any, make: Callable[[], Any]) -> Any:
        path = folder / ("-".join(map(str, key)).replace(" ", "_") + ".json")
        if not path.is_file() and not given.kept:
            path.write_text(json.dumps(make(), default=str))
            print(*key, path.read_text()[:160], file=sys.stderr, flush=True)
        return json.loads(path.read_text()) if path.is_file() else None

    links, bridges = [], []
    for variant, kind in FITTED:
        for name in real.REAL:
            key = (name, variant, kind, 0)
            head = dict(zip(("benchmark", "variant", "damage", "seed"), key, strict=True))
            found = kept("fit", *key, make=lambda key=key: fitted_rows(*gathered(*key), gathered))
            bridges += [{**head, **row, "expected": expected_of(row)} for row in found or ()]
    for key in plan(given):
        head = dict(zip(("benchmark", "variant", "damage", "seed"), key, strict=True))
        if found := kept("health", *key, make=lambda key=key: health_row(gathered(*key)[1])):
            links.append({**head, **found, "verdict": verdict_of(found)})
    return links, bridges


def ranks(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Spearman's correlation of estimates and truth, over all bridges and within each pair of spaces."""
    groups = {
        "all": rows,
        "all but captions alone": [row for row in rows if row["variant"] != "captions"],
        **{name: [row for row in rows if row["benchmark"] == name] for name in real.REAL},
    }
    return {
        name: {
            "bridges": len(group),
            "spearman": float(spearmanr([row["expected"] for row in group], [row["map"] for row in group])[0]),
        }
        for name, group in groups.items()
        if len(group) > 2
    }


def mended(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare overlaps with half of their ids shuffled with the healthy ones, recipe by recipe."""
    by = {(row["benchmark"], row["variant"], row["damage"], row["method"]): row["map"] for row in rows}
    return [
        {
            "benchmark": name,
            "variant": variant,
            "method": method,
            "map": value,
            "healthy": by[name, variant, "", method],
        }
        for (name, variant, damage, method), value in by.items()
        if damage == "half shuffled" and (name, variant, "", method) in by
    ]


def flags(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Count verdicts by damage; a verdict other than good is a flag."""
    found = {}
    for kind in ("", *MILD, *DAMAGES):
        verdicts = Counter(str(row["verdict"]) for row in rows if row["damage"] == kind)
        if verdicts:
            flagged = sum(count for verdict, count in verdicts.items() if verdict != GOOD)
            found[kind or "healthy"] = {"bridges": sum(verdicts.values()), "flagged": flagged, "verdicts": verdicts}
    return found


def main() -> None:
    """Measure what is not measured yet and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("ISTHMUS_SHARED", "../shared")))
    parser.add_argument("--work", type=Path, help="keeps spaces and finished rows; default: nowhere")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--kept", action="store_true", help="measure nothing: write the rows that --work keeps")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "estimate.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        links, bridges = measure(given, given.work or Path(folder))
        found = {"spearman": ranks(bridges), "flags": flags(links), "mended": mended(bridges)}
        write(given.out, {**found, "bridges": bridges, "links": links})


if __name__ == "__main__":
    main()
