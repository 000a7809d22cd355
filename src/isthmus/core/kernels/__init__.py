"""Loops that no array library has, compiled when they are first used: the extra `fast` (numba) on x86 with AVX2.

Nothing needs them: where they cannot be had, torch does the same work, more slowly. Compiled code is kept beside the
modules, or in the user's cache where those cannot be written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from functools import cache
from pathlib import Path

SWITCH = "ISTHMUS_KERNELS"
"""Environment variable that turns the compiled loops off when it is 0."""


def available() -> bool:
    """Whether the compiled loops can be used in this process."""
    return missing() is None


@cache
def missing() -> str | None:
    """Why the compiled loops cannot be used, in a few words, or None."""
    if os.environ.get(SWITCH, "1") == "0":
        return f"turned off by {SWITCH}=0"
    try:
        import numba  # noqa: F401
        from llvmlite import binding
    except ImportError as error:
        return f"{error.name or 'numba'} is not installed (pip install 'isthmus[fast]')"
    if not binding.get_host_cpu_features().get("avx2", False):
        return "this processor has no AVX2"
    _forget_stale(Path(__file__).parent)
    return None


def numba_version() -> str | None:
    """Version of numba, which compiles the loops; None where they cannot be used."""
    if not available():
        return None
    import numba

    return str(numba.__version__)


def _forget_stale(folder: Path) -> None:
    """Delete what was compiled of other sources: numba asks only whether a function's own file has changed."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()
    compiled = folder / "__pycache__"
    stamp = compiled / "sources.sha256"
    with contextlib.suppress(OSError):
        if stamp.is_file() and stamp.read_text(encoding="ascii") == digest:
            return
        for path in compiled.glob("*.nb[ci]"):
            path.unlink(missing_ok=True)
        compiled.mkdir(exist_ok=True)
        stamp.write_text(digest, encoding="ascii")
