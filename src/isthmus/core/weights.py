"""Files of torch that may come from a stranger: read as tensors and plain values, their size known beforehand."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from isthmus.core.limits import excess
from isthmus.core.messages import one_line


def load_weights(path: str | Path, *, allowed: Sequence[type] = ()) -> Any:
    """Load what `torch.save` wrote, with `weights_only`: nothing in it is run.

    Args:
        path: The file.
        allowed: Classes that it may hold beside tensors and plain values.

    Raises:
        ValueError: It is damaged, holds anything else, or takes too much memory; the message is one line without an
            end, for the caller to say which file.
    """
    import torch

    packed = Path(path).stat().st_size
    with suppress(zipfile.BadZipFile, NotImplementedError), zipfile.ZipFile(path) as archive:
        if fault := excess(sum(member.file_size for member in archive.infolist()), packed):
            raise ValueError(fault)
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpicklers of damaged files raise nearly anything
        foreign = "weights_only" in str(error).lower() or "weights only" in str(error).lower()
        raise ValueError("it holds more than tensors and plain values" if foreign else one_line(error)) from error
