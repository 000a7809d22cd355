"""The papers' recipes as files: they read, they hold the printed values, and the page that uses them names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from isthmus.cli.config import resolve
from isthmus.recipes.config import RecipeConfig

ROOT = Path(__file__).resolve().parents[3]
RECIPES = sorted(file for file in (ROOT / "configs").glob("*.toml") if not file.stem.startswith("ablations-"))


def model_of(name: str) -> type[RecipeConfig]:
    if name.startswith("ex-"):
        from isthmus.recipes.extend import ExtendConfig

        return ExtendConfig
    from isthmus.recipes.connect import ConnectConfig

    return ConnectConfig


def test_there_is_one_a_bridge_of_the_papers() -> None:
    assert [file.stem for file in RECIPES] == ["c-mcr-clap-clip", "c-mcr-ulip-clip", "ex-mcr"]


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_is_the_papers_preset_with_a_seed(file: Path) -> None:
    model = model_of(file.stem)
    config = resolve(model, file=file, assignments=[])
    paper = model(preset="paper")
    different = {key for key, value in config.model_dump().items() if value != paper.model_dump()[key]}
    assert different <= {"memory_limit", "centric", "pseudo_temperature", "head"}
    assert (config.epochs, config.noise_cosine, config.intra_weight) == (36, 0.573, 0.1)


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_the_page_uses_the_command_of_the_recipe(file: Path) -> None:
    page = (ROOT / "docs" / "from-raw-corpora.md").read_text()
    commands = [line[4:].strip() for line in file.read_text().splitlines() if line.startswith("#   isthmus ")]
    assert commands
    for command in commands:
        assert command in page
