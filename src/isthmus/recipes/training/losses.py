"""The losses of both papers, one function each. Vectors are unit rows unless said otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from isthmus.recipes.training.int16_info_nce import Contrast
from isthmus.recipes.training.int16_linear import wanted

_BLOCK = 1 << 22
"""Similarities of a block: 16 MB."""
_HEADROOM = 60.0
"""The largest logit after the shift: a million times exp(60) is far from float32's largest number."""
_SMALLEST_SUM = 1e-30
"""Below this a sum of exponentials may have lost terms that matter to float32's smallest number."""

_memory: ContextVar[list[Tensor] | None] = ContextVar("_memory", default=None)


@contextmanager
def reused_memory() -> Iterator[None]:
    """Let the losses within keep their largest matrices from one step to the next.

    A processor's fresh memory is made page by page as it is first written to, which costs a quarter of the product that
    is written there. What is kept is dropped at the end.
    """
    token = _memory.set([])
    try:
        yield
    finally:
        _memory.reset(token)


def info_nce(x: Tensor, z: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE between row-aligned batches, in-batch negatives (Ex-MCR, equation 6).

    Args:
        x: (batch, dim) unit rows.
        z: (batch, dim) unit rows; row i of x belongs to row i of z.
        temperature: Divides the cosines.

    Returns:
        Scalar: the mean of both directions' cross-entropies. Equal rows throughout give log(batch).
    """
    return dense_info_nce(x[None], z[None], temperature)


def dense_info_nce(x: Tensor, z: Tensor, temperature: float) -> Tensor:
    """Mean symmetric InfoNCE over every pair of one batch of `x` and one of `z` (Ex-MCR, equation 7: dense alignment).

    All pairs share one product and one exponential, and both directions share one similarity matrix, which is where the
    time of a training step goes: two cross-entropies a pair would make and read it six times.

    Args:
        x: (k, batch, dim) unit rows, k aligned batches.
        z: (m, batch, dim) unit rows, m aligned batches.
        temperature: Divides the cosines.

    Returns:
        Scalar, the mean over the k * m pairs.
    """
    loss: Tensor = _DenseInfoNCE.apply(x, z, temperature)  # type: ignore[no-untyped-call]
    return loss


def _with_maxima(x: Tensor, z: Tensor, temperature: float) -> Tensor:
    """The same by log-sum-exp with a maximum per row and column, which nothing underflows."""
    logits = torch.einsum("kbd,mcd->kmbc", x, z).to(x.dtype) / temperature
    positives = logits.diagonal(dim1=2, dim2=3)
    return (0.5 * (logits.logsumexp(3) + logits.logsumexp(2)) - positives).mean()


class _DenseInfoNCE(torch.autograd.Function):
    """Forward keeps the exponentials; backward turns them into the gradient in place, without a second softmax.

    One shift serves all rows and columns, so that both directions share the exponentials; unit rows bound every logit
    by 1 / temperature. Where a row's sum underflows all the same, the batch is done with a maximum per row instead.
    Under autocast the products are in its type, there and back, and under `sixteen_bits` in 16-bit integers; everything
    else stays float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, z: Tensor, temperature: float) -> Tensor:
        k, batch, dim = x.shape
        m = len(z)
        ctx.low = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else None
        positives = torch.einsum("kbd,mbd->", x, z) / temperature
        shift = max(0.0, 1.0 / temperature - _HEADROOM)
        ctx.temperature, ctx.memory, ctx.contrast = temperature, _memory.get(), None
        if wanted(x, k * batch * m * batch * dim):
            held = _take(ctx.memory, k * batch * m * batch, x, torch.int16)
            ctx.contrast = Contrast(x, z, temperature, shift, held)
            return _DenseInfoNCE._finish(ctx, x, z, ctx.contrast.by_row, ctx.contrast.by_column, positives, shift, held)
        scaled, others = x / temperature, z.reshape(m * batch, dim).T
        by_row, by_column = x.new_empty(k, batch, m), x.new_zeros(k, m, batch)
        every = _take(ctx.memory, k * batch * m * batch, x).view(k, batch, m, batch)
        for part in _parts(k, batch, m, x.device):
            block = every[part]
            _multiply(scaled[part].flatten(0, 1), others, block.flatten(0, 1).flatten(1), ctx.low)
            (block.sub_(shift) if shift else block).exp_()
            torch.sum(block, -1, out=by_row[part])
            by_column[part[0]] += block.sum(1)
        return _DenseInfoNCE._finish(ctx, x, z, by_row, by_column, positives, shift, every)

    @staticmethod
    def _finish(
        ctx: Any, x: Tensor, z: Tensor, by_row: Tensor, by_column: Tensor, positives: Tensor, shift: float, held: Tensor
    ) -> Tensor:
        """The loss from the sums of exponentials, or with maxima where they ran under."""
        ctx.exact = not bool(torch.minimum(by_row.min(), by_column.min()) > _SMALLEST_SUM)
        if ctx.exact:
            _give(ctx.memory, held)
            ctx.save_for_backward(x, z)
            return _with_maxima(x, z, ctx.temperature)
        ctx.save_for_backward(x, z, by_row, by_column, held)
        pairs = x.shape[0] * z.shape[0] * x.shape[1]
        total = 0.5 * (by_row.log().sum() + by_column.log().sum()) - positives
        return total / pairs + shift

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        if ctx.exact:
            return _exact_gradients(ctx, gradients[0])
        x, z, by_row, by_column, every = ctx.saved_tensors
        (k, batch, dim), m = x.shape, len(z)
        scale = gradients[0] / (k * m * batch * ctx.temperature)
        if ctx.contrast is not None:
            found = [
                ctx.contrast.pull(of_others=number == 1) if needed else None
                for number, needed in enumerate(ctx.needs_input_grad[:2])
            ]
            _give(ctx.memory, every)
            every[:1].zero_()  # As below, in place: a second backward through this node is refused.
            return _DenseInfoNCE._scaled(found[0], found[1], x, z, scale)
        to_x = x.new_empty(x.shape) if ctx.needs_input_grad[0] else None
        to_z = z.new_zeros(m * batch, dim) if ctx.needs_input_grad[1] else None
        rows, columns = by_row.reciprocal_()[..., None], by_column.reciprocal_()
        parts = list(_parts(k, batch, m, x.device))
        spare = _take(ctx.memory, every[parts[0]].numel(), x)
        for part in parts:
            # In place: autograd refuses a second backward through this node instead of giving a wrong one.
            block = every[part]
            block.mul_(torch.add(rows[part], columns[part[0], None], out=spare[: block.numel()].view(block.shape)))
            weights = block.flatten(0, 1).flatten(1)
            if to_x is not None:
                _multiply(weights, z.reshape(m * batch, dim), to_x[part].flatten(0, 1), ctx.low)
            if to_z is not None:
                _multiply(weights.T, x[part].flatten(0, 1), to_z, ctx.low, add=True)
        _give(ctx.memory, every)
        _give(ctx.memory, spare)
        return _DenseInfoNCE._scaled(to_x, None if to_z is None else to_z.view(z.shape), x, z, scale)

    @staticmethod
    def _scaled(
        to_x: Tensor | None, to_z: Tensor | None, x: Tensor, z: Tensor, scale: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None]:
        """Gradients from what pulls each side, which is weighed against its own positives."""
        if to_x is not None:
            to_x.mul_(0.5).sub_(z.sum(0)).mul_(scale)
        if to_z is not None:
            to_z.mul_(0.5).sub_(x.sum(0)).mul_(scale)
        return to_x, to_z, None


