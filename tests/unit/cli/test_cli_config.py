"""The configuration of a run: file, --set and options, each over the one before."""

from __future__ import annotations

from pathlib import Path

import pytest

from isthmus.cli.config import check_keys, collect, known_keys, parse_assignment, resolve
from isthmus.errors import ConfigError
from isthmus.recipes.config import RecipeConfig


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epochs=36", ("epochs", 36)),
        ("learning_rate=1e-3", ("learning_rate", 1e-3)),
        ("normalize_aggregates=false", ("normalize_aggregates", False)),
        ("centric=text,audio", ("centric", "text,audio")),
        ('centric=["text"]', ("centric", ["text"])),
        ("epochs=none", ("epochs", None)),
        ("memory_limit=4GB", ("memory_limit", "4GB")),
        ("aggregation_temperature.clip = 0.02", ("aggregation_temperature.clip", 0.02)),
    ],
)
def test_an_assignment_is_read_as_toml_or_as_words(text: str, expected: tuple[str, object]):
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["epochs", "=3", ""])
def test_an_assignment_without_key_or_sign_is_refused(text: str):
    with pytest.raises(ConfigError, match="expected key=value such as --set epochs=36"):
        parse_assignment(text)


def test_set_goes_over_the_file_and_options_over_both(tmp_path: Path):
    file = tmp_path / "c.toml"
    file.write_text("epochs = 3\nbatch_size = 64\nseed = 5\n")
    config = resolve(RecipeConfig, file=file, assignments=["epochs=4", "seed=6"], seed=7, preset=None)
    assert (config.epochs, config.batch_size, config.seed) == (4, 64, 7)


def test_dotted_keys_reach_into_tables():
    merged = collect(None, ["aggregation_temperature.clip=0.02", "aggregation_temperature.clap=0.03"])
    assert merged == {"aggregation_temperature": {"clip": 0.02, "clap": 0.03}}


@pytest.mark.parametrize(("where", "match"), [("file", "c.toml"), ("set", "--set")])
def test_an_unknown_key_names_its_place_the_nearest_and_all_valid_keys(tmp_path: Path, where: str, match: str):
    file = tmp_path / "c.toml"
    file.write_text("epoch = 3\n")
    with pytest.raises(
        ConfigError, match=rf"{match} has the unknown key 'epoch'. Did you mean epochs\? Valid keys: preset, seed"
    ):
        resolve(RecipeConfig, file=file if where == "file" else None, assignments=["epoch=3"])


def test_unknown_nested_keys_are_found():
    with pytest.raises(ConfigError, match=r"unknown key 'a\.c'"):
        check_keys({"a": {"c": 1}}, {"a": {"b": None}}, "--set")


def test_known_keys_are_the_fields():
    assert set(known_keys(RecipeConfig)) == set(RecipeConfig.model_fields)


def test_a_value_out_of_range_names_the_key_and_the_value():
    with pytest.raises(ConfigError, match="config key 'epochs' got -1"):
        resolve(RecipeConfig, file=None, assignments=["epochs=-1"])


@pytest.mark.parametrize(
    ("content", "match"), [("epochs =", "is not TOML"), (None, "does not exist"), (b"\xff\xfe", "is not TOML")]
)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, content: str | bytes | None, match: str):
    file = tmp_path / "c.toml"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=match) as caught:
        resolve(RecipeConfig, file=file, assignments=[])
    assert "c.toml" in str(caught.value)
