"""The losses of both papers, one function each. Vectors are unit rows unless said otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_BLOCK = 1 << 22
"""Similarities of a block: 16 MB."""
_HEADROOM = 60.0
"""The largest logit after the shift: a million times exp(60) is far from float32's largest number."""
_SMALLEST_SUM = 1e-30
"""Below this a sum of exponentials may have lost terms that matter to float32's smallest number."""


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
    Under autocast the products are in its type, there and back; everything else stays float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, z: Tensor, temperature: float) -> Tensor:
        k, batch, dim = x.shape
        m, pairs = z.shape[0], k * z.shape[0] * batch
        ctx.low = torch.is_autocast_enabled(x.device.type)
        positives = torch.einsum("kbd,mbd->", x, z) / temperature
        shift = max(0.0, 1.0 / temperature - _HEADROOM)
        scaled, others = x / temperature, z.reshape(m * batch, dim).T
        by_row, by_column = x.new_empty(k, batch, m), x.new_zeros(k, m, batch)
        blocks = []
        for part in _parts(k, batch, m, x.device):
            logits = (scaled[part] @ others).to(x.dtype)
            logits = logits.view(*logits.shape[:2], m, batch)
            block = (logits.sub_(shift) if shift else logits).exp_()
            torch.sum(block, -1, out=by_row[part])
            by_column[part[0]] += block.sum(1)
            blocks.append(block)
        ctx.temperature = temperature
        ctx.exact = not bool(torch.minimum(by_row.min(), by_column.min()) > _SMALLEST_SUM)
        if ctx.exact:
            ctx.save_for_backward(x, z)
            return _with_maxima(x, z, temperature)
        ctx.save_for_backward(x, z, by_row, by_column, *blocks)
        total = 0.5 * (by_row.log().sum() + by_column.log().sum()) - positives
        return total / pairs + shift

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        if ctx.exact:
            return _exact_gradients(ctx, gradients[0])
        x, z, by_row, by_column, *blocks = ctx.saved_tensors
        (k, batch, dim), m = x.shape, len(z)
        scale = gradients[0] / (k * m * batch * ctx.temperature)
        to_x = x.new_empty(x.shape) if ctx.needs_input_grad[0] else None
        to_z = z.new_zeros(z.shape) if ctx.needs_input_grad[1] else None
        rows, columns = by_row.reciprocal_()[..., None], by_column.reciprocal_()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=ctx.low):
            for part, block in zip(_parts(k, batch, m, x.device), blocks, strict=True):
                # In place: autograd refuses a second backward through this node instead of giving a wrong one.
                weights = block.mul_(rows[part] + columns[part[0], None]).flatten(2)
                if to_x is not None:
                    to_x[part] = weights @ z.reshape(m * batch, dim)
                if to_z is not None:
                    to_z.view(m * batch, dim).add_(weights.flatten(0, 1).T @ x[part].flatten(0, 1))
        if to_x is not None:
            to_x.mul_(0.5).sub_(z.sum(0)).mul_(scale)
        if to_z is not None:
            to_z.mul_(0.5).sub_(x.sum(0)).mul_(scale)
        return to_x, to_z, None


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
