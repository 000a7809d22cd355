"""The rows of the package, a room importing only from rows above its own, and a checker of that."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "isthmus"

ROWS: Sequence[Sequence[str]] = (
    ("errors",),
    ("core",),
    ("items", "memory", "metrics", "spaces"),
    ("decoding", "encoders", "pairs"),
    ("bridges",),
    ("recipes", "search"),
    ("evaluation", "serve"),
    ("demo", "export", "worlds"),
    ("cli",),
)
"""Rooms, first row first. Rooms of one row do not import each other."""

DOORS = ("isthmus", "isthmus.__main__")
"""Modules that stand outside the rows: the door, which loads every module lazily, and `python -m isthmus`."""

APART = ("isthmus.recipes.connect", "isthmus.recipes.extend")
"""Modules of one room that must not import each other."""


def unit(module: str) -> str:
    """Give the room of a module: `isthmus.memory.bank` is in `memory`."""
    return "".join(module.split(".")[1:2])


def imports(source: str, module: str) -> Iterator[tuple[int, str]]:
    """Yield line and full name of everything of isthmus that a module imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "isthmus")
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "relative"
            elif node.module == "isthmus":
                yield from ((node.lineno, f"isthmus.{alias.name}") for alias in node.names)
            elif (node.module or "").startswith("isthmus."):
                # `from isthmus.recipes import connect` names a module, `from isthmus.spaces.space import Space` a thing
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def violations(sources: Mapping[str, str], rows: Sequence[Sequence[str]] = ROWS) -> list[str]:
    """Check modules, given as name to source, against the rows; return one line a fault."""
    number = {name: row for row, names in enumerate(rows) for name in names}
    faults = []
    for module, source in sources.items():
        if module in DOORS:
            continue
        own = unit(module)
        if own not in number:
            faults.append(f"{module} has no row: add {own!r} to ROWS")
            continue
        for line, name in imports(source, module):
            other = unit(name)
            rival = next((one for one in APART if one != module and (name + ".").startswith(one + ".")), None)
            if module in APART and rival:
                faults.append(f"{module}:{line} imports {rival}: the two are read apart")
            elif name in ("isthmus.__version__", "isthmus") or other == own:
                continue
            elif other not in number:
                faults.append(f"{module}:{line} imports {name}, which has no row")
            elif number[other] >= number[own]:
                faults.append(f"{module}:{line} imports {name}: row {number[other]} is not above row {number[own]}")
    return faults


def package_sources() -> dict[str, str]:
    """Read every module of the package."""
    sources = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        sources[name] = path.read_text(encoding="utf-8")
    return sources


def table(rows: Sequence[Sequence[str]] = ROWS) -> str:
    """Write the rows as the table of CONTRIBUTING.md."""
    lines = ["| row | rooms |", "|---|---|"]
    return "\n".join(lines + [f"| {n} | {' '.join(f'`{name}`' for name in names)} |" for n, names in enumerate(rows)])
