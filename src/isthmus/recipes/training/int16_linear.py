"""Training products in 16-bit integers, where a processor multiplies these faster than floats.

`sixteen_bits` turns them on, as autocast does bfloat16. Operands are rounded to 10 bits or more, each row or column by
a unit of its own, which is finer than bfloat16's eight; all else stays float32.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.core import kernels

_on: ContextVar[bool] = ContextVar("_on", default=False)
_room = threading.local()
_LEAST = 4_000_000_000
"""Multiplications below which a product is over before its operands are packed."""
_BLOCK = 256
"""Rows or columns that are packed at a time."""


@contextmanager
def sixteen_bits() -> Iterator[None]:
    """Multiply in 16-bit integers within, where the kernels can be had and a product is worth it."""
    token = _on.set(True)
    try:
        yield
    finally:
        _on.reset(token)


def wanted(x: Tensor, multiplications: int) -> bool:
    """Whether a product of this tensor is to be, can be, and is worth being in 16-bit integers."""
    plain = x.device.type == "cpu" and x.dtype == torch.float32
    return _on.get() and plain and multiplications >= _LEAST and kernels.available()


def run(step: Callable[[int], None], n: int) -> None:
    """Call `step` with 0 to n - 1, on as many threads as torch may use."""
    count = min(torch.get_num_threads(), n)
    for _ in _pool(count, os.getpid()).map(step, range(n)) if count > 1 else map(step, range(n)):
        pass


@cache
def _pool(count: int, process: int) -> ThreadPoolExecutor:
    """Threads that are kept; a forked process has none of its parent's."""
    return ThreadPoolExecutor(count)


def scratch() -> tuple[NDArray[Any], ...]:
    """This thread's room for the kernels."""
    from isthmus.core.kernels.softmax_average import make_scratch

    held: tuple[NDArray[Any], ...] | None = getattr(_room, "scratch", None)
    if held is None:
        _room.scratch = held = make_scratch()
    return held


def matmul(a: Tensor, b: Tensor, *, transposed: bool = False) -> Tensor:
    """a @ b in 16-bit integers.

    Args:
        a: (n, k) float32 on the CPU.
        b: (k, m), or (m, k) where it is given transposed.
        transposed: See there.

    Returns:
        (n, m) float32.
    """
    from isthmus.core.kernels.matmul import multiply
    from isthmus.core.kernels.packing import FEW, MANY

    n, m = len(a), b.shape[0 if transposed else 1]
    left, left_units = _packed(a, FEW, pairs=False)
    right, right_units = _packed(b, MANY, pairs=not transposed)
    out = np.empty((left_units.shape[1], right_units.shape[1]), np.float32)
    size = -(-left.shape[1] // torch.get_num_threads())

    def step(i: int) -> None:
        multiply(left, left_units, right, right_units, i * size, min((i + 1) * size, left.shape[1]), out)

    run(step, -(-left.shape[1] // size))
    return torch.from_numpy(out)[:n, :m]


def _packed(x: Tensor, width: int, *, pairs: bool) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Lanes and units of (n, k) rows, or in pairs of (k, n), in parts of the inner dimension."""
    from isthmus.core.kernels import packing
    from isthmus.core.kernels.matmul import INNER

    rows = x.detach().contiguous().numpy()
    inner, n = rows.shape if pairs else rows.shape[::-1]
    parts = [slice(low, min(low + INNER, inner)) for low in range(0, inner, INNER)]
    high, longest = packing.highest(parts[0].stop), parts[0].stop
    lanes = np.zeros((len(parts), -(-n // width), -(-longest // 2), width), np.int32)
    units = np.zeros((len(parts), lanes.shape[1] * width), np.float32)
    tasks = [(p, slice(low, min(low + _BLOCK, n))) for p in range(len(parts)) for low in range(0, n, _BLOCK)]
    nothing = np.zeros(max(_BLOCK, longest), np.float32)

    def pack(number: int) -> None:
        p, some = tasks[number]
        into = lanes[p, some.start // width : -(-some.stop // width)]
        if pairs:
            packing.pack_pairs(rows[parts[p], some], nothing, high, units[p, some], into)
        else:
            packing.pack_rows(rows[some, parts[p]], nothing, high, 0.0, units[p, some], into)

    run(pack, len(tasks))
    return lanes, units


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return matmul(x, weight, transposed=True).add_(bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        to_x = matmul(gradients[0], weight) if ctx.needs_input_grad[0] else None
        # Over so many rows packing takes as long as is gained: the weights' gradient stays a float product.
        return to_x, gradients[0].T @ x, gradients[0].sum(0)


class Linear(nn.Linear):
    """`torch.nn.Linear` whose products, there and back, are in 16-bit integers where these are on and worth it."""

    def forward(self, input: Tensor) -> Tensor:
        """(batch, in) to (batch, out)."""
        if input.ndim == 2 and wanted(input, input.numel() * self.out_features):
            out: Tensor = _Linear.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return out
        return F.linear(input, self.weight, self.bias)
