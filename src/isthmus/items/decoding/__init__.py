"""Decoding: bytes of a file to an array, without a model. Pure functions: equal bytes and options give equal arrays.

Each function raises `Rejected` with a reason when an item cannot be decoded honestly, and `DependencyError` when
the package that reads its kind of file is not installed. None of them imports torch, so worker processes start
quickly.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from isthmus.errors import DependencyError

Source = bytes | str | Path
"""What a decoder reads: the bytes themselves, or a path to them."""


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Import an optional module.

    Args:
        module: Its name, such as "PIL.Image".
        extra: The extra of isthmus that installs it.
        purpose: What it is needed for, such as "decoding images".

    Raises:
        DependencyError: It is not installed; the message holds the exact command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise DependencyError(
            f"{purpose} needs {package}, not installed here ({error}). Run: pip install 'isthmus[{extra}]'"
        ) from error
