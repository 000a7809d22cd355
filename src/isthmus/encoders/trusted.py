"""Encoders that the user allowed beforehand: `trusted.toml`, a file of the user's own that no space or bridge brings.

The only way for a file to have a class of the user's, or a model in a folder, loaded without being named in the very
command: the user wrote that name down, with the options that it may be made with.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isthmus.core.toml import read_toml
from isthmus.errors import ConfigError

FILE = "trusted.toml"
_KEYS = ("name", "folder", "options")


@dataclass(frozen=True)
class Trusted:
    """An encoder that the user allows files to name.

    Attributes:
        name: As for `--encoder`: `module:Class`, or a registered encoder with a path.
        folder: Absolute folder that the module lies in, for one that Python does not find by itself.
        options: What it is made with; a file may record these and no others.
    """

    name: str
    folder: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def open_folder(self) -> None:
        """Let Python find the module in its folder, after all installed ones."""
        if self.folder is not None and self.folder not in sys.path:
            sys.path.append(self.folder)


def trusted_file() -> Path | None:
    """Path of `trusted.toml`: in `ISTHMUS_CONFIG`, else in `isthmus` below `XDG_CONFIG_HOME` or `~/.config`.

    None where no home is known. A relative folder is passed over: it would be another one in every place.
    """
    for variable, below in (("ISTHMUS_CONFIG", ""), ("XDG_CONFIG_HOME", "isthmus")):
        folder = os.environ.get(variable, "")
        if os.path.isabs(folder):
            return Path(folder) / below / FILE
    try:
        return Path.home() / ".config" / "isthmus" / FILE
    except RuntimeError:  # no home directory, as in some containers
        return None


_NAMED: list[Trusted] = []


def allow_in_this_process(name: str, options: Mapping[str, Any]) -> None:
    """Note a registered encoder with a path that the user's program named itself, as `encode(encoder=...)` does.

    A program that encodes with a model in a folder and then searches what it made has said which folder it means; a
    file that names another gains nothing by it. Classes are not noted: a file names no code, whatever ran before.
    """
    entry = Trusted(name, options=dict(options))
    if entry not in _NAMED:
        _NAMED.append(entry)


def find_trusted(name: str) -> list[Trusted]:
    """The entries of a name that this program named itself or the user's file has: one for each set of options.

    Raises:
        ConfigError: The file can be changed by other users, or is not what it should be.
    """
    return [one for one in (*_NAMED, *read_trusted()) if one.name == name]


def read_trusted() -> list[Trusted]:
    """All encoders of the user's file; none where there is no such file.

    Raises:
        ConfigError: The file can be changed by other users, or is not what it should be.
    """
    path = trusted_file()
    if path is None or not path.is_file():
        return []
    if os.name == "posix" and path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"{path}: other users may change it, so it is not trusted. Run: chmod go-w {path}")
    table = read_toml(path, "trusted encoders")
    entries = table.pop("encoder", [])
    if table or not isinstance(entries, list):
        key = next(iter(table), "encoder")
        raise ConfigError(f"{path}: has the key {key!r}. Expected [[encoder]] tables with {', '.join(_KEYS)}.")
    return [_entry(path, number, entry) for number, entry in enumerate(entries, start=1)]


def _entry(path: Path, number: int, entry: Any) -> Trusted:
    """Encoder of the user's file of trusted ones."""
    where = f"{path}, [[encoder]] {number}"
    if not isinstance(entry, dict) or (unknown := [key for key in entry if key not in _KEYS]):
        raise ConfigError(f"{where}: has the unknown key {unknown[0]!r}. Valid keys: {', '.join(_KEYS)}.")
    name, folder, options = entry.get("name"), entry.get("folder"), entry.get("options", {})
    if not isinstance(name, str) or ":" not in name:
        raise ConfigError(f"{where}: name is {name!r}. Expected module:Class, or NAME:PATH of a registered encoder.")
    if folder is not None:
        folder = os.path.expanduser(folder) if isinstance(folder, str) else ""
        if not os.path.isabs(folder):
            raise ConfigError(f"{where}: folder is {entry['folder']!r}. Expected an absolute path, or one from ~.")
    if not isinstance(options, dict):
        raise ConfigError(f"{where}: options is {options!r}. Expected a table such as {{ grid = 8 }}.")
    return Trusted(name, folder, options)
