"""Settings of a run that both recipes share: validated, frozen, the papers' values as defaults."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError, model_validator

from isthmus.core.messages import validation_fault
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
        if not isinstance(values, Mapping):
            return values
        listed = {name for name, field in cls.model_fields.items() if "tuple" in str(field.annotation)}
        given = {key: _words(value) if key in listed else value for key, value in values.items()}
        return {**cls.paper, **given} if given.get("preset") == "paper" else given

    @model_validator(mode="after")
    def _one_noise(self) -> RecipeConfig:
        usual = type(self).model_fields["noise_cosine"].default
        if self.noise_variance is not None and self.noise_cosine != usual:
            raise ValueError(
                f"noise_cosine ({self.noise_cosine}) and noise_variance ({self.noise_variance}) are two ways to give "
                f"the same noise; give one of them"
            )
        return self


def _words(value: Any) -> Any:
    """A list from words with commas, `text,image` or `[text, image]` as a shell leaves it; anything else as it is."""
    if not isinstance(value, str):
        return value
    return tuple(word.strip(" \"'") for word in value.removeprefix("[").removesuffix("]").split(","))


Config = TypeVar("Config", bound=RecipeConfig)


def settle(
    model: type[Config], config: Config | Mapping[str, Any] | None, preset: str | None, seed: int | None
) -> Config:
    """The settings of a run, from a config or a preset and a seed that overrides either's.

    Raises:
        ConfigError: Both a config and another preset are given, or a value is out of range.
    """
    if isinstance(config, Mapping):
        config = make_config(model, {**({"preset": preset} if preset else {}), **config})
    if config is None:
        config = make_config(model, {"preset": preset or "default"})
    if not isinstance(config, model):
        raise ConfigError(
            f"config got a {type(config).__name__}. Expected a {model.__name__}, or a mapping of settings."
        )
    if preset is not None and preset != config.preset:
        raise ConfigError(f"got a config of preset {config.preset!r} and preset={preset!r}. Give one of them.")
    return config if seed is None else make_config(model, {**config.model_dump(), "seed": seed})


def check_space_names(config: RecipeConfig, names: Sequence[str]) -> None:
    """Refuse a table of aggregation temperatures that names a space which takes no part.

    Raises:
        ConfigError: It does.
    """
    given = config.aggregation_temperature
    for name in given if isinstance(given, dict) else ():
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"aggregation_temperature names the space {name!r}, expected some of {', '.join(names)}.{hint}"
            )


def make_config(model: type[Config], values: Mapping[str, Any]) -> Config:
    """Build a config from plain values.

    Raises:
        ConfigError: A key is unknown or a value is out of range, in one line.
    """
    try:
        return model(**values)
    except ValidationError as error:
        raise ConfigError(validation_fault(error, model, "config", values)) from error
