"""Test modules have names of their own, since pytest imports them by name alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def test_no_two_test_modules_share_a_name():
    names = Counter(path.name for path in TESTS.rglob("*.py") if "golden" not in path.parts)
    assert [name for name, times in names.items() if times > 1 and name != "__init__.py"] == []
