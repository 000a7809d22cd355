"""What a call of `encode` may be told beside what is encoded, by what, and where to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from isthmus.core.distribution import Distribution
from isthmus.errors import ConfigError

DUPLICATES = ("each", "once")


@dataclass(frozen=True)
class EncodeOptions:
    """Options of encoding raw files into a space.

    Attributes:
        shard: "0/8" or (0, 8): only this part, to be joined with the others when all are done (see
            `isthmus.encoders.pipeline.parts`).
        batch_size: Items in one pass through the model.
        device: Where the model goes; None leaves it to the encoder.
        workers: Decoding processes; None takes one a core, and none for texts and for a few items.
        max_rejected: Share of the items above which the run ends as failed, after all good work is kept.
        ids: "path", "stem", or the column of a table that holds the ids (see `isthmus.items.find_items`).
        text_column: The column of a table that holds the texts.
        path_column: The column of a table that holds the paths of files.
        duplicates: "each" encodes every item; "once" encodes equal content once and gives every id its row.
        name: Name of a new space, by default the folder's.
        dtype: "float16" (default) or "float32" on disk.
        shard_rows: Most rows of a shard on disk.
        same_space: Accept another encoder than that of the space's other modalities: the two were trained into one
            space.
        encoder_options: Passed to the encoder's factory, when the encoder is given by name.
        quiet: Show no progress.
        engine: "local" is this process and its decoding workers; "ray" the machines of a Ray cluster, which must see
            the files and the space by the same paths (see `isthmus.encoders.pipeline.on_ray`).
        tasks: Parts that Ray deals out; None is one for each core. Each loads the model.
        address: Address of the Ray cluster; None is a local one.

    Raises:
        ConfigError: A value is out of range, or contradicts another.
    """

    shard: str | tuple[int, int] | None = None
    batch_size: int = 32
    device: str | None = None
    workers: int | None = None
    max_rejected: float = 0.01
    ids: str | None = None
    text_column: str | None = None
    path_column: str | None = None
    duplicates: str = "each"
    name: str | None = None
    dtype: str | None = None
    shard_rows: int | None = None
    same_space: bool = False
    encoder_options: Mapping[str, Any] | None = field(default_factory=dict)
    quiet: bool = False
    engine: str = "local"
    tasks: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}. Expected at least 1.")
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"workers is {self.workers}. Expected 0 (decode in this process) or more.")
        if not 0.0 <= self.max_rejected <= 1.0:
            raise ConfigError(f"max_rejected is {self.max_rejected}. Expected a share from 0 to 1, such as 0.01.")
        if self.duplicates not in DUPLICATES:
            raise ConfigError(f"duplicates is {self.duplicates!r}. Expected 'each' or 'once'.")
        _ = self.distribution

    @property
    def distribution(self) -> Distribution:
        """Which part is encoded, and where.

        Raises:
            ConfigError: A value is out of range, or contradicts another.
        """
        return Distribution(self.shard, self.engine, self.tasks, self.address)

    @property
    def part(self) -> tuple[int, int] | None:
        """The shard as (number, of how many), numbers from 0; None is the whole."""
        return self.distribution.part
