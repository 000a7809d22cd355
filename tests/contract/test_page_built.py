"""The page that ships is the one that its sources make."""

from __future__ import annotations

import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "src/isthmus/serve/page"


def test_the_built_page_is_made_of_the_sources_here():
    hashed = hashlib.sha256()
    page = ROOT / "page"
    for file in [*sorted((page / "src").iterdir()), page / "index.html", page / "package-lock.json"]:
        hashed.update(file.read_bytes())
    assert (BUILT / "sources.sha256").read_text().strip() == hashed.hexdigest(), "run: make page"


def test_the_built_page_asks_nothing_of_another_host():
    for file in BUILT.iterdir():
        text = file.read_text(encoding="utf-8")
        for scheme in ("http://", "https://"):
            # Names of XML namespaces look like addresses and are never asked for.
            found = [part.split('"')[0].split("'")[0] for part in text.split(scheme)[1:]]
            assert [each for each in found if not each.startswith("www.w3.org/")] == [], file.name
