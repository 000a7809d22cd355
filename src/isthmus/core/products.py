"""The number types of matrix products on this machine: what its processor has instructions for, or what is forced.

No stopwatch takes part: a choice that is timed may fall differently in the next process, and with it the last digits of
every result. `ISTHMUS_PRODUCTS` forces one of three ways on any machine, so that each can be tested and repeated there.
"""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.core import kernels
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    import torch

SWITCH = "ISTHMUS_PRODUCTS"
"""Environment variable that forces a way: one of `WAYS`."""
WAYS = ("bf16", "integer", "float32")


def forced_way() -> str | None:
    """The way that `ISTHMUS_PRODUCTS` forces, or None.

    Raises:
        ConfigError: It names no way, or integers where there are no compiled loops for them.
    """
    way = os.environ.get(SWITCH, "")
    if not way:
        return None
    if way not in WAYS:
        raise ConfigError(f"{SWITCH} is {way!r}. Expected one of {', '.join(WAYS)}, or nothing.")
    if way == "integer" and not kernels.available():
        raise ConfigError(f"{SWITCH}=integer needs the compiled loops: {kernels.missing()}. Give bf16 or float32.")
    return way


def has_bf16(device: torch.device) -> bool:
    """Whether products of bfloat16 are made by instructions of the device, or are forced."""
    way = forced_way()
    if way is not None:
        return way == "bf16"
    if device.type == "cuda":
        import torch

        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and _processor_has_bf16()


def low_precision_type(device: torch.device) -> str:
    """The type of products in 16 bits: "bf16", "int16", or "float32" where neither is faster than it."""
    if has_bf16(device):
        return "bf16"
    return "int16" if _integers(device) else "float32"


def scan_type(device: torch.device) -> str:
    """The type of a compressed scan's products: "int8" where there are compiled loops for it, else a float's."""
    if forced_way() in (None, "integer") and _integers(device):
        return "int8"
    return "bf16" if has_bf16(device) else "float32"


def arithmetic(device: torch.device) -> dict[str, Any]:
    """Facts that decide the last digits of a result on a device, ready for json: runs that differ in them differ there.

    `products` and `scan` are number types, `compiled_loops` the version of numba or None, `instructions` and `threads`
    those of torch on a CPU.
    """
    import torch

    facts: dict[str, Any] = {"device": device.type, "products": low_precision_type(device), "scan": scan_type(device)}
    if device.type == "cpu":
        facts |= {
            "compiled_loops": kernels.numba_version(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
        }
    return facts


def _integers(device: torch.device) -> bool:
    """Whether products go through compiled loops of integers."""
    return device.type == "cpu" and kernels.available() and forced_way() in (None, "integer")


@cache
def _processor_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself: AVX-512 BF16 or AMX on x86, the extension BF16 on ARM.

    Apple's processors have it too, but there torch's float32 runs on a faster unit.
    """
    import torch

    if platform.machine().lower() in ("x86_64", "amd64"):
        torch_answer = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(torch_answer()) if torch_answer is not None else "avx512_bf16" in _linux_flags()
    return "bf16" in _linux_flags()


def _linux_flags() -> set[str]:
    """Names of the processor's instruction sets as Linux lists them; none elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.lower().startswith(("flags", "features")) for flag in line.split()}
