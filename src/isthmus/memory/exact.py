"""The exact softmax average over a memory, block by block: two matrix products and an exponential, all in the cache.

A block of queries meets a block of memory rows; the softmax denominator and the weighted sums are kept relative to a
shift per query (online softmax, Milakov and Gimelshein, arXiv 1805.02867), so that no (q, m) matrix ever exists.
Unit vectors bound every logit by 1 / temperature: a constant shift then replaces the running maximum and nothing
already summed is ever rescaled. Queries whose sums would underflow under it are detected and done again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from isthmus.memory.partial import Partial
from isthmus.memory.rows import Rows

QUERY_BLOCK = 1024
MEMORY_BLOCK = 2048
_PASS_BYTES = 96 << 20
_HEADROOM = 60.0
"""exp(60) * rows stays far below float32's largest number, and exp(60 - 147) is its smallest normal one."""
_LOWEST_CONSTANT_SHIFT_TEMPERATURE = 0.01


@dataclass(frozen=True)
class Work:
    """One aggregation: what is averaged, how sharply, and whether the effective neighbours are wanted.

    `values` are the matrices that are averaged, row-aligned with `keys`; None in it stands for the keys themselves.
    """

    keys: Rows
    values: Sequence[Rows | None]
    temperature: float
    stats: bool
    bounded: bool
    bf16: bool = False

    @property
    def widths(self) -> list[int]:
        return [self.keys.dim if v is None else v.dim for v in self.values]

    @property
    def pass_queries(self) -> int:
        """Queries per pass over a streamed memory, so that their sums stay in bounded memory."""
        per_query = 4 * (sum(self.widths) + self.keys.dim + 3)
        return max(QUERY_BLOCK, _PASS_BYTES // per_query // QUERY_BLOCK * QUERY_BLOCK)


def partial_sums(work: Work, queries: torch.Tensor) -> Partial:
    """The sums of every query over the whole memory of `work`, reading the memory once.

    Args:
        work: What to average.
        queries: (q, d) float32 on the device of the memory, unit rows where the memory's are.
    """
    constant = work.bounded and work.temperature >= _LOWEST_CONSTANT_SHIFT_TEMPERATURE
    found = _pass(work, queries, constant=constant)
    if constant:
        # What was flushed to zero is below rows * 1e-38 in all: against this floor it is less than 1e-7 of the total.
        weak = torch.nonzero(found.total < work.keys.n * 1e-30)[:, 0]
        if len(weak):
            _replace(found, weak, _pass(work, queries[weak], constant=False))
    return found


def _pass(work: Work, queries: torch.Tensor, *, constant: bool) -> Partial:
    state = _empty(work, len(queries), constant=constant)
    scaled = queries * (1.0 / work.temperature)
    scores = torch.empty((min(QUERY_BLOCK, len(queries)), min(MEMORY_BLOCK, work.keys.n)), device=queries.device)
    spare = torch.empty_like(scores) if _needs_copy(work) else None
    for start, chunk in work.keys.chunks():
        stop = start + len(chunk)
        values = [chunk if v is None else v.block(start, stop) for v in work.values]
        for first in range(0, len(queries), QUERY_BLOCK):
            block = _slice(state, first, min(first + QUERY_BLOCK, len(queries)))
            for low in range(0, len(chunk), MEMORY_BLOCK):
                high = low + MEMORY_BLOCK
                keys = chunk[low:high]
                logits = scores.flatten()[: len(block.total) * len(keys)].view(len(block.total), len(keys))
                torch.mm(scaled[first : first + QUERY_BLOCK], keys.T, out=logits)
                _absorb(block, logits, [v[low:high] for v in values], spare, constant=constant)
    if work.stats and not _needs_copy(work):
        own = next(s for s, v in zip(state.sums, work.values, strict=True) if v is None)
        state.moment = torch.linalg.vecdot(scaled, own)
    return state


def _absorb(
    state: Partial, logits: torch.Tensor, values: Sequence[torch.Tensor], spare: torch.Tensor | None, *, constant: bool
) -> None:
    """Add a block of logits (overwritten) to the running sums."""
    if not constant:
        shift = torch.maximum(state.shift, logits.amax(dim=1))
        scale = torch.exp(state.shift - shift)
        state.shift.copy_(shift)
        for running in (state.total, *state.sums, *([] if spare is None or state.moment is None else [state.moment])):
            running.mul_(scale if running.dim() == 1 else scale[:, None])
    if spare is not None and state.moment is not None:
        kept = spare.flatten()[: logits.numel()].view_as(logits).copy_(logits)
    weights = logits.sub_(state.shift[:, None]).exp_()
    state.total.add_(weights.sum(dim=1))
    for running, block in zip(state.sums, values, strict=True):
        running.addmm_(weights, block)
    if spare is not None and state.moment is not None:
        state.moment.add_(kept.mul_(weights).sum(dim=1))


def _needs_copy(work: Work) -> bool:
    """The mean logit is query . average where the keys themselves are averaged; else it needs the logits kept."""
    return work.stats and all(v is not None for v in work.values)


def _empty(work: Work, n: int, *, constant: bool) -> Partial:
    device = work.keys.device
    shift = 1.0 / work.temperature - _HEADROOM if constant else -torch.inf
    zeros = [torch.zeros((n, width), device=device) for width in work.widths]
    moment = torch.zeros(n, device=device) if work.stats else None
    return Partial(torch.full((n,), shift, device=device), torch.zeros(n, device=device), moment, zeros, work.keys.n)


def _slice(state: Partial, start: int, stop: int) -> Partial:
    part = slice(start, stop)
    moment = None if state.moment is None else state.moment[part]
    return Partial(state.shift[part], state.total[part], moment, [s[part] for s in state.sums], state.rows)


def _replace(state: Partial, rows: torch.Tensor, other: Partial) -> None:
    state.shift[rows], state.total[rows] = other.shift, other.total
    if state.moment is not None and other.moment is not None:
        state.moment[rows] = other.moment
    for mine, theirs in zip(state.sums, other.sums, strict=True):
        mine[rows] = theirs
