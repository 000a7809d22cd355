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
        "fault": None if missing else _fault(name, packages),
        "install": f"pip install 'isthmus[{name}]'" if missing else None,
    }


def _fault(extra: str, packages: list[str]) -> str | None:
    """Try what an extra is for: its modules are imported, and sounds and pictures are decoded; why not, or None."""
    try:
        for package in packages:
            importlib.import_module(MODULES.get(package.lower(), package.replace("-", "_")))
        if extra in TRIED:
            TRIED[extra]()
    except Exception as error:  # a package that does not fit fails in any way it likes
        return one_line(error)
    return None


def _try_audio() -> None:
    """Write a tenth of a second as m4a and decode it again, which is what soundfile cannot do."""
    import io

    import av
    import numpy as np

    from isthmus.items.decoding.audio import decode_audio

    stream = io.BytesIO()
    with av.open(stream, mode="w", format="ipod") as container:
        track = container.add_stream("aac", rate=48000)
        wave = np.sin(np.arange(4800, dtype=np.float32) / 16)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate = 48000
        for packet in (*track.encode(frame), *track.encode(None)):
            container.mux(packet)
    decode_audio(stream.getvalue(), rate=16000)


def _try_image() -> None:
    import io

    from PIL import Image

    from isthmus.items.decoding.image import decode_image

    stream = io.BytesIO()
    Image.new("RGB", (2, 2)).save(stream, "JPEG")
    decode_image(stream.getvalue())


TRIED = {"audio": _try_audio, "image": _try_image}
"""By extra, what is done beside importing its modules."""
MODULES = {
    "pillow": "PIL", "open_clip_torch": "open_clip", "faiss-cpu": "faiss", "uvicorn": "uvicorn", "pyyaml": "yaml",
}  # fmt: skip
"""By package, the module where its name is another."""


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
