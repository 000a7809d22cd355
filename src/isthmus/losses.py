"""The losses of both papers, one function each. Vectors are unit rows unless said otherwise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

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

    One shift serves all rows and columns, so that both directions share the exponentials. Where a row lies so far below
    the largest cosine that its sum underflows (at 0.01, by 0.7), the batch is done with a maximum per row instead.
    Under autocast the products are in its type, there and back; everything else stays float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, z: Tensor, temperature: float) -> Tensor:
        k, batch, dim = x.shape
        m, pairs = z.shape[0], k * z.shape[0] * batch
        ctx.low = torch.is_autocast_enabled(x.device.type)
        weights = (x.reshape(k * batch, dim) @ z.reshape(m * batch, dim).T).to(x.dtype).view(k, batch, m, batch)
        positives = weights.diagonal(dim1=1, dim2=3).sum() / temperature
        shift = weights.max()
        weights.sub_(shift).mul_(1.0 / temperature).exp_()
        by_row, by_column = weights.sum(3), weights.sum(1)
        ctx.temperature = temperature
        ctx.exact = not bool(torch.minimum(by_row.min(), by_column.min()) > _SMALLEST_SUM)
        if ctx.exact:
            ctx.save_for_backward(x, z)
            return _with_maxima(x, z, temperature)
        ctx.save_for_backward(x, z, weights, by_row, by_column)
        total = 0.5 * (by_row.log().sum() + by_column.log().sum()) - positives
        return total / pairs + shift / temperature

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        if ctx.exact:
            return _exact_gradients(ctx, gradients[0])
        x, z, weights, by_row, by_column = ctx.saved_tensors
        k, batch, m, _ = weights.shape
        scale = gradients[0] / (k * m * batch * ctx.temperature)
        # In place: autograd refuses a second backward through this node instead of giving a wrong one.
        weights.mul_(by_row.reciprocal()[..., None] + by_column.reciprocal()[:, None])
        flat, dim = weights.view(k * batch, m * batch), x.shape[2]
        to_x = to_z = None
        with torch.autocast(x.device.type, torch.bfloat16, enabled=ctx.low):
            if ctx.needs_input_grad[0]:
                to_x = (flat @ z.reshape(m * batch, dim)).to(x.dtype).view_as(x).mul_(0.5).sub_(z.sum(0)).mul_(scale)
            if ctx.needs_input_grad[1]:
                to_z = (flat.T @ x.reshape(k * batch, dim)).to(x.dtype).view_as(z).mul_(0.5).sub_(x.sum(0)).mul_(scale)
        return to_x, to_z, None


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
