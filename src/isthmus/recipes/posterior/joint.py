"""What the closed forms see of the spaces that they join: shared items in every space, and each modality's memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import Array, normalize


@dataclass(frozen=True)
class Memory:
    """Rows of one modality, centred and of unit length, with the mean that was removed.

    Attributes:
        mean: (d,) of the unit rows before.
        rows: (m, d), drawn at random; of an overlap modality, the shared items themselves.
        shared: Whether the modality is part of the overlap.
    """

    mean: Array
    rows: Array
    shared: bool

    def centred(self, x: Array) -> Array:
        """Unit rows of the modality with its mean removed, at unit length again."""
        return normalize(normalize(x) - self.mean)


@dataclass(frozen=True)
class Member:
    """One space of a join.

    Attributes:
        name: Its name.
        items: (n, d) centred unit rows of the shared items; zeros where the space does not know one.
        memories: By modality.
    """

    name: str
    items: Array
    memories: dict[str, Memory]

    @property
    def own(self) -> list[str]:
        """Modalities that are not part of the overlap; all, where there are no others."""
        return [name for name, memory in self.memories.items() if not memory.shared] or list(self.memories)


@dataclass(frozen=True)
class Link:
    """What two spaces share: numbers of the spaces, and centred unit rows (n, d) of the same items in both.

    `joint` says that the items are those of the posterior.
    """

    first: int
    second: int
    via: tuple[str, ...]
    rows: tuple[Array, Array]
    joint: bool = False


@dataclass(frozen=True)
class Joint:
    """Spaces to be joined.

    Attributes:
        members: The spaces.
        links: Overlaps of pairs of them.
        ids: (n,) ids of the shared items that the posteriors are over.
        labels: (n,) what to call them.
        via: By the order of the items, modalities of the shared items and how many of each there are.
        dropped: Ids of shared items that were left out since their neighbourhoods have nothing in common.
        rematched: Ids of the first space with the ids of the second whose items they were matched to anew.
        virtual: Names of spaces that lack the shared items themselves and describe them by what they have.
    """

    members: list[Member]
    links: list[Link]
    ids: list[str]
    labels: list[str]
    via: dict[str, int]
    dropped: list[str] = field(default_factory=list)
    rematched: list[tuple[str, str]] = field(default_factory=list)
    virtual: list[str] = field(default_factory=list)

    def keep(self, kept: NDArray[np.bool_]) -> Joint:
        """The same over some of the shared items alone."""
        names = [name for name, yes in zip(self.ids, kept, strict=True) if yes]
        labels = [name for name, yes in zip(self.labels, kept, strict=True) if yes]
        ends = np.cumsum([0, *self.via.values()])
        counts = {name: int(kept[start:end].sum()) for name, start, end in zip(self.via, ends, ends[1:], strict=False)}
        return replace(
            self,
            via=counts,
            members=[replace(member, items=member.items[kept]) for member in self.members],
            links=[
                replace(link, rows=(link.rows[0][kept], link.rows[1][kept])) if link.joint else link
                for link in self.links
            ],
            ids=names,
            labels=labels,
        )

    def family(self, name: str) -> Joint:
        """The same over the shared items of one of the modalities of `via` alone; the others are a space's own."""
        ends = np.cumsum([0, *self.via.values()])
        start, end = next((a, b) for each, a, b in zip(self.via, ends, ends[1:], strict=False) if each == name)
        one = self.keep((np.arange(len(self.ids)) >= start) & (np.arange(len(self.ids)) < end))
        members = [
            replace(
                member,
                memories={
                    key: replace(memory, shared=memory.shared and key == name)
                    for key, memory in member.memories.items()
                },
            )
            for member in one.members
        ]
        links = [replace(link, via=(name,)) if link.joint else link for link in one.links]
        return replace(one, via={name: one.via[name]}, members=members, links=links)

    def unknown(self, rows: Mapping[int, NDArray[np.bool_]]) -> Joint:
        """The same, some shared items being unknown to some spaces, by number: zeros, of which the posterior is 0."""
        members = [
            replace(member, items=np.where(rows[n][:, None], np.float32(0.0), member.items)) if n in rows else member
            for n, member in enumerate(self.members)
        ]
        links = [
            replace(link, rows=(members[link.first].items, members[link.second].items)) if link.joint else link
            for link in self.links
        ]
        return replace(self, members=members, links=links)

    @property
    def families(self) -> dict[str, list[str]]:
        """The ids of the shared items by modality, in the order of the items."""
        ends = np.cumsum([0, *self.via.values()])
        return {name: self.ids[a:b] for name, a, b in zip(self.via, ends, ends[1:], strict=False)}
