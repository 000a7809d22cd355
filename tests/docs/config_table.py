"""Write the settings of `connect` and `extend` into docs/python.md: `python tests/docs/config_table.py --write`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from isthmus.cli.settings_help import meanings

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "python.md"
START, END = "<!-- config -->", "<!-- /config -->"


def differs(model: type[Any], name: str) -> bool:
    """Whether a recipe adds a setting to the common ones, or gives one another default."""
    from isthmus.recipes.config import RecipeConfig

    common = RecipeConfig.model_fields
    return name not in common or common[name].default != model.model_fields[name].default


def table() -> str:
    """The settings as a table: those of both recipes, then what is different in one."""
    from isthmus import ConnectConfig, ExtendConfig
    from isthmus.recipes.config import RecipeConfig

    lines = ["| key | default | meaning |", "|---|---|---|"]
    for model, only in ((RecipeConfig, ""), (ConnectConfig, "`connect`: "), (ExtendConfig, "`extend`: ")):
        words = meanings(model)
        own = [name for name in model.model_fields if model is RecipeConfig or differs(model, name)]
        for name in own:
            default = model.model_fields[name].default
            lines.append(f"| `{name}` | `{default}` | {only}{words[name].replace('|', '&#124;')} |")
    return "\n".join(lines)


def shown() -> str:
    """What the page shows now."""
    return PAGE.read_text(encoding="utf-8").split(START)[1].split(END)[0].strip()


if __name__ == "__main__":
    if "--write" in sys.argv:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(f"{text.split(START)[0]}{START}\n{table()}\n{END}{text.split(END)[1]}", encoding="utf-8")
    else:
        print(table())
