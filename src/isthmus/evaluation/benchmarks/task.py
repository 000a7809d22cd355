"""What a reader makes of a data set: the items of each side and the truth, ready to encode and to score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from isthmus.items import Item

if TYPE_CHECKING:
    from isthmus.spaces.embeddings import Embeddings
    from isthmus.spaces.selection import Selection

Box = tuple[float, float, float, float]
"""xmin, ymin, xmax, ymax as fractions of the picture's width and height."""


@dataclass(frozen=True)
class ItemSet:
    """Items of one side of a benchmark's task: raw items that are yet to be encoded, or embeddings that exist.

    Attributes:
        modality: What the items are.
        items: Raw items, their ids unique; empty where there are embeddings.
        embeddings: Embeddings of a space; None where there are raw items.
    """

    modality: str
    items: Sequence[Item] = ()
    embeddings: Embeddings | Selection | None = None

    @property
    def ids(self) -> list[str]:
        """Ids of the items, in their order."""
        return list(self.embeddings.ids) if self.embeddings is not None else [item.id for item in self.items]


@dataclass(frozen=True)
class Retrieval:
    """Find the gallery items that belong to a query, and the other way round.

    Attributes:
        query: What is searched with.
        gallery: What is searched.
        pairs: (query id, gallery id); an id may stand in many.
        groups: Name to ids of queries that are scored apart and then averaged, such as languages; empty for one score.
    """

    query: ItemSet
    gallery: ItemSet
    pairs: Sequence[tuple[str, str]]
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Classification:
    """Give each item the class whose name is nearest.

    Attributes:
        query: What is classified.
        classes: Class id to the name that is put into the prompt templates.
        labels: (query id, class id); one an item unless `multilabel`.
        multilabel: An item may have many labels; the figure is then mean average precision over classes.
        prompts: Class texts that are embedded already, with a `class` column; None fills templates with the names.
    """

    query: ItemSet
    classes: Mapping[str, str]
    labels: Sequence[tuple[str, str]]
    multilabel: bool = False
    prompts: ItemSet | None = None


@dataclass(frozen=True)
class Sample:
    """Sample of a localization: a picture with a sound.

    Attributes:
        id: Unique name.
        image: Id of the picture.
        audio: Id of the sound.
        boxes: True places of what sounds; empty when nothing in the picture does.
    """

    id: str
    image: str
    audio: str
    boxes: Sequence[Box] = ()


@dataclass(frozen=True)
class Localization:
    """Find the place in a picture that a sound comes from.

    Attributes:
        image: The pictures.
        audio: The sounds.
        samples: Which sound goes with which picture, and the true boxes.
        agreement: Boxes that must cover a point for it to count whole: 1 is the union of the boxes, 2 gives half a
            point to what one annotator boxed alone.
        counterfactual: Samples without a box are non-sounding and count against what is detected in them.
    """

    image: ItemSet
    audio: ItemSet
    samples: Sequence[Sample]
    agreement: int = 1
    counterfactual: bool = False


Task = Retrieval | Classification | Localization


@dataclass(frozen=True)
class Reading:
    """A data set as it was found on disk.

    Attributes:
        task: What is to be scored.
        missing: Names of published items that are not there; they enter no score and are counted in every report.
        notes: What a reader of the figures must know: repaired rows, doubled ids, conventions that were chosen.
    """

    task: Task
    missing: Sequence[str] = ()
    notes: Sequence[str] = ()
