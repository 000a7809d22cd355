"""What was tried around joining by posteriors: each trial's estimates without pairs, and what the pairs say of it.

Every trial changes one thing of one recipe, `mix`: an item is its posterior over the shared texts, and two items are as
alike as the chance that both mean the same text. The criterion is `uncovered` (pseudo pairs of clusters of texts that
the recipe was fitted without) beside `covered` (the same pairs, all texts); the pairs are looked at once a row.

    python bench/research.py --shared ../shared --work ~/quality --out bench/results/research.json
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "common"))

import real_spaces as real  # noqa: E402
from record import write  # noqa: E402

from isthmus.items.vocabulary import load_vocabulary, text_id  # noqa: E402
from isthmus.recipes.texts import encode_texts  # noqa: E402
from isthmus.spaces.overlap import overlap  # noqa: E402

TAU = {"leaf": 0.05, "base": 0.06}
BASE_ROWS, ANCHORS = 5000, 1500
WIDENED = 2500
CLUSTERS, SUPPORTED, LEAF_ITEMS, BASE_ITEMS = 300, 40, 4, 6
unit, softmax = real.unit, real.softmax


@dataclass(frozen=True)
class Problem:
    """One benchmark as centred unit rows.

    Attributes:
        leaf: (n, d) memory of the leaf's items.
        base: (m, e) memory of the base's items.
        leaf_texts: (t, d) shared texts in the leaf.
        base_texts: (t, e) the same in the base.
        query: Test items of the leaf.
        gallery: Test items of the base.
        relevant: Their true pairs, (q, g) bool.
        labels: Concepts of queries and gallery.
    """

    leaf: np.ndarray
    base: np.ndarray
    leaf_texts: np.ndarray
    base_texts: np.ndarray
    query: np.ndarray
    gallery: np.ndarray
    relevant: np.ndarray
    labels: tuple[Any, Any] = ((), ())

    @classmethod
    def of(cls, benchmark: real.Benchmark, leaf_texts: np.ndarray, base_texts: np.ndarray) -> Problem:
        """Centre every modality by its own mean over its memory, test items by the memory's."""
        items = benchmark.cross.query, benchmark.cross.gallery
        leaf, base = benchmark.leaf[items[0].modality].unit(), benchmark.base[items[1].modality].unit()
        some = np.sort(np.random.default_rng(0).choice(len(base), min(BASE_ROWS, len(base)), replace=False))
        means = leaf.mean(axis=0), base.mean(axis=0)
        return cls(
            unit(leaf - means[0]),
            unit(base[some] - means[1]),
            centred(leaf_texts),
            centred(base_texts),
            unit(unit(items[0].rows) - means[0]),
            unit(unit(items[1].rows) - means[1]),
            benchmark.cross.relevant,
            (items[0].labels, items[1].labels),
        )

    def without(self, texts: np.ndarray) -> Problem:
        """The same without some of the texts."""
        keep = np.setdiff1d(np.arange(len(self.leaf_texts)), texts)
        return replace(self, leaf_texts=self.leaf_texts[keep], base_texts=self.base_texts[keep])


def centred(rows: np.ndarray) -> np.ndarray:
    """Remove the mean of unit rows."""
    rows = unit(rows)
    return unit(rows - rows.mean(axis=0))


Scores = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Leaf rows and base rows to their scores."""


def posteriors(rows: np.ndarray, texts: np.ndarray, tau: float) -> np.ndarray:
    """Softmax of each row over the texts."""
    return softmax(rows @ texts.T / tau)


def mix(problem: Problem) -> Scores:
    """Score items by the chance that both mean the same text."""

    def score(x: np.ndarray, g: np.ndarray) -> np.ndarray:
        p = posteriors(x, problem.leaf_texts, TAU["leaf"])
        return p @ posteriors(g, problem.base_texts, TAU["base"]).T

    return score


def average_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Mean average precision of both directions."""
    found = []
    for table, truth in ((scores, relevant), (scores.T, relevant.T)):
        some = truth.any(axis=1)
        order = np.argsort(-table[some], axis=1, kind="stable")
        hits = np.take_along_axis(truth[some], order, axis=1)
        precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
        found.append(float(((precision * hits).sum(axis=1) / hits.sum(axis=1)).mean()))
    return float(np.mean(found))


