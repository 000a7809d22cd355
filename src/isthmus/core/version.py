"""The version of isthmus, and those of what a result depends on."""

from __future__ import annotations

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """Versions of what a result depends on: isthmus, torch, numpy, Python, the machine and the compiled loops."""
    # The door reads `__version__` from here, so what only this function needs is not imported with it.
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from isthmus.core import kernels

    known = {"python": platform.python_version(), "platform": platform.machine(), "cpus": str(os.cpu_count())}
    known["isthmus"] = __version__
    for package in ("torch", "numpy"):
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            known[package] = "unknown"
    # Compiled loops end in other last digits than torch's: whether they are used decides a seed's result.
    known["compiled_loops"] = f"numba {loops}" if (loops := kernels.numba_version()) else f"none: {kernels.missing()}"
    return known
