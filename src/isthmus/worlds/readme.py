"""The README.md of a world: what was done, in words and a table, and what to do next; the same from run to run."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.core.files import atomic_file
from isthmus.errors import IsthmusWarning

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.search.index import SearchIndex
    from isthmus.spaces.space import Space
    from isthmus.worlds.plan import WorldPlan

_OPENING = "Made by `isthmus join`:"
_MARK = b"<!-- isthmus join, sha256 of the lines above: "

EXAMPLES = {
    "text": "--text 'a dog barks'",
    "image": "--image FILE",
    "audio": "--audio FILE",
    "point_cloud": "--point-cloud FILE",
}


def write_readme(folder: Path, plan: WorldPlan, spaces: Sequence[Space], bridge: Bridge, index: SearchIndex) -> None:
    """Write the page, unless a person has written or changed the one that lies there: that stays, with a warning."""
    path = folder / "README.md"
    if path.is_symlink() or (path.exists() and not is_own(path)):
        warnings.warn(
            f"{path}: was written or changed by hand and stays as it is. Move it away to have the page of join again.",
            IsthmusWarning,
            stacklevel=2,
        )
        return
    page = "\n".join(_lines(folder, plan, spaces, bridge, index)) + "\n\n"
    with atomic_file(path) as aside:
        aside.write_bytes(page.encode() + _signature(page.encode()))


def is_own(path: Path) -> bool:
    """Whether a page is as `join` wrote it: its last line is the hash of the others. Older pages have no such line."""
    if not path.is_file():
        return False
    page = path.read_bytes()
    rest, mark, _ = page.rpartition(_MARK)
    return page == rest + _signature(rest) if mark else _OPENING.encode() in page


def _signature(page: bytes) -> bytes:
    """Line that tells a README of isthmus's own from one that was changed."""
    return _MARK + hashlib.sha256(page).hexdigest().encode() + b" -->\n"


def _lines(folder: Path, plan: WorldPlan, spaces: Sequence[Space], bridge: Bridge, index: SearchIndex) -> list[str]:
    """Lines of a world's README."""
    counts = Counter(index.modalities)
    contents = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    lines = [
        f"# {folder.name}",
        "",
        f"{_OPENING} {contents} in one space, to be searched with any of them.",
        "",
        "| space | modality | rows | encoder |",
        "|---|---|---|---|",
    ]
    for space in spaces:
        for modality in space.modalities:
            encoder = space[modality].info["encoder"]
            lines.append(f"| {space.name} | {modality} | {len(space[modality]):,} | {encoder.get('id')} |")
    lines += ["", f"- Joined through {plan.texts_from}" + (f" ({len(plan.texts):,} texts)." if plan.texts else ".")]
    if len(spaces) > 1:
        seed = bridge.config.get("seed", 0)
        lines.append(f"- Method: {bridge.method}, seed {seed}. Scores and gaps: `unified.bridge/README.md`.")
    if index.ann is not None:
        settings = index.ann.settings
        lines.append(f"- Approximate index ({settings.kind}), recall@10 {settings.recall:.3f} on a sample.")
    lines += ["", "Search it:", "", "```"]
    routed = {key.rpartition("/")[2] for key in bridge.routes}
    lines += [f"isthmus search {folder.name} {EXAMPLES[name]}" for name in EXAMPLES if name in routed]
    lines += ["```", "", "Run the same `isthmus join` again after files came, changed or went."]
    return lines
