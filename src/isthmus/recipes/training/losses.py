"""The losses of both papers, one function each. Vectors are unit rows unless said otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

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

    With l_ij = x_i z_j / tau, a pair's loss is the mean over i of

        1/2 log(sum_j e^l_ij / e^l_ii) + 1/2 log(sum_j e^l_ji / e^l_ii)
        = 1/2 log(1 + R_i / e^l_ii) + 1/2 log(1 + C_i / e^l_ii),

    where R_i and C_i sum over the negatives alone. Aligned rows have R_i and C_i near nothing: kept apart from the
    positive, they lose no digits to it, neither in the loss nor in the gradient (see `backward`).

    One shift serves all rows and columns, so that both directions share the exponentials; unit rows bound every logit
    by 1 / tau. Where a row's sum underflows all the same, the batch is done with a maximum per row instead. Under
    autocast the products of the negatives are in its type, there and back; everything else stays float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, z: Tensor, temperature: float) -> Tensor:
        (k, batch, dim), m = x.shape, len(z)
        ctx.low = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else None
        ctx.temperature, ctx.memory = temperature, _memory.get()
        shift = max(0.0, 1.0 / temperature - _HEADROOM)
        scaled, others = x / temperature, z.reshape(m * batch, dim).T
        # Multiplied and added up: no autocast reaches that, and of these logits every digit is wanted.
        positive = torch.stack([torch.stack([(a * b).sum(-1) for b in z]) for a in scaled]) - shift  # (k, m, batch)
        row_sums, column_sums = x.new_empty(k, batch, m), x.new_zeros(k, m, batch)
        every = _take(ctx.memory, k * batch * m * batch, x).view(k, batch, m, batch)
        for part in _parts(k, batch, m, x.device):
            block = every[part]
            _multiply(scaled[part].flatten(0, 1), others, block.flatten(0, 1).flatten(1), ctx.low)
            (block.sub_(shift) if shift else block).exp_()
            _positives(block, part).zero_()
            torch.sum(block, -1, out=row_sums[part])
            column_sums[part[0]] += block.sum(1)
        row_sums = row_sums.permute(0, 2, 1)
        own = positive.exp()
        ctx.exact = not bool(torch.minimum((row_sums + own).min(), (column_sums + own).min()) > _SMALLEST_SUM)
        if ctx.exact:
            _give(ctx.memory, every)
            ctx.save_for_backward(x, z)
            return _with_maxima(x, z, temperature)
        ctx.save_for_backward(x, z, row_sums, column_sums, own, every)
        losses = [F.softplus(sums.log() - positive).mean() for sums in (row_sums, column_sums)]
        return 0.5 * (losses[0] + losses[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """The gradient by x is G z and by z it is G^T x, with the (batch, batch) matrix G = d loss / d logits / tau.

        Every e^l_ij stands in its row's softmax and in its column's, so a negative's entry is e^l_ij (1 / row sum +
        1 / column sum). The positive's is that less 2, which is -(R_i / row sum + C_i / column sum): the negatives'
        share of both, with the sign that draws the two together.
        """
        if ctx.exact:
            return _exact_gradients(ctx, gradients[0])
        x, z, row_sums, column_sums, own, every = ctx.saved_tensors
        (k, batch, dim), m = x.shape, len(z)
        by_row, by_column = (own + row_sums).reciprocal_(), (own + column_sums).reciprocal_()
        attraction = -(row_sums * by_row + column_sums * by_column)
        by_row = by_row.permute(0, 2, 1).contiguous()[..., None]
        grad_x = x.new_empty(x.shape) if ctx.needs_input_grad[0] else None
        grad_z = z.new_zeros(m * batch, dim) if ctx.needs_input_grad[1] else None
        parts = list(_parts(k, batch, m, x.device))
        spare = _take(ctx.memory, every[parts[0]].numel(), x)
        for part in parts:
            # The exponentials become G in place, so autograd refuses a second backward instead of giving a wrong one.
            block = every[part]
            block.mul_(torch.add(by_row[part], by_column[part[0], None], out=spare[: block.numel()].view(block.shape)))
            _positives(block, part).copy_(attraction[part[0], :, part[1]])
            weights = block.flatten(0, 1).flatten(1)
            if grad_x is not None:
                _multiply(weights, z.reshape(m * batch, dim), grad_x[part].flatten(0, 1), ctx.low)
            if grad_z is not None:
                _multiply(weights.T, x[part].flatten(0, 1), grad_z, ctx.low, add=True)
        _give(ctx.memory, every)
        _give(ctx.memory, spare)
        # Half of each direction, the mean over pairs and rows, and the temperature that the logits were divided by.
        scale = gradients[0] * (0.5 / (k * m * batch * ctx.temperature))
        by_z = None if grad_z is None else grad_z.view(z.shape).mul_(scale)
        return None if grad_x is None else grad_x.mul_(scale), by_z, None


def _positives(block: Tensor, part: tuple[slice, slice]) -> Tensor:
    """The entries of (k, rows, m, batch) similarities where a row meets itself, (k, m, rows), as a view."""
    return block.diagonal(offset=part[1].start, dim1=1, dim2=3)


def _multiply(a: Tensor, b: Tensor, out: Tensor, low: torch.dtype | None, *, add: bool = False) -> None:
    """Put a @ b into `out`, or add it there; the product in a lower type where there is one."""
    if low is not None:
        product = a.to(low) @ b.to(low)
        _ = out.add_(product) if add else out.copy_(product)
    elif add:
        out.addmm_(a, b)
    else:
        torch.mm(a, b, out=out)


def _take(memory: list[Tensor] | None, size: int, like: Tensor) -> Tensor:
    """Memory for `size` numbers, what an earlier step has given back if it is that large."""
    for number, kept in enumerate(memory or []):
        if memory is not None and kept.numel() == size and kept.dtype == like.dtype:
            return memory.pop(number)
    return like.new_empty(size)


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
    grad_x, grad_z = (next(found) * gradient if t.requires_grad else None for t in inputs)
    return grad_x, grad_z, None


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
