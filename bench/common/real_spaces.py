"""The benchmarks of joining as arrays and spaces: two of real embeddings, and the demo's world in several drawings.

Every benchmark has two spaces that share a modality, test items that no training saw, and true pairs of them. Variants
of the overlap of the real ones: all texts, captions alone, names alone, the vocabulary that ships alone or with all
texts, a tenth of the texts, 300 texts.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tomllib

import isthmus
from isthmus.metrics import retrieval_scores
from isthmus.spaces.space import Space

HERE = Path(__file__).resolve().parent
CAPTIONS = ("audiocaps", "flickr8k", "clotho_eval")
NAMES = ("classnames", "lvis_name", "lvis_def")
REAL = {
    "sound-picture": ("sound", "audio", "sound_audio", "picture_image"),
    "shape-picture": ("shape", "point_cloud", "shape_point_cloud", "picture_image_shapes"),
}
"""By name: the leaf, its modality, the files of its test items and of the pictures."""
VARIANTS = ("all", "captions", "names", "vocabulary", "all+vocabulary", "tenth", "300")
FEW = {"tenth": 0.1, "300": 300}


@dataclass(frozen=True)
class Items:
    """Test items of one modality of one space.

    Attributes:
        space: Name of the space.
        modality: Its modality.
        rows: (n, d) embeddings.
        labels: The concept of each item, or its id where concepts are unknown.
    """

    space: str
    modality: str
    rows: np.ndarray
    labels: Sequence[str]


@dataclass(frozen=True)
class Task:
    """True pairs of two sets of test items, (q, g) bool."""

    query: Items
    gallery: Items
    relevant: np.ndarray

    @property
    def name(self) -> str:
        """Name of the ordered pair, query first."""
        return f"{self.query.modality} > {self.gallery.modality}"


SEEN = {"audio": ("banjo", "cello", "flute")}
"""Concepts of test items that a space's own training has seen: instrument clips, never with an image."""


def unseen(task: Task) -> Task | None:
    """The task without query items that a space was trained on, or None where there are none."""
    seen = SEEN.get(task.query.modality, ())
    fresh = np.array([label not in seen for label in task.query.labels])
    if fresh.all():
        return None
    labels = [label for label, yes in zip(task.query.labels, fresh, strict=True) if yes]
    query = replace(task.query, rows=task.query.rows[fresh], labels=labels)
    return Task(query, task.gallery, task.relevant[fresh])


@dataclass
class Benchmark:
    """Two spaces and what is asked of their join.

    Attributes:
        name: Name of the benchmark.
        base: The base.
        leaf: The leaf.
        via: The modality that they share.
        cross: True pairs across the two spaces.
        own: True pairs inside each space, for what a join keeps of them.
        names: For the ceiling: by side ("leaf", "base") the rows of the tested concepts' texts in that space.
    """

    name: str
    base: Space
    leaf: Space
    via: str
    cross: Task
    own: Sequence[Task] = ()
    names: Mapping[str, np.ndarray] = field(default_factory=dict)


def scores_of(bridge: Any, task: Task) -> dict[str, dict[str, float]]:
    """Score a task in a bridge's unified space, both directions: mAP and recalls by "query > gallery"."""
    query = bridge.project(task.query.rows, space=task.query.space, modality=task.query.modality)
    gallery = bridge.project(task.gallery.rows, space=task.gallery.space, modality=task.gallery.modality)
    return both_directions(task, query @ gallery.T)


def own_scores(task: Task) -> dict[str, dict[str, float]]:
    """Score a task inside its space, as the embeddings came."""
    return both_directions(task, unit(task.query.rows) @ unit(task.gallery.rows).T)


