"""Fixtures of the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data, beside the checkout or where ISTHMUS_SHARED says; without it, tests of it skip."""
    folder = Path(os.environ.get("ISTHMUS_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data at {folder} (set ISTHMUS_SHARED to its folder)")
    return folder
