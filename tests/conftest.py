"""Fixtures of the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def own_config(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the user's own settings, empty at first: what a developer allows on this machine is not tested."""
    folder = tmp_path_factory.mktemp("config")
    monkeypatch.setenv("ISTHMUS_CONFIG", str(folder))
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data, beside the checkout or where ISTHMUS_SHARED says; without it, tests of it skip."""
    folder = Path(os.environ.get("ISTHMUS_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data at {folder} (set ISTHMUS_SHARED to its folder)")
    return folder
