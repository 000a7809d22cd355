"""Ids, modalities and galleries of the items of an index, and the place of each item by gallery and id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.errors import EvaluationError
from isthmus.search.rows import Mask


class ItemLabels:
    """Labels of all places of an index, those of deleted items included.

    Methods take the (size,) mask of places that hold an item, which the rows know.

    Args:
        ids: (n,) what the items are called.
        modalities: (n,) their modalities, or one for all.
        galleries: (n,) their galleries, or one for all.

    Raises:
        EvaluationError: There are not as many labels as ids.
    """

    def __init__(self, ids: list[str], modalities: str | Sequence[str], galleries: str | Sequence[str]) -> None:
        self.ids = ids
        self.modalities = _labels(modalities, len(ids), "modalities")
        self.galleries = _labels(galleries, len(ids), "galleries")
        self._places: dict[tuple[str, str], int] | None = None
        self._gallery_names: dict[str, None] = {}
        self._arrays: dict[str, NDArray[Any]] = {}

    def array(self, name: str) -> NDArray[Any]:
        """The `modalities` or `galleries` of all places as an array, made once until places are added or moved."""
        if name not in self._arrays:
            self._arrays[name] = np.asarray(self.modalities if name == "modalities" else self.galleries)
        return self._arrays[name]

    def places(self, living: Mask) -> dict[tuple[str, str], int]:
        """Place of every item by gallery and id.

        Raises:
            EvaluationError: One gallery holds an id twice.
        """
        if self._places is None:
            places = {}
            for place in np.flatnonzero(living).tolist():
                key = self.galleries[place], self.ids[place]
                if key in places:
                    raise EvaluationError(
                        f"the index holds the id {key[1]!r} twice{in_gallery(key[0])}, so its items cannot be told "
                        "apart. Make it of ids that are unique, or of several galleries."
                    )
                places[key] = place
            self._places, self._gallery_names = places, dict.fromkeys(self.galleries)
        return self._places

    def place(self, name: str, gallery: str | None, living: Mask) -> int:
        """Place of one item; without a gallery, of the only one of that id.

        Raises:
            EvaluationError: There is none, or several galleries hold the id.
        """
        places = self.places(living)
        galleries = list(self._gallery_names) if gallery is None else [gallery]
        having = [one for one in galleries if (one, name) in places]
        if len(having) == 1:
            return places[having[0], name]
        if not having:
            raise EvaluationError(f"the index has no id {name!r}{in_gallery(gallery or '')}. Add it, or check the id.")
        raise EvaluationError(f"the id {name!r} is in the galleries {', '.join(map(repr, having))}. Give gallery=.")

    def holds(self, name: object, living: Mask) -> bool:
        """Whether any gallery holds an id."""
        places = self.places(living)
        return any((gallery, name) in places for gallery in self._gallery_names)

    def append(self, ids: list[str], modality: str, gallery: str, new_places: Iterable[int], living: Mask) -> None:
        """Label new places."""
        self.ids.extend(ids)
        self.modalities.extend([modality] * len(ids))
        self.galleries.extend([gallery] * len(ids))
        self._arrays.clear()
        self._gallery_names[gallery] = None
        self.places(living).update(((gallery, name), int(place)) for name, place in zip(ids, new_places, strict=True))

    def forget(self, place: int, name: str, living: Mask) -> None:
        """Take an item's name away from its place."""
        del self.places(living)[self.galleries[place], name]

    def keep(self, survivors: Iterable[int]) -> None:
        """Labels of these places alone, in their order."""
        order = list(survivors)
        self.ids, self.modalities, self.galleries = (
            [values[place] for place in order] for values in (self.ids, self.modalities, self.galleries)
        )
        self._arrays.clear()
        self._places = None


def in_gallery(gallery: str) -> str:
    """The gallery as messages name it; nothing for the one without a name."""
    return f" in {gallery!r}" if gallery else ""


def _labels(given: str | Sequence[str], count: int, what: str) -> list[str]:
    """One label an item, from one for all or from a list."""
    labels = [given] * count if isinstance(given, str) else [str(each) for each in given]
    if len(labels) != count:
        raise EvaluationError(f"the index has {count:,} embeddings and {len(labels):,} {what}. Expected as many.")
    return labels
