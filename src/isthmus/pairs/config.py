"""Settings of pseudo pairs: from what they start, how memory banks are averaged, where the result is kept."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from isthmus.core.sizes import parse_bytes


class PairConfig(BaseModel):
    """Settings of pseudo pairs. `None` means: chosen from the number of pseudo pairs, and recorded.

    Attributes:
        preset: "default" follows the size of the pool; "paper" is faithful to the print; "auto" also measures the
            aggregation temperature on the spaces.
        seed: Seed of every random draw: noise, order, initial weights, which pseudo pairs are kept.
        centric: Which modalities pseudo pairs start from; None is every modality of both spaces, in turn (Ex-MCR). A
            name ("text"), a side and a name ("leaf/audio"), or "overlap", from which alone C-MCR started.
        max_pairs: Most pseudo pairs per centric kind, drawn at random; None is all.
        aggregation_temperature: Softmax temperature of the pseudo pairs (the papers' tau 1); a table of space names
            gives each space its own.
        aggregation_method: How memory banks are averaged: exact, bf16, compressed, or the soonest whose error on a
            sample, which is done exactly too, stays within 1 % (auto).
        normalize_aggregates: Scale aggregated embeddings to unit length after every hop.
        memory_limit: Bytes of pseudo pairs kept in memory ("4GB"); more are streamed from a folder. Dense pairs are the
            same to the last bit wherever they lie; the form "auto" takes beyond the limit is part of a run's identity.
        pair_storage: "dense" averages; "sparse" rows and weights, averaged anew for each batch, refused where more than
            1 % off; "auto": dense within `memory_limit` and where `aggregation_method` is "exact", beyond it sparse, or
            dense where refused.
        engine: Where pseudo pairs are aggregated: "local" is this process, "processes" one a core, "ray" the machines
            of a Ray cluster. The last two aggregate exactly and on CPUs.
        engine_address: Address of the Ray cluster; None is a local one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Literal["default", "paper", "auto"] = "default"
    seed: int = Field(0, ge=0)
    centric: tuple[str, ...] | None = None
    max_pairs: int | None = Field(None, ge=2)
    aggregation_temperature: float | dict[str, float] = 0.01
    aggregation_method: Literal["exact", "bf16", "compressed", "auto"] = "auto"
    normalize_aggregates: bool = True
    memory_limit: int = Field(4 * 10**9, ge=10**6)
    pair_storage: Literal["auto", "dense", "sparse"] = "auto"
    engine: Literal["local", "processes", "ray"] = "local"
    engine_address: str | None = None

    @field_validator("memory_limit", mode="before")
    @classmethod
    def _bytes(cls, value: Any) -> Any:
        """Bytes of a setting such as "2GB"."""
        return parse_bytes(value) if isinstance(value, str) else value

    @field_validator("centric", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        """Names of a setting with commas between."""
        return tuple(value.split(",")) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _temperatures(self) -> PairConfig:
        """Refuse a temperature that is none."""
        given = self.aggregation_temperature
        for value in given.values() if isinstance(given, dict) else [given]:
            if not 0.0 < value < 100.0:
                raise ValueError(f"aggregation_temperature must lie between 0 and 100, got {value}")
        return self

    @model_validator(mode="after")
    def _engine(self) -> PairConfig:
        """Refuse settings that an engine does not have."""
        if self.engine != "local" and self.aggregation_method in ("bf16", "compressed"):
            raise ValueError(
                f"engine {self.engine!r} aggregates exactly, got aggregation_method {self.aggregation_method!r}"
            )
        if self.engine != "local" and self.pair_storage == "sparse":
            raise ValueError(f"engine {self.engine!r} makes dense pseudo pairs, got pair_storage 'sparse'")
        if self.engine_address is not None and self.engine != "ray":
            raise ValueError(f"engine_address is of the engine 'ray', got engine {self.engine!r}")
        return self

    def temperature_of(self, space: str) -> float:
        """The aggregation temperature in a space."""
        given = self.aggregation_temperature
        return given if isinstance(given, float) else given.get(space, 0.01)
