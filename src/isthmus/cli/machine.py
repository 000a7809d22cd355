"""What this machine has: Python, torch, threads, devices, the extras that are installed and those that are not."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import re
from importlib import metadata
from typing import Any

from isthmus.core.messages import one_line
from isthmus.core.version import __version__

OFTEN_BROKEN = ("torchvision", "torchaudio")
"""Not needed, but if they are installed and do not fit torch, transformers cannot load its models."""


def examine() -> dict[str, Any]:
    """Collect the report of `isthmus doctor`."""
    return {"machine": machine(), "extras": extras(), "broken": broken()}


def machine() -> dict[str, Any]:
    """Versions, cores, threads, memory and devices."""
    import numpy
    import torch

    from isthmus.core import kernels

    cuda = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return {
        "isthmus": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": _memory_gb(),
        "compiled_loops": kernels.missing() or "yes",
        "devices": ", ".join(["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]),
    }


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def extras() -> list[dict[str, Any]]:
    """Read the extras from the metadata of the installed package: what each lacks here and the command that adds it."""
    try:
        requirements = metadata.requires("isthmus") or []
    except metadata.PackageNotFoundError:
        return []
    wanted: dict[str, list[str]] = {}
    for requirement in requirements:
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        name = re.match(r"[\w.-]+", requirement)
        if extra and name and name[0] != "isthmus":
            wanted.setdefault(extra[1], []).append(name[0])
    return [_extra(name, packages) for name, packages in wanted.items() if name not in ("dev", "docs")]


def _extra(name: str, packages: list[str]) -> dict[str, Any]:
    missing = [package for package in packages if not _installed(package)]
    return {
        "extra": name,
        "packages": packages,
        "missing": missing,
        "install": f"pip install 'isthmus[{name}]'" if missing else None,
    }


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def broken() -> list[str]:
    """Name the installed packages that cannot be imported here and hurt others."""
    faults = []
    for name in OFTEN_BROKEN:
        if importlib.util.find_spec(name) is None:
            continue
        try:
            importlib.import_module(name)
        except Exception as error:  # a package that does not fit torch fails in any way it likes
            reason = one_line(error)
            faults.append(f"{name} is installed but does not fit torch ({reason}). Not needed: pip uninstall {name}")
    return faults
