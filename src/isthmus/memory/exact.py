"""The exact softmax average over a memory, block by block: two matrix products and an exponential, all in the cache.

A block of queries meets a block of memory rows; the softmax denominator and the weighted sums are kept relative to a
shift per query (online softmax, Milakov and Gimelshein, arXiv 1805.02867), so that no (q, m) matrix ever exists.
Unit vectors bound every logit by 1 / temperature: a constant shift then replaces the running maximum and nothing
already summed is ever rescaled. Queries whose sums would underflow under it are detected and done again.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from isthmus.core import kernels
from isthmus.core.threads import blocks_of, threads
from isthmus.memory.matrix import BLOCK_ROWS, MatrixReader
from isthmus.memory.online_softmax import OnlineSoftmax

PASS_BYTES = 160 << 20
"""What the queries of a pass over the memory may take."""
_HEADROOM = 60.0
"""exp(60) * rows stays far below float32's largest number, and exp(60 - 147) is its smallest normal one."""
_LOWEST_CONSTANT_SHIFT_TEMPERATURE = 0.01
_EVEN = 64
SMALL = 2e10
"""Products (queries * rows * dimensions) that are done sooner than compiled loops are loaded."""


def block_sizes(device: torch.device) -> tuple[int, int]:
    """Queries and memory rows that meet at a time: what a CPU's caches hold, or what fills an accelerator."""
    return (1024, BLOCK_ROWS) if device.type == "cpu" else (8192, 16384)


