"""Write the list of benchmarks into docs/benchmarks.md: `python tests/docs/benchmark_table.py --write`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"
START, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"


def benchmark_table() -> str:
    """What comes along, a row a benchmark."""
    from isthmus.evaluation.benchmarks.declaration import list_benchmarks

    lines = ["| name | task | modalities | size | figures | licence |", "|---|---|---|---|---|---|"]
    for one in list_benchmarks():
        cells = [f"`{one.name}`", one.task, ", ".join(one.modalities), one.data.size, ", ".join(one.headline)]
        lines.append("| " + " | ".join(cell.replace("|", "&#124;") for cell in [*cells, one.data.licence]) + " |")
    return "\n".join(lines)


def benchmarks_shown() -> str:
    """What the page shows now."""
    return PAGE.read_text(encoding="utf-8").split(START)[1].split(END)[0].strip()


def declarations() -> dict[str, str]:
    """The TOML files that the page shows, by the reader that they are marked with."""
    return dict(re.findall(r"<!-- toml (\w+) -->\n```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))


if __name__ == "__main__":
    if "--write" in sys.argv:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(
            f"{text.split(START)[0]}{START}\n{benchmark_table()}\n{END}{text.split(END)[1]}", encoding="utf-8"
        )
    else:
        print(benchmark_table())
