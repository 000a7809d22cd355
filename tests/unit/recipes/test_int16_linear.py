"""16-bit products in training against float products."""

from __future__ import annotations

import pytest
import torch

from isthmus.core import kernels
from isthmus.recipes.training import int16_linear as half
from isthmus.recipes.training.int16_linear import Linear, matmul, sixteen_bits, wanted
from isthmus.recipes.training.projectors import MLP

pytestmark = pytest.mark.skipif(not kernels.available(), reason=str(kernels.missing()))


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half, "_LEAST", 0)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(("n", "k", "m"), [(1, 1, 1), (7, 5, 3), (64, 512, 16), (301, 1025, 277), (30, 3000, 40)])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_products_of_any_size(n: int, k: int, m: int, transposed: bool, threads: int) -> None:
    a, b = draw(n, k) * torch.logspace(-4, 4, n)[:, None], draw(k, m, seed=1)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = matmul(a, b.T.contiguous() if transposed else b, transposed=transposed)
    finally:
        torch.set_num_threads(before)
    expected = a.double() @ b.double()
    assert found.shape == (n, m)
    # Each row has a unit of its own: rows of all sizes are as exact.
    assert float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max()) < 5e-3


def test_the_largest_sums_stay_within_32_bits() -> None:
    a = torch.ones(8, 1024)
    torch.testing.assert_close(matmul(a, a, transposed=True), torch.full((8, 8), 1024.0), rtol=1e-5, atol=0.0)


def test_a_linear_layer_has_the_gradients_of_torchs() -> None:
    ours, theirs = Linear(48, 96), torch.nn.Linear(48, 96)
    theirs.load_state_dict(ours.state_dict())
    found, expected = [], []
    for layer, into in ((ours, found), (theirs, expected)):
        x = draw(200, 48).requires_grad_()
        with sixteen_bits():
            y = layer(x)
        (y * draw(200, 96, seed=3)).sum().backward()
        into += [y.detach(), x.grad, layer.weight.grad, layer.bias.grad]
    for mine, other in zip(found, expected, strict=True):
        assert apart(mine, other) < 2e-3
    assert apart(found[0], expected[0]) > 1e-6


def test_a_projector_is_the_same_module() -> None:
    """Names, numbers and results without 16 bits are those of torch's layer."""
    block = MLP(8, 12)
    assert [type(m) for m in block.modules() if isinstance(m, torch.nn.Linear)] == [Linear, Linear]
    x = draw(30, 8)
    plain = torch.nn.functional.linear(x, block.net1[0].weight, block.net1[0].bias)
    assert torch.equal(block.net1[0](x), plain)
    with sixteen_bits():
        assert not torch.equal(block.net1[0](x), plain)


def test_what_is_not_worth_it_or_cannot_be_had_stays_float(monkeypatch: pytest.MonkeyPatch) -> None:
    x = draw(4, 4)
    assert not wanted(x, 10**12)
    with sixteen_bits():
        assert wanted(x, 10**12)
        assert not wanted(x.double(), 10**12)
        monkeypatch.setattr(half, "_LEAST", 100)
        assert (wanted(x, 100), wanted(x, 99)) == (True, False)
        monkeypatch.setattr(kernels, "available", lambda: False)
        assert not wanted(x, 10**12)
    assert not wanted(x, 10**12)
