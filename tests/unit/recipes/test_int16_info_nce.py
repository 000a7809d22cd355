"""Similarities in 16-bit integers against those in float64, there and back."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from isthmus.core import kernels
from isthmus.recipes.training import int16_linear as half
from isthmus.recipes.training import losses
from isthmus.recipes.training.int16_info_nce import Contrast
from isthmus.recipes.training.int16_linear import sixteen_bits
from isthmus.recipes.training.losses import dense_info_nce, info_nce

pytestmark = pytest.mark.skipif(not kernels.available(), reason=str(kernels.missing()))


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half, "_LEAST", 0)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def near(z: torch.Tensor, k: int, seed: int) -> torch.Tensor:
    """k batches that are aligned with the mean of those of z."""
    return F.normalize(z.mean(0) + 0.7 * unit(k, *z.shape[1:], seed=seed), dim=-1)


def contrast(x: torch.Tensor, z: torch.Tensor, temperature: float, shift: float = 0.0) -> Contrast:
    held = torch.empty(len(x) * len(z) * x.shape[1] ** 2, dtype=torch.int16)
    return Contrast(x, z, temperature, shift, held)


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(("k", "m", "batch", "dim"), [(1, 1, 2, 3), (2, 3, 65, 16), (3, 1, 130, 33), (1, 2, 515, 48)])
@pytest.mark.parametrize("temperature", [0.05, 0.02])
def test_sums_and_pulls_are_those_of_float64(k: int, m: int, batch: int, dim: int, temperature: float) -> None:
    z = unit(m, batch, dim, seed=1)
    x, shift = near(z, k, 2), 3.0
    found = contrast(x, z, temperature, shift)
    every = torch.exp(torch.einsum("kbd,mcd->kbmc", x.double(), z.double()) / temperature - shift)
    rows, columns = every.sum(3), every.sum(1)
    torch.testing.assert_close(found.by_row.double(), rows, rtol=1e-2, atol=0.0)
    torch.testing.assert_close(found.by_column.double(), columns, rtol=1e-2, atol=0.0)
    weights = every / rows[..., None] + every / columns[:, None]
    assert apart(found.pull(), torch.einsum("kbmc,mcd->kbd", weights, z.double())) < 2e-3
    assert apart(found.pull(of_others=True), torch.einsum("kbmc,kbd->mcd", weights, x.double())) < 2e-3


@pytest.mark.parametrize("temperature", [0.05, 0.01])
def test_the_loss_and_its_gradients_are_those_of_float32(temperature: float) -> None:
    z = unit(2, 600, 64, seed=3)
    sides = [near(z, 2, 4).requires_grad_(), z.requires_grad_()]
    exact = dense_info_nce(*sides, temperature)
    expected = torch.autograd.grad(exact, sides)
    with sixteen_bits():
        loss = dense_info_nce(*sides, temperature)
    found = torch.autograd.grad(loss, sides)
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=1e-3)
    for mine, theirs in zip(found, expected, strict=True):
        assert 1e-6 < apart(mine, theirs) < 5e-3


def test_only_the_side_that_moves_gets_a_gradient() -> None:
    x, z = unit(2, 40, 8).requires_grad_(), unit(2, 40, 8, seed=1)
    with sixteen_bits():
        dense_info_nce(x, z, 0.05).backward()
    assert z.grad is None
    assert bool(torch.isfinite(x.grad).all())


@pytest.mark.parametrize("n", [2, 64])
def test_equal_embeddings_cost_log_n(n: int) -> None:
    same = unit(1, 16).expand(n, 16)
    with sixteen_bits():
        assert float(info_nce(same, same, 0.05)) == pytest.approx(math.log(n), abs=1e-3)


def test_opposite_rows_do_not_underflow() -> None:
    """Every cosine -1: sums that run under are noticed and done again with maxima."""
    x = unit(1, 16).expand(8, 16).clone().requires_grad_()
    with sixteen_bits():
        loss = info_nce(x, -x.detach(), 0.001)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(8), abs=1e-3)
    assert bool(torch.isfinite(x.grad).all())


def test_any_number_of_threads_gives_the_same_bits() -> None:
    z = unit(2, 300, 24, seed=5)
    x, before, found = near(z, 2, 6), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2, 3):
            torch.set_num_threads(threads)
            made = contrast(x, z, 0.05)
            found.append([made.by_row, made.by_column, made.pull(), made.pull(of_others=True)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_a_second_backward_is_refused_and_never_wrong() -> None:
    x, z = unit(40, 4).requires_grad_(), unit(40, 4, seed=9)
    with sixteen_bits():
        loss = info_nce(x, z, 0.05)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_memory_that_is_kept_from_step_to_step_changes_nothing() -> None:
    def gradients() -> list[torch.Tensor]:
        out = []
        for seed in range(3):
            x, z = unit(2, 70, 6, seed=seed).requires_grad_(), unit(2, 70, 6, seed=seed + 1)
            loss = dense_info_nce(x, z, 0.05) + dense_info_nce(z, x, 0.03)
            out += torch.autograd.grad(loss, x)
        return out

    with sixteen_bits():
        expected = gradients()
        with losses.reused_memory():
            assert all(torch.equal(a, b) for a, b in zip(gradients(), expected, strict=True))
            kept = losses._memory.get() or []
            assert sorted(x.numel() for x in kept) == [4 * 70 * 70] * 2
            assert {x.dtype for x in kept} == {torch.int16}
