"""Every extra that a message or a page names is one of the package's, and the core needs none of them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, BUILD = SETTINGS["project"], SETTINGS["tool"]["hatch"]


def named() -> dict[str, set[str]]:
    """Extras by the file that names them, in messages, pages and the registry of encoders."""
    found: dict[str, set[str]] = {}
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    for path in files:
        text = path.read_text(encoding="utf-8")
        names = {name for group in re.findall(r"(?:isthmus|\.)\[([a-z,]+)\]", text) for name in group.split(",")}
        if path.suffix == ".py":
            names |= set(re.findall(r"extra=\"([a-z]+)\"(?=[,)])", text)) - {"forbid"}
        if names:
            found[str(path.relative_to(ROOT))] = names
    return found


def test_every_extra_that_is_named_exists():
    for file, names in named().items():
        assert names <= set(PROJECT["optional-dependencies"]), f"{file} names an extra that pyproject.toml lacks"


def test_extras_are_named_somewhere():
    assert {"hf", "openclip"} <= {name for names in named().values() for name in names}


def test_the_version_is_one():
    import isthmus

    # The build reads it from the module that the package reads it from.
    assert PROJECT["dynamic"] == ["version"]
    assert BUILD["version"]["path"] == "src/isthmus/core/version.py"
    assert f'__version__ = "{isthmus.__version__}"' in (ROOT / BUILD["version"]["path"]).read_text(encoding="utf-8")
    assert f"version: {isthmus.__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
