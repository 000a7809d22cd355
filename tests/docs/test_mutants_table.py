"""The table of mutants in the log is that of its result file."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_log_counts_the_mutants_of_the_result_file() -> None:
    result = json.loads((ROOT / "bench/results/mutants.json").read_text(encoding="utf-8"))
    assert set(result["record"]) == {"commit", "date", "machine", "versions"}
    told = {
        name: tuple(map(int, (named, missed, generated, survived)))
        for name, named, missed, generated, survived in re.findall(
            r"^\| `([\w/]+\.py)` \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$",
            (ROOT / "docs/log.md").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    }
    counted: dict[str, tuple[int, ...]] = {}
    for row in result["mutants"]:
        missed = row["result"] != "noticed"
        new = (row["named"], row["named"] and missed, not row["named"], not row["named"] and missed)
        counted[row["file"]] = tuple(map(sum, zip(counted.get(row["file"], (0,) * 4), map(int, new), strict=True)))
    assert told == counted
    assert sum(row[1] for row in counted.values()) == 0
    assert sum(row[3] for row in counted.values()) <= 0.05 * len(result["mutants"])