@dataclass(frozen=True)
class Work:
    """One aggregation: what is averaged, how sharply, and whether the effective neighbours are wanted.

    `values` are the matrices that are averaged, row-aligned with `keys`; None in it stands for the keys themselves.
    `bias` is what is added to the logits of each memory row, a log prior; only exact sums know it.
    """

    keys: MatrixReader
    values: Sequence[MatrixReader | None]
    temperature: float
    stats: bool
    bounded: bool
    bias: torch.Tensor | None = None

    @property
    def widths(self) -> list[int]:
        """Width of each matrix of averages."""
        return [self.keys.dim if v is None else v.dim for v in self.values]

    def pass_queries(self, pass_bytes: int) -> int:
        """Queries per pass over the memory, so that they and their sums stay within so many bytes."""
        per_query = 4 * (sum(self.widths) + self.keys.dim + 3)
        block = block_sizes(self.keys.device)[0]
        return max(block, pass_bytes // per_query // block * block)


def partial_sums(work: Work, queries: torch.Tensor) -> OnlineSoftmax:
    """The sums of every query over the whole memory of `work`, reading the memory once.

    Args:
        work: What to average.
        queries: (q, d) float32 on the device of the memory, unit rows where the memory's are.
    """
    constant = work.bounded and work.temperature >= _LOWEST_CONSTANT_SHIFT_TEMPERATURE
    sums = _pass(work, queries, constant=constant)
    return redo_weak(work, queries, sums) if constant else sums


def redo_weak(work: Work, queries: torch.Tensor, sums: OnlineSoftmax) -> OnlineSoftmax:
    """Do again, with a running maximum, the queries whose shift was so far off that their sums ran under or over.

    What was flushed to zero is below rows * 1e-38 in all: against the floor here it is less than 1e-7 of the total.
    """
    weak = torch.nonzero(~((sums.total > work.keys.n * 1e-30) & torch.isfinite(sums.total)))[:, 0]
    if len(weak):
        again = _pass(work, queries[weak], constant=False)
        for mine, theirs in zip(_tensors(sums), _tensors(again), strict=True):
            mine[weak] = theirs
    return sums


def _pass(work: Work, queries: torch.Tensor, *, constant: bool) -> OnlineSoftmax:
    """Sums of queries in one pass over the memory, with a constant shift or a running maximum."""
    # Cosines are at most 1, so that 1 / temperature is a shift that no logit passes: no running maximum is needed.
    highest = 1.0 / work.temperature + (0.0 if work.bias is None else float(work.bias.max()))
    state = empty(work, len(queries), highest - _HEADROOM if constant else -torch.inf)
    scaled = queries * (1.0 / work.temperature)
    query_block, memory_block = block_sizes(queries.device)
    scratch = _Scratch(memory_block, keeps_logits(work))
    compiled = constant and _compiled(work, len(queries))

    def step(part: slice) -> None:
        query_rows, block = scaled[part], slice_of(state, part)
        for low in range(0, len(chunk), memory_block):
            keys, some = chunk[low : low + memory_block], [v[low : low + memory_block] for v in values]
            logits, spare = scratch.get(len(query_rows), len(keys), query_rows)
            torch.mm(query_rows, keys.T, out=logits)
            if work.bias is not None:
                logits.add_(work.bias[start + low : start + low + len(keys)])
            _absorb(block, logits, some, spare, constant=constant, compiled=compiled)

    with threads(queries.device) as (pool, workers):
        parts = blocks_of(len(queries), workers, query_block, _EVEN)
        for start, chunk in work.keys.chunks():
            values = [chunk if v is None else v.block(start, start + len(chunk)) for v in work.values]
            for _ in pool.map(step, parts) if pool else map(step, parts):
                pass
    if not keeps_logits(work):
        fill_moment(work, state, scaled)
    return state


class _Scratch(threading.local):
    """A thread's logits, and as many numbers more where they must be kept beside their exponentials."""

    def __init__(self, width: int, twice: bool) -> None:
        self.width, self.twice = width, twice
        self.numbers = torch.empty(0)

    def get(self, n: int, m: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(n, m) of each, where `like` is."""
        size = n * self.width
        needed = 2 * size if self.twice else size
        if len(self.numbers) < needed:
            self.numbers = like.new_empty(needed)
        whole = self.numbers[: n * m].view(n, m)
        return whole, self.numbers[size : size + n * m].view(n, m) if self.twice else None


def _compiled(work: Work, queries: int) -> bool:
    """Whether exponentials go through compiled loops: on a CPU, and where the job outlasts loading them."""
    return (
        work.keys.device.type == "cpu"
        and not keeps_logits(work)
        and float(queries) * work.keys.n * work.keys.dim >= SMALL
        and kernels.available()
    )


def _absorb(
    state: OnlineSoftmax,
    logits: torch.Tensor,
    values: Sequence[torch.Tensor],
    spare: torch.Tensor | None,
    *,
    constant: bool,
    compiled: bool,
) -> None:
    """Add a block of logits (overwritten) to the running sums."""
    if not constant:
        rescale(state, torch.maximum(state.shift, logits.amax(dim=1)), moment=spare is not None)
    if compiled:
        from isthmus.core.kernels.exp_sum import exponentiate

        exponentiate(logits.numpy(), state.shift.numpy(), state.total.numpy())
        weights = logits
    else:
        weights = torch.sub(logits, state.shift[:, None], out=logits if spare is None else spare).exp_()
        state.total.add_(weights.sum(dim=1))
    if spare is not None and state.moment is not None:
        state.moment.add_(logits.mul_(weights).sum(dim=1))
    for running, block in zip(state.sums, values, strict=True):
        running.addmm_(weights, block)


def keeps_logits(work: Work) -> bool:
    """Whether weighted logits must be summed: where keys are averaged without a bias, they are query . average."""
    return work.stats and (work.bias is not None or all(v is not None for v in work.values))


def fill_moment(work: Work, state: OnlineSoftmax, scaled: torch.Tensor) -> None:
    """Set the moment from the sums of the keys, where they are averaged; `scaled` is query / temperature."""
    if work.stats and not keeps_logits(work):
        own = next(s for s, v in zip(state.sums, work.values, strict=True) if v is None)
        state.moment = torch.linalg.vecdot(scaled, own)


def empty(work: Work, n: int, shift: float) -> OnlineSoftmax:
    """The sums of n queries over no rows."""
    device = work.keys.device
    zeros = [torch.zeros((n, width), device=device) for width in work.widths]
    moment = torch.zeros(n, device=device) if work.stats else None
    return OnlineSoftmax(
        torch.full((n,), shift, device=device), torch.zeros(n, device=device), moment, zeros, work.keys.n
    )


def slice_of(state: OnlineSoftmax, part: slice) -> OnlineSoftmax:
    """Views of some queries' sums."""
    moment = None if state.moment is None else state.moment[part]
    return OnlineSoftmax(state.shift[part], state.total[part], moment, [s[part] for s in state.sums], state.rows)


def rescale(state: OnlineSoftmax, shift: torch.Tensor, *, moment: bool) -> None:
    """Express the sums relative to a new shift, in place; the moment too where it is being summed."""
    scale = torch.exp(state.shift - shift)
    state.shift.copy_(shift)
    state.total.mul_(scale)
    if moment and state.moment is not None:
        state.moment.mul_(scale)
    for running in state.sums:
        running.mul_(scale[:, None])


def _tensors(state: OnlineSoftmax) -> list[torch.Tensor]:
    """All tensors of the running sums, row-aligned with the queries."""
    return [state.shift, state.total, *([] if state.moment is None else [state.moment]), *state.sums]