def _multiply(a: Tensor, b: Tensor, out: Tensor, low: torch.dtype | None, *, add: bool = False) -> None:
    """Put a @ b into `out`, or add it there; the product in a lower type where there is one."""
    if low is not None:
        product = a.to(low) @ b.to(low)
        _ = out.add_(product) if add else out.copy_(product)
    elif add:
        out.addmm_(a, b)
    else:
        torch.mm(a, b, out=out)


def _take(memory: list[Tensor] | None, size: int, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Memory for `size` numbers, what an earlier step has given back if it is that large."""
    held, kind = [] if memory is None else memory, dtype or like.dtype
    for number, kept in enumerate(held):
        if kept.numel() == size and kept.dtype == kind:
            return held.pop(number)
    return like.new_empty(size, dtype=kind)


def _give(memory: list[Tensor] | None, used: Tensor) -> None:
    """Keep memory for the next step."""
    if memory is not None and used.device.type == "cpu":
        memory.append(used.view(-1))


def _parts(k: int, batch: int, m: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Blocks of the (k, batch) rows whose similarities stay in a processor's cache from one operation to the next."""
    if device.type != "cpu" or k * batch * m * batch <= _BLOCK:
        yield slice(0, k), slice(0, batch)
        return
    rows = max(1, _BLOCK // (m * batch))
    for number in range(k):
        for start in range(0, batch, rows):
            yield slice(number, number + 1), slice(start, start + rows)


def _exact_gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    """Gradients of the form with maxima, recomputed: it is rare."""
    with torch.enable_grad():
        inputs = [
            t.detach().requires_grad_(need) for t, need in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False)
        ]
        loss = _with_maxima(inputs[0], inputs[1], ctx.temperature)
        found = iter(torch.autograd.grad(loss, [t for t in inputs if t.requires_grad]))
    to_x, to_z = (next(found) * gradient if t.requires_grad else None for t in inputs)
    return to_x, to_z, None


def intra_distance(x: Tensor, target: Tensor, *, squared: bool = False, eps: float = 1e-6) -> Tensor:
    """Half the mean distance of row-aligned batches: attraction without negatives (C-MCR's and Ex-MCR's intra loss).

    InfoNCE repels as well, and the repulsion is what keeps the modality gap open; this term only closes it. Ex-MCR
    prints the distance unsquared (equation 3), C-MCR squared.

    Args:
        x: (batch, dim).
        target: (batch, dim).
        squared: Take the squared distance.
        eps: Added under the root, where the gradient of the norm would be infinite at equal rows.
    """
    distance = (x - target).square().sum(dim=-1)
    return 0.5 * (distance if squared else (distance + eps**2).sqrt()).mean()
