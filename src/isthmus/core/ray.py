"""A Ray cluster for the length of a block: connected to, or started and stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from isthmus.errors import ConfigError, DependencyError


@contextmanager
def ray_session(address: str | None) -> Iterator[Any]:
    """The module `ray`, connected to a cluster: the one that this process is connected to, or else until the end.

    Raises:
        DependencyError: Ray is not installed.
        ConfigError: No cluster answers at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise DependencyError(
            f"the engine 'ray' needs ray, not installed here ({error}). Run: pip install 'isthmus[ray]'"
        ) from error
    mine = not ray.is_initialized()
    if mine:
        try:
            ray.init(address=address, include_dashboard=False, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(f"no Ray cluster answers at {address!r} ({error}). Give its HOST:PORT.") from error
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()
