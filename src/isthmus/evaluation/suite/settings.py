"""How a benchmark is run: where things are kept, what is encoded by what, which rows stand beside the bridge's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isthmus.core.messages import unknown_name
from isthmus.core.options import changed
from isthmus.errors import ConfigError
from isthmus.metrics.results import Settings

CACHE = Path("isthmus-suite")
"""Where encoded items and trained recipes are kept where nothing else is said, in the current folder."""

RECIPES = ("c-mcr", "ex-mcr", "ours")
"""What can be trained beside the bridge: the papers' two recipes at preset "paper", and its own recipe again."""


@dataclass(frozen=True)
class SuiteSettings:
    """Settings of `run_suite` and `compare_bridges`.

    Attributes:
        cache: Folder of encoded items and trained recipes; a second run takes up what it holds.
        options: Settings of the benchmark's reader, over those of its declaration.
        templates: A file of prompt templates, or `FILE:NAME` where it holds several sets; None is the declaration's.
        proposals: Localisation: a table of boxes (image, box, score); None is windows over scales.
        through: By modality, the bridge's space whose encoder takes it; by default the base first.
        encoders: By name of a space, the encoder to load where its record does not say enough.
        space_paths: Where the bridge's training spaces lie now, by name.
        force: Take embeddings and encoders of another fingerprint too.
        limit: Only the first items, to try things out.
        device: Where models go.
        batch_size: Items in one pass through an encoder.
        max_rejected: Share of a side's items above which a run ends as failed.
        baselines: Add the simple methods, each encoder's own pair, and the retention of its score.
        train_pairs: True pairs of the training spaces, for the paired oracle.
        recipes: Recipes to train beside the bridge, some of `RECIPES`.
        seeds: Seeds of those trainings.
        train: Settings of those trainings over their own.
        bootstrap: Resamples for the 95 % intervals; 0 is none.
        seed: Seed of the resamples.
        quiet: Show no progress.
    """

    cache: Path = CACHE
    options: Mapping[str, Any] = field(default_factory=dict)
    templates: str | Path | None = None
    proposals: Path | None = None
    through: Mapping[str, str] = field(default_factory=dict)
    encoders: Mapping[str, str] = field(default_factory=dict)
    space_paths: Mapping[str, str | Path] = field(default_factory=dict)
    force: bool = False
    limit: int | None = None
    device: str | None = None
    batch_size: int = 32
    max_rejected: float = 0.01
    baselines: bool = False
    train_pairs: Path | None = None
    recipes: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    train: Mapping[str, Any] = field(default_factory=dict)
    bootstrap: int = 1000
    seed: int = 0
    quiet: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "cache", Path(self.cache))
        for recipe in self.recipes:
            if recipe not in RECIPES:
                raise ConfigError(unknown_name("unknown recipe", recipe, RECIPES))
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds got {list(self.seeds)}. Expected different numbers from 0, such as 0,1,2.")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit got {self.limit}. Expected at least 1.")
        if self.bootstrap < 0:
            raise ConfigError(f"bootstrap got {self.bootstrap}. Expected 0 (no intervals) or more.")

    @property
    def how(self) -> Settings:
        """Cut-offs and intervals of the figures."""
        return Settings((1, 5, 10), self.bootstrap, self.seed)


def settle(settings: SuiteSettings | None, changes: Mapping[str, Any], cache: str | Path | None) -> SuiteSettings:
    """Settings with some of them changed, and with another cache where one is given.

    Raises:
        ConfigError: A setting is unknown or out of range.
    """
    wanted = changes if cache is None else {**changes, "cache": Path(cache)}
    return changed(settings or SuiteSettings(), wanted, "a suite")