def both_directions(task: Task, scores: np.ndarray) -> dict[str, dict[str, float]]:
    """Figures of a matrix of scores from both sides; items without a pair enter no average."""
    found = {}
    sides = (task.query.modality, task.gallery.modality, scores, task.relevant)
    for query, gallery, table, relevant in (sides, (sides[1], sides[0], scores.T, task.relevant.T)):
        rows = np.flatnonzero(relevant.any(axis=1))
        figures = retrieval_scores(np.ascontiguousarray(table[rows]), np.ascontiguousarray(relevant[rows]))
        found[f"{query} > {gallery}"] = {key: float(figures[key]) for key in ("map", "r@1", "r@5", "r@10")}
    return found


def mean_map(scores: Mapping[str, Mapping[str, float]]) -> float:
    """Mean average precision over both directions."""
    return float(np.mean([row["map"] for row in scores.values()]))


def unit(rows: np.ndarray) -> np.ndarray:
    """Scale rows to unit length."""
    rows = np.asarray(rows, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax of each row."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


class RealSpaces:
    """The real embeddings below `shared`, as spaces in a working folder.

    Args:
        shared: Folder of the real data.
        work: Folder that keeps spaces and embedded texts.
    """

    def __init__(self, shared: Path, work: Path) -> None:
        self.data, self.work = shared / "data" / "embeddings", work
        os.environ["ISTHMUS_SHARED"] = str(shared)

    def read(self, file: str) -> tuple[list[str], np.ndarray, Any]:
        """Read ids, rows and the whole table of one file of embeddings."""
        table = pq.read_table(self.data / f"{file}.parquet")
        rows = np.stack(table["embedding"].to_numpy(zero_copy_only=False)).astype(np.float32)
        return table["id"].to_pylist(), rows, table

    @cached_property
    def texts(self) -> Any:
        """The table of the shared texts, the same in all spaces."""
        return pq.read_table(self.data / "picture" / "text.parquet", columns=["id", "text", "source"])

    def space(self, name: str, variant: str, seed: int) -> Space:
        """Make or open a space with a variant of the overlap's texts."""
        kept = {"vocabulary": "none", "all+vocabulary": "all"}.get(variant, variant)
        folder = self.work / f"{kept}-{seed if kept in FEW else 0}" / f"{name}.space"
        if not folder.exists():
            modalities: dict[str, Any] = {}
            for file in sorted((self.data / name).glob("*.parquet")):
                ids, rows, _ = self.read(f"{name}/{file.stem}")
                if file.stem != "text":
                    modalities[file.stem] = (ids, rows)
                elif kept != "none":
                    chosen = self.chosen(kept, seed)
                    texts = self.texts["text"].to_pylist()
                    columns = {"text": [texts[i] for i in chosen]}
                    modalities["text"] = ([ids[i] for i in chosen], rows[chosen], columns)
            isthmus.make_space(folder, modalities, name=name)
        space = isthmus.open_space(folder)
        if "vocabulary" not in variant:
            return space
        from text_heads import TextHead

        cache = self.work / "texts"
        return isthmus.share_texts([space], "builtin", encoders={name: TextHead(name)}, cache=cache, quiet=True)[0]

    def chosen(self, variant: str, seed: int) -> np.ndarray:
        """Choose the rows of the shared texts that a variant has."""
        sources = np.array(self.texts["source"].to_pylist())
        if variant in FEW:
            count = int(FEW[variant] * len(sources)) if FEW[variant] < 1 else int(FEW[variant])
            return np.sort(np.random.default_rng(seed).choice(len(sources), count, replace=False))
        wanted = {"captions": CAPTIONS, "names": NAMES}.get(variant)
        return np.arange(len(sources)) if wanted is None else np.flatnonzero(np.isin(sources, wanted))

    def benchmark(self, name: str, variant: str = "all", seed: int = 0) -> Benchmark:
        """Put a benchmark together."""
        leaf, modality, query_file, gallery_file = REAL[name]
        query_ids, query_rows, query_table = self.read(f"test/{query_file}")
        gallery_ids, gallery_rows, gallery_table = self.read(f"test/{gallery_file}")
        query = Items(leaf, modality, query_rows, query_table["label"].to_pylist())
        gallery = Items("picture", "image", gallery_rows, gallery_table["label"].to_pylist())
        relevant = np.zeros((len(query_ids), len(gallery_ids)), bool)
        rows, columns = ({id_: i for i, id_ in enumerate(ids)} for ids in (query_ids, gallery_ids))
        pairs = pq.read_table(self.data / "test" / f"pairs_{leaf}_picture.parquet")
        for one, other in zip(pairs["query_id"].to_pylist(), pairs["gallery_id"].to_pylist(), strict=True):
            relevant[rows[one], columns[other]] = True
        own = [self.named(query, f"{leaf}-names"), self.named(gallery, "picture-names" if leaf == "sound" else "")]
        sides = {"leaf": own[0], "base": self.named(gallery, f"{leaf}-names")}
        return Benchmark(
            name,
            self.space("picture", variant, seed),
            self.space(leaf, variant, seed),
            "text",
            Task(query, gallery, relevant),
            [task for task in own if task is not None],
            {side: task.gallery.rows for side, task in sides.items() if task is not None},
        )

    def named(self, items: Items, suite: str) -> Task | None:
        """Pair items with the texts that name their concepts in their own space."""
        if not suite:
            return None
        declared = tomllib.loads((HERE.parent / "suite" / f"{suite}.toml").read_text())["options"]["class_texts"]
        _, rows, _ = self.read(f"{items.space}/text")
        number = {text: row for row, text in enumerate(self.texts["text"].to_pylist())}
        concepts = {name: [number[text] for text in texts if text in number] for name, texts in declared.items()}
        concepts = {name: found for name, found in concepts.items() if found}
        prompts = np.stack([unit(rows[found]).mean(axis=0) for found in concepts.values()])
        relevant = np.array([[label == name for name in concepts] for label in items.labels])
        return Task(items, Items(items.space, "text", prompts, list(concepts)), relevant)


def demo_benchmarks(folder: Path) -> list[Benchmark]:
    """Open the demo's world as benchmarks: sounds to pictures through texts, shapes to pictures through pictures.

    Args:
        folder: What `isthmus demo --out` made.
    """
    spaces = {name: isthmus.open_space(folder / "spaces" / f"{name}.space") for name in ("picture", "sound", "shape")}
    tests = {
        modality: isthmus.open_space(folder / "spaces" / f"{space}-test.space")[modality]
        for modality, space in {"image": "picture", "text": "picture", "audio": "sound", "point_cloud": "shape"}.items()
    }
    home = {"image": "picture", "text": "picture", "audio": "sound", "point_cloud": "shape"}

    def items(modality: str) -> Items:
        return Items(home[modality], modality, np.asarray(tests[modality]), tests[modality].ids)

    def task(query: str, gallery: str, pairs: Sequence[tuple[str, str]]) -> Task:
        one, other = items(query), items(gallery)
        rows, columns = ({id_: i for i, id_ in enumerate(side.labels)} for side in (one, other))
        relevant = np.zeros((len(rows), len(columns)), bool)
        for a, b in pairs:
            relevant[rows[a], columns[b]] = True
        return Task(one, other, relevant)

    sound = _pairs(folder / "pairs" / "audio-image.csv")
    text = _pairs(folder / "pairs" / "point_cloud-text.csv")
    pictures = [(a.replace(".ply", ".png"), b) for a, b in text]
    own = [task("image", "text", pictures)]
    return [
        Benchmark("demo audio-image", spaces["picture"], spaces["sound"], "text", task("audio", "image", sound), own),
        Benchmark(
            "demo 3D-text", spaces["picture"], spaces["shape"], "image", task("point_cloud", "text", text),
            [*own],
        ),
    ]  # fmt: skip


def _pairs(path: Path) -> list[tuple[str, str]]:
    with open(path, newline="") as stream:
        return [(row["query_id"], row["gallery_id"]) for row in csv.DictReader(stream)]
