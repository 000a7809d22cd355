"""How readable the package is, in numbers: these limits may fall and never rise."""

from __future__ import annotations

from pathlib import Path

from code_size import measure
from import_rows import ROWS

LIMITS = {
    "rooms": 16,
    "arrows": 80,
    "longest_module": 357,
    "long_modules": 4,
    "longest_function": 124,
    "long_functions": 16,
    "many_parameters": 13,
}
"""Most of each; lower a limit when the package allows it, and split what would raise one.

Functions that are long for a reason: the verbs of `cli` and `serve.run.serve`, whose lines are their options, one each;
`scan_tile` of `core.kernels`, one compiled loop, which a call would slow; and the recipes `connect`, `extend` and
`train`, which are read aloud from top to bottom.
"""


def test_the_code_stays_within_its_limits():
    size = vars(measure(Path(__file__).resolve().parents[2]))
    over = {name: size[name] for name, most in LIMITS.items() if size[name] > most}
    assert not over, f"above the limits of tests/contract/test_code_size.py: {over}. Split what has grown."
    assert size["comments"] >= 0.8
    assert size["documented"] >= 90, "first sentences are missing: say of every function what it is of"


def test_there_are_at_most_nine_rows():
    assert len(ROWS) <= 9


def test_the_counter_counts(tmp_path: Path):
    package = tmp_path / "src" / "isthmus"
    for room in ("one", "two"):
        (package / room).mkdir(parents=True)
    parameters = ", ".join(f"p{n}" for n in range(9))
    body = "\n".join(f"    x{n} = {n}  # why" for n in range(46))
    (package / "one" / "a.py").write_text(f'def long({parameters}):\n    """Words."""\n{body}\n')
    (package / "two" / "b.py").write_text("from isthmus.one.a import long\n" + "y = 1\n" * 300)
    size = measure(tmp_path)
    assert (size.rooms, size.arrows, size.long_functions, size.many_parameters, size.long_modules) == (2, 1, 1, 1, 1)
    assert (size.longest_module, size.longest_function) == (301, 48)
    assert size.comments == round(100 * 46 / 349, 2)
    assert size.documented == 100.0
