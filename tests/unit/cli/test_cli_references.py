"""Arguments that name a thing inside a space."""

from __future__ import annotations

from pathlib import Path

import pytest

from isthmus.cli.making import read_center
from isthmus.cli.references import (
    named_paths,
)
from isthmus.errors import ConfigError


def test_named_paths():
    assert named_paths(["clip=/x/y=z"]) == {"clip": Path("/x/y=z")}
    assert named_paths(None) == {}
    for bad in ("clip", "=x", "clip="):
        with pytest.raises(ConfigError, match="expected NAME=PATH"):
            named_paths([bad])


def test_center_is_read():
    assert [read_center(text) for text in ("no", "leaf", "both")] == [False, "leaf", True]
    with pytest.raises(ConfigError, match="--center got 'yes', expected one of no, leaf, both"):
        read_center("yes")
