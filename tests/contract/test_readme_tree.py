"""The file tree in the README is the one on disk."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILT = {".venv", ".git", "build", "dist", "site", "isthmus-demo", "__pycache__"}


def shown(text: str) -> dict[str, set[str]]:
    """Read the tree: folders and files at the margin, what is in a folder indented, a description after two spaces."""
    block = text.split("<!-- tree -->")[1].split("<!-- /tree -->")[0]
    found: dict[str, set[str]] = {"": set()}
    folder = ""
    for line in block.splitlines():
        if not line.strip() or line.startswith("```"):
            continue
        names = line.strip().split("  ")[0].split()
        if line.startswith(" "):
            found.setdefault(folder, set()).update(names)
        else:
            folder = names[0] if names[0].endswith("/") else ""
            found[""].update(names)
    return found


def on_disk(folder: str = "") -> set[str]:
    """List what lies in a folder of the project, without what is built or ignored; folders end in a slash."""
    base = ROOT / folder
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "."]
        files = subprocess.run(command, cwd=base, capture_output=True, text=True, check=True).stdout.splitlines()
        files = [name for name in files if (base / name).exists()]
    else:
        files = [str(path.relative_to(base)) for path in base.rglob("*") if path.is_file()]
    parts = [Path(name).parts for name in files]
    return {part[0] + ("/" if len(part) > 1 else "") for part in parts if part[0] not in BUILT}


def readme() -> dict[str, set[str]]:
    return shown((ROOT / "README.md").read_text(encoding="utf-8"))


def test_the_top_of_the_project_is_shown():
    top = {name for name in on_disk() if name != "src/"} | {"src/isthmus/"}
    assert readme()[""] == top


@pytest.mark.parametrize("folder", ["src/isthmus/", "examples/"])
def test_a_folder_is_shown_whole(folder: str):
    assert readme()[folder] == on_disk(folder)


def test_the_reader_of_the_tree_can_fail():
    lines = [
        "<!-- tree -->",
        "```",
        "Makefile  targets",
        "src/isthmus/  the package",
        "  errors.py types.py  faults",
        "```",
    ]
    tree = "\n".join([*lines, "<!-- /tree -->"])
    assert shown(tree) == {"": {"Makefile", "src/isthmus/"}, "src/isthmus/": {"errors.py", "types.py"}}
