"""The configuration of a run: a preset, then a TOML file, then `--set`, then options, each over the one before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.core.messages import unknown_key
from isthmus.core.toml import parse_toml, read_toml
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from isthmus.recipes.config import Config


def parse_assignment(text: str) -> tuple[str, Any]:
    """Read `key=value`; the value as TOML writes it, `none` for nothing, and any other words as a string.

    Raises:
        ConfigError: There is no `=` or no key.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set got {text!r}, expected key=value such as --set epochs=36.")
    return key.strip(), _value(value.strip())


def _value(text: str) -> Any:
    if text.lower() in ("none", "null"):
        return None
    try:
        return parse_toml(f"value = {text}")["value"]
    except ValueError:
        return text


def collect(file: Path | None, assignments: Iterable[str], known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Merge a TOML file and `--set` assignments (dotted keys reach into tables) into one table of overrides.

    Args:
        file: TOML file, or None.
        assignments: `key=value` texts, applied over the file in order.
        known: Valid keys, nested tables as mappings; None leaves the checking to the reader of the table.

    Raises:
        ConfigError: A key is unknown; the message says where it stands and which keys are valid.
    """
    merged: dict[str, Any] = {}
    if file is not None:
        merged = read_toml(file, "--config")
        if "engine_address" in merged:
            # Ray runs what it is sent and unpickles what it gets back, so no file may choose the machine.
            raise ConfigError(f"--config {file} sets engine_address, which no file may choose. Pass --address instead.")
        check_keys(merged, known, f"--config {file}")
    for text in assignments:
        key, value = parse_assignment(text)
        table = _nest(key, value)
        check_keys(table, known, "--set")
        _update(merged, table)
    return merged


def _nest(key: str, value: Any) -> dict[str, Any]:
    first, dot, rest = key.partition(".")
    return {first: _nest(rest, value)} if dot else {first: value}


def _update(into: dict[str, Any], table: Mapping[str, Any]) -> None:
    for key, value in table.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _update(into[key], value)
        else:
            into[key] = value


def known_keys(model: type[BaseModel]) -> dict[str, Any]:
    """List the keys of a pydantic model; a nested model gives a nested mapping, anything else None."""
    keys: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        nested = field.annotation
        keys[name] = known_keys(nested) if isinstance(nested, type) and hasattr(nested, "model_fields") else None
    return keys


def check_keys(table: Mapping[str, Any], known: Mapping[str, Any] | None, where: str, prefix: str = "") -> None:
    """Refuse keys that `known` does not have, naming the nearest one and all valid ones."""
    if known is None:
        return
    for key, value in table.items():
        if key not in known:
            raise ConfigError(unknown_key(where, key, known, prefix))
        if isinstance(known[key], Mapping) and isinstance(value, Mapping):
            check_keys(value, known[key], where, f"{prefix}{key}.")


def resolve(model: type[Config], *, file: Path | None, assignments: Iterable[str], **flags: Any) -> Config:
    """Build the configuration of a recipe: the file, then `--set` over it, then options of their own.

    Args:
        model: `ConnectConfig` or `ExtendConfig`.
        file: TOML file, or None.
        assignments: `key=value` texts.
        flags: Options of the command line that are keys too, such as the preset; None leaves the key alone.

    Raises:
        ConfigError: A key is unknown or a value out of range.
    """
    from isthmus.recipes.config import make_config

    overrides = collect(file, assignments, known_keys(model))
    overrides.update({key: value for key, value in flags.items() if value is not None})
    return make_config(model, overrides)
