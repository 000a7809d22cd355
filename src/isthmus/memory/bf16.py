"""The bf16 method: both products in 16 bits, in bfloat16 where the processor has instructions for it.

Where it has none, 16-bit integers do as well, if there are compiled loops for them (`exact_int16`).

A bfloat16 product rounds its operands and its result to eight bits. Subtracting the memory mean from the scores, and a
reference near each query's largest logit inside the product (one more column), leaves results near zero where they
matter, so that the rounding of the result costs nothing and that of the operands is all that remains.
"""

from __future__ import annotations

import torch

from isthmus.core.products import has_bf16, low_precision_type
from isthmus.memory.exact import Work, block_sizes, empty, fill_moment, keeps_logits, redo_weak, slice_of
from isthmus.memory.exact_int16 import int16_partial_sums
from isthmus.memory.matrix import MatrixReader
from isthmus.memory.online_softmax import OnlineSoftmax

_LOOK = 1024
_PAD = 32


def low_precision_sums(work: Work, queries: torch.Tensor) -> OnlineSoftmax:
    """Softmax sums as `exact.partial_sums` gives them, with products in the 16 bits that the device is fastest at."""
    if low_precision_type(queries.device) == "int16":
        return int16_partial_sums(work, queries)
    return bf16_sums(work, queries)


def bf16_sums(work: Work, queries: torch.Tensor) -> OnlineSoftmax:
    """Softmax sums as `exact.partial_sums` gives them, with both products in bfloat16.

    Where the processor is not faster at it, the operands are rounded and multiplied in float32, which is no worse.
    """
    look = _even(work.keys)
    mean = look.mean(dim=0)
    scaled = queries / work.temperature
    # bfloat16 has 8 bits: logits are taken relative to the mean row and to each query's largest among a look, so that
    # the bits go to what differs. The reference itself is rounded, for it goes through the product as one column more.
    reference = (scaled @ (look - mean).T).amax(dim=1).bfloat16().float()
    state = empty(work, len(queries), 0.0)
    state.shift.copy_(reference + scaled @ mean)
    left = _low(_widen(scaled, -reference))
    query_block, memory_block = block_sizes(queries.device)
    for start, chunk in work.keys.chunks():
        right = _low(_widen(chunk - mean, torch.ones(len(chunk), device=chunk.device)))
        values = [_low(chunk if v is None else v.block(start, start + len(chunk))) for v in work.values]
        for first in range(0, len(queries), query_block):
            part = slice(first, min(first + query_block, len(queries)))
            block = slice_of(state, part)
            for low in range(0, len(chunk), memory_block):
                rows = slice(low, low + memory_block)
                logits = torch.mm(left[part], right[rows].T).float()
                _absorb(block, logits, [v[rows] for v in values], keep=keeps_logits(work))
    fill_moment(work, state, scaled)
    return redo_weak(work, queries, state)


def _absorb(state: OnlineSoftmax, logits: torch.Tensor, values: list[torch.Tensor], *, keep: bool) -> None:
    """Add a block of logits, relative to the shift, to the running sums in bfloat16 products."""
    weights = _low(torch.exp(logits))
    wide = weights.float()
    state.total.add_(wide.sum(dim=1))
    if keep and state.moment is not None:
        state.moment.add_(logits.add_(state.shift[:, None]).mul_(wide).sum(dim=1))
    for running, block in zip(state.sums, values, strict=True):
        running.add_(torch.mm(weights, block))


def _low(x: torch.Tensor) -> torch.Tensor:
    """A tensor rounded to bfloat16; kept in float32 where the processor is not faster at bfloat16."""
    low = x.bfloat16()
    return low if has_bf16(x.device) else low.float()


def _widen(x: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """Append a column, and zeros up to a width that vector units like."""
    wide = x.new_zeros((len(x), x.shape[1] + _PAD))
    wide[:, : x.shape[1]] = x
    wide[:, x.shape[1]] = column
    return wide


def _even(keys: MatrixReader) -> torch.Tensor:
    """A few rows from all over the memory."""
    return keys.take(torch.linspace(0, keys.n - 1, min(_LOOK, keys.n)).long())
