"""Objaverse-LVIS, 3D classification: all its objects under 1,156 categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.core.modality import POINT_CLOUD
from isthmus.evaluation.benchmarks.readers.shared.lookup import option
from isthmus.evaluation.benchmarks.readers.shared.objaverse import LAYOUTS, find_objects, read_list
from isthmus.evaluation.benchmarks.task import Classification, ItemSet, Reading
from isthmus.items import Item

OPTIONS: dict[str, Any] = {"layout": "auto", "objects": "", "names": "spaces"}


def read(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Read Objaverse-LVIS for classification.

    Args:
        data: Holds a list (Uni3D's `lvis_testset.txt`, OpenShape's or ULIP-2's `lvis.json`, or the source's
            `lvis-annotations.json.gz`) and the objects: OpenShape's .npy, .npz of xyz and rgb, or meshes.
        options: `layout` auto, uni3d, json or source; `objects` the folder that paths of the list begin in, where it is
            another; `names` spaces, or underscores as Uni3D prompts them.
        work: Not used: objects are read where they lie.

    Raises:
        FormatError: The list or all objects are missing, or the list is another file.
    """
    spaces = option(options, "names", ("spaces", "underscores")) == "spaces"
    path, objects, classes = read_list(data, option(options, "layout", LAYOUTS))
    files, missing = find_objects(data, objects, str(options.get("objects") or ""))
    # An object under two categories stays two instances, as the source has it.
    seen: Counter[str] = Counter()
    items: list[Item] = []
    truth: list[tuple[str, str]] = []
    for each, file in files:
        name = each.uid if not seen[each.uid] else f"{each.uid}#{seen[each.uid]}"
        seen[each.uid] += 1
        items.append(Item(name, str(file)))
        truth.append((name, each.category))
    notes = [
        f"{len(items):,} objects under {len(classes):,} categories of {path.name}: sets of this name differ in size"
    ]
    if twice := sum(count - 1 for count in seen.values()):
        notes.append(f"{twice:,} objects stand under a further category and count once under each")
    return Reading(
        Classification(
            ItemSet(POINT_CLOUD, items), {name: name.replace("_", " ") if spaces else name for name in classes}, truth
        ),
        missing,
        notes,
    )
