"""What is asked of the service and what it answers, as /openapi.json describes it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class QueryPart(_Model):
    """One item of a query: a text, an item of a gallery, an upload's handle, or a vector of the unified space."""

    text: str | None = Field(None, min_length=1)
    gallery: str | None = None
    id: str | None = None
    handle: str | None = None
    vector: list[float] | None = None
    weight: float = Field(1.0, ge=-100, le=100, allow_inf_nan=False, description="Below 0: less like this.")

    @model_validator(mode="after")
    def _one(self) -> QueryPart:
        given = [self.text is not None, self.id is not None, self.handle is not None, self.vector is not None]
        if sum(given) != 1 or (self.gallery is None) != (self.id is None):
            raise ValueError("give one of text, handle, vector, or gallery and id")
        if self.weight == 0:
            raise ValueError("weight must not be 0")
        return self


class SearchRequest(_Model):
    """A search of galleries by one or several items."""

    queries: list[QueryPart] = Field(min_length=1)
    galleries: list[str] | None = Field(None, description="Names; all where left out.")
    k: int = Field(10, ge=1, description="Hits a gallery.")
    filter: str | None = Field(None, max_length=2_000, description='Of metadata: `year > 2010 and label in ("dog")`.')


class HitAnswer(BaseModel):
    """One hit."""

    id: str
    score: float
    metadata: dict[str, Any]


class GalleryHits(BaseModel):
    """Hits of one gallery, best first."""

    gallery: str
    modality: str
    hits: list[HitAnswer]


class SearchAnswer(BaseModel):
    """Hits by gallery, so that no modality crowds out another."""

    results: list[GalleryHits]


class TextsRequest(_Model):
    """Texts to embed."""

    texts: list[str] = Field(min_length=1)


class EmbedAnswer(BaseModel):
    """Unit rows of the unified space; the handle stands for an uploaded file in searches."""

    dim: int
    embeddings: list[list[float]]
    handle: str | None = None


class ExplainRequest(_Model):
    """Why an item of a gallery matches a query."""

    queries: list[QueryPart] = Field(min_length=1)
    gallery: str
    id: str


class ConceptAnswer(BaseModel):
    """A shared text and its part in the match."""

    text: str
    share: float


class ExplainAnswer(BaseModel):
    """The shared texts that carry a match."""

    exact: bool = Field(description="Whether the shares are the very summands of the routes' own posteriors.")
    basis: str = Field(description="What the shares are taken from, in a few words.")
    concepts: list[ConceptAnswer]


class ItemAnswer(BaseModel):
    """An item of a gallery."""

    id: str
    metadata: dict[str, Any]


class ItemsAnswer(BaseModel):
    """Some items of a gallery, in its order."""

    total: int
    items: list[ItemAnswer]


class NewItem(_Model):
    """An item to add: its vector in the unified space, a text, or an uploaded file's handle."""

    id: str = Field(min_length=1, max_length=1_000)
    text: str | None = None
    handle: str | None = None
    vector: list[float] | None = None
    metadata: dict[str, str | float | int | bool | None] = Field(default_factory=dict, max_length=64)

    @model_validator(mode="after")
    def _one(self) -> NewItem:
        if sum(each is not None for each in (self.text, self.handle, self.vector)) != 1:
            raise ValueError("give one of text, handle, vector")
        return self


class ItemsRequest(_Model):
    """Items to add to a gallery; one of an id that is there takes its place."""

    gallery: str
    items: list[NewItem] = Field(min_length=1)


class DeleteRequest(_Model):
    """Items to delete."""

    gallery: str
    ids: list[str] = Field(min_length=1)


class CountAnswer(BaseModel):
    """How many items were changed, and how many the gallery holds now."""

    changed: int
    total: int


class Fault(BaseModel):
    """What is wrong, in one line."""

    error: str
    message: str


FAULTS: dict[int | str, dict[str, Any]] = {
    status: {"model": Fault} for status in (400, 401, 403, 404, 405, 408, 413, 415, 422, 500, 501, 503)
}
