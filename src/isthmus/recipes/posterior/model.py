"""The posterior model: how alike two items of two spaces are, by what they would be among the shared items.

mix  = sum_t p(t | x) q(t | g), the probability that both mean the same shared item;
bag  = the same of clusters of shared items, summed over several clusterings;
two  = each compared with the other's average over the shared items, in their two spaces.
Each is brought to deviation one on pairs of memory rows; the score is their sum. `recipes.posterior.routes` writes the
same as vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from isthmus.bridges.steps.softmax import denoise, posterior
from isthmus.core.geometry import Array, normalize
from isthmus.core.runtime import numpy_generator
from isthmus.recipes.posterior.canonical import Canonical, fit_canonical
from isthmus.recipes.posterior.concepts import Numbers, side_by_side, spherical_kmeans, sum_by
from isthmus.recipes.posterior.config import PosteriorConfig
from isthmus.recipes.posterior.joint import Joint, Member
from isthmus.recipes.posterior.support import support

PARTS = ("mix", "bag", "two", "cca")
ABSENT = np.float32(-1e4)
"""Added to the logits of shared items that a space does not know: their posterior is 0."""
_SCALE_ROWS = (250, 400)
"""Memory rows of either space whose pairs give the deviation of a part."""


@dataclass(frozen=True)
class Described:
    """Items of one space: posteriors (n, items), averages of the other spaces' rows, and canonical coordinates."""

    member: int
    p: Array
    own: Array
    images: dict[int, Array]
    canonical: Array


@dataclass(frozen=True)
class Model:
    """A fitted posterior model.

    Attributes:
        joint: The spaces.
        config: Settings.
        biases: By number of a space and modality, (items,) what its memory adds to the logits.
        concepts: Clusterings of the shared items, (items,) numbers each.
        canonical: Canonical directions of every space.
        scales: By part, its mean and deviation on pairs of memory rows.
        balance: By pair of spaces, the weight of `two` that keeps it in the proportion to the other parts that it would
            have if the two were joined alone.
    """

    joint: Joint
    config: PosteriorConfig
    biases: dict[tuple[int, str], Array]
    concepts: list[Numbers]
    canonical: Canonical
    scales: dict[str, tuple[float, float]] = field(default_factory=dict)
    balance: dict[tuple[int, int], float] = field(default_factory=dict)

    def without(self, left_out: NDArray[np.bool_]) -> Model:
        """The model fitted without some of the shared items; clusterings and scales stay."""
        kept = ~left_out
        joint = self.joint.keep(kept)
        return replace(
            self,
            joint=joint,
            biases={key: bias[kept] for key, bias in self.biases.items()},
            concepts=[numbers[kept] for numbers in self.concepts],
            canonical=fit_canonical(joint, self.config.strength),
        )

    @cached_property
    def keys(self) -> list[Array]:
        """By space, the shared items as the bridge stores them: rounded to float16."""
        return [member.items.astype(np.float16).astype(np.float32) for member in self.joint.members]

    def prepared(self, member: int, modality: str, centred: Array) -> Array:
        """Centred unit rows, denoised by the memory of their modality."""
        config, memory = self.config, self.joint.members[member].memories[modality]
        if not config.denoising or memory.shared or len(memory.rows) < 2:
            return centred
        k = min(config.denoising_neighbours, len(memory.rows))
        parts = [
            denoise(centred[start : start + 2048], memory.rows, k, config.denoising_weight)
            for start in range(0, len(centred), 2048)
        ]
        return np.concatenate(parts)

    def describe(self, member: int, modality: str, centred: Array) -> Described:
        """Items by their posteriors.

        Args:
            member: Number of the space.
            modality: Their modality in it.
            centred: (n, d) centred unit rows; see `Memory.centred`.
        """
        x, keys, bias = self.prepared(member, modality, centred), self.keys[member], self.biases[member, modality]
        p = posterior(x, keys, self.config.temperature, bias)
        images: dict[int, Array] = {}
        if self.config.two_sided:
            sharp = posterior(x, keys, self.config.two_sided_temperature, bias)
            images = {n: normalize(sharp @ rows) for n, rows in enumerate(self.keys) if n != member}
        return Described(member, p, x, images, self.canonical.carry(member, centred))

    def parts(self, a: Described, b: Described) -> dict[str, Array]:
        """What compares items of two spaces, by part, (n, m) each; parts that are off are left out."""
        found: dict[str, Array] = {}
        if self.config.mix:
            found["mix"] = a.p @ b.p.T
        if self.config.concepts:
            bags = [(sum_by(a.p, c, c.max() + 1), sum_by(b.p, c, c.max() + 1)) for c in self.concepts]
            found["bag"] = np.asarray(sum(x @ y.T for x, y in bags), dtype=np.float32)
        if self.config.two_sided:
            weight = self.balance.get((min(a.member, b.member), max(a.member, b.member)), 1.0)
            found["two"] = a.own @ b.images[a.member].T + a.images[b.member] @ b.own.T
            found["two"] *= np.float32(weight)
        found["cca"] = a.canonical @ b.canonical.T
        return found

    def score(self, parts: Mapping[str, Array], cca_weight: float) -> Array:
        """One score of the parts: their sum in deviations, canonical directions by their weight (inf: they alone)."""
        if np.isinf(cca_weight):
            return parts["cca"]
        weights = {name: (cca_weight if name == "cca" else 1.0) / self.scales[name][1] for name in parts}
        return np.asarray(sum(np.float32(weights[name]) * part for name, part in parts.items()), dtype=np.float32)