def k_means(rows: np.ndarray, count: int, steps: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Spherical k-means: cluster of each row, and (count, d) unit centres."""
    rng = np.random.default_rng(seed)
    centres = rows[rng.choice(len(rows), count, replace=False)]
    for _ in range(steps):
        cluster = np.concatenate([np.argmax(part @ centres.T, axis=1) for part in np.array_split(rows, 8)])
        sums = np.zeros_like(centres)
        np.add.at(sums, cluster, rows)
        empty = ~sums.any(axis=1)
        sums[empty] = rows[rng.choice(len(rows), int(empty.sum()))]
        centres = unit(sums)
    return cluster, centres


@dataclass
class Criterion:
    """Pseudo pairs of the best supported clusters of texts, for estimates without pairs.

    Attributes:
        leaf: Rows of the leaf's memory.
        base: Rows of the base's memory.
        relevant: Whether two rows are of one cluster.
        texts: The clusters' texts, which `uncovered` leaves out.
        count: Number of all texts.
    """

    leaf: np.ndarray
    base: np.ndarray
    relevant: np.ndarray
    texts: np.ndarray
    count: int

    @classmethod
    def of(cls, problem: Problem) -> Criterion:
        """Cluster the texts in both spaces at once and take the nearest items of the best supported clusters."""
        cluster, _ = k_means(np.hstack([problem.leaf_texts, problem.base_texts]) / np.sqrt(2), CLUSTERS)
        centres = []
        for texts in (problem.leaf_texts, problem.base_texts):
            centres.append(unit(np.stack([texts[cluster == c].mean(axis=0) for c in range(CLUSTERS)])))
        near = [centres[0] @ problem.leaf.T, centres[1] @ problem.base.T]
        support = [np.sort(table, axis=1)[:, -5:].mean(axis=1) for table in near]
        best = np.argsort(-np.minimum(*[(s - s.mean()) / s.std() for s in support]))[:SUPPORTED]
        rows = [
            np.argsort(-table[best], axis=1)[:, :k] for table, k in zip(near, (LEAF_ITEMS, BASE_ITEMS), strict=True)
        ]
        owner = [np.repeat(np.arange(SUPPORTED), row.shape[1]) for row in rows]
        leaf, base = rows[0].ravel(), rows[1].ravel()
        relevant = owner[0][:, None] == owner[1][None, :]
        return cls(leaf, base, relevant, np.flatnonzero(np.isin(cluster, best)), len(cluster))

    def estimate(self, problem: Problem, recipe: Callable[[Problem], Scores]) -> dict[str, float]:
        """Fit without and with the clusters' texts and score the pseudo pairs."""
        x, g = problem.leaf[self.leaf], problem.base[self.base]
        uncovered = recipe(problem.without(self.texts))(x, g)
        covered = recipe(problem)(x, g)
        names = {"uncovered": uncovered, "covered": covered}
        return {name: average_precision(scores, self.relevant) for name, scores in names.items()}


@dataclass
class Setting:
    """What a trial may read: the benchmark, its problem with all texts, and text towers.

    Attributes:
        spaces: The real spaces.
        benchmark: One benchmark of them.
        problem: It, with all shared texts.
    """

    spaces: real.RealSpaces
    benchmark: real.Benchmark
    problem: Problem

    @property
    def leaf(self) -> str:
        """Name of the leaf."""
        return self.benchmark.leaf.name

    def embed(self, space: str, texts: Sequence[str]) -> np.ndarray:
        """Embed texts by a space's own tower, kept in the working folder."""
        from text_heads import TextHead

        made = encode_texts(list(dict.fromkeys(texts)), TextHead(space), self.spaces.work / "texts", quiet=True)
        return made["text"].unit(made["text"].rows_of([text_id(text) for text in texts]))


@dataclass
class Trials:
    """Rows of the table, printed as they come."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, trial: str, form: str, benchmark: str, recipe: Any, problem: Problem, criterion: Criterion) -> None:
        """Estimate a recipe, then look at the pairs."""
        started = time.perf_counter()
        if len(problem.leaf_texts) == 2 * criterion.count:  # two texts a concept leave together
            criterion = replace(criterion, texts=np.concatenate([criterion.texts, criterion.texts + criterion.count]))
        row = {"trial": trial, "form": form, "benchmark": benchmark, **criterion.estimate(problem, recipe)}
        row["map"] = average_precision(recipe(problem)(problem.query, problem.gallery), problem.relevant)
        row["seconds"] = round(time.perf_counter() - started, 1)
        self.rows.append(row)
        print(
            " ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()), file=sys.stderr, flush=True
        )


Forms = Iterator[tuple[str, Callable[[Problem], Scores], Problem]]
"""Forms of a recipe, each with its problem, the plain one first."""


def transport(setting: Setting) -> Forms:
    """Optimal transport between the memories under the texts' cost: an item's share of mass corrects its scores."""
    yield "mix", mix, setting.problem

    def balanced(strength: float, rounds: int) -> Callable[[Problem], Scores]:
        def recipe(problem: Problem) -> Scores:
            plain, leaf, base = mix(problem), *anchors(problem)
            kernel = plain(leaf, base) ** strength
            left, right = np.ones(len(kernel), np.float32), np.ones(kernel.shape[1], np.float32)
            for _ in range(rounds):  # Sinkhorn: rows and columns in turn carry equal mass
                left = 1.0 / np.maximum(kernel @ right, 1e-20) / len(kernel)
                right = 1.0 / np.maximum(left @ kernel, 1e-20) / kernel.shape[1]

            def score(x: np.ndarray, g: np.ndarray) -> np.ndarray:
                rows = 1.0 / np.maximum((plain(x, base) ** strength) @ right, 1e-20)
                columns = 1.0 / np.maximum(left @ (plain(leaf, g) ** strength), 1e-20)
                return plain(x, g) ** strength * rows[:, None] * columns[None, :]

            return score

        return recipe

    for strength, rounds in ((1.0, 1), (1.0, 20), (0.5, 20)):
        yield f"Sinkhorn, {rounds} rounds, mix to the power {strength}", balanced(strength, rounds), setting.problem


def anchors(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Take at most `ANCHORS` rows of each memory, evenly spread: the memories' order is no order of concepts."""
    sides = problem.leaf, problem.base
    leaf, base = (rows[:: max(1, len(rows) // ANCHORS)][:ANCHORS] for rows in sides)
    return leaf, base


def self_training(setting: Setting) -> Forms:
    """Mutual nearest neighbours of the two memories become shared items beside the texts."""
    yield "mix", mix, setting.problem

    def trained(weight: float, rounds: int) -> Callable[[Problem], Scores]:
        def recipe(problem: Problem) -> Scores:
            leaf, base = anchors(problem)
            plain = mix(problem)
            first = table = plain(leaf, base)
            pairs = problem
            for _ in range(rounds):
                forth, back = table.argmax(axis=1), table.argmax(axis=0)
                rows = np.flatnonzero(back[forth] == np.arange(len(table)))
                pairs = replace(problem, leaf_texts=leaf[rows], base_texts=base[forth[rows]])
                by_pairs = mix(pairs)(leaf, base)
                scale = weight * float(first.std() / by_pairs.std())
                table = first + scale * by_pairs
            return lambda x, g: plain(x, g) + scale * mix(pairs)(x, g)

        return recipe

    for weight, rounds in ((0.1, 1), (0.3, 1), (1.0, 1), (0.3, 3)):
        yield (
            f"mutual neighbours, weight {weight}, {rounds} round{'s' * (rounds > 1)}",
            trained(weight, rounds),
            setting.problem,
        )


def described(setting: Setting) -> Forms:
    """A leaf's item described by the base's own items, and by centres of them: the frozen base, no training."""

    def by(count: int | None) -> Callable[[Problem], Scores]:
        memory = setting.problem.base
        centres = memory if count is None else k_means(memory, count)[1]

        def recipe(problem: Problem) -> Scores:
            of_base = posteriors(centres, problem.base_texts, TAU["base"])

            def score(x: np.ndarray, g: np.ndarray) -> np.ndarray:
                like = posteriors(x, problem.leaf_texts, TAU["base"]) @ of_base.T
                weights = softmax(np.log(np.maximum(like, 1e-20)) / 0.5)
                return unit(weights @ centres) @ g.T

            return score

        return recipe

    for count in (None, 2000, 1000, 500, 250, 100):
        form = f"{len(setting.problem.base):,} items" if count is None else f"{count:,} centres"
        yield form, by(count), setting.problem


def widened(setting: Setting) -> Forms:
    """Texts of one concept put together: the name, its gloss, a template a space."""
    entries = sorted(load_vocabulary(), key=lambda entry: (-entry.count, entry.name))
    entries = [entry for entry in entries if entry.gloss][:WIDENED]
    forms = {
        "name": ("{name}", "{name}"),
        "gloss": ("{name}: {gloss}", "{name}: {gloss}"),
        "template": ("the sound of {name}" if setting.leaf == "sound" else "a 3D model of {name}", "a photo of {name}"),
    }
    rows = {
        form: [
            setting.embed(space, [template.format(name=entry.name, gloss=entry.gloss) for entry in entries])
            for space, template in zip((setting.leaf, "picture"), templates, strict=True)
        ]
        for form, templates in forms.items()
    }

    def of(*names: str) -> Problem:
        sides = [unit(np.mean([centred(rows[name][side]) for name in names], axis=0)) for side in (0, 1)]
        return Problem.of(setting.benchmark, *sides)

    yield "names", mix, of("name")
    yield "names with glosses", mix, of("gloss")
    yield "names in templates", mix, of("template")
    yield "mean of name and gloss", mix, of("name", "gloss")
    yield "mean of name, gloss and template", mix, of("name", "gloss", "template")
    stacked = [np.concatenate([centred(rows["name"][side]), centred(rows["gloss"][side])]) for side in (0, 1)]
    yield "name and gloss as two texts", mix, Problem.of(setting.benchmark, *stacked)


def several(setting: Setting) -> Forms:
    """Pictures that both spaces embed beside the texts, by the sum of two mixtures; only shapes share pictures."""
    problem = setting.problem
    yield "texts", mix, problem
    if "image" not in setting.benchmark.leaf:
        return
    shared = overlap(setting.benchmark.base, setting.benchmark.leaf, "image")
    some = np.sort(np.random.default_rng(1).choice(len(shared), ANCHORS * 4, replace=False))
    leaf = centred(setting.benchmark.leaf["image"].unit(shared.rows_b[some]))
    base = centred(setting.benchmark.base["image"].unit(shared.rows_a[some]))
    pictures = mix(replace(problem, leaf_texts=leaf, base_texts=base))
    scale = {"texts": mix(problem), "pictures": pictures}
    sizes = {name: float(score(problem.leaf[:250], problem.base[:400]).std()) for name, score in scale.items()}

    def by(weight: float) -> Callable[[Problem], Scores]:
        def recipe(problem: Problem) -> Scores:
            texts = mix(problem)
            return lambda x, g: texts(x, g) / sizes["texts"] + weight * pictures(x, g) / sizes["pictures"]

        return recipe

    for weight in (0.1, 0.25, 0.5, 1.0):
        yield f"texts and {len(some):,} pictures, weight {weight}", by(weight), problem
    yield "pictures alone", lambda problem: pictures, problem


def paired(setting: Setting) -> Iterator[tuple[str, float]]:
    """What true pairs of other concepts would give: folds over concepts, scored among the items of the fold.

    Against all items a learnt map would win by knowing where the other concepts lie, which is no knowledge of these.
    """
    problem = setting.problem
    labels = [np.array([str(label) for label in side]) for side in problem.labels]
    concepts = sorted(set(labels[0]) & set(labels[1]))
    fold = {concept: i % 5 for i, concept in enumerate(np.random.default_rng(0).permutation(concepts))}
    plain = mix(problem)(problem.query, problem.gallery)
    bag = [posteriors(problem.query, problem.leaf_texts, TAU["leaf"])]
    bag.append(posteriors(problem.gallery, problem.base_texts, TAU["base"]))
    cluster, _ = k_means(np.hstack([problem.leaf_texts, problem.base_texts]) / np.sqrt(2), CLUSTERS)
    sums = np.eye(CLUSTERS, dtype=np.float32)[cluster]
    features = {
        "ridge on embeddings": (problem.query, problem.gallery),
        "ridge on concepts of posteriors": tuple(unit(np.sqrt(side @ sums)) for side in bag),
    }
    held = np.array([[fold.get(label, -1) for label in side] for side in labels[:1]])[0]
    held_base = np.array([fold.get(label, -1) for label in labels[1]])
    folds = [(np.flatnonzero(held == number), np.flatnonzero(held_base == number)) for number in range(5)]

    def within(tables: Sequence[np.ndarray]) -> float:
        parts = [np.ix_(*fold) for fold in folds]
        scored = zip(tables, parts, strict=True)
        return float(np.mean([average_precision(table[part], problem.relevant[part]) for table, part in scored]))

    yield "mix, no pairs", within([plain] * 5)
    for name, (x, g) in features.items():
        learnt = []
        for number in range(5):
            one, other = (np.flatnonzero((side != number) & (side >= 0)) for side in (held, held_base))
            a, b = np.nonzero(problem.relevant[np.ix_(one, other)])
            a, b = x[one[a]], g[other[b]]
            map_ = np.linalg.solve(a.T @ a + 0.1 * len(a) / a.shape[1] * np.eye(a.shape[1]), a.T @ b)
            learnt.append(unit(x @ map_) @ g.T)
        yield name, within(learnt)
        for weight in (0.3, 1.0):
            sums_ = [plain / plain.std() + weight * table / table.std() for table in learnt]
            yield f"mix and {weight} x {name}", within(sums_)


def main() -> None:
    """Run every trial on both benchmarks and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("ISTHMUS_SHARED", "../shared")))
    parser.add_argument("--work", type=Path, help="keeps spaces and embedded texts; default: nowhere")
    parser.add_argument("--trials", default=",".join([*TRIALS, "paired"]), help="only these, with commas")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "research.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        spaces = real.RealSpaces(given.shared, given.work or Path(folder))
        trials = Trials()
        for trial in given.trials.split(","):
            for name in real.REAL:
                run(trial, name, spaces, trials)
                write(given.out, {"rows": trials.rows})


def run(trial: str, name: str, spaces: real.RealSpaces, trials: Trials) -> None:
    """Run one trial on one benchmark."""
    benchmark = spaces.benchmark(name)
    problem = Problem.of(benchmark, benchmark.leaf["text"].unit(), benchmark.base["text"].unit())
    setting, criterion = Setting(spaces, benchmark, problem), None
    if trial == "paired":
        for form, figure in paired(setting):
            trials.rows.append({"trial": trial, "form": form, "benchmark": name, "map": figure})
            print(trial, form, name, f"{figure:.3f}", file=sys.stderr, flush=True)
        return
    for form, recipe, own in TRIALS[trial](setting):
        criterion = criterion or Criterion.of(own)  # the plain form's, for all forms
        trials.add(trial, form, name, recipe, own, criterion)


TRIALS: dict[str, Callable[[Setting], Forms]] = {
    "transport": transport,
    "self-training": self_training,
    "described": described,
    "widened": widened,
    "several": several,
}

if __name__ == "__main__":
    main()
