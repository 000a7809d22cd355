"""Random damage to the manifests and arrays of spaces and bridges: every fault is one of isthmus' own.

As a program it runs for long: `python tests/faults/fuzz_manifests.py --cases 100000`. The short form is a test.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import isthmus
from isthmus.errors import IsthmusError
from isthmus.evaluation.suite.retrain import own_steps
from isthmus.recipes.closed_form import fit_closed_form_bridge
from isthmus.spaces.health import inspect
from isthmus.spaces.space import open_space

sys.path.insert(0, str(Path(__file__).parents[1]))
from worlds import meanings, write_space

VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "x", "\0", "../..", "/etc", "\x1b[31m", "\u00e9", "\udc80", "x" * 5000),
    *([], {}, [[]], [None], {"": None}, {"x": {"y": []}}, ["a", "b"], [1, 2]),
]


def world(folder: Path) -> Path:
    """Two small spaces and a bridge of all that a route may hold."""
    texts, things = meanings(30, 1), meanings(30, 2)
    a = write_space(folder, "a", 6, 1, {"text": ("t", texts), "image": ("i", things)})
    b = write_space(folder, "b", 5, 2, {"text": ("t", texts), "audio": ("s", things)})
    fit_closed_form_bridge(a, b, via="text", method="dictionary").save(folder / "x.bridge")
    return folder


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place inside a value of json."""
    yield at
    if isinstance(value, dict):
        for key in value:
            yield from paths(value[key], (*at, key))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from paths(one, (*at, number))


def damaged(text: str, draw: random.Random) -> bytes:
    """A manifest with one to three places changed, a key moved or lost, or its bytes cut or flipped."""
    kind = draw.random()
    if kind < 0.15:
        raw = bytearray(text.encode())
        for _ in range(draw.randint(1, 8)):
            raw[draw.randrange(len(raw))] = draw.randrange(256)
        return bytes(raw[: draw.randrange(len(raw))] if draw.random() < 0.3 else raw)
    value = json.loads(text)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        places = [place for place in paths(value) if place]
        if not places:
            break
        *outer, last = draw.choice(places)
        inner = value
        for key in outer:
            inner = inner[key]
        action = draw.random()
        if action < 0.15:
            del inner[last]
        elif action < 0.25 and isinstance(inner, dict):
            inner[draw.choice(["x", "..", "a/b", "\x1b", "", "__class__", "path"])] = inner.pop(last)
        else:
            inner[last] = copy.deepcopy(draw.choice(VALUES))
    return json.dumps(value).encode("utf-8", "surrogatepass")


def use_space(folder: Path) -> None:
    """All that reads a space."""
    space = open_space(folder / "a.space")
    for modality in space.modalities:
        np.asarray(space[modality])
        list(space[modality].ids)
        len(space[modality].metadata)
    space.verify()
    inspect(space)


def use_bridge(folder: Path) -> None:
    """All that reads a bridge."""
    bridge = isthmus.load_bridge(folder / "x.bridge")
    bridge.summary()
    bridge.describe()
    for key in bridge.routes:
        space, _, modality = key.rpartition("/")
        bridge.project(np.ones((2, bridge.space(space).dim), np.float32), space=space, modality=modality)
    for member in bridge.spaces:
        for modality in member.encoders:
            try:
                member.encoder_name(modality)
            except IsthmusError:
                continue
    with suppress(IsthmusError):
        own_steps(bridge)
    bridge.save(folder / "again.bridge", overwrite=True)


TARGETS: list[tuple[str, Callable[[Path], None]]] = [
    ("a.space/space.json", use_space),
    ("a.space/image/_done/00000.json", use_space),
    ("x.bridge/bridge.json", use_bridge),
    ("x.bridge/history.jsonl", use_bridge),
]


def one_case(folder: Path, draw: random.Random) -> str:
    """Damage one file, read it, mend it; the class of what came of it."""
    name, use = draw.choice(TARGETS)
    path = folder / name
    whole = path.read_bytes()
    path.write_bytes(damaged(whole.decode() or "{}", draw))
    try:
        use(folder)
        return "read"
    except (IsthmusError, OSError) as error:
        return type(error).__name__
    finally:
        path.write_bytes(whole)
        shutil.rmtree(folder / "again.bridge", ignore_errors=True)


def run(cases: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """Many cases; what came of them, and the tracebacks of those that are no fault of isthmus' own."""
    import traceback

    world(folder)
    found: Counter[str] = Counter()
    strange: list[str] = []
    for number in range(cases):
        try:
            found[one_case(folder, random.Random(seed * 10**9 + number))] += 1
        except Exception:
            found["unclassified"] += 1
            strange.append(f"case {number}: {traceback.format_exc()}")
    return found, strange


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found, strange = run(options.cases, options.seed, Path(folder))
    kinds = Counter(
        text.strip().splitlines()[-1][:120] + " @ " + text.strip().splitlines()[-3].strip()[-90:] for text in strange
    )
    print(json.dumps({"cases": options.cases, "seconds": round(time.monotonic() - started), "outcomes": dict(found)}))
    for kind, count in kinds.most_common(60):
        print(count, kind, file=sys.stderr)
    return 1 if strange else 0


if __name__ == "__main__":
    raise SystemExit(main())
