"""The training loop: noise, plan, determinism, resume and the choice of the best checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from isthmus.errors import ConfigError
from isthmus.pairs.pairs import PseudoPairs
from isthmus.pairs.side import Slot
from isthmus.recipes.config import RecipeConfig
from isthmus.recipes.extend import DenseAlignment, ExtendConfig
from isthmus.recipes.training.loop import autocast, product_type, train
from isthmus.recipes.training.noise import add_noise
from isthmus.recipes.training.objective import held_out_scores
from isthmus.recipes.training.projectors import LeafProjector, initialize
from isthmus.recipes.training.schedule import make_schedule

CPU = torch.device("cpu")
SLOTS = (Slot(0, "text"), Slot(0, "image"), Slot(1, "text"), Slot(1, "audio"))


def unit(n: int, dim: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def pool(n: int = 300, dim: int = 12) -> PseudoPairs:
    """A world with something to learn: the leaf is a rotation of the base."""
    base, rotation = unit(n, dim, 0), np.linalg.qr(np.random.default_rng(1).standard_normal((dim, dim)))[0]
    leaf = (base @ rotation).astype(np.float32)
    return PseudoPairs(SLOTS, {SLOTS[0]: base, SLOTS[1]: base, SLOTS[2]: leaf, SLOTS[3]: leaf}, {"text": n})


def run(checkpoint: Path | None = None, callback=None, **options: object):
    config = ExtendConfig(**{"epochs": 4, "batch_size": 32, "held_out": 0.1, "checkpoint_seconds": 0.0, **options})
    pairs = pool()
    module = LeafProjector(["audio"], 12, 12)
    initialize(module, torch.Generator().manual_seed(0))
    objective = DenseAlignment(module, SLOTS, ["text"], config)
    plan = make_schedule(len(pairs), config)
    outcome = train(
        module, objective, pairs, config, plan, device=CPU, checkpoint=checkpoint, callback=callback, quiet=True
    )
    return module, outcome


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("dim", [256, 512, 1280])
def test_noise_leaves_the_papers_cosine_in_every_dimension(dim: int) -> None:
    config = RecipeConfig()
    x = torch.from_numpy(unit(2000, dim, 1))
    std = {SLOTS[0]: ((1 / config.noise_cosine_at(dim) ** 2 - 1) / dim) ** 0.5}
    noisy = add_noise({SLOTS[0]: x}, std, torch.Generator().manual_seed(0))[SLOTS[0]]
    assert float((x * noisy).sum(1).mean()) == pytest.approx(0.573, abs=0.005)
    torch.testing.assert_close(noisy.norm(dim=1), torch.ones(2000))


def test_a_variance_of_0_004_at_512_is_the_default_noise() -> None:
    paper = RecipeConfig(noise_variance=0.004)
    assert paper.noise_cosine_at(512) == pytest.approx(RecipeConfig().noise_cosine, abs=0.001)
    assert paper.noise_cosine_at(1280) == pytest.approx(0.404, abs=0.001)


def test_the_plan_follows_the_size_of_the_pool() -> None:
    small, medium, papers = (make_schedule(n, RecipeConfig()) for n in (500, 40_905, 5_400_000))
    assert small.batch_size == 128
    assert medium.batch_size < papers.batch_size == 4096
    for plan in (small, medium, papers):
        assert 1 <= plan.epochs <= 36
        assert not set(plan.train_rows[:1000]) & set(plan.held_out_rows)
    fixed = make_schedule(40_905, RecipeConfig(epochs=36, batch_size=4096))
    assert (fixed.epochs, fixed.batch_size, fixed.steps_per_epoch) == (36, 4096, 9)


def test_a_pool_smaller_than_a_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match="100 pseudo pairs are too few for batches of 4,096"):
        make_schedule(100, RecipeConfig(batch_size=4096))


def test_training_finds_a_rotation_and_keeps_the_best_epoch() -> None:
    module, outcome = run(epochs=60, noise_cosine=0.95, learning_rate=3e-3)
    assert not module.training
    assert outcome.held_out["audio to image r@1"] > 0.9
    scores = [row["held_out"]["score"] for row in outcome.history]
    assert outcome.held_out["score"] == pytest.approx(max(scores))
    assert outcome.best_step == outcome.history[int(np.argmax(scores))]["step"]


def test_equal_seeds_give_equal_bits_and_other_seeds_do_not() -> None:
    first, second, other = run()[0], run()[0], run(seed=1)[0]
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(other))


class Killed(Exception):
    """Stands for a kill that leaves only what is on disk."""


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_run_killed_after_any_epoch_goes_on_to_the_same_bits(epoch: int, tmp_path: Path) -> None:
    def kill(row: object) -> None:
        if row["epoch"] == epoch:  # type: ignore[index]
            raise Killed

    whole, expected = run()
    with pytest.raises(Killed):
        run(tmp_path / "run.safetensors", kill)
    resumed, outcome = run(tmp_path / "run.safetensors")
    assert same(weights(whole), weights(resumed))
    assert outcome.history == expected.history
    assert outcome.held_out == expected.held_out


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    run(path)
    with pytest.raises(ConfigError, match="belongs to a run with other settings or spaces"):
        run(path, learning_rate=0.01)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"checkpoint .* cannot be read"):
        run(path)


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    with pytest.raises(ConfigError, match=r"the loss is (nan|inf) after step"):
        run(learning_rate=1e30)


def test_the_intra_losss_gradient_reaches_f_l_and_never_f_m() -> None:
    config = ExtendConfig()
    module = LeafProjector(["audio"], 12, 12)
    batch = pool(40).take(np.arange(40), CPU)
    moved = module.to_overlap(batch[Slot(1, "audio")], "audio")
    from isthmus.recipes.training.losses import intra_distance

    intra = intra_distance(moved, batch[Slot(1, "text")])
    gradients = torch.autograd.grad(intra, list(module.parameters()), allow_unused=True)
    reached = {n for (n, _), g in zip(module.named_parameters(), gradients, strict=True) if g is not None}
    assert reached == {"linear.audio.weight", "linear.audio.bias"}
    # In the whole objective too: without the alignment's share, f_m's gradient does not depend on lambda.
    found = []
    for weight in (0.0, 10.0):
        objective = DenseAlignment(module, SLOTS, ["text"], config.model_copy(update={"intra_weight": weight}))
        loss, _ = objective.loss(batch)
        found.append(torch.autograd.grad(loss, list(module.mlp1.parameters()) + list(module.mlp2.parameters())))
    for without, with_intra in zip(*found, strict=True):
        torch.testing.assert_close(without, with_intra)


def test_a_collapsed_projector_scores_nothing() -> None:
    class Collapsed:
        def loss(self, batch):
            raise NotImplementedError

        def aligned(self, batch):
            same = torch.ones(50, 4) / 2
            return [("x to y", same, same)]

    assert held_out_scores(Collapsed().aligned, {})["x to y r@1"] == 0.0


def test_a_subset_of_the_alignment_is_the_mean_of_its_terms() -> None:
    module = LeafProjector(["audio"], 12, 12).eval()
    batch = pool(40).take(np.arange(40), CPU)
    every = ("leaf-base", "leaf-overlap", "overlap-base", "overlap-overlap")
    losses = {}
    for names in [every, *((name,) for name in every), every[:2]]:
        config = ExtendConfig(align=names, intra_weight=0.0)
        losses[names] = float(DenseAlignment(module, SLOTS, ["text"], config).loss(batch)[0].detach())
    assert losses[every] == pytest.approx(sum(losses[(name,)] for name in every) / 4, rel=1e-5)
    assert losses[every[:2]] == pytest.approx((losses[every[:1]] + losses[every[1:2]]) / 2, rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "auto"])
def test_products_in_bf16_learn_the_same(monkeypatch, precision: str) -> None:
    monkeypatch.setattr("isthmus.recipes.training.loop.has_bf16", lambda device: True)
    exact, result = run(epochs=8)
    low, low_result = run(epochs=8, precision=precision)
    again, _ = run(epochs=8, precision=precision)
    assert not same(weights(exact), weights(low))
    assert same(weights(low), weights(again))
    assert all(value.dtype in (torch.float32, torch.int64) for value in weights(low).values())
    assert low_result.held_out["score"] == pytest.approx(result.held_out["score"], abs=0.1)
    assert (result.products, low_result.products) == ("float32", "bf16")


@pytest.mark.parametrize(
    ("precision", "instructions", "expected"),
    [
        ("float32", True, "float32"),
        ("auto", True, "bf16"),
        ("auto", False, "float32"),
        ("bf16", True, "bf16"),
        ("bf16", False, "bf16"),
    ],
)
def test_products_are_of_the_type_that_the_processor_has(monkeypatch, precision, instructions, expected) -> None:
    monkeypatch.setattr("isthmus.recipes.training.loop.has_bf16", lambda device: instructions)
    assert product_type(ExtendConfig(precision=precision), CPU) == expected
    with autocast(expected, CPU):
        assert torch.is_autocast_enabled("cpu") is (expected == "bf16")


def test_auto_stays_in_float32_where_there_are_no_instructions(monkeypatch) -> None:
    monkeypatch.setattr("isthmus.recipes.training.loop.has_bf16", lambda device: False)
    assert same(weights(run()[0]), weights(run(precision="auto")[0]))
