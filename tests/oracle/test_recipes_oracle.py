"""Both recipes' losses and gradients beside the papers' equations in float64, in every setting.

In float64 the code under test equals the oracle to 1e-10. In float32 the loss equals it to 1e-6, and with the papers'
settings so does the gradient, measured as the norm of the difference over the norm, by all parameters together. Deeper
networks and fewer terms are held to 2.5e-6. Over more than a thousand rows torch's BatchNorm, which adds up in float32,
is off by 2e-6 and more whatever the loss, and a unit near its kink may fall on the other side; there the gradient by
the embeddings, which is the losses' own, is held to 1e-6 (`test_dense_info_nce_and_its_gradients`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from tests.oracle import papers
from tests.oracle.papers import Key, Switches
from torch import Tensor

from isthmus.pairs.side import Slot
from isthmus.recipes.connect import ConnectConfig, InterIntra
from isthmus.recipes.extend import DenseAlignment, ExtendConfig
from isthmus.recipes.training.losses import dense_info_nce, info_nce
from isthmus.recipes.training.projectors import ConnectProjectors, LeafProjector, initialize

DIMS = (14, 11)
PLAIN: tuple[Key, ...] = ((0, "text"), (0, "image"), (1, "text"), (1, "audio"))
LAYOUTS: dict[str, tuple[tuple[Key, ...], list[str]]] = {
    "one modality a side": (PLAIN, ["text"]),
    "two modalities a side": (
        ((0, "text"), (0, "image"), (0, "depth"), (1, "text"), (1, "audio"), (1, "video")),
        ["text"],
    ),
    "two overlaps": (
        ((0, "image"), (0, "text"), (0, "depth"), (1, "text"), (1, "image"), (1, "audio")),
        ["image", "text"],
    ),
    "a leaf that is all overlap": (((0, "text"), (0, "image"), (1, "text")), ["text"]),
    "a base that is all overlap": (((0, "text"), (1, "text"), (1, "audio")), ["text"]),
    "nothing but the overlap": (((0, "text"), (1, "text")), ["text"]),
}
ALIGNED = ("leaf-base", "leaf-overlap", "overlap-base", "overlap-overlap")


def rows(keys: Sequence[Key], n: int, seed: int) -> dict[Key, Tensor]:
    """Unit rows in float32 that have a meaning in common."""
    generator = torch.Generator().manual_seed(seed)
    meaning = torch.randn(n, 5, generator=generator)
    batch = {}
    for key in keys:
        view = torch.randn(5, DIMS[key[0]], generator=generator)
        batch[key] = papers.unit(meaning @ view + torch.randn(n, DIMS[key[0]], generator=generator))
    return batch


def extend_objective(keys: Sequence[Key], via: list[str], config: ExtendConfig) -> tuple[torch.nn.Module, Any]:
    own = [name for side, name in keys if side == 1 and name not in via]
    module = LeafProjector(own, DIMS[1], DIMS[0], leaf_layer=config.leaf_layer, blocks=config.blocks)
    return module, DenseAlignment(module, [Slot(*key) for key in keys], via, config)


def connect_objective(keys: Sequence[Key], via: list[str], config: ConnectConfig) -> tuple[torch.nn.Module, Any]:
    module = ConnectProjectors(DIMS, config.dim, head=config.head)
    return module, InterIntra(module, [Slot(*key) for key in keys], via, config)


RECIPES = {
    "extend": (extend_objective, papers.extend_loss, ExtendConfig),
    "connect": (connect_objective, papers.connect_loss, ConnectConfig),
}


def compare(recipe: str, layout: str, n: int, switches: Switches, **settings: Any) -> dict[str, float]:
    """Relative differences of loss and gradient, in float64 and in float32, of the batches of two steps: the larger."""
    build, oracle, model = RECIPES[recipe]
    keys, via = LAYOUTS[layout]
    apart: dict[str, list[float]] = {}
    for seed in (1, 2):
        module, objective = build(keys, via, model(**settings))
        initialize(module, torch.Generator().manual_seed(seed))
        batch, expected = rows(keys, n, seed), papers.parameters(module)
        loss = oracle(expected, {key: x.double() for key, x in batch.items()}, via, switches)
        slow = gradient(loss, list(expected.values()))
        for name, kind in (("float32", torch.float32), ("float64", torch.float64)):
            module.to(kind)
            own, _ = objective.loss({Slot(*key): x.to(kind) for key, x in batch.items()})
            found = gradient(own, list(module.parameters()))
            apart.setdefault(f"{name} loss", []).append(abs(own.item() / loss.item() - 1.0))
            apart.setdefault(f"{name} gradient", []).append(float((found - slow).norm() / slow.norm()))
    return {name: max(values) for name, values in apart.items()}


def gradient(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """All of it in one row, nothing where a parameter has no part."""
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    parts = zip(found, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).double().flatten() for g, p in parts])


def check(apart: Mapping[str, float], single: float = 1e-6) -> None:
    assert apart["float64 loss"] < 1e-10, apart
    assert apart["float64 gradient"] < 1e-10, apart
    assert apart["float32 loss"] < 1e-6, apart
    assert apart["float32 gradient"] < single, apart


@pytest.mark.parametrize("layout", LAYOUTS)
def test_extend_in_every_layout(layout: str) -> None:
    check(compare("extend", layout, 40, Switches()))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_connect_in_every_layout(layout: str) -> None:
    settings = {"temperature": 0.05, "pseudo_temperature": 0.03, "dim": 12}
    check(compare("connect", layout, 40, Switches(pseudo_temperature=0.03), **settings))


@pytest.mark.parametrize("layout", ["two modalities a side", "two overlaps"])
@pytest.mark.parametrize(
    ("settings", "switches"),
    [
        ({"temperature": 0.01}, {"temperature": 0.01}),
        ({"temperature": 0.5}, {"temperature": 0.5}),
        ({"intra_norm": "l2sq"}, {"squared": True}),
        ({"intra_norm": "l2sq", "intra_weight": 3.0}, {"squared": True, "intra_weight": 3.0}),
        ({"intra_weight": 0.0}, {"intra_weight": 0.0}),
        ({"intra_weight": 50.0}, {"intra_weight": 50.0}),
        ({"batch_norm": "separate"}, {"joint": False}),
        ({"leaf_layer": "mlp"}, {"leaf_layer": "mlp"}),
        ({"leaf_layer": "mlp2"}, {"leaf_layer": "mlp2"}),
        ({"leaf_layer": "none"}, {"leaf_layer": "none"}),
        ({"blocks": 0}, {"blocks": 0}),
        ({"blocks": 1}, {"blocks": 1}),
        ({"blocks": 3}, {"blocks": 3}),
        *(({"align": (name,)}, {"align": (name,)}) for name in ALIGNED),
        ({"align": ALIGNED[:3]}, {"align": ALIGNED[:3]}),
        ({"align": (*ALIGNED[1:], ALIGNED[1])}, {"align": ALIGNED[1:]}),
    ],
)
def test_extend_with_every_switch(layout: str, settings: dict[str, Any], switches: dict[str, Any]) -> None:
    check(compare("extend", layout, 40, Switches(**switches), **settings), single=2.5e-6)


@pytest.mark.parametrize("layout", ["two modalities a side", "two overlaps"])
@pytest.mark.parametrize(
    ("settings", "switches"),
    [
        ({}, {"temperature": 0.01}),
        ({"temperature": 0.2, "pseudo_temperature": 0.01}, {"temperature": 0.2, "pseudo_temperature": 0.01}),
        ({"temperature": 0.01, "pseudo_temperature": 0.2}, {"temperature": 0.01, "pseudo_temperature": 0.2}),
        ({"intra_norm": "l2sq"}, {"temperature": 0.01, "squared": True}),
        ({"intra_norm": "l2sq", "intra_weight": 50.0}, {"temperature": 0.01, "squared": True, "intra_weight": 50.0}),
        ({"intra_weight": 0.0}, {"temperature": 0.01, "intra_weight": 0.0}),
        ({"intra_weight": 50.0}, {"temperature": 0.01, "intra_weight": 50.0}),
        ({"batch_norm": "separate"}, {"temperature": 0.01, "joint": False}),
        ({"head": "half"}, {"temperature": 0.01, "head": "half"}),
        ({"dim": 30}, {"temperature": 0.01}),
    ],
)
def test_connect_with_every_switch(layout: str, settings: dict[str, Any], switches: dict[str, Any]) -> None:
    check(compare("connect", layout, 40, Switches(**switches), **{"dim": 12, **settings}), single=2.5e-6)


@pytest.mark.parametrize(("recipe", "tau"), [("extend", 0.05), ("connect", 0.01)])
@pytest.mark.parametrize(("n", "batch_norm"), [(1024, "joint"), (1100, "separate")])
def test_batches_around_the_size_where_similarities_go_in_blocks(
    recipe: str, tau: float, n: int, batch_norm: str
) -> None:
    switches = Switches(temperature=tau, joint=batch_norm == "joint")
    check(compare(recipe, "one modality a side", n, switches, temperature=tau, batch_norm=batch_norm), single=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_papers_batch(recipe: str) -> None:
    check(compare(recipe, "one modality a side", 4096, Switches(temperature=0.05), temperature=0.05), single=1e-4)


@pytest.mark.parametrize("kind", ["apart", "near", "aligned"])
@pytest.mark.parametrize("tau", [0.05, 0.02, 0.01])
@pytest.mark.parametrize(("k", "m", "n", "dim"), [(1, 1, 7, 4), (2, 3, 60, 32), (2, 2, 1100, 24)])
def test_dense_info_nce_and_its_gradients(kind: str, tau: float, k: int, m: int, n: int, dim: int) -> None:
    """Aligned rows too, where a loss near nothing and its gradient are differences of numbers near one."""
    generator = torch.Generator().manual_seed(n)
    common = torch.randn(n, dim, generator=generator)
    spread = {"apart": 100.0, "near": 1.0, "aligned": 0.5}[kind]
    sides = [
        torch.stack([papers.unit(common + spread * torch.randn(n, dim, generator=generator)) for _ in range(count)])
        for count in (k, m)
    ]
    wide = [side.double().requires_grad_() for side in sides]
    expected = torch.stack([papers.info_nce(x, z, tau) for x in wide[0] for z in wide[1]]).mean() * 3.0
    slow = torch.autograd.grad(expected, wide)
    single = [side.requires_grad_() for side in sides]
    found = dense_info_nce(*single, tau) * 3.0
    fast = torch.autograd.grad(found, single)
    assert expected.item() > 1e-9
    # Of aligned rows few negatives count, each with what float32's products are off by, over the temperature.
    allowed = 1e-6 if kind != "aligned" else 5e-6
    assert abs(found.item() / expected.item() - 1.0) < allowed
    for mine, theirs in zip(fast, slow, strict=True):
        assert float((mine.double() - theirs).norm() / theirs.norm()) < allowed


@pytest.mark.parametrize("tau", [0.05, 0.01])
def test_dense_info_nce_at_the_papers_batch(tau: float) -> None:
    generator = torch.Generator().manual_seed(0)
    sides = [papers.unit(torch.randn(1, 4096, 24, generator=generator)) for _ in range(2)]
    wide = [side.double().requires_grad_() for side in sides]
    expected = papers.info_nce(wide[0][0], wide[1][0], tau)
    slow = torch.autograd.grad(expected, wide)
    single = [side.requires_grad_() for side in sides]
    found = dense_info_nce(*single, tau)
    assert abs(found.item() / expected.item() - 1.0) < 1e-6
    for mine, theirs in zip(torch.autograd.grad(found, single), slow, strict=True):
        assert float((mine.double() - theirs).norm() / theirs.norm()) < 1e-6


def test_one_side_alone_has_the_same_gradient() -> None:
    sides = [papers.unit(torch.randn(2, 20, 6, generator=torch.Generator().manual_seed(s))).double() for s in (1, 2)]
    both = [side.clone().requires_grad_() for side in sides]
    expected = torch.autograd.grad(dense_info_nce(*both, 0.05), both)
    for number in (0, 1):
        alone = [side.clone() for side in sides]
        alone[number].requires_grad_()
        (found,) = torch.autograd.grad(dense_info_nce(*alone, 0.05), alone[number])
        torch.testing.assert_close(found, expected[number])


def test_under_bf16_the_loss_of_aligned_rows_is_right() -> None:
    """A product in bfloat16 is off by a hundredth; the positive's logit must not be, or a loss near 0 is -0.025."""
    generator = torch.Generator().manual_seed(0)
    x = papers.unit(torch.randn(256, 64, generator=generator))
    z = papers.unit(x + 0.05 * torch.randn(256, 64, generator=generator))
    expected = papers.info_nce(x.double(), z.double(), 0.05)
    with torch.autocast("cpu", torch.bfloat16):
        found = info_nce(x, z, 0.05)
    assert 1e-5 < float(expected) < 1e-3
    assert float(found) == pytest.approx(float(expected), rel=0.05)
