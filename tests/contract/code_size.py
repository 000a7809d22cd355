"""Count what tells how readable the package is: `python tests/contract/code_size.py [FOLDER]` prints it as a table.

The folder is the root of a checkout, this one by default; rooms are the folders and single modules below `src/isthmus`.
"""

from __future__ import annotations

import ast
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LONG_FUNCTION, MANY_PARAMETERS, LONG_MODULE = 45, 8, 300
APART = ("__init__", "__main__", "errors", "decoding")
"""Single modules that are no rooms: the door, `python -m`, the faults, the old address of `items.decoding`."""


@dataclass(frozen=True)
class Size:
    """What was counted.

    Attributes:
        rooms: Folders and single modules beside those of `APART`.
        arrows: Pairs of rooms of which one imports the other.
        longest_module: Lines.
        long_modules: Modules of more than `LONG_MODULE` lines.
        longest_function: Lines, docstring included.
        long_functions: Functions of more than `LONG_FUNCTION` lines without their docstrings.
        many_parameters: Functions of more than `MANY_PARAMETERS` parameters, verbs of the command line apart.
        comments: Lines with a comment, of a hundred.
        documented: Functions with a docstring, of a hundred; those of Python's own names apart.
    """

    rooms: int
    arrows: int
    longest_module: int
    long_modules: int
    longest_function: int
    long_functions: int
    many_parameters: int
    comments: float
    documented: float


def measure(root: Path) -> Size:
    """Count a checkout."""
    package = root / "src" / "isthmus"
    modules = {path: path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))}
    lines = {path: text.count("\n") for path, text in modules.items()}
    rooms = {room_of(path, package) for path in modules} - set(APART)
    functions = [(path, node) for path, text in modules.items() for node in _functions(text)]
    bodies = [_body(node) for _, node in functions]
    docstrings = [ast.get_docstring(node) for _, node in functions if not node.name.startswith("__")]
    many = [node for path, node in functions if _parameters(node) > MANY_PARAMETERS and room_of(path, package) != "cli"]
    return Size(
        rooms=len(rooms),
        arrows=len({(room, other) for path, text in modules.items() for room, other in _arrows(path, text, package)}),
        longest_module=max(lines.values()),
        long_modules=sum(length > LONG_MODULE for length in lines.values()),
        longest_function=max((node.end_lineno or 0) - node.lineno + 1 for _, node in functions),
        long_functions=sum(length > LONG_FUNCTION for length in bodies),
        many_parameters=len(many),
        comments=round(100 * sum(map(_comments, modules)) / sum(lines.values()), 2),
        documented=round(100 * sum(map(bool, docstrings)) / max(1, len(docstrings)), 1),
    )


def room_of(path: Path, package: Path) -> str:
    """The folder or single module of the package that a module is in."""
    return path.relative_to(package).parts[0].removesuffix(".py")


def _functions(text: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def _body(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function but for its docstring."""
    first = node.body[0]
    words = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    docstring = (first.end_lineno or 0) - first.lineno + 1 if words else 0
    return (node.end_lineno or 0) - node.lineno + 1 - docstring


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return len([one for one in every if one.arg not in ("self", "cls")])


def _arrows(path: Path, text: str, package: Path) -> list[tuple[str, str]]:
    own, found = room_of(path, package), []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("isthmus."):
            found.append((node.module or "").split(".")[1])
    return [(own, other) for other in found if other not in (own, *APART) and own not in APART]


def _comments(path: Path) -> int:
    with path.open("rb") as stream:
        return len({t.start[0] for t in tokenize.tokenize(stream.readline) if t.type == tokenize.COMMENT})


if __name__ == "__main__":
    for name, value in vars(measure(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)).items():
        print(f"| {name.replace('_', ' ')} | {value} |")
