"""Settings of the closed forms that join any number of spaces: posterior, cca, and auto, which chooses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from isthmus.errors import ConfigError


class PosteriorConfig(BaseModel):
    """Settings of `connect` with method posterior, cca or auto.

    Attributes:
        mix: Compare items by the probability that both mean the same shared item.
        concepts: Compare them by the probability that both mean the same concept, a cluster of shared items, too.
        two_sided: Compare each with the other's average over the shared items, in both spaces, too.
        denoising: Move an item towards its neighbours in its own memory first.
        support: Prefer shared items that have something alike in the memory.
        size: What the posterior becomes: "compact" (its leading directions), "sparse" (its largest entries, for search
            engines with sparse vectors) or "full".
        dim: Leading directions of a compact posterior.
        top: Entries of a sparse posterior.
        temperature: Temperature of the posterior.
        two_sided_temperature: Temperature of the averages of `two_sided`.
        support_weight: What the support adds to the logits.
        support_neighbours: Memory rows that support is the mean cosine of.
        denoising_weight: Weight of the neighbours' mean.
        denoising_neighbours: How many.
        concept_items: Shared items a concept, on average.
        concept_runs: Clusterings, each from another seed.
        concept_steps: Iterations of a clustering.
        memory_rows: Most rows of a modality that are kept as its memory, drawn at random.
        cca_weight: Weight of the canonical directions beside the posterior, in standard deviations; 0 leaves them out.
        strength: What shrinks the covariances of cca, as a multiple of their mean variance.
        agreement: Leave out shared items whose neighbourhoods in two spaces have nothing in common.
        seed: Seed of memories, clusterings and pseudo pairs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mix: bool = True
    concepts: bool = True
    two_sided: bool = True
    denoising: bool = True
    support: bool = True
    size: Literal["compact", "sparse", "full"] = "compact"
    dim: int = Field(1024, ge=2)
    top: int = Field(256, ge=1)
    temperature: float = Field(0.05, gt=0.0)
    two_sided_temperature: float = Field(0.03, gt=0.0)
    support_weight: float = Field(6.0, ge=0.0)
    support_neighbours: int = Field(5, ge=1)
    denoising_weight: float = Field(0.5, ge=0.0)
    denoising_neighbours: int = Field(20, ge=1)
    concept_items: int = Field(16, ge=2)
    concept_runs: int = Field(6, ge=1)
    concept_steps: int = Field(4, ge=1)
    memory_rows: int = Field(5000, ge=8)
    cca_weight: float = Field(0.0, ge=0.0)
    strength: float = Field(1.0, gt=0.0)
    agreement: bool = True
    seed: int = 0


def posterior_config(values: Mapping[str, Any]) -> PosteriorConfig:
    """Build the settings from plain values.

    Raises:
        ConfigError: A key is unknown, a value is out of range, or no part of the posterior is left.
    """
    try:
        config = PosteriorConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = ", ".join(PosteriorConfig.model_fields)
            raise ConfigError(f"unknown setting {key!r} of a closed form. Expected one of {known}.") from error
        raise ConfigError(f"setting {key!r} got {first.get('input')!r}: {first['msg']}.") from error
    if not (config.mix or config.concepts or config.two_sided):
        raise ConfigError("mix, concepts and two_sided are all off, so nothing is left to compare. Switch one on.")
    return config
