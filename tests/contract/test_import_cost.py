"""`import isthmus` and `isthmus --help` stay cheap, and the test that says so can fail."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "pyarrow", "pydantic", "scipy", "sklearn", "transformers", "pandas", "matplotlib")


def loaded_by(statement: str) -> set[str]:
    """Run a statement in a fresh interpreter and name the heavy packages it loaded."""
    code = f"import sys\n{statement}\nprint()\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "statement",
    [
        "import isthmus",
        "import isthmus; isthmus.__version__; dir(isthmus); isthmus.IsthmusError",
        "import isthmus.cli",
        "import isthmus.cli.app",
        "from isthmus.cli import main; main(['--version'])",
        "import isthmus.encoders",
        "import isthmus.metrics",
    ],
)
def test_nothing_heavy_is_loaded(statement: str):
    assert loaded_by(statement) == set()


@pytest.mark.parametrize("verb", ["import", "extend", "evaluate"])
def test_the_help_of_a_verb_loads_no_library(verb: str):
    loaded = loaded_by(f"from isthmus.cli import main; main([{verb!r}, '--help'])")
    assert loaded <= {"pydantic"}, "newer typer reads options through pydantic; nothing else is needed"


@pytest.mark.parametrize("statement", ["import pydantic", "import isthmus; import scipy"])
def test_the_check_can_fail(statement: str):
    assert loaded_by(statement)


def _fastest(*command: str, runs: int = 3) -> float:
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run([sys.executable, *command], capture_output=True, check=True, timeout=120)
        times.append(time.perf_counter() - started)
    return min(times)


def test_help_answers_in_a_third_of_the_time_of_importing_torch():
    helped = _fastest("-m", "isthmus", "--help")
    torch = _fastest("-c", "import torch")
    assert helped < torch / 3, f"isthmus --help {helped:.2f} s, import torch {torch:.2f} s"
