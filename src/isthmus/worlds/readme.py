"""The README.md of a world: what was done, in words and a table, and what to do next; the same from run to run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.core.files import atomic_file

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.search.index import SearchIndex
    from isthmus.spaces.space import Space
    from isthmus.worlds.plan import WorldPlan

EXAMPLES = {
    "text": "--text 'a dog barks'",
    "image": "--image FILE",
    "audio": "--audio FILE",
    "point_cloud": "--point-cloud FILE",
}


def write_readme(folder: Path, plan: WorldPlan, spaces: Sequence[Space], bridge: Bridge, index: SearchIndex) -> None:
    """Write the page."""
    with atomic_file(folder / "README.md") as aside:
        aside.write_text("\n".join(_lines(folder, plan, spaces, bridge, index)) + "\n", encoding="utf-8")


def _lines(folder: Path, plan: WorldPlan, spaces: Sequence[Space], bridge: Bridge, index: SearchIndex) -> list[str]:
    counts = Counter(index.modalities)
    contents = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    lines = [
        f"# {folder.name}",
        "",
        f"Made by `isthmus join`: {contents} in one space, to be searched with any of them.",
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
