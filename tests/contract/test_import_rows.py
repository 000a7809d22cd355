"""Imports run one way, and the checker that says so can fail."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from import_rows import PACKAGE, ROOT, ROWS, package_sources, table, violations


def test_every_module_imports_only_from_rows_above():
    assert violations(package_sources()) == []


def test_every_row_names_a_module_that_exists():
    for name in (name for row in ROWS for name in row):
        path = PACKAGE / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__init__.py").exists(), f"row names {name}, which is gone"


def test_contributing_shows_the_rows():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = text.split("<!-- rows -->")[1].split("<!-- /rows -->")[0].strip()
    assert shown == table(), f"put this into CONTRIBUTING.md between the rows markers:\n{table()}"


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("isthmus.core.files", "from isthmus.spaces.space import Space", "row"),
        ("isthmus.core.files", "def f():\n    import isthmus.bridges.bridge", "files:2"),
        ("isthmus.errors", "from isthmus.core import modality", "isthmus.core.modality"),
        ("isthmus.spaces.space", "from isthmus import open_space", "no row"),
        ("isthmus.spaces.space", "from . import store", "no row"),
        ("isthmus.recipes.extend", "from isthmus.recipes.connect import connect", "recipes.connect"),
        ("isthmus.recipes.extend", "from isthmus.recipes import connect", "recipes.connect"),
        ("isthmus.brand_new", "", "add 'brand_new'"),
    ],
)
def test_the_checker_can_fail(module: str, source: str, fault: str):
    found = violations({module: source})
    assert len(found) == 1
    assert fault in found[0]


def test_the_checker_lets_good_imports_pass():
    source = "from isthmus.spaces.writer import SpaceWriter\nfrom isthmus.core.version import __version__"
    assert violations({"isthmus.spaces.space": source}) == []
    assert violations({"isthmus.memory.bank": "from isthmus.memory.exact import x"}) == []


LOADERS = {
    "encoders/registry.py",
    "encoders/recorded.py",  # what a file records, checked; what the user names
    "encoders/pipeline/encode.py",  # what the user names
    "demo/story.py",  # the demo's own
    "worlds/plan.py",  # what the user names, and the defaults
}
"""Modules that may call `load_encoder`: any other could load what a file names, unchecked."""


def test_encoders_are_loaded_in_few_places():
    calls = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "load_encoder"
    }
    assert calls <= LOADERS, "load through isthmus.encoders.recorded what a space or a bridge records"