def fit_model(joint: Joint, config: PosteriorConfig) -> Model:
    """Fit support, concepts, canonical directions and scales."""
    biases = {
        (n, name): bias for n, member in enumerate(joint.members) for name, bias in biases_of(member, config).items()
    }
    concepts: list[Numbers] = []
    if config.concepts:
        rows = side_by_side([member.items for member in joint.members])
        count = max(2, len(joint.ids) // config.concept_items)
        concepts = [
            spherical_kmeans(rows, count, steps=config.concept_steps, seed=config.seed + run)
            for run in range(config.concept_runs)
        ]
    model = Model(joint, config, biases, concepts, fit_canonical(joint, config.strength))
    scales, balance = _scales(model)
    return replace(model, scales=scales, balance=balance)


def biases_of(member: Member, config: PosteriorConfig) -> dict[str, Array]:
    """By modality, what is added to the logits of every shared item: its support; `ABSENT` where it is unknown.

    An overlap modality takes the best support of the others'.
    """
    absent = np.where(member.items.any(axis=1), np.float32(0.0), ABSENT)
    own = [name for name, memory in member.memories.items() if not memory.shared]
    if not config.support or not own:
        return dict.fromkeys(member.memories, absent)
    found = {
        name: absent
        + np.float32(config.support_weight)
        * support(member.items, member.memories[name].rows, config.support_neighbours)
        for name in own
    }
    best = np.max(list(found.values()), axis=0)
    return {name: found.get(name, best) for name in member.memories}


def sample_rows(member: Member, most: int, seed: int) -> dict[str, Array]:
    """Some memory rows of the modalities that are the space's own."""
    share = max(1, most // len(member.own))
    found = {}
    for name in member.own:
        rows = member.memories[name].rows
        chosen = numpy_generator(seed, 5).choice(len(rows), min(share, len(rows)), replace=False)
        found[name] = rows[np.sort(chosen)]
    return found


def _scales(model: Model) -> tuple[dict[str, tuple[float, float]], dict[tuple[int, int], float]]:
    """Mean and deviation of every part on pairs of memory rows, over all pairs of spaces, and what balances `two`."""
    members = model.joint.members
    described: list[Sequence[Described]] = [
        [model.describe(n, name, rows) for name, rows in sample_rows(member, max(_SCALE_ROWS), 0).items()]
        for n, member in enumerate(members)
    ]
    means: dict[str, list[float]] = {}
    logs: dict[str, dict[tuple[int, int], list[float]]] = {}
    for pair in combinations(range(len(members)), 2):
        for x, y in product(*(described[n] for n in pair)):
            for name, part in model.parts(x, y).items():
                means.setdefault(name, []).append(float(part.mean()))
                logs.setdefault(name, {}).setdefault(pair, []).append(float(np.log(max(float(part.std()), 1e-12))))
    # Geometric means of the deviations: they differ by factors where spaces differ in how sure they are.
    overall = {name: float(np.mean([v for each in by.values() for v in each])) for name, by in logs.items()}
    away = {name: {pair: float(np.mean(v)) - overall[name] for pair, v in by.items()} for name, by in logs.items()}
    others = [away[name] for name in ("mix", "bag") if name in away]
    balance = {
        pair: float(np.exp(np.mean([each[pair] for each in others] or [0.0]) - own))
        for pair, own in away.get("two", {}).items()
    }
    return {name: (float(np.mean(means[name])), float(np.exp(each))) for name, each in overall.items()}, balance
