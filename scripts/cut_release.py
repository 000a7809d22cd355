"""Cut a release: `python scripts/cut_release.py 0.1.0 2026-12-01` names the open section of the changelog.

The version itself stands in src/isthmus/core/version.py and CITATION.cff; both must be the one that is cut.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OPEN = "## Unreleased\n"


def cut(text: str, version: str, date: str) -> str:
    """The changelog with its open section named, and an empty one above it.

    Raises:
        SystemExit: There is nothing to release, or the version was released before.
    """
    if f"## {version} " in text:
        raise SystemExit(f"CHANGELOG.md has a section {version} already. Give the next version.")
    _, found, rest = text.partition(OPEN)
    if not found or not re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0].strip():
        raise SystemExit("CHANGELOG.md has nothing under '## Unreleased'. List what changed first.")
    return text.replace(OPEN, f"{OPEN}\n## {version} - {date}\n", 1)


def main(root: Path, version: str, date: str) -> None:
    """Check that all files name the version, write the changelog, and print the commands that are left."""
    for name, line in (
        ("src/isthmus/core/version.py", f'__version__ = "{version}"'),
        ("CITATION.cff", f"version: {version}"),
    ):
        if line not in (root / name).read_text(encoding="utf-8"):
            raise SystemExit(f"{name} does not say {line}. Change it there first.")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        raise SystemExit(f"got the date {date!r}, expected one such as 2026-12-01.")
    path = root / "CHANGELOG.md"
    path.write_text(cut(path.read_text(encoding="utf-8"), version, date), encoding="utf-8")
    print(f"CHANGELOG.md has the section {version} - {date}. Next:")
    print(f"  .ci/run && git commit -am 'Release {version}' && git tag -a v{version} -m 'isthmus {version}'")
    print("  python -m build && git push --follow-tags")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(ROOT, *sys.argv[1:])
