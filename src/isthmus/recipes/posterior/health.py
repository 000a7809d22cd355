"""What is wrong with overlaps, seen without a label; and which of several overlaps posteriors are to be over."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from isthmus.recipes.posterior.agreement import agreeing, chance, neighbours_of
from isthmus.recipes.posterior.joint import Joint
from isthmus.recipes.posterior.kinship import kinship
from isthmus.recipes.posterior.rematch import rematch

BROKEN, DOUBTFUL = 0.75, 0.35
"""Shares of the overlap that are wrong at least, above which a bridge is broken or doubtful."""
PRIOR = 100.0
"""Shared items that speak for an estimate of nothing: clusters of a few hundred texts are so coarse that items find
their own easily, and an estimate from n of them is shrunk by n / (n + PRIOR)."""
STRANGERS = 0.15
"""Kinship below which the shared items of a space have nothing to do with its others."""
MINIMUM_KEPT = 0.1
"""Share of the overlap below which nothing is dropped: what is left would be chance."""


@dataclass(frozen=True)
class Health:
    """What is wrong with the overlaps.

    Attributes:
        damaged: By pair of spaces, the share of shared items that seems to be wrong.
        kinship: By space and modality, how near shared items are to a space's own.
        items: By pair, how many shared items that share is of.
    """

    damaged: dict[str, float]
    kinship: dict[str, float]
    items: dict[str, int]

    @property
    def least(self) -> dict[str, float]:
        """The share that is wrong at least: two standard errors below what seems to be."""
        return {
            pair: share - 2 * float(np.sqrt(share * (1 - share) / max(self.items[pair], 1)))
            for pair, share in self.damaged.items()
        }

    @property
    def broken(self) -> list[str]:
        """Reasons why nothing of the bridge can be trusted."""
        pairs = [f"{p} have no neighbours in common" for p, share in self.least.items() if share >= BROKEN]
        return pairs + [
            f"the shared items of {n} lie nowhere near its own" for n, k in self.kinship.items() if k < STRANGERS
        ]

    @property
    def doubtful(self) -> list[str]:
        """Reasons to look at the data."""
        return [
            f"{share:.0%} of the items that {pair} share have no neighbours in common"
            for pair, share in self.damaged.items()
            if DOUBTFUL <= self.least[pair] < BROKEN
        ]


def examine(joint: Joint, seed: int = 0, *, mend: bool = True) -> tuple[Joint, Health]:
    """Look for wrong ids in the overlaps, and leave out the shared items that no neighbourhood speaks for.

    Where a large part of the ids of two spaces is wrong, items are matched anew first, if `mend` says so.
    Of several spaces, an item that only one of them disagrees on is unknown to that one (see `Joint.unknown`) and stays
    for the others; what fewer than two spaces know is left out.
    """
    damaged, items, known = _agreement(joint, seed)
    near = {
        f"{member.name}/{name}": kinship(member.items, member.memories[name].rows, seed=seed)
        for member in joint.members
        for name in member.own
        if not member.memories[name].shared
    }
    health = Health(damaged, near, items)
    if mend and health.doubtful and not health.broken and [link.joint for link in joint.links] == [True]:
        joint, known = _mended(joint, known[joint.links[0].first], seed)
    knowing = np.sum([*known.values()], axis=0) if known else np.full(len(joint.ids), 2)
    good = np.asarray(knowing >= 2)
    if good.mean() < MINIMUM_KEPT or good.sum() < 64:
        return joint, health
    joint = joint.unknown({n: ~each for n, each in known.items()})
    dropped = [name for name, yes in zip(joint.ids, good, strict=True) if not yes]
    kept = joint.keep(good)
    return replace(kept, dropped=dropped), health


def _agreement(joint: Joint, seed: int) -> tuple[dict[str, float], dict[str, int], dict[int, NDArray[np.bool_]]]:
    """By pair of spaces the share that is damaged and the items it is of; by space, which shared items it knows."""
    damaged: dict[str, float] = {}
    items: dict[str, int] = {}
    known = {n: np.zeros(len(joint.ids), bool) for link in joint.links if link.joint for n in (link.first, link.second)}
    for link in joint.links:
        n = len(link.rows[0])
        k = neighbours_of(n)
        some, none = agreeing(*link.rows, neighbours=k, doubtful=DOUBTFUL, seed=seed)
        names = f"{joint.members[link.first].name} and {joint.members[link.second].name}"
        items[names] = n
        damaged[names] = float(min(1.0, none / max(chance(n, neighbours=k), 1e-9)))
        if link.joint:
            known[link.first] |= some
            known[link.second] |= some
    return damaged, items, known


def _mended(joint: Joint, agree: NDArray[np.bool_], seed: int) -> tuple[Joint, dict[int, NDArray[np.bool_]]]:
    """Two spaces whose items that disagree are matched anew, and which items both know then."""
    [link] = joint.links
    partner = rematch(*link.rows, agree, seed=seed)
    changed = (partner >= 0) & (partner != np.arange(len(partner)))
    rows = link.rows[1][np.where(partner >= 0, partner, np.arange(len(partner)))]
    members = [replace(m, items=rows) if n == link.second else m for n, m in enumerate(joint.members)]
    pairs = [(joint.ids[i], joint.ids[partner[i]]) for i in np.flatnonzero(changed)]
    mended = replace(joint, members=members, links=[replace(link, rows=(link.rows[0], rows))], rematched=pairs)
    return mended, dict.fromkeys((link.first, link.second), partner >= 0)


def trust_in(items: int) -> float:
    """What is left of an estimate from some shared items."""
    return items / (items + PRIOR)


def choose_family(joint: Joint, seed: int = 0) -> tuple[Joint, dict[str, float]]:
    """Choose one of the modalities that spaces share, for posteriors to be over.

    With two in one list an item recognises those of its own kind alone: a picture lies nearer to every shared picture
    than to any text, a sound does not, and the two never meet. The modality is taken whose items have neighbours in
    common most often, shrunk by how many there are; of equals the first.

    Returns:
        The joint over the shared items of that modality alone, and what each modality was given.
    """
    worth: dict[str, float] = {}
    single = {name: joint.family(name) for name in joint.via}
    if len(single) > 1:
        for name, one in single.items():
            damaged, _, _ = _agreement(one, seed)
            worth[name] = round(trust_in(len(one.ids)) * (1.0 - max(damaged.values(), default=0.0)), 4)
        joint = single[max(worth, key=lambda name: worth[name])]
    return joint, worth
