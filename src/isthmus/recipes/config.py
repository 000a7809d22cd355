"""Settings of a run that both recipes share: validated, frozen, the papers' values as defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from isthmus.core.geometry import noise_cosine
from isthmus.errors import ConfigError

_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


class RecipeConfig(BaseModel):
    """Settings of pseudo pairs and training. `None` means: chosen from the number of pseudo pairs, and recorded.

    Attributes:
        preset: "default" follows the size of the pool; "paper" is faithful to the print; "auto" also measures the
            aggregation temperature on the spaces.
        seed: Of everything random.
        centric: Which modalities pseudo pairs start from; None is every modality of both spaces, in turn (Ex-MCR). A
            name ("text"), a side and a name ("leaf/audio"), or "overlap", from which alone C-MCR started.
        max_pairs: Most pseudo pairs per centric kind, drawn at random; None is all.
        aggregation_temperature: Softmax temperature of the pseudo pairs (the papers' tau 1); a table of space names
            gives each space its own.
        aggregation_method: How memory banks are averaged: exact, bf16, compressed, or the soonest whose error on a
            sample, which is done exactly too, stays within 1 % (auto).
        normalize_aggregates: Scale aggregated embeddings to unit length after every hop.
        noise_cosine: Expected cosine between an embedding and its noisy self; 1 is no noise.
        noise_variance: Variance per coordinate instead, as the papers give it; it overrides `noise_cosine`.
        intra_weight: Weight of the intra loss (the papers' lambda).
        intra_norm: Distance of the intra loss, "l2" as Ex-MCR prints it or "l2sq" as C-MCR does.
        batch_norm: "joint" passes all modalities of a side through BatchNorm in one batch, "separate" one by one.
        hidden_ratio: Width of hidden layers as a multiple of their input.
        initialization: Of MLP blocks, "torch" or the authors' "xavier".
        members: Projectors trained from different draws, their unit outputs averaged; each is the method's own. Open
            epochs share out the steps of one among them (FreeBind averages seven).
        epochs: Passes over the pool.
        batch_size: Pseudo pairs per step.
        learning_rate: AdamW's, at the start of a cosine decay to 0.
        weight_decay: AdamW's.
        precision: Of the products in training: "float32", or 16 bits, "auto" where the processor multiplies these
            faster and "bf16" in any case. They are bfloat16, or 16-bit integers where those are the faster.
        held_out: Share of the pool that chooses the best checkpoint and is never trained on.
        memory_limit: Bytes of pseudo pairs kept in memory ("4GB"); more are streamed from a folder.
        pair_storage: "dense" averages; "sparse" rows and weights, averaged anew for each batch, refused where more than
            1 % off; "auto": dense within `memory_limit`, beyond it sparse, or dense where refused.
        checkpoint_seconds: Time between checkpoints.
        engine: Who aggregates pseudo pairs: "local" is this process, "processes" one a core, "ray" the machines of a
            Ray cluster. The last two aggregate exactly and on CPUs.
        engine_address: Of the Ray cluster; None is a local one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Literal["default", "paper", "auto"] = "default"
    seed: int = Field(0, ge=0)
    centric: tuple[str, ...] | None = None
    max_pairs: int | None = Field(None, ge=2)
    aggregation_temperature: float | dict[str, float] = 0.01
    aggregation_method: Literal["exact", "bf16", "compressed", "auto"] = "auto"
    normalize_aggregates: bool = True
    noise_cosine: float = Field(0.573, gt=0.0, le=1.0)
    noise_variance: float | None = Field(None, ge=0.0)
    intra_weight: float = Field(0.1, ge=0.0)
    intra_norm: Literal["l2", "l2sq"] = "l2"
    batch_norm: Literal["joint", "separate"] = "joint"
    hidden_ratio: float = Field(2.0, gt=0.0, le=64.0)
    initialization: Literal["torch", "xavier"] = "torch"
    members: int = Field(1, ge=1, le=64)
    epochs: int | None = Field(None, ge=1)
    batch_size: int | None = Field(None, ge=2)
    learning_rate: float = Field(1e-3, gt=0.0)
    weight_decay: float = Field(0.01, ge=0.0)
    precision: Literal["float32", "bf16", "auto"] = "float32"
    held_out: float = Field(0.01, gt=0.0, le=0.5)
    memory_limit: int = Field(4 * 10**9, ge=10**6)
    pair_storage: Literal["auto", "dense", "sparse"] = "auto"
    checkpoint_seconds: float = Field(30.0, ge=0.0)
    engine: Literal["local", "processes", "ray"] = "local"
    engine_address: str | None = None

    steps: ClassVar[int] = 1000
    """Steps of all members together that open epochs aim at."""
    paper: ClassVar[dict[str, Any]] = {}
    """What the preset "paper" sets."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("preset") == "paper":
            return {**cls.paper, **values}
        return values

    @field_validator("memory_limit", mode="before")
    @classmethod
    def _bytes(cls, value: Any) -> Any:
        return parse_bytes(value) if isinstance(value, str) else value

    @field_validator("centric", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return tuple(value.split(",")) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _temperatures(self) -> RecipeConfig:
        given = self.aggregation_temperature
        for value in given.values() if isinstance(given, dict) else [given]:
            if not 0.0 < value < 100.0:
                raise ValueError(f"aggregation_temperature must lie between 0 and 100, got {value}")
        return self

    @model_validator(mode="after")
    def _engine(self) -> RecipeConfig:
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

    def noise_cosine_at(self, dim: int) -> float:
        """The noise as an expected cosine in `dim` dimensions, whichever way it was given."""
        return self.noise_cosine if self.noise_variance is None else noise_cosine(self.noise_variance, dim)


def parse_bytes(text: str) -> int:
    """Read a size such as "4GB", "512 MiB" or "1000000"."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?\s*", text.lower())
    if not found:
        raise ValueError(f"expected a size such as 4GB or 512MiB, got {text!r}")
    return int(float(found[1]) * _SIZES[found[2] or ""])


Config = TypeVar("Config", bound=RecipeConfig)


def settle(model: type[Config], config: Config | None, preset: str | None, seed: int | None) -> Config:
    """The settings of a run, from a config or a preset and a seed that overrides either's.

    Raises:
        ConfigError: Both a config and another preset are given, or a value is out of range.
    """
    if config is None:
        config = make_config(model, {"preset": preset or "default"})
    elif preset is not None and preset != config.preset:
        raise ConfigError(f"got a config of preset {config.preset!r} and preset={preset!r}. Give one of them.")
    return config if seed is None else make_config(model, {**config.model_dump(), "seed": seed})


def make_config(model: type[Config], values: Mapping[str, Any]) -> Config:
    """Build a config from plain values.

    Raises:
        ConfigError: A key is unknown or a value is out of range, in one line.
    """
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"] and first["type"] == "value_error":
            raise ConfigError(f"{first['msg'].removeprefix('Value error, ')}.") from error
        key = ".".join(str(part) for part in first["loc"]) or "config"
        if first["type"] == "extra_forbidden":
            raise ConfigError(
                f"unknown config key {key!r}. Expected one of {', '.join(model.model_fields)}."
            ) from error
        raise ConfigError(f"config key {key!r} got {first.get('input')!r}: {first['msg']}.") from error
