"""Work that is cut into parts: one of them in this process, or all of them dealt out to the machines of a cluster."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from isthmus.core.messages import unknown_name
from isthmus.core.ray import ray_session
from isthmus.errors import ConfigError, IsthmusError

ENGINES = ("local", "ray")

T = TypeVar("T")


@dataclass(frozen=True)
class Distribution:
    """Which part of a work is done, and where.

    Attributes:
        shard: "0/8" or (0, 8): only this part; the one that ends last joins them. None is the whole.
        engine: "local" is this process; "ray" deals all parts out to the machines of a Ray cluster, which must see the
            files by the same paths.
        tasks: Parts that Ray deals out; None is one for each core.
        address: Of the Ray cluster; None is the one that this process is connected to, or else a local one.

    Raises:
        ConfigError: A value is out of range, or contradicts another.
    """

    shard: str | tuple[int, int] | None = None
    engine: str = "local"
    tasks: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ConfigError(unknown_name("unknown engine", self.engine, ENGINES))
        part = self.part
        if self.engine == "ray" and part is not None:
            raise ConfigError(
                "shard is of a run without an engine: 'ray' deals out the parts itself. Give one of them."
            )
        if self.engine == "local" and (self.tasks is not None or self.address is not None):
            raise ConfigError("tasks and address are of the engine 'ray'. Give engine='ray' with them.")
        if self.tasks is not None and self.tasks < 1:
            raise ConfigError(f"tasks is {self.tasks}. Expected at least 1.")

    @property
    def part(self) -> tuple[int, int] | None:
        """The shard as (number, of how many), numbers from 0; None is the whole.

        Raises:
            ConfigError: It is neither "0/8" nor (0, 8), or out of range.
        """
        if self.shard is None:
            return None
        if isinstance(self.shard, str):
            match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", self.shard)
            number, count = (int(part) for part in match.groups()) if match else (0, 0)
        else:
            number, count = self.shard
        if not 0 <= number < count:
            raise ConfigError(f"shard is {self.shard!r}. Expected I/N with I from 0 to N - 1, such as 0/8 to 7/8.")
        return number, count

    @property
    def cuts(self) -> bool:
        """Whether the work is cut into parts."""
        return self.shard is not None or self.engine == "ray"

    def on_ray(self, work: Callable[[tuple[int, int]], T]) -> list[T]:
        """Do all parts as tasks of Ray: a part that is lost with its machine is done again on another.

        Args:
            work: What does a part, given as (number, of how many). It is sent to the machines, with all it refers to.

        Returns:
            What it gave, part by part.

        Raises:
            DependencyError: Ray is not installed.
            ConfigError: No cluster answers at the address.
        """
        with ray_session(self.address) as ray:
            count = self.tasks or max(1, int(ray.cluster_resources().get("CPU", 1)))
            task = ray.remote(num_cpus=1, max_retries=8)(_on_one_core)
            shared = ray.put(work)
            try:
                results: list[T] = ray.get([task.remote(shared, (number, count)) for number in range(count)])
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, IsthmusError):  # a fault of the user's input, in its own words
                    raise error.cause from None
                raise
        return results


def _on_one_core(work: Callable[[tuple[int, int]], Any], part: tuple[int, int]) -> Any:
    """Run one part of a distributed task on one thread."""
    import torch

    # A task a core leaves a core a task.
    torch.set_num_threads(1)
    return work(part)
