"""Which faults would the tests not see? One-line faults put into a copy of the sources, one at a time.

    python tests/mutants/run_mutants.py --out bench/results/mutants.json            named faults and a sample of others
    python tests/mutants/run_mutants.py --named --out ...                           named faults alone
    python tests/mutants/run_mutants.py --add --minutes 30 --out ...                go on where an earlier run stopped

Named faults are listed in `named.py`: each was once noticed by no test. Generated ones change an operator, a comparison
or a sign of a line; the sample takes one of each file in turn, so that a run that ends early has seen them all. A fault
with which all tests of its file pass has survived; one that cannot change a result is listed in `named.py` as
equivalent, with the reason. The tests run in a fork of a process that has loaded the libraries and nothing of isthmus.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import itertools
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench" / "common"))
from named import EQUIVALENT, GROUPS, NAMED, TESTS  # noqa: E402
from record import write  # noqa: E402

SECONDS = 240
"""Of processor time and, four times as many, by the clock: tests that take longer tell of a fault that never ends."""
LIBRARIES = (
    "torch", "numpy", "scipy.linalg", "scipy.sparse", "sklearn", "numba", "pyarrow.parquet", "pydantic", "typer", "PIL",
    "safetensors.torch", "hypothesis",
)  # fmt: skip
"""Loaded once, before the forks."""
SWAPS = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.Lt: ">=", ast.Gt: "<=", ast.LtE: ">", ast.GtE: "<",
    ast.Eq: "!=", ast.NotEq: "==", ast.And: "or", ast.Or: "and", ast.FloorDiv: "/", ast.Pow: "*", ast.Is: "is not",
    ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip


class Mutant(NamedTuple):
    """A fault: the file below src/isthmus, what is replaced by what on which line (0: wherever it stands)."""

    name: str
    file: str
    line: int
    old: str
    new: str


def operators(file: str) -> list[Mutant]:
    """A fault for each operator, comparison and sign of a file; those of docstrings and messages are left out."""
    text = (ROOT / "src" / "isthmus" / file).read_text(encoding="utf-8")
    lines, found = text.splitlines(), []
    for node in ast.walk(ast.parse(text)):
        for operator, start, end in _operators_of(node):
            number = getattr(start, "end_lineno", 0)
            if number != getattr(end, "lineno", -1):
                continue
            line = lines[number - 1]
            raw = line.encode()
            before, after = raw[: start.end_col_offset].decode(), raw[end.col_offset :].decode()  # type: ignore[attr-defined]
            between = raw[start.end_col_offset : end.col_offset].decode()  # type: ignore[attr-defined]
            sign = between.strip(" ()=") if isinstance(node, ast.AugAssign) else between.strip(" ()")
            new = before + between.replace(sign, SWAPS[type(operator)], 1) + after
            if " | " not in between and "Error(" not in line and 'f"' not in line:
                found.append(Mutant(f"{number}: {sign} to {SWAPS[type(operator)]}", file, number, line, new))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
            line, number = lines[node.lineno - 1], node.lineno
            raw, sign = line.encode(), "not " if isinstance(node.op, ast.Not) else "-"
            new = raw[: node.col_offset].decode() + raw[node.col_offset + len(sign) :].decode()
            if node.operand.lineno == number and "Error(" not in line and 'f"' not in line:
                found.append(Mutant(f"{number}: no {sign.strip()}", file, number, line, new))
    return list(dict.fromkeys(found))


def _operators_of(node: ast.AST) -> list[tuple[ast.AST, ast.AST, ast.AST]]:
    """The operators of a node that have another to stand in, each with what stands left and right of it."""
    pairs: list[tuple[ast.AST, ast.AST, ast.AST]] = []
    if isinstance(node, ast.BinOp) and not isinstance(node.left, ast.JoinedStr):
        pairs = [(node.op, node.left, node.right)]
    elif isinstance(node, ast.AugAssign):
        pairs = [(node.op, node.target, node.value)]
    elif isinstance(node, ast.Compare):
        pairs = list(zip(node.ops, [node.left, *node.comparators], node.comparators, strict=False))
    elif isinstance(node, ast.BoolOp):
        pairs = [(node.op, left, right) for left, right in itertools.pairwise(node.values)]
    return [pair for pair in pairs if type(pair[0]) in SWAPS]


def files() -> list[str]:
    """The files that faults are put into, below src/isthmus."""
    sources = ROOT / "src" / "isthmus"
    below = [path for folder in GROUPS for path in sorted((sources / folder).glob("*.py"))]
    return sorted({*TESTS, *(path.relative_to(sources).as_posix() for path in below)})


def tests_of(file: str) -> list[str]:
    """The tests that should see a fault in a file, those of its folder where none are listed for it."""
    return TESTS.get(file) or GROUPS[file.rpartition("/")[0]]


def apply(mutant: Mutant, tree: Path) -> bool:
    """Put a fault into a copy of the sources; whether it stood there."""
    path = tree / "src" / "isthmus" / mutant.file
    text = path.read_text(encoding="utf-8")
    if mutant.line:
        lines = text.splitlines(keepends=True)
        if lines[mutant.line - 1].rstrip("\n") != mutant.old:
            return False
        lines[mutant.line - 1] = mutant.new + "\n"
        changed = "".join(lines)
    else:
        changed = text.replace(mutant.old, mutant.new, 1)
    path.write_text(changed, encoding="utf-8")
    return changed != text


def noticed(mutant: Mutant, tree: Path) -> str:
    """Run the tests with a fault in: "noticed", "survived", or "absent" where its line is no more."""
    path = tree / "src" / "isthmus" / mutant.file
    original, before = path.read_bytes(), path.stat()
    if not apply(mutant, tree):
        return "absent"
    result = "survived" if passes(tests_of(mutant.file), tree) else "noticed"
    path.write_bytes(original)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # what numba compiled for it stays good
    return result


def passes(tests: list[str], tree: Path) -> bool:
    """Whether tests pass in a copy of the tree, within their time."""
    child = os.fork()
    if not child:
        _run_tests(tests, tree)
    deadline = time.monotonic() + 4 * SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


def _run_tests(tests: list[str], tree: Path) -> None:
    """In the fork: run pytest on the copy and leave with its code."""
    code = 70
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        os.chdir(tree)
        sys.path[:0] = [str(tree), f"{tree}/src"]
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))
    finally:
        os._exit(code)


def chosen(given: argparse.Namespace) -> list[Mutant]:
    """The named faults, and generated ones, of each file in turn; those known to change nothing are left out."""
    named = [Mutant(name, file, 0, old, new) for name, file, old, new in NAMED]
    if given.named:
        return named
    draws = []
    for file in files():
        every = [one for one in operators(file) if (file, one.new.strip()) not in EQUIVALENT]
        random.Random(f"{given.seed} {file}").shuffle(every)
        draws.append(every[: given.each])
    turns = itertools.zip_longest(*draws)
    return named + [mutant for turn in turns for mutant in turn if mutant is not None]


def main() -> int:
    """Run, print the table by file, write the result file; 1 where a named fault survives or over 5 % of the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--named", action="store_true", help="named faults alone")
    parser.add_argument("--each", type=int, default=6, help="generated faults a file at most")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--only", default="", help="files whose name holds this")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after so many")
    parser.add_argument("--add", action="store_true", help="keep what the result file says of faults that it holds")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for library in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    rows: list[dict[str, Any]] = []
    if given.add and given.out and given.out.is_file():
        rows = json.loads(given.out.read_text(encoding="utf-8"))["mutants"]
    done = {(row["file"], row["name"], row["new"]) for row in rows}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        os.environ["PYTHONPATH"] = f"{tree}/src"
        for part in ("src", "tests", "configs", "bench", "docs", "README.md", "pyproject.toml"):
            source = ROOT / part
            shutil.copytree(source, tree / part) if source.is_dir() else shutil.copy(source, tree / part)
        sound: dict[tuple[str, ...], bool] = {}
        for mutant in chosen(given):
            late = time.monotonic() - started > 60 * given.minutes
            if late or given.only not in mutant.file or (mutant.file, mutant.name, mutant.new.strip()) in done:
                continue
            tests = tuple(tests_of(mutant.file))
            if not sound.setdefault(tests, sound.get(tests) or passes(list(tests), tree)):
                sys.exit(f"the tests of {mutant.file} fail without a fault; nothing can be said of one")
            row = {"file": mutant.file, "name": mutant.name, "named": not mutant.line, "new": mutant.new.strip()}
            rows.append({**row, "result": noticed(mutant, tree)})
            print(f"{rows[-1]['result']:9} {mutant.file}: {mutant.name}: {mutant.new.strip()}", flush=True)
            if given.out:
                write(given.out, {"table": table(rows), "mutants": rows})
    print(json.dumps(table(rows), indent=1))
    survived = [row for row in rows if row["result"] != "noticed"]
    return int(any(row["named"] for row in survived) or len(survived) > 0.05 * len(rows))


def table(rows: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Faults by file: how many were noticed, survived, or stood nowhere."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counts.setdefault(row["file"], Counter())[row["result"]] += 1
    return {file: dict(count) for file, count in sorted(counts.items())}


if __name__ == "__main__":
    sys.exit(main())
