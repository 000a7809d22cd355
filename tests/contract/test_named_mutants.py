"""Every named fault of `tests/mutants` has its text in the code, once: a renamed line takes its fault along."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _named() -> list[tuple[str, str, str, str]]:
    spec = importlib.util.spec_from_file_location("named", ROOT / "tests" / "mutants" / "named.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    faults: list[tuple[str, str, str, str]] = module.NAMED
    return faults


@pytest.mark.parametrize(("name", "file", "text", "fault"), _named(), ids=[one[0] for one in _named()])
def test_a_named_fault_has_its_place(name: str, file: str, text: str, fault: str) -> None:
    count = (ROOT / "src" / "isthmus" / file).read_text(encoding="utf-8").count(text)
    assert count == 1, f"{name}: {text!r} stands {count} times in {file}. Change tests/mutants/named.py with the code."
    assert text != fault
