"""Training beside a plain loop: AdamW written out, cosine decay to 0, fresh noise each step, a new order each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from tests.oracle import papers
from tests.oracle.papers import Switches

from isthmus.core.geometry import noise_std
from isthmus.pairs.pairs import PseudoPairs
from isthmus.pairs.side import Slot
from isthmus.recipes.config import RecipeConfig
from isthmus.recipes.connect import ConnectConfig, InterIntra
from isthmus.recipes.extend import DenseAlignment, ExtendConfig
from isthmus.recipes.training.loop import train
from isthmus.recipes.training.projectors import ConnectProjectors, LeafProjector, initialize
from isthmus.recipes.training.schedule import Schedule, make_schedule

KEYS = ((0, "text"), (0, "image"), (1, "text"), (1, "audio"))
SLOTS = tuple(Slot(*key) for key in KEYS)
DIMS = (10, 8)
N, BATCH, SEED = 80, 24, 5


def pool() -> PseudoPairs:
    rng = np.random.default_rng(0)
    meaning = rng.standard_normal((N, 4))
    columns = {}
    for slot in SLOTS:
        x = meaning @ rng.standard_normal((4, DIMS[slot.side])) + 0.5 * rng.standard_normal((N, DIMS[slot.side]))
        columns[slot] = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return PseudoPairs(SLOTS, columns, {"text": N})


def drawn(seed: int, *stream: int) -> torch.Generator:
    """The noise's generator of a step, from the seed, its stream and the step's number."""
    state = np.random.SeedSequence((seed, *stream)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def plain_loop(
    p: papers.Params,
    loss: Callable[..., torch.Tensor],
    pairs: PseudoPairs,
    config: RecipeConfig,
    schedule: Schedule,
    steps: int,
    member: int,
) -> list[float]:
    """The first steps in float64, in place; the losses."""
    switches = Switches(temperature=config.temperature, squared=config.intra_norm == "l2sq")  # type: ignore[attr-defined]
    optimizer, losses = papers.AdamW(p, config.weight_decay), []
    for step in range(steps):
        epoch, place = divmod(step, len(schedule.train_rows) // BATCH)
        order = np.random.default_rng((config.seed, 10, epoch, member)).permutation(schedule.train_rows)
        rows = order[place * BATCH : (place + 1) * BATCH]
        generator, batch = drawn(config.seed, 11, step, member), {}
        for key, slot in zip(KEYS, SLOTS, strict=True):
            clean = torch.from_numpy(pairs.columns[slot][rows])
            noise = torch.randn(clean.shape, generator=generator)
            deviation = (1 / config.noise_cosine**2 - 1) ** 0.5 / DIMS[key[0]] ** 0.5
            batch[key] = papers.unit((clean + deviation * noise).double())
        value = loss(p, batch, ["text"], switches)
        gradients = dict(zip(p, torch.autograd.grad(value, list(p.values())), strict=True))
        optimizer.step(gradients, papers.learning_rate(config.learning_rate, step, schedule.steps))
        losses.append(float(value.detach()))
    return losses


def recipe(name: str, **settings: Any) -> tuple[torch.nn.Module, Any, RecipeConfig, Callable[..., torch.Tensor]]:
    if name == "extend":
        config = ExtendConfig(batch_size=BATCH, seed=SEED, **settings)
        leaf = LeafProjector(["audio"], DIMS[1], DIMS[0])
        return leaf, DenseAlignment(leaf, SLOTS, ["text"], config), config, papers.extend_loss
    other = ConnectConfig(batch_size=BATCH, seed=SEED, dim=9, temperature=0.05, **settings)
    both = ConnectProjectors(DIMS, 9)
    return both, InterIntra(both, SLOTS, ["text"], other), other, papers.connect_loss


@pytest.mark.parametrize("member", [0, 2])
@pytest.mark.parametrize("steps", [3, 7])
@pytest.mark.parametrize("name", ["extend", "connect"])
def test_steps_of_training_are_those_of_a_plain_loop(name: str, steps: int, member: int) -> None:
    """Three steps an epoch: seven go into a third order, and the rate falls to nearly nothing."""
    module, objective, config, loss = recipe(name, epochs=3, held_out=0.1, weight_decay=0.3, learning_rate=0.01)
    initialize(module, torch.Generator().manual_seed(1))
    expected, pairs = papers.parameters(module), pool()
    schedule = make_schedule(N, config)
    assert schedule.steps_per_epoch == 3
    slow = plain_loop(expected, loss, pairs, config, schedule, steps, member)
    seen: list[float] = []

    class Recorded:
        aligned = staticmethod(objective.aligned)

        def loss(self, batch: Any) -> Any:
            if len(seen) == steps:
                raise StopIteration
            value, parts = objective.loss(batch)
            seen.append(float(value.detach()))
            return value, parts

    with pytest.raises(StopIteration):
        train(module, Recorded(), pairs, config, schedule, device=torch.device("cpu"), member=member, quiet=True)
    assert seen == pytest.approx(slow, rel=1e-5)
    start = recipe(name)[0]
    initialize(start, torch.Generator().manual_seed(1))
    found, before = flat(module.named_parameters()), flat(start.named_parameters())
    wanted = flat(expected.items())
    assert float((wanted - before).norm() / before.norm()) > 0.01
    assert float((found - wanted).norm() / wanted.norm()) < 1e-5


def flat(named: Iterable[tuple[str, torch.Tensor]]) -> torch.Tensor:
    """Parameters in one row, but for shifts that a BatchNorm takes away again: their gradient is nothing, and Adam
    divides what rounding leaves of it by its own size."""
    without = (".0.bias", "mlp1.net2.1.bias")
    return torch.cat([p.detach().double().flatten() for name, p in named if not name.endswith(without)])


def test_the_decay_ends_at_nothing_and_the_orders_differ() -> None:
    schedule = make_schedule(N, ExtendConfig(batch_size=BATCH, epochs=4, held_out=0.1))
    rates = [schedule.learning_rate(0.002, step) for step in range(schedule.steps + 1)]
    assert rates[0] == 0.002
    assert rates[schedule.steps // 2] == pytest.approx(0.001)
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)
    assert rates == sorted(rates, reverse=True)
    orders = [tuple(schedule.order(0, epoch, member)) for epoch in range(3) for member in range(2)]
    assert len(set(orders)) == 6
    assert all(sorted(order) == sorted(schedule.train_rows) for order in orders)


def test_noise_is_as_large_as_the_cosine_says() -> None:
    """The papers' variance of 0.004 at 512 dimensions, and the formula at any other."""
    assert noise_std(0.573, 512) ** 2 == pytest.approx(0.004, rel=2e-3)
    assert noise_std(0.573, 192) == pytest.approx((1 / 0.573**2 - 1) ** 0.5 / 192**0.5)
