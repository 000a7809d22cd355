"""The demo: the whole story on a small world that comes with the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def run_demo(
    out: str | Path, *, seed: int = 0, say: Callable[[str], None] | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Run the demo in a folder; see `isthmus.demo.story.run`."""
    from isthmus.demo.story import run

    return run(out, seed=seed, say=say, quiet=quiet)
