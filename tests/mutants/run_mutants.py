"""Which faults would the tests not see? One-line faults put into a copy of the sources, one at a time.

    python tests/mutants/run_mutants.py --out bench/results/mutants.json            named faults and a sample of others
    python tests/mutants/run_mutants.py --named --out ...                           named faults alone

Named faults are listed in `named.py`: each was once noticed by no test. Generated ones change an operator or
a comparison of a line. A fault with which all tests of its file pass has survived; one that cannot change a
result is listed in `named.py` as equivalent, with the reason.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from named import EQUIVALENT, NAMED, TESTS

ROOT = Path(__file__).resolve().parents[2]
BUDGET_SECONDS = 600
"""Tests that take longer say nothing of a fault, unless it is one that never ends."""
SWAPS = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.Lt: ">=", ast.Gt: "<=", ast.LtE: ">", ast.GtE: "<",
    ast.Eq: "!=", ast.NotEq: "==", ast.And: "or", ast.Or: "and", ast.FloorDiv: "/", ast.Pow: "*",
}  # fmt: skip


class Mutant(NamedTuple):
    """A fault: the file below src/isthmus, what is replaced by what on which line (0: wherever it stands)."""

    name: str
    file: str
    line: int
    old: str
    new: str


def operators(file: str) -> list[Mutant]:
    """A fault for each operator and comparison of a file; those of docstrings and messages are left out."""
    text = (ROOT / "src" / "isthmus" / file).read_text(encoding="utf-8")
    lines, found = text.splitlines(), []
    for node in ast.walk(ast.parse(text)):
        pairs: list[tuple[ast.AST, ast.AST, ast.AST]] = []
        if isinstance(node, ast.BinOp) and not isinstance(node.left, ast.JoinedStr):
            pairs = [(node.op, node.left, node.right)]
        elif isinstance(node, ast.Compare):
            pairs = [(node.ops[0], node.left, node.comparators[0])]
        elif isinstance(node, ast.BoolOp):
            pairs = [(node.op, node.values[0], node.values[1])]
        for operator, left, right in pairs:
            number = getattr(left, "end_lineno", 0)
            if type(operator) not in SWAPS or number != getattr(right, "lineno", -1):
                continue
            line = lines[number - 1]
            raw = line.encode()
            before, after = raw[: left.end_col_offset].decode(), raw[right.col_offset :].decode()  # type: ignore[attr-defined]
            between = raw[left.end_col_offset : right.col_offset].decode()  # type: ignore[attr-defined]
            sign = between.strip(" ()")
            new = before + between.replace(sign, SWAPS[type(operator)], 1) + after
            if " | " not in between and "Error(" not in line and 'f"' not in line:
                found.append(Mutant(f"{number}: {sign} to {SWAPS[type(operator)]}", file, number, line, new))
    return found


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


def noticed(mutant: Mutant, tests: list[str], tree: Path) -> str:
    """Run the tests with a fault in: "noticed", "survived", "timeout", or "absent" where its line is no more."""
    original = ROOT / "src" / "isthmus" / mutant.file
    if not apply(mutant, tree):
        return "absent"
    try:
        result = "survived" if passes(tests, tree, BUDGET_SECONDS) else "noticed"
    except subprocess.TimeoutExpired:
        result = "timeout"
    shutil.copy(original, tree / "src" / "isthmus" / mutant.file)
    return result


def passes(tests: list[str], tree: Path, seconds: float | None) -> bool:
    """Whether tests pass in a copy of the tree."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": f"{tree}/src"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=seconds, check=False)
    return done.returncode == 0


def chosen(given: argparse.Namespace) -> list[Mutant]:
    """The named faults, and a sample of generated ones of every file, those known to change nothing left out."""
    named = [Mutant(name, file, 0, old, new) for name, file, old, new in NAMED]
    if given.named:
        return named
    draw = random.Random(given.seed)
    sample: list[Mutant] = []
    for file in TESTS:
        every = [one for one in operators(file) if (file, one.new.strip()) not in EQUIVALENT]
        sample += draw.sample(every, min(given.each, len(every)))
    return named + sample


def main() -> int:
    """Run, print the table by file, write the result file; 1 where a named fault survives or over 5 % of the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--named", action="store_true", help="named faults alone")
    parser.add_argument("--each", type=int, default=6, help="generated faults a file")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--only", default="", help="files whose name holds this")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after so many")
    parser.add_argument("--unchecked", action="store_true", help="do not run the tests without a fault first")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows, started = [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for part in ("src", "tests", "configs", "pyproject.toml"):
            source = ROOT / part
            shutil.copytree(source, tree / part) if source.is_dir() else shutil.copy(source, tree / part)
        every = sorted({test for tests in TESTS.values() for test in tests})
        if not given.unchecked and not passes(every, tree, None):
            sys.exit("the tests fail without a fault; nothing can be said of one")
        for mutant in chosen(given):
            if given.only not in mutant.file or time.monotonic() - started > 60 * given.minutes:
                continue
            result = noticed(mutant, TESTS[mutant.file], tree)
            rows.append({"file": mutant.file, "name": mutant.name, "named": not mutant.line, "result": result})
            print(f"{result:9} {mutant.file}: {mutant.name}", flush=True)
            if given.out:
                given.out.write_text(json.dumps({"table": table(rows), "mutants": rows}, indent=1) + "\n", "utf-8")
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
