"""The losses against their printed equations, closed forms and slow gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from isthmus.recipes.training import losses
from isthmus.recipes.training.losses import dense_info_nce, info_nce, intra_distance


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def printed_info_nce(x: torch.Tensor, z: torch.Tensor, temperature: float) -> torch.Tensor:
    """Equation 6, a row at a time."""
    total = torch.zeros((), dtype=x.dtype)
    for i in range(len(x)):
        forward = torch.exp(x[i] @ z[i] / temperature) / torch.exp(z @ x[i] / temperature).sum()
        backward = torch.exp(z[i] @ x[i] / temperature) / torch.exp(x @ z[i] / temperature).sum()
        total = total + forward.log() + backward.log()
    return -total / (2 * len(x))


@pytest.mark.parametrize("temperature", [0.05, 0.02, 0.01, 1.0])
def test_info_nce_is_the_printed_equation_with_its_gradients(temperature: float) -> None:
    x, z = unit(17, 8, seed=1).double().requires_grad_(), unit(17, 8, seed=2).double().requires_grad_()
    expected = printed_info_nce(x, z, temperature)
    slow = torch.autograd.grad(expected, (x, z))
    found = info_nce(x, z, temperature)
    fast = torch.autograd.grad(found, (x, z))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(fast, slow)


@pytest.mark.parametrize("temperature", [0.05, 0.01])
def test_dense_info_nce_is_the_mean_over_all_pairs(temperature: float) -> None:
    x, z = unit(3, 9, 6, seed=3).double().requires_grad_(), unit(2, 9, 6, seed=4).double()
    expected = torch.stack([printed_info_nce(a, b, temperature) for a in x for b in z]).mean()
    slow = torch.autograd.grad(expected, x)
    found = dense_info_nce(x, z, temperature)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, x), slow)


@pytest.mark.parametrize("temperature", [0.05, 0.01])
@pytest.mark.parametrize("n", [2, 64])
def test_equal_embeddings_cost_log_n(n: int, temperature: float) -> None:
    same = unit(1, 16).expand(n, 16)
    assert float(info_nce(same, same, temperature)) == pytest.approx(math.log(n), abs=1e-4)


@pytest.mark.parametrize("temperature", [0.05, 0.01, 0.001])
def test_opposite_rows_do_not_underflow(temperature: float) -> None:
    """Every cosine -1: exp(-2 / t) must stay a number, or the logarithm is infinite."""
    x = unit(1, 16).expand(8, 16).clone().requires_grad_()
    loss = info_nce(x, -x.detach(), temperature)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(8), abs=1e-3)
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("temperature", [0.05, 0.01])
def test_rows_far_below_the_largest_cosine_do_not_underflow(temperature: float) -> None:
    """Half the batch agrees, half is opposed: at 0.01 one shift for all would flush the opposed half to zero."""
    same, other = unit(4, 16, seed=1), unit(4, 16, seed=2)
    x = torch.cat([same, other]).double().requires_grad_()
    z = torch.cat([same, -other]).double()
    expected = printed_info_nce(x, z, temperature)
    slow = torch.autograd.grad(expected, x)[0]
    single = x.detach().float().requires_grad_()
    found = info_nce(single, z.float(), temperature)
    found.backward()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    torch.testing.assert_close(single.grad.double(), slow, rtol=1e-3, atol=1e-4)


def test_a_second_backward_is_refused_and_never_wrong() -> None:
    x, z = unit(5, 4).requires_grad_(), unit(5, 4, seed=9)
    loss = info_nce(x, z, 0.05)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("squared", [False, True])
def test_intra_distance_is_half_the_mean_distance(squared: bool) -> None:
    x, y = unit(11, 5), unit(11, 5, seed=5)
    norms = torch.stack([(a - b).norm() ** (2 if squared else 1) for a, b in zip(x, y, strict=True)])
    assert float(intra_distance(x, y, squared=squared)) == pytest.approx(float(norms.mean() / 2), rel=1e-5)


def test_intra_distance_of_equal_rows_has_a_finite_gradient() -> None:
    x = unit(4, 3).requires_grad_()
    intra_distance(x, x.detach().clone()).backward()
    assert torch.isfinite(x.grad).all()


def test_gradients_under_autocast_are_those_of_float32_within_bfloat16() -> None:
    generator = torch.Generator().manual_seed(0)
    x, z = (torch.nn.functional.normalize(torch.randn(2, 64, 32, generator=generator), dim=-1) for _ in range(2))
    x.requires_grad_()
    (exact,) = torch.autograd.grad(dense_info_nce(x, z, 0.05), x)
    with torch.autocast("cpu", torch.bfloat16):
        loss = dense_info_nce(x, z, 0.05)
    (low,) = torch.autograd.grad(loss, x)
    assert loss.dtype == low.dtype == torch.float32
    apart = (low - exact).norm() / exact.norm()
    assert 1e-5 < apart < 2e-2


def test_memory_that_is_kept_from_step_to_step_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps over blocks of rows, one of them with two losses at once, one that underflows and has no backward."""
    monkeypatch.setattr(losses, "_BLOCK", 64)

    def gradient(seed: int, *, both: bool = False) -> torch.Tensor:
        x, z = unit(2, 16, 6, seed=seed).requires_grad_(), unit(2, 16, 6, seed=seed + 1).requires_grad_()
        loss = dense_info_nce(x, z, 0.05)
        if both:
            loss = loss + dense_info_nce(z, x, 0.03)
        return torch.cat(torch.autograd.grad(loss, (x, z)))

    def steps() -> list[torch.Tensor]:
        found = [gradient(1), gradient(3, both=True)]
        info_nce(unit(16, 6), -unit(16, 6), 0.001)
        return [*found, gradient(5)]

    expected = steps()
    with losses.reused_memory():
        for mine, theirs in zip(steps(), expected, strict=True):
            assert torch.equal(mine, theirs)
        sizes = sorted(kept.numel() for kept in losses._memory.get() or [])
        gradient(7)
        assert sorted(kept.numel() for kept in losses._memory.get() or []) == sizes
    assert losses._memory.get() is None
