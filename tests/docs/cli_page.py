"""Write docs/cli.md from the help of every verb: `python tests/docs/cli_page.py --write`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "cli.md"

HEAD = """# Command line

Verbs in the order data flows. Positional: the things acted on. Options: how. Every verb has a Python function,
named under its help.

- Long work shows progress, resumes when the same command is given again, and says what it skipped.
- Results go to standard output; progress, warnings and what to do next to standard error. `--json` prints one JSON
  object on standard output and nothing else there.
- `S.space/audio` names one modality of a space, `S.space/audio/ID` one item of it.
- Exit codes: 0 done, 1 a check said no, 2 wrong usage or bad input (one line), 130 interrupted.
- `ISTHMUS_DEBUG=1` adds the traceback to a fault.

This page is written from `--help`; a test compares the two.
"""


FUNCTIONS = {
    "demo": "isthmus.demo.run_demo",
    "encode": "isthmus.encode",
    "import": "isthmus.import_embeddings",
    "inspect": "isthmus.inspect",
    "connect": "isthmus.connect",
    "extend": "isthmus.extend",
    "official": "isthmus.load_official",
    "project": "isthmus.project",
    "evaluate": "isthmus.evaluate_bridge",
    "search": "isthmus.SearchIndex",
    "join": "isthmus.worlds.join.join",
    "update": "isthmus.encoders.pipeline.update.update_space",
    "remove": "isthmus.spaces.editing.remove_items",
    "rename": "isthmus.spaces.editing.rename_space",
    "merge": "isthmus.spaces.editing.merge_spaces",
    "export": "isthmus.export.export.export_bridge",
    "serve": "isthmus.serve.run.serve",
    "report": "isthmus.export.report.report",
    "benchmarks": "isthmus.list_benchmarks",
    "suite": "isthmus.run_suite",
    "compare": "isthmus.compare_bridges",
    "ablate": "isthmus.ablate",
    "vocabulary": "isthmus.load_vocabulary",
    "encoders": "isthmus.list_encoders",
    "doctor": "isthmus.cli.machine.examine",
}
"""By verb, the function or class of Python that does the same; every verb has one."""


def help_of(*verb: str) -> str:
    """The help text of a verb, as a terminal of 100 columns shows it."""
    done = subprocess.run(
        [sys.executable, "-m", "isthmus", *verb, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100"},
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def verbs() -> list[str]:
    """The verbs in their order."""
    from isthmus.cli.app import VERBS

    return list(VERBS)


def page() -> str:
    """The whole page."""
    parts = [HEAD, f"```\n{help_of()}\n```\n"]
    parts += [
        f"## isthmus {verb}\n\n```\n{help_of(verb)}\n```\n\nIn Python: `{FUNCTIONS.get(verb, '')}`.\n"
        for verb in verbs()
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page())
