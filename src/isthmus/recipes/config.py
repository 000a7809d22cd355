"""Settings of a run that both recipes share: validated, frozen, the papers' values as defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError, model_validator

from isthmus.errors import ConfigError
from isthmus.pairs.config import PairConfig
from isthmus.recipes.training.config import TrainingConfig


class RecipeConfig(TrainingConfig, PairConfig):
    """Settings of pseudo pairs (`PairConfig`) and of training (`TrainingConfig`)."""

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
