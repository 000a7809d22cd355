"""Model folders are data: what their json files say is looked through for names of code before a library loads them.

Libraries follow class names in these files: sentence-transformers' `modules.json` and the configurations of its
modules, transformers' `auto_map` and attention kernels. Newer versions refuse most of them by themselves; isthmus
reads the files first, so that it does not depend on the version that is installed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isthmus.errors import EncoderError

_LIMIT = 4 * 2**20
"""Most bytes of a configuration; larger ones are vocabularies and indexes, which name no code."""
_CONFIGURATIONS = ("config.json", "modules.json", "preprocessor_config.json", "processor_config.json")
_LIBRARY = re.compile(r"sentence_transformers(\.[A-Za-z_]\w*)+")
_ACTIVATION = re.compile(r"torch\.nn\.(modules\.(activation|linear)\.)?[A-Z]\w*")
_CLASS_KEYS = ("type", "types", "tokenizer_class", "activation_function", "loss_function", "module_class")


def check_model_folder(folder: Path, given: str) -> None:
    """Refuse a model folder whose configuration names code outside the libraries that load it.

    Args:
        folder: The folder.
        given: What the user calls it, for the message.

    Raises:
        EncoderError: A file names a class or a kernel from elsewhere.
    """
    for file in sorted(folder.rglob("*.json")):
        if not _is_configuration(file) or file.stat().st_size > _LIMIT:
            continue
        try:
            table = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue  # the library that needs it says what is wrong with it
        for key, value in _named(table):
            raise EncoderError(
                f"{given}: {file.relative_to(folder)} has {key} name {ascii(value)[:80]}, code that does not come with "
                "the library. isthmus runs no code of a model's folder. Load it in an encoder class of your own, and "
                "pass that: --encoder module:Class."
            )


def _is_configuration(file: Path) -> bool:
    """Whether a file of a model is a configuration, which may name code."""
    return file.name in _CONFIGURATIONS or file.name.endswith("config.json")


def _named(table: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Keys and names of code from elsewhere in a configuration."""
    if depth > 50:
        return
    if isinstance(table, dict):
        for name, value in table.items():
            yield from _named(value, key if key == "types" else str(name), depth + 1)
    elif isinstance(table, list):
        for value in table:
            yield from _named(value, key, depth + 1)
    elif isinstance(table, str):
        dotted = key in _CLASS_KEYS and "." in table
        if dotted and not (_LIBRARY.fullmatch(table) or _ACTIVATION.fullmatch(table)):
            yield key, table
        if key.endswith("attn_implementation") and "/" in table:  # a kernel that transformers would fetch and run
            yield key, table
