"""Runs that are killed go on to the same result: the short form of the campaign in `kills.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).with_name("kills.py")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked processes")


def campaign(kills: int, *verbs: str) -> None:
    names = ["--verbs", ",".join(verbs)] if verbs else []
    ended = subprocess.run([sys.executable, KILLS, "--kills", str(kills), *names], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_a_few_kills():
    campaign(4, "project", "import")


@pytest.mark.slow
def test_kills_of_every_verb():
    campaign(30)
